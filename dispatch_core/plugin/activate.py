"""Load, in the daemon, what the manifest says is sound. Nothing is scanned again."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from dispatch_core.errors import PluginFault
from dispatch_core.plugin import catalog as catalogs
from dispatch_core.plugin.host import Host
from dispatch_core.plugin.load import load
from dispatch_core.plugin.report import PluginReport
from dispatch_core.switches import is_on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dispatch_core.contracts.storage import Storage
    from dispatch_core.plugin.host import Contribution
    from dispatch_core.settings import Settings

log = logging.getLogger(__name__)


class Plugins:
    """What the daemon runs with, loaded in two steps: the storage backend before the socket, the rest behind it.

    reports: every plugin, also those that are out of use, with stage and reason. entries: the ops as the manifest knows them.
    A plugin that fails here though it was sound when the manifest was built is quarantined as well.
    """

    def __init__(self, manifest: Mapping[str, Any], settings: Settings) -> None:
        self.reports = [PluginReport.from_dict(entry) for entry in manifest["plugins"]]
        self.entries: Sequence[Mapping[str, Any]] = manifest["ops"]
        self._settings = settings
        self._host = Host(settings)
        self._noted: set[str] = set()
        if is_on(os.environ.get("DISPATCH_TRACE_PLUGINS")):
            self._host.trace(lambda text: log.info("%s", text.rstrip()))

    def quarantined(self) -> list[PluginReport]:
        """Return the plugins that failed."""
        return [report for report in self.reports if report.state == "quarantined"]

    def storage(self, backend: str, data_dir: Path) -> Storage:
        """Load the storage backend of this name, and no other. Raises PluginFault when it cannot be used."""
        self._load(lambda report: report.kind == "storage" and report.name == backend)
        self.note()
        storage = self._host.storage(data_dir)
        if storage is None:
            known = [r for r in self.reports if r.kind == "storage" and r.name == backend]
            why = known[0].reason if known else "no installed plugin has this name"
            raise PluginFault(
                f"the storage backend {backend!r} cannot be used: {why}",
                hint=f"dispatch plugins shows what is installed; [storage] backend in {self._settings.path}",
            )
        return storage

    def catalog(self) -> catalogs.Catalog:
        """Load the ops and trigger kinds and return them."""
        found = catalogs.freeze(self._load(lambda report: report.kind == "plugins"))
        self.note()
        return found

    def note(self) -> None:
        """Log each plugin that is out of use, once. Raises PluginFault in strict mode (DISPATCH_STRICT_PLUGINS=1)."""
        for report in self.quarantined():
            if report.key in self._noted:
                continue
            self._noted.add(report.key)
            log.warning(
                "plugin %s of %s is out of use: %s: %s",
                report.name,
                report.dist,
                report.stage,
                report.reason,
            )
            if is_on(os.environ.get("DISPATCH_STRICT_PLUGINS")):
                raise PluginFault(
                    f"plugin {report.name} ({report.dist}) failed at {report.stage}: {report.reason}",
                    hint=f"dispatch plugins show {report.name}; or unset DISPATCH_STRICT_PLUGINS",
                )

    def _load(
        self, wanted: Callable[[PluginReport], bool]
    ) -> list[tuple[PluginReport, Contribution]]:
        contributions = []
        for report in self.reports:
            if report.state != "loaded" or not wanted(report):
                continue
            plugin = load(report)
            contribution = self._host.declare(report, plugin) if plugin is not None else None
            if contribution is not None:
                contributions.append((report, contribution))
        return contributions
