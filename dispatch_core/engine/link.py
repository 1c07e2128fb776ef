"""The connection to Codex as the engine needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dispatch_core.contracts.context import Codex
    from dispatch_core.contracts.deliveries import Epoch


class CodexLink(Protocol):
    """The connection, whichever process is behind it.

    generation: counts the Codex processes; 0 before the first.
    """

    @property
    def generation(self) -> int: ...

    @property
    def epoch(self) -> Epoch | None:
        """The Codex process that runs now; None while there is none."""
        ...

    def pinned(self, epoch: Epoch) -> Codex:
        """Return the client of this very process, whose requests never reach another one.

        Raises CodexUnavailable once it is gone.
        """
        ...

    def proven(self, epoch: Epoch) -> bool:
        """Whether the version of a Codex process is known to store a message before it asks the model.

        Only then has a message not run that the history does not have.
        """
        ...

    def gone(self, epoch: Epoch) -> bool | None:
        """Return whether a Codex process of this boot is proven to have ended; None when it cannot be told."""
        ...

    @property
    def codex(self) -> Codex:
        """The client; it outlives the process."""
        ...
