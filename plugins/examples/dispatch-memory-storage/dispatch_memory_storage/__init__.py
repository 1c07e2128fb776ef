"""The ``memory`` storage plugin: a backend in dictionaries, gone when the daemon stops.

No method awaits anything, so that each one is a transaction as it stands.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dispatch_core.api import CachedRecord, hookimpl
from dispatch_memory_storage.deliveries import MemoryDeliveries
from dispatch_memory_storage.requests import MemoryRequests
from dispatch_memory_storage.threads import MemoryThreads
from dispatch_memory_storage.triggers import MemoryFirings, MemoryTriggers

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from datetime import datetime

    from dispatch_core.api import (
        ActionLog,
        ActionRecord,
        CacheStore,
        DeliveryStore,
        FiringStore,
        HistoryIndex,
        Maintenance,
        RequestStore,
        Storage,
        ThreadStore,
        TriggerStore,
    )


class MemoryStorage:
    """A Storage in dictionaries.

    It has no index: dispatch then searches with Codex alone. There is nothing to check, copy or migrate either.
    """

    name = "memory"
    full = False
    fault = None

    def __init__(self) -> None:
        firings = MemoryFirings()
        self.threads: ThreadStore = MemoryThreads()
        self.actions: ActionLog = MemoryActions()
        self.triggers: TriggerStore = MemoryTriggers(firings)
        self.firings: FiringStore = firings
        self.cache: CacheStore = MemoryCache()
        self.deliveries: DeliveryStore = MemoryDeliveries(self.threads)
        self.requests: RequestStore = MemoryRequests()
        self.index: HistoryIndex | None = None
        self.maintenance: Maintenance | None = None

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


class MemoryCache:
    """A CacheStore in a dictionary, as JSON text: nobody can change a value that others are given."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, datetime]] = {}

    async def get(self, name: str) -> CachedRecord | None:
        if name not in self._values:
            return None
        text, at = self._values[name]
        return CachedRecord(value=json.loads(text), at=at)

    async def put(self, name: str, value: Any, at: datetime) -> None:
        self._values[name] = (json.dumps(value, allow_nan=False), at)


@hookimpl
def dispatch_storage() -> Storage:
    """Return a new, empty backend."""
    return MemoryStorage()
