"""What becomes of deliveries, written down and then said; nothing is said of a delivery that the registry does not know."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from dispatch_core import failpoints
from dispatch_core.contracts.deliveries import DeliveryState as S
from dispatch_core.contracts.events import EventKind
from dispatch_core.engine.deliveries import machine
from dispatch_core.errors import DeliveryConflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import DeliveryRecord, DeliveryStore
    from dispatch_core.contracts.events import Events
    from dispatch_core.engine.deliveries.flight import Flight
    from dispatch_core.engine.lane import Lane

log = logging.getLogger(__name__)

STEPS = {S.SUBMITTED: "submitted", S.RUNNING: "started"}  # names of failpoints; the rest has ended


class Ledger:
    """Every change of what a delivery says or where it stands goes through here.

    waiting: how many deliveries are QUEUED, by key of the thread. on_free: called with the key of a thread whose next message
    may go, because what it had in flight has landed. on_unqueued: called with the key of a thread one of whose messages has
    ended without having been sent.
    """

    def __init__(
        self,
        store: DeliveryStore,
        events: Events,
        clock: Clock,
        *,
        on_free: Callable[[str], None],
        on_unqueued: Callable[[str], None],
    ) -> None:
        self._store = store
        self._events = events
        self._clock = clock
        self._on_free = on_free
        self._on_unqueued = on_unqueued
        self.waiting: Counter[str] = Counter()

    async def open(self) -> None:
        """Learn what waits."""
        self.waiting = Counter(await self._store.pending())

    async def accept(self, draft: DeliveryRecord) -> DeliveryRecord:
        """Store a new delivery and return it, or the one that has its key already. Raises StorageError."""
        await failpoints.reach("accept.before_commit")
        record = await self._store.add(draft)
        await failpoints.reach("accept.after_commit")
        if record.id == draft.id:
            self._tell(None, record)
        return record

    async def move(self, current: DeliveryRecord, state: S, **changes: Any) -> DeliveryRecord:
        """Change a delivery and return it as it is then. Raises DeliveryConflict when it is not as it was, and StorageError."""
        machine.check(current.state, state)
        record = await self._store.move(current, state, **changes)
        if record is None:
            now = await self._store.get(current.id)
            raise conflict(now or current, f"it was {current.state.value} a moment ago")
        self._tell(current.state, record)
        return record

    async def follow(self, lane: Lane) -> None:
        """Write down what is known of a lane's delivery in flight; one that has landed leaves the lane. Raises StorageError."""
        flight = lane.flight
        if flight is None:
            return
        async with flight.lock:
            while flight.changed and lane.flight is flight:
                await self._write(lane, flight)

    async def _write(self, lane: Lane, flight: Flight) -> None:
        state, before = flight.state, flight.record
        step = STEPS.get(state, "ended")
        changes: dict[str, Any] = {
            "turn_id": flight.turn_id,
            "merged": flight.merged,
            "evidence": flight.evidence,
            "reason": flight.reason,
        }
        if state.ended:
            changes["ended_at"] = flight.ended_at or self._clock.now()
        if state is S.REJECTED:
            changes["key"] = None  # its sender was told that nothing happened, and may try again
        if state is S.QUEUED:
            changes |= {"epoch": None, "turn_id": None, "deaths": flight.deaths}
            changes["attempt"] = before.attempt - flight.refused  # Codex never had it
        machine.check(before.state, state)
        await failpoints.reach(f"{step}.before_commit")
        record = await self._store.move(before, state, **changes)
        await failpoints.reach(f"{step}.after_commit")
        if record is None:
            now = await self._store.get(before.id)
            # Written before, by a try of which it was said that it had failed.
            record = now if now is not None and now.state is state else None
        if record is None:
            # Nobody else changes what is in flight; if it happens all the same, the registry is right.
            log.error("delivery %s is not %s any more; it is left alone", before.id, before.state)
            lane.land(None)
            return
        flight.record = record
        if not state.in_flight:
            lane.land(record.id if state is S.UNKNOWN else None)
        self._tell(before.state, record)
        if lane.flight is None and state is not S.UNKNOWN:
            self._on_free(lane.key)

    def _tell(self, before: S | None, record: DeliveryRecord) -> None:
        if (before is S.QUEUED) != (record.state is S.QUEUED):
            self.waiting[record.thread] += 1 if record.state is S.QUEUED else -1
        if before is record.state:
            return
        if record.state in (S.UNKNOWN, S.DEAD, S.REJECTED):
            log.warning("delivery %s is %s: %s", record.id, record.state.value, record.reason)
        self._events.publish(
            EventKind.DELIVERY_CHANGED,
            thread=record.thread,
            turn_id=record.turn_id,
            data={
                "id": record.id,
                "state": record.state.value,
                "before": before.value if before else None,
                "reason": record.reason,
            },
        )
        if before is S.QUEUED and record.state.ended:
            self._on_unqueued(record.thread)


def conflict(delivery: DeliveryRecord, why: str) -> DeliveryConflict:
    """Return the error for a delivery that is not in the state that a change of it needs."""
    return DeliveryConflict(
        f"delivery {delivery.id} is {delivery.state.value}: {why}",
        hint=f"dispatch delivery get {delivery.id}",
        details={"delivery": delivery.id, "state": delivery.state.value},
    )
