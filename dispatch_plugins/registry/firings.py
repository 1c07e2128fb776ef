"""The ledger of firings, in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import FiringStatus
from dispatch_plugins.registry.rows import firing_of, text_of

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import FiringRecord
    from dispatch_plugins.registry.connection import Connection, Transaction
    from dispatch_plugins.registry.queries import FiringQueries


class PeeweeFirings:
    """The FiringStore of the registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _queries(self) -> FiringQueries:
        return self._connection.queries.firings

    async def claim(self, trigger_id: str, key: str, at: datetime) -> bool:
        """Record a firing and say whether it is new; False as well if the trigger is gone."""
        values = (key, FiringStatus.CLAIMED.value, text_of(at), trigger_id)
        return await self._changed(self._queries.claim, values)

    async def finish(
        self, trigger_id: str, key: str, status: FiringStatus, detail: str | None = None
    ) -> None:
        """Record the outcome of a claimed firing."""
        values = (FiringStatus(status).value, detail, trigger_id, key)
        await self._changed(self._queries.finish, values)

    async def latest(self, trigger_id: str) -> FiringRecord | None:
        """Return the newest firing of a trigger."""
        rows = self._connection.read(self._queries.latest, (trigger_id,))
        return firing_of(rows[0]) if rows else None

    async def claimed(self) -> tuple[FiringRecord, ...]:
        """Return every firing that is claimed, oldest first."""
        rows = self._connection.read(self._queries.with_status, (FiringStatus.CLAIMED.value,))
        return tuple(map(firing_of, rows))

    async def _changed(self, sql: str, values: tuple[object, ...]) -> bool:
        def work(transaction: Transaction) -> bool:
            return transaction.run(sql, values) > 0

        return await self._connection.write(work)
