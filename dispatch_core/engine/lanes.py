"""Managed threads in action: resolution, authority, the turn that runs in each, and what the registry says of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from dispatch_core.appserver import threads as codex_threads
from dispatch_core.appserver.signals import ItemDone, Signal, TurnEnded, TurnStarted, project
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import (
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
)
from dispatch_core.engine import selectors
from dispatch_core.engine.ids import ref_candidates, uuid7
from dispatch_core.engine.lane import Lane
from dispatch_core.errors import (
    AuthorityDenied,
    CodexError,
    CodexTimeout,
    DispatchError,
    LaneBusy,
    OutcomeUnknown,
    StorageError,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anyio.abc import TaskStatus

    from dispatch_core.contracts.context import Clock, Codex, HistoryItem
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.storage import Storage

log = logging.getLogger(__name__)

TEXT_LIMIT = 1_048_576  # characters Codex takes in one message
INTERRUPT_DEADLINE = 10.0  # seconds until an interrupted turn must have ended
ENDINGS = {
    TurnStatus.COMPLETED: EventKind.TURN_COMPLETED,
    TurnStatus.FAILED: EventKind.TURN_FAILED,
    TurnStatus.INTERRUPTED: EventKind.TURN_INTERRUPTED,
    TurnStatus.UNKNOWN: EventKind.TURN_UNKNOWN,
    TurnStatus.STARTED: EventKind.TURN_STARTED,
}
News = tuple[EventKind, str | None]  # what is to be published about a thread, and of which turn


class CodexLink(Protocol):
    """The connection to Codex as lanes need it. generation: counts the Codex processes; 0 before the first."""

    generation: int

    @property
    def codex(self) -> Codex:
        """The client, whichever process is behind it."""
        ...


class Lanes:
    """All managed threads. ``run`` owns the task that carries what is heard into the registry."""

    def __init__(self, storage: Storage, events: Events, clock: Clock, link: CodexLink) -> None:
        self._storage = storage
        self._events = events
        self._clock = clock
        self._link = link
        self._lanes: dict[str, Lane] = {}
        self._keys: dict[str, str] = {}
        self._dirty: dict[str, list[News]] = {}
        self._wake = anyio.Event()

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
                f"{thread.handle} ({thread.ref}) is archived", hint="dispatch list"
            )
        return thread

    def key_of(self, native_id: str) -> str | None:
        """Return our key of a Codex thread that was used in this daemon's life."""
        return self._keys.get(native_id)

    def active(self) -> list[str]:
        """Return the keys of the threads in which a turn runs."""
        return [key for key, lane in self._lanes.items() if lane.active or lane.submitting]

    # What ops do

    async def create(self, *, name: str, cwd: str, settings: ThreadSettings) -> ThreadRecord:
        """Start a thread in Codex and register it as our own. Raises ValidationFailed when the name is taken."""
        handle = f"@{name}"
        rivals = await self._storage.threads.find("handle", handle)
        if taken := [thread for thread in rivals if thread.status is not ThreadStatus.ARCHIVED]:
            raise ValidationFailed(
                f"there is a thread {handle} already: {taken[0].ref}",
                hint=f"choose another name, or dispatch send {taken[0].ref} TEXT",
            )
        native_id = await codex_threads.start(self._link.codex, cwd=cwd, settings=settings)
        now = self._clock.now()
        record = ThreadRecord(
            key=uuid7(),
            provider="codex",
            native_id=native_id,
            ref="",
            handle=handle,
            title=name,
            source=Source.OWN,
            status=ThreadStatus.IDLE,
            cwd=cwd,
            settings=settings,
            created_at=now,
            updated_at=now,
        )
        record = await self._storage.threads.add(record, ref_candidates(native_id))
        self._lane(record).generation = self._link.generation
        self._events.publish(EventKind.THREAD_CREATED, thread=record.key, data={"ref": record.ref})
        await codex_threads.set_name(self._link.codex, native_id, name)
        return record

    async def send(self, thread: ThreadRecord, text: str) -> TurnRecord:
        """Start a turn with one message; the turn is in the registry before Codex is asked."""
        check_text(text)
        lane = self._lane(thread)
        if lane.sending.locked():
            raise LaneBusy(thread.ref, lane.active)
        async with lane.sending:
            if lane.active is not None:
                raise LaneBusy(thread.ref, lane.active)
            thread = await self._ensure_loaded(thread, lane)
            if lane.active is not None:
                raise LaneBusy(thread.ref, lane.active)
            return await self._submit(thread, lane, text)

    async def interrupt(self, thread: ThreadRecord) -> TurnRecord:
        """Interrupt the running turn and return it once it has ended."""
        lane = self._lane(thread)
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
                await codex_threads.interrupt(self._link.codex, thread.native_id, turn_id)
            while lane.active == turn_id or lane.dirty:
                await lane.change()
            if lane.turn is not None:
                return lane.turn
        raise OutcomeUnknown(
            f"the turn in {thread.ref} has not ended {INTERRUPT_DEADLINE:g} s after it was interrupted",
            hint=f"dispatch get {thread.ref}",
        )

    async def settled(self, thread: ThreadRecord) -> ThreadRecord:
        """Return the thread once no turn runs in it, or a person must act."""
        lane = self._lane(thread)
        while not lane.settled:
            await lane.change()
        return await self._storage.threads.get(thread.key) or thread

    async def history(self, thread: ThreadRecord, limit: int) -> Sequence[HistoryItem]:
        """Return the last limit items, oldest first; none for a thread that has had no turn."""
        if thread.turn is None and not thread.materialized:
            return ()
        return await codex_threads.last_items(self._link.codex, thread.native_id, limit)

    # Stopping

    async def quiet(self) -> None:
        """Wait until no turn runs anywhere."""
        while keys := self.active():
            await self._lanes[keys[0]].change()

    async def interrupt_all(self) -> None:
        """Interrupt every running turn and wait until each has ended."""
        async with anyio.create_task_group() as tasks:
            for key in self.active():
                thread = await self._storage.threads.get(key)
                if thread is not None:
                    tasks.start_soon(self._interrupt_quietly, thread)

    async def flush(self) -> None:
        """Put everything that was heard into the registry."""
        while self._dirty:
            key = next(iter(self._dirty))
            await self._save(self._lanes[key], self._dirty.pop(key))

    # What Codex says

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """Take in a notification; called in wire order, never waits."""
        signal = project(method, params)
        key = self._keys.get(signal.thread_id) if signal is not None else None
        if signal is not None and key is not None:
            self._hear(self._lanes[key], [(signal, self._clock.now())])

    def lost(self) -> None:
        """Codex is gone: turns that ran are unknown until its history can be read."""
        for lane in self._lanes.values():
            if lane.lose(self._clock.now()):
                self._mark(lane, (EventKind.TURN_UNKNOWN, lane.turn.id if lane.turn else None))

    async def recover(self) -> None:
        """Find out, from Codex's history, what became of every turn whose end is not known."""
        for thread in await self._storage.threads.list(limit=1_000_000):
            if thread.turn is None or thread.turn.status.finished:
                continue
            lane = self._lane(thread)
            if lane.active is not None or lane.submitting:
                continue
            try:
                await self._recover_one(thread, lane)
            except (CodexError, OutcomeUnknown) as error:
                log.warning("thread %s: the end of its turn stays unknown: %s", thread.ref, error)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Carry what was heard into the registry, then publish it, until cancelled."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self.flush()

    # Private

    async def _interrupt_quietly(self, thread: ThreadRecord) -> None:
        try:
            await self.interrupt(thread)
        except DispatchError as error:
            log.warning("thread %s: %s", thread.ref, error)

    def _lane(self, thread: ThreadRecord) -> Lane:
        lane = self._lanes.get(thread.key)
        if lane is None:
            lane = self._lanes[thread.key] = Lane(thread)
        self._keys[thread.native_id] = thread.key
        return lane

    def _hear(self, lane: Lane, signals: Iterable[tuple[Signal, Any]]) -> None:
        for signal, at in signals:
            if isinstance(signal, ItemDone):
                self._item(lane, signal)
            if not lane.hear(signal, at):
                continue
            if isinstance(signal, TurnStarted):
                self._mark(lane, (EventKind.TURN_STARTED, signal.turn_id))
            elif isinstance(signal, TurnEnded):
                self._mark(lane, (ENDINGS[signal.status], signal.turn_id))
            else:
                self._mark(lane)

    def _item(self, lane: Lane, signal: ItemDone) -> None:
        self._events.publish(
            EventKind.ITEM_COMPLETED,
            thread=lane.key,
            turn_id=signal.turn_id,
            data={"type": signal.type, "text": signal.text},
        )

    def _mark(self, lane: Lane, news: News | None = None) -> None:
        lane.dirty = True
        pending = self._dirty.setdefault(lane.key, [])
        if news is not None:
            pending.append(news)
        self._wake.set()

    async def _save(self, lane: Lane, news: list[News]) -> None:
        lane.dirty = False
        status = lane.status
        try:
            await self._store(lane)
        except StorageError:
            log.exception("thread %s: its state is not in the registry", lane.key)
        for kind, turn_id in news or [(EventKind.THREAD_STATUS, None)]:
            self._events.publish(
                kind, thread=lane.key, turn_id=turn_id, data={"status": status.value}
            )
        lane.touch()

    async def _store(self, lane: Lane) -> ThreadRecord:
        changes = {
            "status": lane.status,
            "title": lane.title,
            "materialized": lane.materialized,
            "updated_at": self._clock.now(),
        }
        if lane.turn is None:
            return await self._storage.threads.update(lane.key, **changes)
        return await self._storage.threads.set_turn(lane.key, lane.turn, **changes)

    async def _ensure_loaded(self, thread: ThreadRecord, lane: Lane) -> ThreadRecord:
        """Make Codex hold the thread; one that it never wrote to disk is started anew under the same ref."""
        if lane.generation == self._link.generation and self._link.generation:
            return thread
        generation = self._link.generation
        try:
            await codex_threads.resume(self._link.codex, thread.native_id)
        except codex_threads.ThreadUnknown:
            if thread.materialized:
                raise
            native_id = await codex_threads.start(
                self._link.codex, cwd=thread.cwd, settings=thread.settings
            )
            log.info("thread %s had no history; it is now Codex thread %s", thread.ref, native_id)
            thread = await self._storage.threads.update(
                thread.key, native_id=native_id, updated_at=self._clock.now()
            )
            lane.native_id = native_id
            self._keys[native_id] = thread.key
            if thread.title:
                await codex_threads.set_name(self._link.codex, native_id, thread.title)
        lane.generation = generation
        return thread

    async def _submit(self, thread: ThreadRecord, lane: Lane, text: str) -> TurnRecord:
        before = lane.turn
        message_id = uuid7()
        turn = TurnRecord(
            message_id=message_id,
            id=None,
            status=TurnStatus.SUBMITTED,
            started_at=self._clock.now(),
        )
        lane.submit(turn)
        try:
            await self._store(lane)
            turn_id = await codex_threads.start_turn(
                self._link.codex, thread.native_id, text, message_id, thread.settings
            )
            lane.adopt(turn_id)
            turn = replace(turn, id=turn_id)
        except (OutcomeUnknown, CodexTimeout) as error:
            lane.conclude(TurnStatus.UNKNOWN, error.message, self._clock.now())
            raise self._unknown(thread, message_id, error) from error
        except StorageError:
            lane.turn = before  # nothing was recorded, so nothing was handed over
            raise
        except DispatchError as error:
            lane.conclude(TurnStatus.FAILED, error.message, self._clock.now())
            raise
        except anyio.get_cancelled_exc_class():
            lane.conclude(
                TurnStatus.UNKNOWN, "the sender went away before Codex answered", self._clock.now()
            )
            raise
        finally:
            self._hear(lane, lane.release())
            self._mark(lane)
        return turn

    def _unknown(
        self, thread: ThreadRecord, message_id: str, error: DispatchError
    ) -> OutcomeUnknown:
        return OutcomeUnknown(
            f"it is not known whether the message to {thread.ref} started a turn: {error.message}",
            hint=f"dispatch get {thread.ref} says what became of it; do not send it again before",
            details={"thread": thread.ref, "message_id": message_id},
        )

    async def _recover_one(self, thread: ThreadRecord, lane: Lane) -> None:
        turn = thread.turn
        if turn is None:
            return
        try:
            await self._ensure_loaded(replace(thread, materialized=True), lane)
            found = await codex_threads.find_turn(
                self._link.codex, thread.native_id, turn_id=turn.id, message_id=turn.message_id
            )
        except codex_threads.ThreadUnknown:
            found = None
        if lane.active is not None or lane.turn is None:
            return
        if found is None:
            lane.conclude(
                TurnStatus.FAILED,
                "Codex went away before it stored the message: it did not run; send it again",
                self._clock.now(),
            )
        else:
            lane.turn = replace(lane.turn, id=found.id)
            lane.materialized = True
            lane.conclude(found.status, found.error, self._clock.now())
        log.info("thread %s: its turn is %s", thread.ref, lane.turn.status)
        self._mark(lane, (ENDINGS[lane.turn.status], lane.turn.id))


def check_text(text: str) -> None:
    """Raise ValidationFailed for text that Codex would refuse, drop or misread."""
    if not text.strip():
        raise ValidationFailed(
            "the message is empty", hint="give some text, or - to read it from stdin"
        )
    if len(text) > TEXT_LIMIT:
        raise ValidationFailed(
            f"the message has {len(text):,} characters; Codex takes {TEXT_LIMIT:,}",
            hint="put the text in a file and name the file in the message",
        )
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValidationFailed("the message contains a lone surrogate, which is not valid Unicode")
    if text.lstrip().startswith("/goal"):
        raise ValidationFailed(
            "a message that starts with /goal does not set a goal", hint="say it in other words"
        )
