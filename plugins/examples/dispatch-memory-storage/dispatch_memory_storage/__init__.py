"""The ``memory`` storage plugin: a backend in dictionaries, gone when the daemon stops.

No method awaits anything, so that each one is a transaction as it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import hookimpl
from dispatch_memory_storage.threads import MemoryThreads
from dispatch_memory_storage.triggers import MemoryFirings, MemoryTriggers

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from dispatch_core.api import (
        ActionLog,
        ActionRecord,
        FiringStore,
        Storage,
        ThreadStore,
        TriggerStore,
    )


class MemoryStorage:
    """A Storage in dictionaries."""

    name = "memory"

    def __init__(self) -> None:
        firings = MemoryFirings()
        self.threads: ThreadStore = MemoryThreads()
        self.actions: ActionLog = MemoryActions()
        self.triggers: TriggerStore = MemoryTriggers(firings)
        self.firings: FiringStore = firings

    async def open(self, stack: AsyncExitStack) -> None:
        """Do nothing: there is nothing to open, and nothing to close."""


class MemoryActions:
    """An ActionLog in a list."""

    def __init__(self) -> None:
        self._actions: list[ActionRecord] = []

    async def append(self, action: ActionRecord) -> None:
        self._actions.append(action)

    async def latest(self, limit: int) -> tuple[ActionRecord, ...]:
        return tuple(self._actions[::-1][: max(limit, 0)])


@hookimpl
def dispatch_storage() -> Storage:
    """Return a new, empty backend."""
    return MemoryStorage()
