"""Handing one message to Codex: the thread is loaded, the message recorded and sent, and the outcome told apart."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import ThreadRecord, TurnRecord, TurnStatus
from dispatch_core.engine.ids import uuid7
from dispatch_core.engine.registrar import News
from dispatch_core.errors import (
    CodexTimeout,
    CodexUnavailable,
    DispatchError,
    LaneBusy,
    OutcomeUnknown,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.recovery import Recovery
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster

log = logging.getLogger(__name__)


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

    async def send(self, thread: ThreadRecord, text: str) -> TurnRecord:
        """Start a turn with one message; it is in the registry before Codex is asked. Raises as ``Lanes.send``."""
        lane = self._roster.lane(thread)
        if lane.sending or lane.active is not None:
            raise LaneBusy(thread.ref, lane.active)
        lane.sending = True
        try:
            async with lane.lock:
                with _nothing_sent():
                    await self._recovery.look_back(thread, lane)
                    if lane.active is not None:
                        raise LaneBusy(thread.ref, lane.active)
                    await self._ensure_loaded(thread, lane)
                if lane.active is not None:
                    raise LaneBusy(thread.ref, lane.active)
                return await self._submit(thread, lane, text)
        finally:
            lane.sending = False

    async def _ensure_loaded(self, thread: ThreadRecord, lane: Lane) -> None:
        """Make Codex hold the thread; one that it never wrote to disk is started anew under the same ref."""
        generation = self._link.generation
        if lane.generation == generation and generation:
            return
        try:
            await appserver.threads.resume(self._link.codex, lane.native_id)
        except appserver.threads.ThreadUnknown:
            if lane.materialized:
                raise
            await self._start_anew(thread, lane)
        lane.generation = generation or self._link.generation

    async def _start_anew(self, thread: ThreadRecord, lane: Lane) -> None:
        native_id = await appserver.threads.start(
            self._link.codex, cwd=thread.cwd, settings=thread.settings
        )
        log.info("thread %s had no history; it is now Codex thread %s", thread.ref, native_id)
        await self._threads.update(thread.key, native_id=native_id, updated_at=self._clock.now())
        self._roster.readdress(lane, native_id)
        if thread.title:
            await appserver.threads.set_name(self._link.codex, native_id, thread.title)

    async def _submit(self, thread: ThreadRecord, lane: Lane, text: str) -> TurnRecord:
        before = lane.turn
        turn = TurnRecord(
            message_id=uuid7(),
            id=None,
            status=TurnStatus.SUBMITTED,
            started_at=self._clock.now(),
        )
        lane.submit(turn)
        recorded = answered = False
        try:
            await self._registrar.store(lane)
            recorded = True
            turn = await self._hand_over(thread, lane, text, before)
            # The registry has the message id, by which a later daemon finds the turn: its id can wait.
            answered = turn.status is TurnStatus.SUBMITTED
        except (OutcomeUnknown, CodexTimeout) as error:
            self._leave_unknown(lane, error.message)
            raise _unknown(thread, turn, error) from error
        except StorageError:
            lane.turn = before  # nothing was recorded, so nothing was handed over
            raise
        except DispatchError as error:
            lane.conclude(TurnStatus.FAILED, error.message, self._clock.now())
            raise
        except anyio.get_cancelled_exc_class():
            if recorded:
                self._leave_unknown(lane, "the sender went away before Codex answered")
            else:
                lane.turn = before
            raise
        finally:
            self._roster.hear(lane, lane.release())
            (self._registrar.defer if answered else self._registrar.mark)(lane)
            if recorded and (lane.handed or 0) <= self._recovery.lost_generation:
                self._roster.lose(lane)  # Codex died between its answer and now
        return turn

    def _leave_unknown(self, lane: Lane, why: str) -> None:
        lane.conclude(TurnStatus.UNKNOWN, why, self._clock.now())
        self._registrar.tell(lane, News(EventKind.TURN_UNKNOWN))

    async def _hand_over(
        self, thread: ThreadRecord, lane: Lane, text: str, before: TurnRecord | None
    ) -> TurnRecord:
        """Give the submitted message to Codex and return the turn it is in: SUBMITTED, or STARTED if that ran already."""
        turn = lane.turn
        if turn is None or turn.message_id is None:
            raise ValueError("no message was submitted")
        try:
            turn_id = await self._start_turn(thread, lane, text, turn.message_id)
        except appserver.threads.ThreadUnknown:
            # Nothing has happened: Codex unloaded the thread, or was replaced, after we had looked.
            lane.generation = None
            with _nothing_sent():
                await self._ensure_loaded(thread, lane)
            turn_id = await self._start_turn(thread, lane, text, turn.message_id)
        if lane.adopt(turn_id, before):
            return replace(turn, id=turn_id)
        log.warning("thread %s: the message joined turn %s, which ran already", thread.ref, turn_id)
        return replace(turn, id=turn_id, status=TurnStatus.STARTED)

    async def _start_turn(
        self, thread: ThreadRecord, lane: Lane, text: str, message_id: str
    ) -> str:
        lane.handed = self._link.generation
        return await appserver.threads.start_turn(
            self._link.codex, lane.native_id, text, message_id, thread.settings
        )


@contextmanager
def _nothing_sent() -> Iterator[None]:
    """Say that nothing was sent when it is only a preparation whose outcome is unknown."""
    try:
        yield
    except (OutcomeUnknown, CodexTimeout) as error:
        raise CodexUnavailable(
            f"the message was not sent: {error.message}", hint="dispatch daemon status"
        ) from error


def _unknown(thread: ThreadRecord, turn: TurnRecord, error: DispatchError) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"it is not known whether the message to {thread.ref} started a turn: {error.message}",
        hint=f"dispatch wait {thread.ref} says what became of it; do not send it again before",
        details={"thread": thread.ref, "message_id": turn.message_id},
    )
