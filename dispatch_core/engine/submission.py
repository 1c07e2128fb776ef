"""Handing one message to Codex: the thread is loaded, the delivery recorded and sent, and the outcome told apart."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio

from dispatch_core import appserver, failpoints
from dispatch_core.contracts.deliveries import DeliveryRecord, DeliveryState, When
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import Source, ThreadRecord, TurnRecord, TurnStatus
from dispatch_core.engine.deliveries.flight import Flight
from dispatch_core.engine.refusals import archived, in_doubt, refuse_other_settings, vanished
from dispatch_core.engine.registrar import News
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CodexOverloaded,
    CodexTimeout,
    CodexUnavailable,
    DispatchError,
    LaneBusy,
    OutcomeUnknown,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from dispatch_core.appserver.thread_messages import Started
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import Epoch
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.recovery import Recovery
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster

    Claim = Callable[[Epoch], Awaitable[DeliveryRecord]]

log = logging.getLogger(__name__)

# Nothing was sent, and it may be later.
NOT_NOW = (CodexUnavailable, CodexOverloaded, ActiveWriter, AuthorityDenied)
CHANGED_ARCHIVED = News(EventKind.THREAD_CHANGED, None, {"change": "archived"})
CHANGED_NAME = News(EventKind.THREAD_CHANGED, None, {"change": "renamed"})
CHANGED_DELETED = News(EventKind.THREAD_CHANGED, None, {"change": "deleted"})


class Submission:
    """Hands messages to Codex, one at a time in each thread."""

    def __init__(
        self,
        *,
        threads: ThreadStore,
        clock: Clock,
        link: CodexLink,
        roster: Roster,
        registrar: Registrar,
        recovery: Recovery,
    ) -> None:
        self._threads = threads
        self._clock = clock
        self._link = link
        self._roster = roster
        self._registrar = registrar
        self._recovery = recovery

    @contextmanager
    def claim(self, thread: ThreadRecord, lane: Lane) -> Iterator[None]:
        """Be the only one who sends to the lane. Raises LaneBusy when somebody else is."""
        if lane.sending:
            raise LaneBusy(thread.ref, lane.active, waiting=lane.waiting)
        lane.sending = True
        try:
            yield
        finally:
            lane.sending = False
            lane.touch()

    async def deliver(
        self, thread: ThreadRecord, lane: Lane, draft: DeliveryRecord, claim: Claim
    ) -> DeliveryRecord:
        """Hand a delivery to Codex and return it as far as it got; the caller has claimed the lane.

        draft: with its message. claim: records the delivery as SENDING under an epoch and returns it; until then nothing has
        happened. Raises LaneBusy, what claim raises, and as ``Codex.request``: a delivery that was claimed is then QUEUED again
        or REJECTED, by its ``when``, if nothing was sent; REJECTED if Codex refused it; and in doubt for OutcomeUnknown.
        """
        async with lane.lock:
            if lane.flight is not None and lane.flight.state.ended:
                await self._registrar.settle(lane)  # it has just ended and is not written down yet
            with nothing_sent():
                await self._recovery.look_back(thread, lane)
                if lane.active is not None or lane.flight is not None:
                    raise LaneBusy(thread.ref, lane.active, waiting=lane.waiting)
                if lane.held is not None:
                    raise in_doubt(thread, lane.held)
                await self.ensure_loaded(thread, lane)
            if lane.active is not None:
                raise LaneBusy(thread.ref, lane.active, waiting=lane.waiting)
            return await self._submit(thread, lane, draft, claim)

    async def ensure_loaded(self, thread: ThreadRecord, lane: Lane) -> None:
        """Make Codex hold the thread; one that it never wrote to disk is started anew under the same ref.

        The caller holds the lane's lock. Raises ActiveWriter, AuthorityDenied when Codex has archived it, NotFound when Codex
        has lost it, CodexError when Codex holds it with other limits than it was made with, and as ``Codex.request``.
        """
        if lane.archived:
            raise archived(thread)  # since it was looked up
        generation = self._link.generation
        if lane.generation == generation and generation:
            return
        if thread.ephemeral:
            self._gone(lane)
            raise vanished(thread)
        await failpoints.reach("load.before_resume")
        try:
            loaded = await appserver.threads.resume(
                self._link.codex, lane.native_id, thread.settings
            )
        except appserver.calls.ThreadUnknown as error:
            if lane.materialized or thread.source is not Source.OWN:
                self._gone(lane)
                raise vanished(thread) from error
            loaded = await self._start_anew(thread, lane)
        except appserver.calls.ThreadArchived as error:
            if lane.put_away(archived=True):
                self._registrar.mark(lane, CHANGED_ARCHIVED)
            raise AuthorityDenied(
                f"{thread.handle} ({thread.ref}) is archived in Codex",
                hint=f"dispatch restore {thread.ref}",
            ) from error
        except ActiveWriter as error:
            raise ActiveWriter(thread.ref) from error
        await failpoints.reach("load.after_resume")
        refuse_other_settings(thread, loaded)
        lane.generation = generation or self._link.generation
        if loaded.name and lane.rename(loaded.name):
            self._registrar.mark(lane, CHANGED_NAME)  # by somebody else, while nobody listened
        if loaded.in_use != thread.in_use:
            await self._threads.update(
                thread.key, in_use=loaded.in_use, updated_at=self._clock.now()
            )

    def _gone(self, lane: Lane) -> None:
        if lane.gone():
            self._registrar.mark(lane, CHANGED_DELETED)

    async def _start_anew(self, thread: ThreadRecord, lane: Lane) -> Started:
        started = await appserver.threads.start(
            self._link.codex, cwd=thread.cwd, settings=thread.settings
        )
        log.info("thread %s had no history; it is now Codex thread %s", thread.ref, started.id)
        await self._threads.update(thread.key, native_id=started.id, updated_at=self._clock.now())
        self._roster.readdress(lane, started.id)
        if thread.title:
            await appserver.threads.set_name(self._link.codex, started.id, thread.title)
        return started

    async def _submit(
        self, thread: ThreadRecord, lane: Lane, draft: DeliveryRecord, claim: Claim
    ) -> DeliveryRecord:
        lane.submit(
            TurnRecord(
                message_id=draft.id,
                id=None,
                status=TurnStatus.SUBMITTED,
                started_at=self._clock.now(),
            )
        )
        try:
            flight = await self._depart(lane, claim)
            await self._hand_over(thread, lane, draft, flight)
        finally:
            if lane.flight is None:
                lane.withdraw()  # it was not even recorded
            self._roster.hear(lane, lane.release())
            on_its_way = lane.flight is not None and not lane.flight.doubt
            (self._registrar.defer if on_its_way else self._registrar.mark)(lane)
            if lane.flight and (lane.handed or 0) <= self._recovery.lost_generation:
                self._roster.lose(lane)  # Codex died between its answer and now
        return flight.view()

    async def _depart(self, lane: Lane, claim: Claim) -> Flight:
        """Record the delivery as being sent. Cancelled halfway, it could not be told whether it is."""
        with anyio.CancelScope(shield=True):
            epoch = self._link.epoch
            if epoch is None:
                raise CodexUnavailable(
                    "Codex has just ended; nothing was sent", hint="dispatch daemon status"
                )
            lane.handed = self._link.generation
            since = lane.previous.id if lane.previous is not None else None
            flight = Flight(await claim(epoch), since=since)
            lane.depart(flight)
        return flight

    async def _hand_over(
        self, thread: ThreadRecord, lane: Lane, draft: DeliveryRecord, flight: Flight
    ) -> None:
        """Give the delivery to Codex, and tell apart what came of it."""
        try:
            await failpoints.reach("send.before_write")
            turn_id = await self._start_turn(thread, lane, flight)
            await failpoints.reach("send.after_answer")
        except (OutcomeUnknown, CodexTimeout) as error:
            self._leave_in_doubt(lane, flight, error.message)
            raise _unknown(thread, draft, error) from error
        except NOT_NOW as error:
            # Somebody who waits for a message that was to go at once is told that it did not.
            waits = draft.when is When.IDLE or draft.attempt > 0
            state = DeliveryState.QUEUED if waits else DeliveryState.REJECTED
            await self._give_back(lane, flight, state, error)
            raise
        except DispatchError as error:
            await self._give_back(lane, flight, DeliveryState.REJECTED, error)
            raise
        except anyio.get_cancelled_exc_class():
            self._leave_in_doubt(lane, flight, "the sender went away before Codex answered")
            raise
        except Exception as error:
            # Whatever it was, the message may be on its way.
            log.exception("delivery %s: the answer of Codex is not understood", flight.id)
            why = f"the answer of Codex is not understood: {error!r}"
            self._leave_in_doubt(lane, flight, why)
            raise _unknown(thread, draft, OutcomeUnknown(why)) from error
        merged = not lane.adopt(turn_id, lane.previous)
        flight.answered(turn_id, merged=merged)
        if merged:
            log.warning(
                "thread %s: the message joined turn %s, which ran already", thread.ref, turn_id
            )

    def _leave_in_doubt(self, lane: Lane, flight: Flight, why: str) -> None:
        flight.doubt, flight.reason = True, why
        lane.conclude(TurnStatus.UNKNOWN, why, self._clock.now())
        self._registrar.tell(lane, News(EventKind.TURN_UNKNOWN))

    async def _give_back(
        self, lane: Lane, flight: Flight, state: DeliveryState, error: DispatchError
    ) -> None:
        """Record that Codex has not taken the delivery."""
        flight.reason, flight.evidence = f"{error.code}: {error.message}", "answer"
        flight.state, flight.refused = state, True
        lane.withdraw()
        await self._registrar.settle(lane)

    async def _start_turn(self, thread: ThreadRecord, lane: Lane, flight: Flight) -> str:
        """Ask the process that the delivery is recorded with, and no other, for a turn with the text that is recorded."""
        message = flight.record.message
        if flight.record.epoch is None or message is None:
            raise ValueError("a delivery is sent under an epoch, and with a message")
        codex = self._link.pinned(flight.record.epoch)
        start = partial(appserver.turns.start, codex)
        try:
            return await start(lane.native_id, message, flight.id, thread.settings)
        except appserver.calls.ThreadUnknown:
            # Nothing has happened: Codex unloaded the thread after we had looked.
            lane.generation = None
            with nothing_sent():
                await self.ensure_loaded(thread, lane)
            return await start(lane.native_id, message, flight.id, thread.settings)


@contextmanager
def nothing_sent() -> Iterator[None]:
    """Say that nothing was sent when it is only a preparation whose outcome is unknown."""
    try:
        yield
    except (OutcomeUnknown, CodexTimeout) as error:
        raise CodexUnavailable(
            f"the message was not sent: {error.message}", hint="dispatch daemon status"
        ) from error


def _unknown(thread: ThreadRecord, draft: DeliveryRecord, error: DispatchError) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"it is not known yet whether the message to {thread.ref} started a turn: {error.message}",
        hint=f"dispatch delivery get {draft.id} says what became of it; do not send it again before",
        details={"thread": thread.ref, "delivery": draft.id, "message_id": draft.id},
    )
