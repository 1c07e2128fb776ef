"""The four hooks through which everything a user touches enters dispatch.

A plugin is a module with ``@hookimpl`` functions and one entry point. Hooks declare and return frozen data;
they run once, when the plugin is loaded, and do no I/O. This package imports pluggy and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dispatch_core.contracts.op import Op
    from dispatch_core.contracts.settings import PluginSettings
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.contracts.surface import Surface
    from dispatch_core.contracts.trigger import TriggerKind

PROJECT: Final = "dispatch"
API_VERSION: Final = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(historic=True)
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # type: ignore[empty-body]
    """Return the operations this plugin adds.

    Called once, when the plugin is registered. Every op appears on the command line, in MCP and on the control socket.
    settings: this plugin's own view of the configuration; ``settings.section("acme", AcmeSettings)`` validates its table.
    """


@hookspec(historic=True)
def dispatch_trigger_kinds(settings: PluginSettings) -> Iterable[TriggerKind[Any]]:  # type: ignore[empty-body]
    """Return the trigger kinds this plugin adds: what can stand after ``trigger add --when``.

    Called once, when the plugin is registered.
    """


@hookspec(historic=True)
def dispatch_surfaces(settings: PluginSettings) -> Iterable[Surface]:  # type: ignore[empty-body]
    """Return the surfaces this plugin adds: ways to reach every op.

    Called once, when the plugin is registered. A surface names its entry functions by import path, so nothing of it is
    imported until a process is asked to serve it.
    """


@hookspec(firstresult=True)
def dispatch_storage(settings: PluginSettings, data_dir: Path) -> Storage | None:
    """Return the storage backend, or None to leave the choice to another plugin.

    Called once by the daemon, for the one backend that the configuration names. data_dir exists, is owned by the user and has
    mode 0700. A wrapper may decorate the result.
    """
