"""Triggers, in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_plugins.registry.rows import optional_text, trigger_of, trigger_values

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import TriggerRecord
    from dispatch_plugins.registry.connection import Connection, Transaction
    from dispatch_plugins.registry.queries import TriggerQueries


class PeeweeTriggers:
    """The TriggerStore of the registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _queries(self) -> TriggerQueries:
        return self._connection.queries.triggers

    async def add(self, trigger: TriggerRecord) -> None:
        """Store a new trigger. Raises ValueError if its id is taken."""
        sql, values = self._queries, trigger_values(trigger)

        def work(transaction: Transaction) -> None:
            if transaction.rows(sql.get, (trigger.id,)):
                raise ValueError(f"the trigger id {trigger.id!r} is taken")
            transaction.run(sql.insert, values)

        await self._connection.write(work)

    async def get(self, trigger_id: str) -> TriggerRecord | None:
        """Return the trigger, or None."""
        rows = self._connection.read(self._queries.get, (trigger_id,))
        return trigger_of(rows[0]) if rows else None

    async def list(self) -> tuple[TriggerRecord, ...]:
        """Return all triggers in order of creation."""
        return tuple(map(trigger_of, self._connection.read(self._queries.all)))

    async def remove(self, trigger_id: str) -> bool:
        """Remove a trigger and its firings; True if it was there."""
        return await self._changed(self._queries.remove, trigger_id)

    async def update(
        self, trigger_id: str, *, enabled: bool | None = None, next_at: datetime | None = None
    ) -> bool:
        """Change enabled unless it is None, set next_at; True if the trigger is there."""
        next_text = optional_text(next_at)
        if enabled is None:
            return await self._changed(self._queries.set_next, next_text, trigger_id)
        return await self._changed(self._queries.set_both, int(enabled), next_text, trigger_id)

    async def _changed(self, sql: str, *values: object) -> bool:
        def work(transaction: Transaction) -> bool:
            return transaction.run(sql, values) > 0

        return await self._connection.write(work)
