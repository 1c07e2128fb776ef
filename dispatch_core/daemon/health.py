"""What is known about Codex: kept by the supervisor, said by ``daemon status``."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch_core.appserver.client import AppServer
    from dispatch_core.contracts.deliveries import Epoch
    from dispatch_core.daemon.heartbeat import Pulse
    from dispatch_core.daemon.restarts import Restarts


@dataclass(slots=True)
class Health:
    """How Codex is.

    state: starting, ready or degraded; reason and fix: why it is not ready, and what to do. notes: what Codex warned of when it
    started. server, epoch, started_at, pulse, rss_bytes: of the running app-server. last_exit: why the one before ended.
    uptime_from, next_try: when it was started, and is started again, on the monotonic clock.
    """

    state: str = "starting"
    reason: str | None = None
    fix: str | None = None
    version: str | None = None
    binary: str | None = None
    source: str | None = None
    notes: list[str] = field(default_factory=list)
    server: AppServer | None = None
    epoch: Epoch | None = None
    started_at: datetime | None = None
    uptime_from: float | None = None
    pulse: Pulse | None = None
    rss_bytes: int | None = None
    restarts: Restarts | None = None
    last_exit: str | None = None
    last_exit_at: datetime | None = None
    next_try: float | None = None

    @property
    def pid(self) -> int | None:
        """The running app-server."""
        return self.server.pid if self.server else None

    @property
    def uptime(self) -> float | None:
        """For how long the app-server has run, in seconds, whatever the clock on the wall was set to."""
        return None if self.uptime_from is None else time.monotonic() - self.uptime_from

    def began(self, server: AppServer, epoch: Epoch) -> None:
        """An app-server runs."""
        self.server, self.epoch, self.started_at = server, epoch, datetime.now(UTC)
        self.uptime_from, self.next_try = time.monotonic(), None

    def beat(self, rss_bytes: int | None) -> None:
        """It has answered a heartbeat."""
        self.rss_bytes = rss_bytes
        if self.restarts and self.uptime is not None:
            self.restarts.lasted(self.uptime)

    def gone(self) -> None:
        """It does not run any more."""
        self.server = self.epoch = self.started_at = self.uptime_from = None
        self.pulse = self.rss_bytes = None

    def ended(self, reason: str) -> None:
        """It has ended by itself, or could not be started."""
        self.last_exit, self.last_exit_at = reason, datetime.now(UTC)

    def codex(self) -> dict[str, Any]:
        """Return the app-server's part of ``daemon status``, as JSON."""
        started = self.started_at
        return {
            "state": self.state,
            "version": self.version,
            "binary": self.binary,
            "source": self.source,
            "pid": self.pid,
            "started_at": started.isoformat() if started else None,
            "uptime": self.uptime,
            "epoch": str(self.epoch) if self.epoch else None,
            "generation": self.epoch.generation if self.epoch else None,
            "rss_bytes": self.rss_bytes,
            "restarts": self.restarts.total if self.restarts else 0,
            "last_exit": self.last_exit,
            "last_exit_at": self.last_exit_at.isoformat() if self.last_exit_at else None,
            "breaker": self._breaker(),
            "heartbeat": self._heartbeat(),
            "traffic": self._traffic(),
            "notes": self.notes,
        }

    def _breaker(self) -> dict[str, Any]:
        now = time.monotonic()
        restarts = self.restarts
        return {
            "state": restarts.breaker.value if restarts else "closed",
            "exits": restarts.recent(now) if restarts else 0,
            "openings": restarts.openings if restarts else 0,
            "next_try_in": None if self.next_try is None else max(0.0, self.next_try - now),
        }

    def _heartbeat(self) -> dict[str, Any] | None:
        pulse = self.pulse
        if pulse is None:
            return None
        return {
            "at": pulse.at.isoformat() if pulse.at else None,
            "latency": pulse.latency,
            "missed": pulse.missed,
            "late": pulse.late,
        }

    def _traffic(self) -> dict[str, Any] | None:
        server = self.server
        if server is None:
            return None
        return {
            "in_flight": server.in_flight,
            "limit": server.places.limit,
            **asdict(server.stats),
        }
