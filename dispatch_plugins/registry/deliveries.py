"""Deliveries, in the registry: the messages that were accepted, until retention takes what has ended."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import DeliveryFilter, DeliveryRecord, DeliveryState, ThreadNotFound
from dispatch_plugins.registry import queries
from dispatch_plugins.registry.rows import (
    delivery_changes,
    delivery_of,
    delivery_values,
    placed,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dispatch_plugins.registry.connection import Connection, Transaction
    from dispatch_plugins.registry.queries import DeliveryQueries
    from dispatch_plugins.registry.sql import Row

_FIELDS: Final = frozenset(field.name for field in fields(DeliveryRecord))
_CHANGEABLE: Final = _FIELDS - {"id", "thread", "created_at", "state"}

# They sort before every position and after every text.
_FIRST: Final = -(2**63)
_AFTER_ANY_ID: Final = b""
_LAST_CHARACTER: Final = "\U0010ffff"


class PeeweeDeliveries:
    """The DeliveryStore of the registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _queries(self) -> DeliveryQueries:
        return self._connection.queries.deliveries

    async def add(self, delivery: DeliveryRecord) -> DeliveryRecord:
        """Store a new delivery behind all others of its thread, or return the one that has its key already."""
        sql = self._queries
        values = delivery_values(delivery)

        def work(transaction: Transaction) -> DeliveryRecord:
            if delivery.key is not None:
                holder = transaction.rows(sql.keyed, (delivery.principal, delivery.key))
                if holder:
                    return delivery_of(holder[0])
            found = transaction.rows(sql.insert, (*values, delivery.thread, delivery.thread))
            if not found:
                raise ThreadNotFound(delivery.thread)
            return placed(delivery, found[0][0])

        return await self._connection.write(work)

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        """Return the delivery with this id, or None."""
        return _one(self._connection.read(self._queries.get, (delivery_id,)))

    async def find(self, prefix: str, limit: int = 10) -> tuple[DeliveryRecord, ...]:
        """Return the deliveries whose id begins with prefix, newest first."""
        values = (prefix, prefix + _LAST_CHARACTER, max(limit, 0))
        return _all(self._connection.read(self._queries.find, values))

    async def keyed(self, principal: str, key: str) -> DeliveryRecord | None:
        """Return the delivery that a sender's idempotency key stands for, or None."""
        return _one(self._connection.read(self._queries.keyed, (principal, key)))

    async def list(self, wanted: DeliveryFilter, limit: int) -> tuple[DeliveryRecord, ...]:
        """Return a page of deliveries, newest first."""
        states = sorted({DeliveryState(state).value for state in wanted.states})
        before: object = _AFTER_ANY_ID if wanted.before is None else wanted.before
        of_thread = wanted.thread is not None
        if of_thread:
            values: tuple[object, ...] = (wanted.thread, before, *states)
        else:
            values = tuple(value for state in states for value in (state, before)) or (before,)
        sql = self._queries.list(of_thread=of_thread, states=len(states))
        # A negative LIMIT is none at all.
        return _all(self._connection.read(sql, (*values, max(limit, 0))))

    async def queue(
        self, thread: str, limit: int, *, after: int | None = None
    ) -> tuple[DeliveryRecord, ...]:
        """Return the queued deliveries of a thread in the order in which they will be sent, after a position."""
        values = (thread, _FIRST if after is None else after, max(limit, 0))
        return _all(self._connection.read(self._queries.queue, values))

    async def head(self, thread: str) -> DeliveryRecord | None:
        """Return what a thread has to deal with first, or None."""
        return _one(self._connection.read(self._queries.head, (thread,) * 3))

    async def in_flight(self) -> tuple[DeliveryRecord, ...]:
        """Return every delivery that is in flight, oldest first."""
        return _all(self._connection.read(self._queries.in_flight))

    async def pending(self) -> Mapping[str, int]:
        """Return how many deliveries are queued, by key of the thread."""
        rows = self._connection.read(self._queries.pending)
        return {str(thread): count for thread, count in rows}

    async def counts(self) -> Mapping[DeliveryState, int]:
        """Return how many deliveries there are in each state that has any."""
        rows = self._connection.read(self._queries.counts)
        return {DeliveryState(state): count for state, count in rows}

    async def move(
        self, current: DeliveryRecord, state: DeliveryState, **changes: Any
    ) -> DeliveryRecord | None:
        """Change the state and the named fields of a delivery that stands as current does, or return None."""
        _require_changeable(changes)
        columns = delivery_changes({"state": state, **changes})
        # Peewee sets columns in the order in which the model has them.
        names = tuple(name for name in queries.DELIVERY if name in columns)
        sql = self._queries
        update = sql.move(names, into_flight=DeliveryState(state).in_flight)
        known = delivery_changes({"state": current.state, "epoch": current.epoch})
        values = (*(columns[name] for name in names), current.id, known["state"], known["epoch"])

        def work(transaction: Transaction) -> DeliveryRecord | None:
            if transaction.run(update, values) == 0:
                return None
            # Read back: whoever reordered or edited it meanwhile changed neither state nor epoch.
            return delivery_of(transaction.rows(sql.get, (current.id,))[0])

        return await self._connection.write(work)

    async def reorder(self, thread: str, ids: Sequence[str]) -> bool:
        """Give the queued deliveries of a thread this order, if ids are exactly those."""
        sql = self._queries

        def work(transaction: Transaction) -> bool:
            places = transaction.rows(sql.queued_places, (thread,))
            if sorted(ids) != sorted(row[0] for row in places):
                return False
            for delivery_id, (before, position) in zip(ids, places, strict=True):
                if delivery_id != before:
                    transaction.run(sql.place, (position, delivery_id))
            return True

        return await self._connection.write(work)

    async def collect(
        self, *, bodies_before: datetime, receipts_before: datetime, limit: int
    ) -> int:
        """Drop the rows, and the bodies, of deliveries that ended before these moments, and return how many were touched."""
        sql = self._queries
        receipts, bodies = text_of(receipts_before), text_of(bodies_before)

        def work(transaction: Transaction) -> int:
            dropped = transaction.run(sql.drop, (receipts, max(limit, 0)))
            return dropped + transaction.run(sql.strip, (bodies, max(limit - dropped, 0)))

        return await self._connection.write(work)


def _one(rows: Sequence[Row]) -> DeliveryRecord | None:
    return delivery_of(rows[0]) if rows else None


def _all(rows: Sequence[Row]) -> tuple[DeliveryRecord, ...]:
    return tuple(map(delivery_of, rows))


def _require_changeable(changes: Mapping[str, Any]) -> None:
    wrong = sorted(changes.keys() - _CHANGEABLE)
    if wrong:
        raise TypeError(f"these fields of a delivery cannot be changed: {', '.join(wrong)}")
