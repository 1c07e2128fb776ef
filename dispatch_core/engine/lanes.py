"""Managed threads in action: resolution, authority, the turn that runs in each, and what the registry says of it."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import (
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnRecord,
)
from dispatch_core.engine import selectors
from dispatch_core.engine.ids import ref_candidates, uuid7
from dispatch_core.engine.recovery import Recovery
from dispatch_core.engine.registrar import Registrar
from dispatch_core.engine.roster import Roster
from dispatch_core.engine.submission import Submission
from dispatch_core.engine.texts import check_text
from dispatch_core.errors import (
    AuthorityDenied,
    CodexError,
    DispatchError,
    OutcomeUnknown,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from anyio.abc import TaskStatus

    from dispatch_core.contracts.context import Clock, HistoryItem
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink

log = logging.getLogger(__name__)

INTERRUPT_DEADLINE = 10.0  # seconds until an interrupted turn must have ended
ATTENTION = 2.0  # seconds a question of Codex must stand before a person is said to be needed


class Lanes:
    """All managed threads. ``run`` owns the task that carries what is heard into the registry.

    attention: seconds a question of Codex must stand before a wait ends with it; most are answered at once. booted_at: when the
    machine was started; that history has no trace of what was sent before then proves nothing.
    """

    def __init__(
        self,
        storage: Storage,
        events: Events,
        clock: Clock,
        link: CodexLink,
        *,
        attention: float = ATTENTION,
        booted_at: datetime | None = None,
    ) -> None:
        self._storage = storage
        self._events = events
        self._clock = clock
        self._link = link
        self._attention = attention
        self._registrar = Registrar(storage.threads, events, clock)
        self._roster = Roster(self._registrar, clock)
        self._lanes = self._roster.lanes
        self._recovery = Recovery(
            storage.threads, clock, link, self._roster, self._registrar, booted_at=booted_at
        )
        self._submission = Submission(
            threads=storage.threads,
            clock=clock,
            link=link,
            roster=self._roster,
            registrar=self._registrar,
            recovery=self._recovery,
        )
        self._making: set[str] = set()

    # Resolution and authority

    async def resolve(self, selector: str, *, fuzzy: bool = False) -> ThreadRecord:
        """Return the one thread a selector names. Raises ThreadNotFound or AmbiguousSelector."""
        return await selectors.resolve(self._storage.threads, selector, fuzzy=fuzzy)

    async def writable(self, selector: str) -> ThreadRecord:
        """Resolve exactly, and raise AuthorityDenied unless the thread is our own and not archived."""
        thread = await self.resolve(selector)
        if thread.source is not Source.OWN:
            raise AuthorityDenied(
                f"{thread.handle} ({thread.ref}) is attached: it can be read, not written",
                hint="write in a thread of your own: dispatch new NAME",
            )
        if thread.status is ThreadStatus.ARCHIVED:
            raise AuthorityDenied(
                f"{thread.handle} ({thread.ref}) is archived", hint="dispatch list --archived"
            )
        return thread

    def key_of(self, native_id: str) -> str | None:
        """Return our key of a Codex thread that was used in this daemon's life."""
        return self._roster.key_of(native_id)

    def active(self) -> list[str]:
        """Return the keys of the threads in which a turn runs."""
        return self._roster.active()

    # What ops do

    async def create(self, *, name: str, cwd: str, settings: ThreadSettings) -> ThreadRecord:
        """Start a thread in Codex and register it as our own. Raises ValidationFailed when the name is taken."""
        handle = f"@{name}"
        if handle in self._making:
            raise ValidationFailed(
                f"a thread {handle} is being made already", hint="choose another name"
            )
        self._making.add(handle)
        try:
            return await self._create(handle, cwd, settings)
        finally:
            self._making.discard(handle)

    def check_text(self, text: str) -> None:
        """Raise ValidationFailed for text that Codex would refuse, drop or misread."""
        check_text(text)

    async def send(self, thread: ThreadRecord, text: str) -> TurnRecord:
        """Start a turn with one message; the turn is in the registry before Codex is asked.

        The turn is SUBMITTED. It is STARTED when Codex put the message into a turn that ran already, unknown to us.
        """
        check_text(text)
        return await self._submission.send(thread, text)

    async def interrupt(self, thread: ThreadRecord) -> TurnRecord:
        """Interrupt the running turn and return it once it has ended."""
        lane = self._roster.lane(thread)
        with anyio.move_on_after(INTERRUPT_DEADLINE):
            while lane.submitting:
                await lane.change()
            turn_id = lane.active
            if turn_id is None:
                raise ValidationFailed(
                    f"no turn runs in {thread.handle} ({thread.ref})",
                    hint=f"dispatch get {thread.ref}",
                )
            # Codex refuses to interrupt a turn that it has accepted and not started yet.
            while not lane.started(turn_id) and lane.active == turn_id:
                await lane.change()
            if lane.active == turn_id:
                await appserver.threads.interrupt(self._link.codex, lane.native_id, turn_id)
            while lane.active == turn_id or lane.dirty:
                await lane.change()
            if lane.turn is not None:
                return lane.turn
        raise OutcomeUnknown(
            f"the turn in {thread.ref} has not ended {INTERRUPT_DEADLINE:g} s after it was interrupted",
            hint=f"dispatch get {thread.ref}",
        )

    async def settled(self, thread: ThreadRecord) -> ThreadRecord:
        """Return the thread once no turn runs in it, or a person must act.

        A turn that Codex took down with it is waited for until history was read, or Codex could not be started again.
        """
        lane = self._roster.lane(thread)
        await self._still(lane)
        if lane.unresolved:
            with suppress(CodexError, OutcomeUnknown):
                async with lane.lock:
                    await self._recovery.resolve(thread, lane)
            await self._still(lane)
        status, turn = lane.status, lane.turn
        record = await self._storage.threads.get(thread.key) or thread
        return replace(record, status=status, turn=turn)

    async def history(self, thread: ThreadRecord, limit: int) -> Sequence[HistoryItem]:
        """Return the last limit items, oldest first; none for a thread of which Codex has stored no turn."""
        lane = self._roster.lane(thread)
        if lane.turn is None and not lane.materialized:
            return ()
        try:
            return await appserver.threads.last_items(self._link.codex, lane.native_id, limit)
        except appserver.threads.ThreadUnknown:
            if lane.materialized:
                raise
            return ()

    # Stopping

    async def quiet(self) -> None:
        """Wait until no turn runs anywhere."""
        while keys := self.active():
            await self._lanes[keys[0]].change()

    async def interrupt_all(self) -> None:
        """Interrupt every running turn and wait until each has ended."""
        async with anyio.create_task_group() as tasks:
            for key in self.active():
                tasks.start_soon(self._interrupt_quietly, key)

    async def flush(self) -> None:
        """Put everything that was heard into the registry."""
        await self._registrar.flush()

    # What Codex says

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """Take in a notification; called in wire order, never waits."""
        self._roster.notified(method, params)

    def lost(self) -> None:
        """Codex is gone: turns that ran are unknown until its history can be read."""
        self._recovery.lost()

    def stranded(self) -> None:
        """Codex does not come back for now: nobody waits for its history any longer."""
        self._recovery.stranded()

    async def recover(self) -> None:
        """Find out, from Codex's history, what became of every turn whose end is not known."""
        await self._recovery.recover()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Carry what was heard into the registry, then publish it, until cancelled."""
        await self._registrar.run(task_status=task_status)

    # Private

    async def _create(self, handle: str, cwd: str, settings: ThreadSettings) -> ThreadRecord:
        rivals = await self._storage.threads.find("handle", handle)
        if taken := [thread for thread in rivals if thread.status is not ThreadStatus.ARCHIVED]:
            raise ValidationFailed(
                f"there is a thread {handle} already: {taken[0].ref}",
                hint=f"choose another name, or dispatch send {taken[0].ref} TEXT",
            )
        generation = self._link.generation
        native_id = await appserver.threads.start(self._link.codex, cwd=cwd, settings=settings)
        now = self._clock.now()
        record = ThreadRecord(
            key=uuid7(),
            provider="codex",
            native_id=native_id,
            ref="",
            handle=handle,
            title=handle.removeprefix("@"),
            source=Source.OWN,
            status=ThreadStatus.IDLE,
            cwd=cwd,
            settings=settings,
            created_at=now,
            updated_at=now,
        )
        record = await self._storage.threads.add(record, ref_candidates(native_id))
        self._roster.lane(record).generation = generation or self._link.generation
        self._events.publish(EventKind.THREAD_CREATED, thread=record.key, data={"ref": record.ref})
        await appserver.threads.set_name(self._link.codex, native_id, handle.removeprefix("@"))
        return record

    async def _interrupt_quietly(self, key: str) -> None:
        try:
            thread = await self._storage.threads.get(key)
            if thread is not None:
                await self.interrupt(thread)
        except DispatchError as error:
            log.warning("thread %s: %s", key, error)

    async def _still(self, lane: Lane) -> None:
        """Wait until nothing runs and history is not about to be read, or a question of Codex stands."""
        while not lane.settled or (lane.unresolved and self._recovery.ahead):
            if not lane.waiting:
                await lane.change()
                continue
            with anyio.move_on_after(self._attention) as patience:
                await lane.change()
            if patience.cancelled_caught and lane.waiting:
                return
