"""The connection to Codex as the engine needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dispatch_core.contracts.context import Codex


class CodexLink(Protocol):
    """The connection, whichever process is behind it. generation: counts the Codex processes; 0 before the first."""

    generation: int

    @property
    def codex(self) -> Codex:
        """The client; it outlives the process."""
        ...
