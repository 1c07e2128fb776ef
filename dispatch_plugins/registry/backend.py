"""The registry as a storage backend: one connection pair and the stores over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_plugins.registry.actions import PeeweeActions
from dispatch_plugins.registry.cache import PeeweeCache
from dispatch_plugins.registry.connection import BUSY_TIMEOUT, Connection
from dispatch_plugins.registry.deliveries import PeeweeDeliveries
from dispatch_plugins.registry.firings import PeeweeFirings
from dispatch_plugins.registry.index.store import SqliteIndex
from dispatch_plugins.registry.maintenance import PeeweeMaintenance
from dispatch_plugins.registry.requests import PeeweeRequests
from dispatch_plugins.registry.threads import PeeweeThreads
from dispatch_plugins.registry.triggers import PeeweeTriggers

if TYPE_CHECKING:
    from contextlib import AsyncExitStack
    from pathlib import Path

    from dispatch_core.api import (
        ActionLog,
        CacheStore,
        DeliveryStore,
        FiringStore,
        HistoryIndex,
        Maintenance,
        RequestStore,
        StorageError,
        ThreadStore,
        TriggerStore,
    )

FILE_NAME = "registry.db"
INDEX_NAME = "index.db"


class PeeweeStorage:
    """A Storage in one SQLite file, ``registry.db`` in data_dir; the search index is ``index.db`` beside it.

    Every change is one ``BEGIN IMMEDIATE`` transaction on one writer thread, synced to disk before
    the method returns. Reads run on the event loop over a second connection and see every change
    that has returned. busy_timeout: seconds to wait for a lock that another process holds.
    """

    name = "peewee"

    def __init__(self, data_dir: Path, *, busy_timeout: float = BUSY_TIMEOUT) -> None:
        path = data_dir / FILE_NAME
        self.connection = Connection(path, busy_timeout)
        self.threads: ThreadStore = PeeweeThreads(self.connection)
        self.actions: ActionLog = PeeweeActions(self.connection)
        self.triggers: TriggerStore = PeeweeTriggers(self.connection)
        self.firings: FiringStore = PeeweeFirings(self.connection)
        self.cache: CacheStore = PeeweeCache(self.connection)
        self.deliveries: DeliveryStore = PeeweeDeliveries(self.connection)
        self.requests: RequestStore = PeeweeRequests(self.connection)
        # It opens its file when it is first used: the daemon's socket waits for open.
        self._index = SqliteIndex(data_dir / INDEX_NAME, path)
        self.index: HistoryIndex | None = self._index
        self.maintenance: Maintenance | None = PeeweeMaintenance(
            path, data_dir / INDEX_NAME, busy_timeout
        )

    @property
    def full(self) -> bool:
        """Whether messages have to be refused because there is no room to keep them."""
        return self.connection.full

    @property
    def fault(self) -> StorageError | None:
        """Why nothing is written any more; the next daemon tries again."""
        return self.connection.fault

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the registry, bring its schema up to date, and push its cleanup on the caller's stack.

        A missing file becomes a new registry, unless ``registry.id`` beside it says that there has
        been one. Raises StorageError, with the path and the way out, when the file is newer than
        this build, damaged, empty or another application's.
        """
        await self.connection.open()
        stack.push_async_callback(self.connection.close)
        await self._index.open(stack)
