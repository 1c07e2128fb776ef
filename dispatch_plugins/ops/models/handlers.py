"""Showing the models and the permission profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.api import CodexError, ValidationFailed
from dispatch_plugins.ops.models import read
from dispatch_plugins.ops.models.catalog import look
from dispatch_plugins.ops.models.contract import Configured, ModelsOutput, PermissionsOutput
from dispatch_plugins.ops.shared.pages import every

if TYPE_CHECKING:
    from dispatch_core.api import OpContext
    from dispatch_plugins.ops.models.catalog import Look
    from dispatch_plugins.ops.models.contract import ModelsInput, PermissionsInput

PROFILES = "permissionProfile/list"
NEVER_ASKED = "Codex was not asked yet: leave --no-refresh out"
NO_MODELS = "Codex offers no model: codex login, or a model provider in Codex's own config.toml"
NO_PROFILES = "Codex offers no permission profile here: --disallowed shows those that may not be chosen, --sandbox does without"
NO_METHOD = (
    "this Codex knows no permission profiles: use --sandbox and --approval-policy, or upgrade it"
)


async def models(context: OpContext, request: ModelsInput) -> ModelsOutput:
    """Return the models that Codex offers, and what its configuration says."""

    async def ask() -> dict[str, Any]:
        config = await context.codex.request("config/read", {})
        entries = await every(context.codex, "model/list", {"includeHidden": True})
        return {
            "configured": read.configured(config.get("config")).model_dump(mode="json"),
            "models": entries,
        }

    found = await look(context, "models", ask, refresh=request.refresh)
    value = found.value if isinstance(found.value, dict) else {}
    configured = Configured(**value.get("configured", {}))
    shown = [
        model
        for model in read.models(value.get("models"), configured)
        if request.hidden or not model.hidden
    ]
    return ModelsOutput(
        catalog_state="ready" if shown else "empty",
        hint=None if shown else _hint(found, NO_MODELS),
        source=found.source,
        refreshed_at=found.at,
        warning=found.warning,
        configured=configured,
        models=shown,
    )


async def permissions(context: OpContext, request: PermissionsInput) -> PermissionsOutput:
    """Return the permission profiles that apply in a directory."""
    cwd = request.cwd
    if cwd is not None and not (anyio.Path(cwd).is_absolute() and await anyio.Path(cwd).is_dir()):
        raise ValidationFailed(
            f"{cwd} is not the absolute path of a directory", hint="give --cwd DIRECTORY"
        )

    async def ask() -> dict[str, Any]:
        try:
            entries = await every(context.codex, PROFILES, {"cwd": cwd} if cwd else {})
        except CodexError as error:
            if f"unknown variant `{PROFILES}" not in error.message:
                raise
            return {"supported": False, "profiles": []}
        return {"supported": True, "profiles": entries}

    found = await look(context, f"permissions:{cwd or ''}", ask, refresh=request.refresh)
    value = found.value if isinstance(found.value, dict) else {}
    shown = [p for p in read.profiles(value.get("profiles")) if request.disallowed or p.allowed]
    supported = value.get("supported") is not False
    empty = NO_PROFILES if supported else NO_METHOD
    return PermissionsOutput(
        catalog_state="ready" if shown else "empty" if supported else "unsupported",
        hint=None if shown else _hint(found, empty),
        source=found.source,
        refreshed_at=found.at,
        warning=found.warning,
        cwd=cwd,
        profiles=shown,
    )


def _hint(found: Look, otherwise: str) -> str:
    return NEVER_ASKED if found.at is None else otherwise
