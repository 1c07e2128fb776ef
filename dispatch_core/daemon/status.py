"""What the daemon says of itself: one JSON object for ``daemon status`` and the state in ``hello``."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dispatch_core.daemon import logs
from dispatch_core.daemon.health import Health
from dispatch_core.engine.ids import uuid7
from dispatch_core.plugin.manifest import identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_core.contracts.storage import Storage
    from dispatch_core.daemon.paths import Paths
    from dispatch_core.plugin.activate import Plugins


class DaemonStatus:
    """The daemon's own view of itself. instance: new for every daemon process. draining: it is about to stop."""

    def __init__(
        self,
        paths: Paths,
        manifest: Mapping[str, Any],
        plugins: Plugins,
        *,
        offline: bool,
        storage: Storage,
    ) -> None:
        self._paths = paths
        self._plugins = plugins
        self._storage = storage
        self.manifest_key: str = manifest["key"]
        self.build: str = manifest["build"]
        self.identity = identity(manifest)
        self.version: str = manifest["version"]
        self.offline = offline
        self.instance = uuid7()
        self.started_at = datetime.now(UTC)
        self.draining = False
        self.health = Health()

    @property
    def state(self) -> str:
        """starting, ready, degraded or draining."""
        if self.draining:
            return "draining"
        return "degraded" if self._storage.fault else self.health.state

    def status(self) -> dict[str, Any]:
        """Return everything, as JSON."""
        fault = self._storage.fault
        return {
            "state": self.state,
            "reason": fault.message if fault else self.health.reason,
            "fix": fault.hint if fault else self.health.fix,
            "version": self.version,
            "build": self.build,
            "instance": self.instance,
            "manifest": self.manifest_key,
            "pid": os.getpid(),
            "python": sys.version.split()[0],
            "started_at": self.started_at.isoformat(),
            "uptime": round((datetime.now(UTC) - self.started_at).total_seconds(), 3),
            "rss_bytes": resident_bytes(),
            "home": self._paths.home,
            "socket": self._paths.socket,
            "log": self._paths.log,
            "offline": self.offline,
            "codex": self.health.codex(),
            "plugins": {
                "loaded": sum(r.state == "loaded" for r in self._plugins.reports),
                "disabled": sum(r.state == "disabled" for r in self._plugins.reports),
                "quarantined": [r.name for r in self._plugins.quarantined()],
            },
        }

    def log_tail(self, limit: int) -> list[str]:
        """Return the last lines of the daemon's log, oldest first."""
        return logs.tail(self._paths.log, limit)


def resident_bytes() -> int | None:
    """Return the memory this process holds now, in bytes; None where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 -- a kernel file, read at once
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
