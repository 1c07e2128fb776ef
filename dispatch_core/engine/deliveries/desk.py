"""Where messages are accepted, changed while they wait, and decided about when nobody can tell what became of them."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from dispatch_core import failpoints
from dispatch_core.contracts.deliveries import DeliveryRecord, DeliveryState, Verdict, When
from dispatch_core.engine.deliveries.decisions import Decisions, is_copy
from dispatch_core.engine.deliveries.ledger import conflict
from dispatch_core.engine.deliveries.reconciliation import digest
from dispatch_core.engine.ids import uuid7
from dispatch_core.engine.refusals import check_directory, in_doubt
from dispatch_core.engine.steering import unclaimed
from dispatch_core.engine.texts import check_message
from dispatch_core.errors import (
    DeliveryConflict,
    DeliveryNotFound,
    DiskFull,
    LaneBusy,
    LaneHeld,
    OutcomeUnknown,
    ValidationFailed,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from datetime import datetime

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import Epoch
    from dispatch_core.contracts.records import Message, ThreadRecord
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.engine.deliveries.courier import Courier
    from dispatch_core.engine.deliveries.ledger import Ledger
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster
    from dispatch_core.engine.steering import Steering
    from dispatch_core.engine.submission import Submission

log = logging.getLogger(__name__)


class DeliveryDesk:
    """The Deliveries of the op context. finding_out: seconds a sender waits for what became of a message in doubt."""

    def __init__(  # noqa: PLR0913 -- collaborators, all by keyword
        self,
        *,
        storage: Storage,
        clock: Clock,
        roster: Roster,
        submission: Submission,
        steering: Steering,
        ledger: Ledger,
        registrar: Registrar,
        courier: Courier,
        finding_out: float,
    ) -> None:
        self._storage = storage
        self._store = storage.deliveries
        self._clock = clock
        self._roster = roster
        self._submission = submission
        self._steering = steering
        self._ledger = ledger
        self._registrar = registrar
        self._courier = courier
        self._finding_out = finding_out
        self._decisions = Decisions(storage.deliveries, ledger, clock)

    async def send(  # noqa: PLR0913 -- as the contract says
        self,
        thread: ThreadRecord,
        message: Message,
        caller: Caller,
        *,
        when: When = When.NOW,
        key: str | None = None,
        expires_at: datetime | None = None,
        retry_of: str | None = None,
    ) -> DeliveryRecord:
        """Accept a message durably and return it as far as it has got. Raises as ``Deliveries.send``."""
        check_message(message)
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise ValidationFailed(
                "the message would expire before it is sent", hint="give a later --expires"
            )
        draft = DeliveryRecord(
            id=uuid7(),
            thread=thread.key,
            state=DeliveryState.QUEUED,
            when=when,
            digest=digest(message.text),
            principal=caller.principal,
            created_at=now,
            message=message,
            key=key,
            retry_of=retry_of,
            expires_at=expires_at,
        )
        if known := await self._known(draft):
            return known
        self._refuse_when_full()
        await check_directory(thread)
        if when is When.IDLE:
            record = same(await self._ledger.accept(draft), draft)
            self._courier.wake(thread.key)
            return record
        return await self._send_now(thread, draft)

    def waiting(self, thread: str) -> int:
        """Return how many messages are QUEUED for the thread with this key."""
        return self._ledger.waiting[thread]

    async def cancel(self, delivery: DeliveryRecord, caller: Caller) -> DeliveryRecord:
        """Withdraw a delivery that is QUEUED. Raises DeliveryConflict when it is not any more."""
        _require(delivery, DeliveryState.QUEUED, "only what waits can be withdrawn")
        await failpoints.reach("cancel.before_commit")
        record = await self._ledger.move(
            delivery,
            DeliveryState.CANCELLED,
            evidence="operator",
            reason=f"withdrawn by {caller.principal}",
            ended_at=self._clock.now(),
            **({"key": None} if is_copy(delivery) else {}),
        )
        await failpoints.reach("cancel.after_commit")
        return record

    async def edit(
        self,
        delivery: DeliveryRecord,
        message: Message,
        caller: Caller,  # noqa: ARG002 -- the audit log has it
    ) -> DeliveryRecord:
        """Replace the message of a delivery that is QUEUED. Raises DeliveryConflict, ValidationFailed."""
        check_message(message)
        _require(delivery, DeliveryState.QUEUED, "only what waits can be changed")
        return await self._ledger.move(
            delivery, DeliveryState.QUEUED, message=message, digest=digest(message.text)
        )

    async def reorder(
        self, delivery: DeliveryRecord, *, before: DeliveryRecord | None
    ) -> tuple[DeliveryRecord, ...]:
        """Put a QUEUED delivery before another of its thread, or last, and return the queue. Raises DeliveryConflict."""
        for each in filter(None, (delivery, before)):
            _require(each, DeliveryState.QUEUED, "only what waits has a place in the queue")
        if before is not None and before.thread != delivery.thread:
            raise conflict(before, "it is for another thread, which has a queue of its own")
        count = self._ledger.waiting[delivery.thread] + 1
        queue = await self._store.queue(delivery.thread, count)
        order = [each.id for each in queue if each.id != delivery.id]
        if before is not None and before.id not in order:
            raise conflict(before, "it has left the queue meanwhile")
        order.insert(len(order) if before is None else order.index(before.id), delivery.id)
        if not await self._store.reorder(delivery.thread, order):
            raise conflict(delivery, "the queue has changed meanwhile")
        return await self._store.queue(delivery.thread, count)

    async def resolve(
        self, delivery: DeliveryRecord, verdict: Verdict, caller: Caller
    ) -> DeliveryRecord:
        """Decide what became of an UNKNOWN delivery. Raises AuthorityDenied, DeliveryConflict."""
        record = await self._decisions.resolve(delivery, verdict, caller)
        await self._let_go(delivery.thread)
        return record

    async def requeue(self, delivery: DeliveryRecord, caller: Caller) -> DeliveryRecord:
        """Accept the message of a delivery that has ended once more, as a new one. Raises DeliveryConflict."""
        if not delivery.state.ended:
            raise conflict(delivery, "only what has ended can be sent once more")
        if delivery.message is None:
            raise conflict(delivery, "its text is no longer kept")
        thread = await self._storage.threads.get(delivery.thread)
        if thread is None:
            raise DeliveryNotFound(delivery.id)
        return await self.send(
            thread, delivery.message, caller, when=When.IDLE, retry_of=delivery.id
        )

    # Private

    async def _send_now(self, thread: ThreadRecord, draft: DeliveryRecord) -> DeliveryRecord:
        """Send a message that does not wait. Raises as ``Deliveries.send``."""
        lane = self._roster.lane(thread)
        deliver = partial(self._at_once, thread, lane, draft)
        try:
            if draft.when is When.INTERJECT:
                known_by_now = partial(self._in_place, thread, lane, draft)
                return await self._steering.interject(thread, deliver, known=known_by_now)
            with self._sending(thread, lane):
                return await deliver()
        except KeyTaken as error:
            return same(error.record, draft)
        except LaneBusy:
            if draft.key is not None:
                await unclaimed(lane)  # it may be the same message that is being sent
            if known := await self._known(draft):
                return known
            raise
        except OutcomeUnknown as error:
            if error.details.get("delivery") != draft.id:
                raise
            return await self._found_out(lane, draft, error)

    def _refuse_when_full(self) -> None:
        if self._storage.full:
            raise DiskFull(
                "there is no room on the disk to keep another message; it was not accepted",
                hint="free some space on the disk that DISPATCH_HOME is on; the daemon notices by itself",
            )

    def _sending(self, thread: ThreadRecord, lane: Lane) -> AbstractContextManager[None]:
        if lane.active is not None:
            raise LaneBusy(thread.ref, lane.active, waiting=lane.waiting)
        return self._submission.claim(thread, lane)

    async def _at_once(
        self, thread: ThreadRecord, lane: Lane, draft: DeliveryRecord
    ) -> DeliveryRecord:
        """Hand over a message that does not wait; the caller has claimed the lane."""
        if draft.when is When.NOW:
            await self._refuse_behind_others(thread)
        claim = partial(self._claim, thread, draft)
        record = await self._submission.deliver(thread, lane, draft, claim)
        await self._registrar.catch_up(lane)  # what its sender reads next is not older than this
        return record

    async def _known(self, draft: DeliveryRecord) -> DeliveryRecord | None:
        """Return what the key of a message stands for already. Raises DeliveryConflict when that is another message."""
        if draft.key is None:
            return None
        known = await self._store.keyed(draft.principal, draft.key)
        if known is not None and known.state is DeliveryState.CANCELLED:
            known = await self._decisions.copy_of(known) or known
        return None if known is None else same(known, draft)

    async def _in_place(
        self, thread: ThreadRecord, lane: Lane, draft: DeliveryRecord
    ) -> DeliveryRecord | None:
        """Return the same message if it was sent before. Raises LaneHeld when a turn would be interrupted for nothing."""
        if known := await self._known(draft):
            return known
        if lane.held is not None:
            raise in_doubt(thread, lane.held)
        return None

    async def _claim(
        self, thread: ThreadRecord, draft: DeliveryRecord, epoch: Epoch
    ) -> DeliveryRecord:
        """Accept the message and record that it is about to be given to Codex, in one commit."""
        if draft.when is When.NOW and self._ledger.waiting[thread.key] > 0:
            raise self._behind_others(thread)  # accepted while the thread was being loaded
        claimed = replace(
            draft,
            state=DeliveryState.SENDING,
            epoch=epoch,
            attempt=1,
            claimed_at=self._clock.now(),
        )
        record = await self._ledger.accept(claimed)
        if record.id != draft.id:
            raise KeyTaken(record)
        return record

    async def _refuse_behind_others(self, thread: ThreadRecord) -> None:
        head = await self._store.head(thread.key)
        if head is None or head.state.in_flight:
            return  # what is in flight, the lane knows
        if head.state is DeliveryState.UNKNOWN:
            raise in_doubt(thread, head.id)
        raise self._behind_others(thread)

    def _behind_others(self, thread: ThreadRecord) -> LaneHeld:
        waiting = self._ledger.waiting[thread.key]
        return LaneHeld(
            thread.ref,
            f"{waiting} message{'s wait' if waiting > 1 else ' waits'} for {thread.ref} already",
            f"add --queue to send it after them; dispatch delivery list --thread {thread.ref} shows them",
        )

    async def _found_out(
        self, lane: Lane, draft: DeliveryRecord, error: OutcomeUnknown
    ) -> DeliveryRecord:
        """Wait for what became of a delivery in doubt. Raises OutcomeUnknown when nobody can tell, or not yet."""
        with anyio.move_on_after(self._finding_out):
            while lane.flight is not None and lane.flight.id == draft.id and lane.flight.doubt:
                await lane.change()
        record = await self._store.get(draft.id)
        if record is None:
            raise error
        if record.state is DeliveryState.UNKNOWN:
            raise OutcomeUnknown(
                f"it cannot be told whether the message started a turn: {record.reason}",
                hint=f"dispatch delivery get {record.id}; it is not sent again unless you say so: "
                f"dispatch delivery resolve {record.id}",
                details=error.details,
            ) from error
        if lane.flight is not None and lane.flight.id == draft.id and lane.flight.doubt:
            raise error
        return record

    async def _let_go(self, key: str) -> None:
        """The thread goes on unless another of its deliveries is in doubt."""
        head = await self._store.head(key)
        lane = self._roster.lanes.get(key)
        if lane is not None:
            lane.held = head.id if head and head.state is DeliveryState.UNKNOWN else None
            lane.touch()
        self._courier.wake(key)


class KeyTaken(DeliveryConflict):
    """The key of a message came to stand for another delivery while it was about to be sent; nothing was."""

    def __init__(self, record: DeliveryRecord) -> None:
        super().__init__(f"the idempotency key stands for delivery {record.id}")
        self.record = record


def same(known: DeliveryRecord, draft: DeliveryRecord) -> DeliveryRecord:
    """Return what a key stands for. Raises DeliveryConflict when that is another message."""
    pictures = (
        known.message is None
        or draft.message is None
        or (known.message.images == draft.message.images)
    )
    if (known.thread, known.digest) == (draft.thread, draft.digest) and pictures:
        return known
    raise DeliveryConflict(
        f"the idempotency key {draft.key!r} stands for another message: delivery {known.id}",
        hint=f"use another key; dispatch delivery get {known.id} shows that message",
        details={"delivery": known.id, "key": draft.key},
    )


def _require(delivery: DeliveryRecord, state: DeliveryState, why: str) -> None:
    if delivery.state is not state:
        raise conflict(delivery, why)
