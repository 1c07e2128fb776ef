"""The supervisor as the engine sees it: which Codex process runs, which have ended, and what may be concluded from that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core import appserver

if TYPE_CHECKING:
    from dispatch_core.contracts.context import Codex
    from dispatch_core.contracts.deliveries import Epoch
    from dispatch_core.daemon.proven import ProvenVersions
    from dispatch_core.daemon.supervisor import Supervisor


class SupervisedCodex:
    """The CodexLink of the engine."""

    def __init__(self, supervisor: Supervisor, proven: ProvenVersions) -> None:
        self._supervisor = supervisor
        self._proven = proven
        self._ours: dict[int, Epoch] = {}

    @property
    def generation(self) -> int:
        """Counts the Codex processes; 0 before the first."""
        return self._supervisor.generation

    @property
    def codex(self) -> Codex:
        """The client; it outlives the process."""
        return self._supervisor

    @property
    def epoch(self) -> Epoch | None:
        """The Codex process that runs now; None while there is none."""
        epoch = self._supervisor.epoch
        if epoch is not None:
            self._ours[epoch.generation] = epoch
        return epoch

    def pinned(self, epoch: Epoch) -> Codex:
        """Return the client of this very process. Raises CodexUnavailable once it is gone."""
        return self._supervisor.pinned(epoch)

    def proven(self, epoch: Epoch) -> bool:
        """Whether the version of a Codex process is known to store a message before it asks the model."""
        return epoch.version is not None and epoch.version in self._proven

    def gone(self, epoch: Epoch) -> bool | None:
        """Return whether a Codex process of this boot is proven to have ended; None when it cannot be told."""
        if self._ours.get(epoch.generation) == epoch:
            return self._supervisor.reaped(epoch.generation)
        return appserver.process.is_gone(epoch.pid, epoch.start_time)
