"""Deliveries, in a dictionary."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from dispatch_core.api import DeliveryRecord, DeliveryState, StorageError, ThreadNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from dispatch_core.api import DeliveryFilter, ThreadStore

CHANGEABLE = {field.name for field in fields(DeliveryRecord)} - {"id", "thread", "created_at"}


class MemoryDeliveries:
    """A DeliveryStore in a dictionary by id. It asks the threads whether there is a queue to add to."""

    def __init__(self, threads: ThreadStore) -> None:
        self._threads = threads
        self._deliveries: dict[str, DeliveryRecord] = {}

    async def add(self, delivery: DeliveryRecord) -> DeliveryRecord:
        if delivery.key is not None:
            holder = await self.keyed(delivery.principal, delivery.key)
            if holder is not None:
                return holder
        if await self._threads.get(delivery.thread) is None:
            raise ThreadNotFound(delivery.thread)
        if delivery.id in self._deliveries:
            raise StorageError(f"the id {delivery.id} is taken", hint="use a new id")
        if delivery.state.in_flight and self._rivals(delivery):
            raise StorageError("another delivery of the thread is in flight", hint="queue it")
        last = max((other.position for other in self._of(delivery.thread)), default=0)
        return self._put(replace(delivery, position=last + 1))

    async def get(self, delivery_id: str) -> DeliveryRecord | None:
        return self._deliveries.get(delivery_id)

    async def find(self, prefix: str, limit: int = 10) -> tuple[DeliveryRecord, ...]:
        found = (d for d in self._deliveries.values() if d.id.startswith(prefix))
        return _newest(found, limit)

    async def keyed(self, principal: str, key: str) -> DeliveryRecord | None:
        wanted = (principal, key)
        holders = (d for d in self._deliveries.values() if (d.principal, d.key) == wanted)
        return next(holders, None)

    async def list(self, wanted: DeliveryFilter, limit: int) -> tuple[DeliveryRecord, ...]:
        found = (
            delivery
            for delivery in self._deliveries.values()
            if wanted.thread in (None, delivery.thread)
            and (not wanted.states or delivery.state in wanted.states)
            and (wanted.before is None or delivery.id < wanted.before)
        )
        return _newest(found, limit)

    async def queue(
        self, thread: str, limit: int, *, after: int | None = None
    ) -> tuple[DeliveryRecord, ...]:
        queue = (d for d in self._queue(thread) if after is None or d.position > after)
        return tuple(queue)[: max(limit, 0)]

    async def head(self, thread: str) -> DeliveryRecord | None:
        first = {DeliveryState.UNKNOWN: 1, DeliveryState.QUEUED: 2}
        due = (d for d in self._of(thread) if not d.state.ended)
        return min(due, key=lambda d: (first.get(d.state, 0), *_place(d)), default=None)

    async def in_flight(self) -> tuple[DeliveryRecord, ...]:
        return tuple(d for _, d in sorted(self._deliveries.items()) if d.state.in_flight)

    async def pending(self) -> Mapping[str, int]:
        waiting = (d for d in self._deliveries.values() if d.state is DeliveryState.QUEUED)
        return dict(Counter(delivery.thread for delivery in waiting))

    async def counts(self) -> Mapping[DeliveryState, int]:
        return dict(Counter(delivery.state for delivery in self._deliveries.values()))

    async def move(
        self, current: DeliveryRecord, state: DeliveryState, **changes: Any
    ) -> DeliveryRecord | None:
        wrong = sorted(changes.keys() - CHANGEABLE)
        if wrong:
            raise TypeError(f"these fields of a delivery cannot be changed: {', '.join(wrong)}")
        stored = self._deliveries.get(current.id)
        if stored is None or (stored.state, stored.epoch) != (current.state, current.epoch):
            return None
        if state.in_flight and self._rivals(stored):
            return None
        moved = replace(stored, state=state, **changes)
        if moved.key is not None:
            holder = await self.keyed(moved.principal, moved.key)
            if holder is not None and holder.id != moved.id:
                raise StorageError(f"the key {moved.key!r} is taken", hint="use another key")
        return self._put(moved)

    async def reorder(self, thread: str, ids: Sequence[str]) -> bool:
        queue = self._queue(thread)
        if sorted(ids) != sorted(delivery.id for delivery in queue):
            return False
        positions = [delivery.position for delivery in queue]
        for delivery_id, position in zip(ids, positions, strict=True):
            self._put(replace(self._deliveries[delivery_id], position=position))
        return True

    async def collect(
        self, *, bodies_before: datetime, receipts_before: datetime, limit: int
    ) -> int:
        touched = 0
        for delivery in tuple(self._deliveries.values()):
            if touched >= limit:
                break
            if not delivery.state.ended or delivery.ended_at is None:
                continue
            if delivery.ended_at < receipts_before:
                del self._deliveries[delivery.id]
            elif delivery.ended_at < bodies_before and delivery.message is not None:
                self._put(replace(delivery, message=None))
            else:
                continue
            touched += 1
        return touched

    def _of(self, thread: str) -> Iterable[DeliveryRecord]:
        return (d for d in self._deliveries.values() if d.thread == thread)

    def _queue(self, thread: str) -> tuple[DeliveryRecord, ...]:
        queued = (d for d in self._of(thread) if d.state is DeliveryState.QUEUED)
        return tuple(sorted(queued, key=_place))

    def _rivals(self, delivery: DeliveryRecord) -> bool:
        others = (d for d in self._of(delivery.thread) if d.id != delivery.id)
        return any(other.state.in_flight for other in others)

    def _put(self, delivery: DeliveryRecord) -> DeliveryRecord:
        self._deliveries[delivery.id] = delivery
        return delivery


def _place(delivery: DeliveryRecord) -> tuple[int, str]:
    return delivery.position, delivery.id


def _newest(found: Iterable[DeliveryRecord], limit: int) -> tuple[DeliveryRecord, ...]:
    newest_first = sorted(found, key=lambda delivery: delivery.id, reverse=True)
    return tuple(newest_first[: max(limit, 0)])
