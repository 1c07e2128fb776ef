"""Load, in the daemon, what the manifest says is sound. Nothing is scanned again."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.contracts.surface import OpInfo
from dispatch_core.errors import PluginFault
from dispatch_core.plugin import catalog as catalogs
from dispatch_core.plugin.host import Host
from dispatch_core.plugin.load import load
from dispatch_core.plugin.report import PluginReport
from dispatch_core.settings import is_on

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dispatch_core.contracts.storage import Storage
    from dispatch_core.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Plugins:
    """What the daemon runs with. reports: every plugin, also those that are out of use, with stage and reason."""

    catalog: catalogs.Catalog
    infos: list[OpInfo]
    reports: list[PluginReport]
    host: Host

    def quarantined(self) -> list[PluginReport]:
        """Return the plugins that failed."""
        return [report for report in self.reports if report.state == "quarantined"]

    def storage(self, settings: Settings, backend: str, data_dir: Path) -> Storage:
        """Return the configured storage backend. Raises PluginFault when there is none."""
        storage = self.host.storage(data_dir)
        if storage is None:
            known = [r for r in self.reports if r.kind == "storage" and r.name == backend]
            why = known[0].reason if known else "no installed plugin has this name"
            raise PluginFault(
                f"the storage backend {backend!r} cannot be used: {why}",
                hint=f"dispatch plugins shows what is installed; [storage] backend in {settings.path}",
            )
        return storage


def activate(manifest: Mapping[str, Any], settings: Settings, *, backend: str) -> Plugins:
    """Import and register the plugins, and of the storage backends only the one named.

    A plugin that fails here though it was sound when the manifest was built is quarantined as well. Raises PluginFault in strict
    mode (DISPATCH_STRICT_PLUGINS=1) when any plugin is quarantined.
    """
    reports = [PluginReport.from_dict(entry) for entry in manifest["plugins"]]
    host = Host(settings)
    if is_on(os.environ.get("DISPATCH_TRACE_PLUGINS")):
        host.trace(lambda text: log.info("%s", text.rstrip()))
    contributions = []
    for report in reports:
        wanted = report.kind == "plugins" or (report.kind == "storage" and report.name == backend)
        if report.state != "loaded" or not wanted:
            continue
        plugin = load(report)
        contribution = host.declare(report, plugin) if plugin is not None else None
        if contribution is not None:
            contributions.append((report, contribution))
    catalog = catalogs.freeze(contributions)
    plugins = Plugins(catalog, [OpInfo(**op) for op in manifest["ops"]], reports, host)
    for report in plugins.quarantined():
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
    return plugins
