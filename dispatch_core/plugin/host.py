"""Declare: what does a plugin contribute? The only home of pluggy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

import dispatch_hookspecs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dispatch_core.contracts.op import Op
    from dispatch_core.contracts.settings import PluginSettings
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.contracts.surface import Surface
    from dispatch_core.contracts.trigger import TriggerKind
    from dispatch_core.plugin.report import PluginReport


@dataclass(slots=True)
class Contribution:
    """What one plugin declared."""

    ops: list[Op[Any, Any]] = field(default_factory=list)
    kinds: list[TriggerKind[Any]] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)


class Host:
    """The plugin manager. Hooks are historic: each plugin is asked as it is registered, so a failure has one owner."""

    def __init__(self, settings: PluginSettings) -> None:
        self._settings = settings
        self._manager = pluggy.PluginManager(dispatch_hookspecs.PROJECT)
        self._manager.add_hookspecs(dispatch_hookspecs)
        self._current = Contribution()
        self._ask("dispatch_ops", "op:Op", lambda: self._current.ops)
        self._ask("dispatch_trigger_kinds", "trigger:TriggerKind", lambda: self._current.kinds)
        self._ask("dispatch_surfaces", "surface:Surface", lambda: self._current.surfaces)

    def declare(self, report: PluginReport, plugin: Any) -> Contribution | None:
        """Register a plugin and return what it contributes, or None after quarantining it and undoing everything it did."""
        self._current = Contribution()
        try:
            self._manager.register(plugin, name=report.key)
            self._manager.check_pending()
            self._check_group(report, plugin)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 -- a hook may raise anything; it costs this plugin only
            self.withdraw(report)
            report.quarantine("declare", _reason(error), error)
            return None
        contribution = self._current
        report.provides = {
            "ops": [op.name for op in contribution.ops],
            "kinds": [kind.name for kind in contribution.kinds],
            "surfaces": [surface.name for surface in contribution.surfaces],
            "storage": report.kind == "storage",
        }
        return contribution

    def withdraw(self, report: PluginReport) -> None:
        """Take a plugin out again; does nothing if it is not registered."""
        plugin = self._manager.get_plugin(report.key)
        if plugin is not None:
            self._manager.unregister(plugin)

    def storage(self, data_dir: Path) -> Storage | None:
        """Ask the registered plugins for the storage backend."""
        backend: Storage | None = self._manager.hook.dispatch_storage(
            settings=self._settings, data_dir=data_dir
        )
        return backend

    def trace(self, write: Callable[[str], None]) -> None:
        """Write a line for every hook call, for DISPATCH_TRACE_PLUGINS=1."""
        self._manager.trace.root.setwriter(write)
        self._manager.enable_tracing()

    def _check_group(self, report: PluginReport, plugin: Any) -> None:
        """Raise TypeError for what this group is not loaded for: it would be announced and then be missing, or be in the way."""
        found = self._current
        if report.kind != "plugins" and (found.ops or found.kinds):
            raise TypeError(
                f"ops and trigger kinds belong into the group dispatch.v1.plugins, not {report.group}"
            )
        storage = self._manager.hook.dispatch_storage.get_hookimpls()
        backends = [impl for impl in storage if not (impl.wrapper or impl.hookwrapper)]
        if report.kind != "storage" and any(impl.plugin is plugin for impl in backends):
            raise TypeError(
                f"a storage backend belongs into the group dispatch.v1.storage, not {report.group}"
            )

    def _ask(self, hook: str, contract: str, target: Callable[[], list[Any]]) -> None:
        """Put the question. contract: "module:class" of what the answers are; imported when there is one, for start-up."""
        module, _, name = contract.partition(":")

        def collect(found: Any) -> None:
            expected = getattr(import_module(f"dispatch_core.contracts.{module}"), name)
            if not isinstance(found, Iterable):
                raise TypeError(f"{hook} returned {found!r:.80}, which is no list")
            for item in found:
                if not isinstance(item, expected):
                    raise TypeError(
                        f"{hook} returned {item!r:.80}, which is not {expected.__name__}"
                    )
                target().append(item)

        caller = getattr(self._manager.hook, hook)
        caller.call_historic(result_callback=collect, kwargs={"settings": self._settings})


def _reason(error: BaseException) -> str:
    text = str(error).strip().replace("\n", " ")
    if isinstance(error, pluggy.PluginValidationError) and "unknown hook" in text:
        return f"{text} (the hooks are dispatch_ops, dispatch_trigger_kinds, dispatch_surfaces, dispatch_storage)"
    return f"{type(error).__name__}: {text}".rstrip(": ")
