"""What Codex offers: models and permission profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import Example, Intent, Op, PluginSettings, hookimpl
from dispatch_plugins.ops.models.contract import (
    ModelsInput,
    ModelsOutput,
    PermissionsInput,
    PermissionsOutput,
)
from dispatch_plugins.ops.models.handlers import models, permissions
from dispatch_plugins.ops.models.text import render_models, render_permissions

if TYPE_CHECKING:
    from collections.abc import Iterable

MODELS = Op(
    name="models",
    summary="Show the models Codex offers, their efforts and tiers",
    noun="daemon",
    input=ModelsInput,
    output=ModelsOutput,
    handler=models,
    intent=Intent.READ,
    idempotent=True,
    timeout=60.0,
    examples=(
        Example(
            title="ask Codex",
            input={},
            output={"catalog_state": "ready", "source": "app-server", "warning": None},
        ),
        Example(title="what it said last", input={"refresh": False}, output={"source": "cache"}),
    ),
    render=render_models,
)
PERMISSIONS = Op(
    name="permissions",
    summary="Show the permission profiles a thread can be given",
    noun="daemon",
    input=PermissionsInput,
    output=PermissionsOutput,
    handler=permissions,
    intent=Intent.READ,
    idempotent=True,
    timeout=60.0,
    examples=(
        Example(
            title="those of a directory",
            input={"cwd": "/"},
            output={"catalog_state": "ready", "cwd": "/", "warning": None},
        ),
        Example(
            title="a directory that is not there",
            input={"cwd": "/no/such/directory"},
            error="validation",
        ),
    ),
    render=render_permissions,
)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops."""
    return (MODELS, PERMISSIONS)
