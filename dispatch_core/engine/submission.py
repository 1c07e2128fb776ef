"""Handing one message to Codex: the thread is loaded, the message recorded and sent, and the outcome told apart."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import (
    Message,
    Source,
    ThreadRecord,
    TurnRecord,
    TurnStatus,
)
from dispatch_core.engine.ids import uuid7
from dispatch_core.engine.refusals import archived
from dispatch_core.engine.registrar import News
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CodexTimeout,
    CodexUnavailable,
    DispatchError,
    LaneBusy,
    NotFound,
    OutcomeUnknown,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.appserver.thread_messages import Started
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.recovery import Recovery
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster

log = logging.getLogger(__name__)

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

    async def send(self, thread: ThreadRecord, message: Message) -> TurnRecord:
        """Start a turn with one message; it is in the registry before Codex is asked. Raises as ``Lanes.send``."""
        lane = self._roster.lane(thread)
        if lane.active is not None:
            raise LaneBusy(thread.ref, lane.active)
        with self.claim(thread, lane):
            return await self.deliver(thread, lane, message)

    @contextmanager
    def claim(self, thread: ThreadRecord, lane: Lane) -> Iterator[None]:
        """Be the only one who sends to the lane. Raises LaneBusy when somebody else is."""
        if lane.sending:
            raise LaneBusy(thread.ref, lane.active)
        lane.sending = True
        try:
            yield
        finally:
            lane.sending = False
            lane.touch()

    async def deliver(self, thread: ThreadRecord, lane: Lane, message: Message) -> TurnRecord:
        """Hand a message to Codex; the caller has claimed the lane. Raises as ``Lanes.send``."""
        async with lane.lock:
            with nothing_sent():
                await self._recovery.look_back(thread, lane)
                if lane.active is not None:
                    raise LaneBusy(thread.ref, lane.active)
                await self.ensure_loaded(thread, lane)
            if lane.active is not None:
                raise LaneBusy(thread.ref, lane.active)
            return await self._submit(thread, lane, message)

    async def ensure_loaded(self, thread: ThreadRecord, lane: Lane) -> None:
        """Make Codex hold the thread; one that it never wrote to disk is started anew under the same ref.

        The caller holds the lane's lock. Raises ActiveWriter, AuthorityDenied when Codex has archived it, NotFound when Codex
        has lost it, and as ``Codex.request``.
        """
        if lane.archived:
            raise archived(thread)  # since it was looked up
        generation = self._link.generation
        if lane.generation == generation and generation:
            return
        if thread.ephemeral:
            self._gone(lane)
            raise vanished(thread)
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

    async def _submit(self, thread: ThreadRecord, lane: Lane, message: Message) -> TurnRecord:
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
            turn = await self._hand_over(thread, lane, message, before)
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
        self, thread: ThreadRecord, lane: Lane, message: Message, before: TurnRecord | None
    ) -> TurnRecord:
        """Give the submitted message to Codex and return the turn it is in: SUBMITTED, or STARTED if that ran already."""
        turn = lane.turn
        if turn is None or turn.message_id is None:
            raise ValueError("no message was submitted")
        try:
            turn_id = await self._start_turn(thread, lane, message, turn.message_id)
        except appserver.calls.ThreadUnknown:
            # Nothing has happened: Codex unloaded the thread, or was replaced, after we had looked.
            lane.generation = None
            with nothing_sent():
                await self.ensure_loaded(thread, lane)
            turn_id = await self._start_turn(thread, lane, message, turn.message_id)
        if lane.adopt(turn_id, before):
            return replace(turn, id=turn_id)
        log.warning("thread %s: the message joined turn %s, which ran already", thread.ref, turn_id)
        return replace(turn, id=turn_id, status=TurnStatus.STARTED)

    async def _start_turn(
        self, thread: ThreadRecord, lane: Lane, message: Message, message_id: str
    ) -> str:
        lane.handed = self._link.generation
        return await appserver.turns.start(
            self._link.codex, lane.native_id, message, message_id, thread.settings
        )


@contextmanager
def nothing_sent() -> Iterator[None]:
    """Say that nothing was sent when it is only a preparation whose outcome is unknown."""
    try:
        yield
    except (OutcomeUnknown, CodexTimeout) as error:
        raise CodexUnavailable(
            f"the message was not sent: {error.message}", hint="dispatch daemon status"
        ) from error


def vanished(thread: ThreadRecord) -> NotFound:
    """Return the error for a thread that Codex has lost."""
    details = {"thread": thread.ref, "id": thread.native_id}
    another = f"dispatch new NAME TEXT starts another thread, dispatch archive {thread.ref} takes this one off the list"
    if thread.ephemeral:
        return NotFound(
            f"{thread.handle} ({thread.ref}) was ephemeral: it ended with the Codex process that held it",
            hint=another,
            details=details,
        )
    return NotFound(
        f"Codex has no thread {thread.native_id} any more, which {thread.handle} ({thread.ref}) was",
        hint=f"its history was deleted, or CODEX_HOME is another one: dispatch daemon status; {another}",
        details=details,
    )


def _unknown(thread: ThreadRecord, turn: TurnRecord, error: DispatchError) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"it is not known whether the message to {thread.ref} started a turn: {error.message}",
        hint=f"dispatch wait {thread.ref} says what became of it; do not send it again before",
        details={"thread": thread.ref, "message_id": turn.message_id},
    )
