"""The audit log, in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_plugins.registry.rows import action_of, action_values

if TYPE_CHECKING:
    from dispatch_core.api import ActionRecord
    from dispatch_plugins.registry.connection import Connection, Transaction


class PeeweeActions:
    """The ActionLog of the registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append(self, action: ActionRecord) -> None:
        """Add one line at the end."""
        sql, values = self._connection.queries.add_action, action_values(action)

        def work(transaction: Transaction) -> None:
            transaction.run(sql, values)

        await self._connection.write(work)

    async def latest(self, limit: int) -> tuple[ActionRecord, ...]:
        """Return at most limit actions, newest first."""
        rows = self._connection.read(self._connection.queries.latest_actions, (max(limit, 0),))
        return tuple(map(action_of, rows))
