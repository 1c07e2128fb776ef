"""What is known about Codex: kept by the supervisor, said by ``daemon status``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch_core.appserver.rpc import RpcStats


@dataclass(slots=True)
class Health:
    """How Codex is.

    state: starting, ready or degraded. notes: what Codex warned of when it started, such as a configuration it cannot use.
    stats: what the connection to the running app-server has counted.
    """

    state: str = "starting"
    reason: str | None = None
    fix: str | None = None
    version: str | None = None
    binary: str | None = None
    source: str | None = None
    pid: int | None = None
    restarts: int = 0
    notes: list[str] = field(default_factory=list)
    stats: RpcStats | None = None

    @property
    def skipped_lines(self) -> int:
        """How many lines of the running app-server could not be understood and were skipped."""
        return self.stats.invalid_lines + self.stats.oversized_lines if self.stats else 0

    def codex(self) -> dict[str, Any]:
        """Return the app-server's part of ``daemon status``, as JSON."""
        names = (
            "state",
            "version",
            "binary",
            "source",
            "pid",
            "restarts",
            "notes",
            "skipped_lines",
        )
        return {name: getattr(self, name) for name in names}
