"""What Codex said and may be asked again, in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_plugins.registry.rows import cached_of, cached_values

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import CachedRecord
    from dispatch_plugins.registry.connection import Connection, Transaction
    from dispatch_plugins.registry.queries import CacheQueries


class PeeweeCache:
    """The CacheStore of the registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _queries(self) -> CacheQueries:
        return self._connection.queries.cache

    async def get(self, name: str) -> CachedRecord | None:
        """Return what was put under this name last; a value of the caller's own."""
        rows = self._connection.read(self._queries.get, (name,))
        return cached_of(name, rows[0]) if rows else None

    async def put(self, name: str, value: Any, at: datetime) -> None:
        """Keep a JSON value under a name. Raises TypeError or ValueError unless it is JSON."""
        sql, values = self._queries.put, (name, *cached_values(value, at))

        def work(transaction: Transaction) -> None:
            transaction.run(sql, values)

        await self._connection.write(work)
