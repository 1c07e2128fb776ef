"""Import one vetted plugin. stevedore does the importing; which one, and what failure means, is decided here."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

from stevedore.driver import DriverManager

if TYPE_CHECKING:
    from dispatch_core.plugin.report import PluginReport


class _VettedDriver(DriverManager[Any]):
    """A driver manager that knows the one entry point that was vetted, so no scan and no cache can offer another."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._vetted = entry_point
        super().__init__(entry_point.group, entry_point.name)

    def list_entry_points(self) -> list[EntryPoint]:
        return [self._vetted]


def load(report: PluginReport) -> Any | None:
    """Return the plugin's module, or None after quarantining it.

    Everything a module can do while it is imported, except interrupting us, costs that plugin and nothing else.
    """
    entry_point = EntryPoint(report.name, report.value, report.group)
    try:
        return _VettedDriver(entry_point).extensions[0].plugin
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 -- SystemExit and friends at import cost the plugin, not the process
        report.quarantine("load", f"{type(error).__name__}: {error}".rstrip(": "), error)
        return None
