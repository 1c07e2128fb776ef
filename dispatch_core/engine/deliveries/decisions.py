"""What a person decides about a delivery of which nobody can tell whether it ran."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.contracts.deliveries import DeliveryState, Verdict, When
from dispatch_core.engine.deliveries.ledger import conflict
from dispatch_core.engine.ids import uuid7
from dispatch_core.errors import AuthorityDenied

if TYPE_CHECKING:
    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import DeliveryRecord, DeliveryStore
    from dispatch_core.engine.deliveries.ledger import Ledger

log = logging.getLogger(__name__)

PERSON = "human"
_UNSENT: dict[str, Any] = {
    "attempt": 0,
    "deaths": 0,
    "epoch": None,
    "turn_id": None,
    "merged": False,
    "evidence": None,
    "reason": None,
    "expires_at": None,
    "claimed_at": None,
    "ended_at": None,
}


class Decisions:
    """Takes one decision at a time, so that two people cannot both send a message again."""

    def __init__(self, store: DeliveryStore, ledger: Ledger, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._deciding = anyio.Lock()

    async def resolve(
        self, delivery: DeliveryRecord, verdict: Verdict, caller: Caller
    ) -> DeliveryRecord:
        """Decide what became of an UNKNOWN delivery. Raises as ``Deliveries.resolve``."""
        if caller.principal != PERSON:
            raise AuthorityDenied(
                f"only a person decides what became of a message, and this is {caller.principal}",
                hint=f"ask your user to run: dispatch delivery get {delivery.id}",
            )
        async with self._deciding:
            doubtful = await self._store.get(delivery.id) or delivery
            if doubtful.state is not DeliveryState.UNKNOWN:
                raise conflict(doubtful, "nothing about it is in doubt")
            if verdict is Verdict.RESEND:
                again = await self._send_again(doubtful)
                await self._end(doubtful, DeliveryState.CANCELLED, f"sent again as {again.id}")
                return again
            await self._withdraw_copy(doubtful)
            ran = verdict is Verdict.SENT
            end = DeliveryState.DONE if ran else DeliveryState.CANCELLED
            return await self._end(doubtful, end, doubtful.reason)

    async def copy_of(self, delivery: DeliveryRecord) -> DeliveryRecord | None:
        """Return the delivery as which one that was in doubt was sent again."""
        return await self._store.keyed(PERSON, _key(delivery.id))

    async def _end(
        self, delivery: DeliveryRecord, state: DeliveryState, why: str | None
    ) -> DeliveryRecord:
        return await self._ledger.move(
            delivery, state, evidence="operator", reason=why, ended_at=self._clock.now()
        )

    async def _send_again(self, delivery: DeliveryRecord) -> DeliveryRecord:
        """Accept the message once more, as the first that waits, under an id that history has not seen.

        Its key makes a second attempt harmless, should we end before the doubtful one is recorded as decided; until then that
        one holds the thread.
        """
        draft = replace(
            delivery,
            id=uuid7(),
            state=DeliveryState.QUEUED,
            when=When.IDLE,
            principal=PERSON,
            key=_key(delivery.id),
            retry_of=delivery.id,
            created_at=self._clock.now(),
            **_UNSENT,
        )
        again = await self._ledger.accept(draft)
        queue = await self._store.queue(delivery.thread, self._ledger.waiting[delivery.thread] + 1)
        order = [again.id, *(each.id for each in queue if each.id != again.id)]
        waits = again.state is DeliveryState.QUEUED
        if waits and not await self._store.reorder(delivery.thread, order):
            log.info("delivery %s waits at the end: its queue has changed meanwhile", again.id)
        return again

    async def _withdraw_copy(self, delivery: DeliveryRecord) -> None:
        """An earlier decision to send it again was not recorded to its end, and is taken back by this one."""
        copy = await self.copy_of(delivery)
        if copy is not None and copy.state is DeliveryState.QUEUED:
            await self._end(
                copy, DeliveryState.CANCELLED, "the message was decided about otherwise"
            )


def is_copy(delivery: DeliveryRecord) -> bool:
    """Whether a delivery is one that was in doubt, sent again; withdrawn, it gives its key back, for it may be sent once more."""
    return delivery.retry_of is not None and delivery.key == _key(delivery.retry_of)


def _key(doubtful: str) -> str:
    return f"resend {doubtful}"
