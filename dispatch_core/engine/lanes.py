"""Managed threads in action: resolution, authority, the turn that runs in each, and what the registry says of it."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from dispatch_core import appserver
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
from dispatch_core.engine.registrar import News, Registrar
from dispatch_core.engine.texts import check_text
from dispatch_core.errors import (
    AuthorityDenied,
    CodexError,
    CodexOverloaded,
    CodexTimeout,
    CodexUnavailable,
    DispatchError,
    LaneBusy,
    OutcomeUnknown,
    StorageError,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from anyio.abc import TaskStatus

    from dispatch_core.contracts.context import Clock, Codex, HistoryItem
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.storage import Storage

log = logging.getLogger(__name__)

INTERRUPT_DEADLINE = 10.0  # seconds until an interrupted turn must have ended
NEVER_RAN = "Codex went away before it stored the message: it did not run; send it again"
ATTENTION = 2.0  # seconds a question of Codex must stand before a person is said to be needed
ENDINGS = {
    TurnStatus.COMPLETED: EventKind.TURN_COMPLETED,
    TurnStatus.FAILED: EventKind.TURN_FAILED,
    TurnStatus.INTERRUPTED: EventKind.TURN_INTERRUPTED,
    TurnStatus.UNKNOWN: EventKind.TURN_UNKNOWN,
    TurnStatus.STARTED: EventKind.TURN_STARTED,
}


class CodexLink(Protocol):
    """The connection to Codex as lanes need it. generation: counts the Codex processes; 0 before the first."""

    generation: int

    @property
    def codex(self) -> Codex:
        """The client, whichever process is behind it."""
        ...


class Lanes:
    """All managed threads. ``run`` owns the task that carries what is heard into the registry.

    attention: seconds a question of Codex must stand before a wait ends with it; most are answered at once.
    """

    def __init__(
        self,
        storage: Storage,
        events: Events,
        clock: Clock,
        link: CodexLink,
        *,
        attention: float = ATTENTION,
    ) -> None:
        self._storage = storage
        self._events = events
        self._clock = clock
        self._link = link
        self._attention = attention
        self._registrar = Registrar(storage.threads, events, clock)
        self._lanes: dict[str, Lane] = {}
        self._keys: dict[str, str] = {}
        self._making: set[str] = set()
        self._recovery_ahead = True
        self._lost_generation = 0

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
        lane = self._lane(thread)
        if lane.sending or lane.active is not None:
            raise LaneBusy(thread.ref, lane.active)
        lane.sending = True
        try:
            async with lane.lock:
                with _nothing_sent():
                    await self._look_back(thread, lane)
                    if lane.active is not None:
                        raise LaneBusy(thread.ref, lane.active)
                    await self._ensure_loaded(thread, lane)
                if lane.active is not None:
                    raise LaneBusy(thread.ref, lane.active)
                return await self._submit(thread, lane, text)
        finally:
            lane.sending = False

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
        lane = self._lane(thread)
        await self._still(lane)
        if lane.unresolved:
            with suppress(CodexError, OutcomeUnknown):
                async with lane.lock:
                    await self._resolve(thread, lane)
            await self._still(lane)
        status, turn = lane.status, lane.turn
        record = await self._storage.threads.get(thread.key) or thread
        return replace(record, status=status, turn=turn)

    async def history(self, thread: ThreadRecord, limit: int) -> Sequence[HistoryItem]:
        """Return the last limit items, oldest first; none for a thread of which Codex has stored no turn."""
        lane = self._lane(thread)
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
        signal = project(method, params)
        key = self._keys.get(signal.thread_id) if signal is not None else None
        if signal is not None and key is not None:
            self._hear(self._lanes[key], [(signal, self._clock.now())])

    def lost(self) -> None:
        """Codex is gone: turns that ran are unknown until its history can be read."""
        self._recovery_ahead = True
        self._lost_generation = self._link.generation
        for lane in self._lanes.values():
            self._lose(lane)

    def stranded(self) -> None:
        """Codex does not come back for now: nobody waits for its history any longer."""
        self._recovery_ahead = False
        for lane in self._lanes.values():
            lane.touch()

    async def recover(self) -> None:
        """Find out, from Codex's history, what became of every turn whose end is not known."""
        try:
            for thread in await self._storage.threads.list(limit=1_000_000):
                known = thread.key in self._lanes
                if known or not (thread.turn is None or thread.turn.status.finished):
                    await self._recover_one(thread)
        except Exception:
            self.stranded()
            raise
        self.stranded()

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
        self._lane(record).generation = generation or self._link.generation
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
        while not lane.settled or (lane.unresolved and self._recovery_ahead):
            if not lane.waiting:
                await lane.change()
                continue
            with anyio.move_on_after(self._attention) as patience:
                await lane.change()
            if patience.cancelled_caught and lane.waiting:
                return

    def _lose(self, lane: Lane) -> None:
        if lane.lose(self._clock.now()):
            turn_id = lane.turn.id if lane.turn else None
            self._registrar.mark(lane, News(EventKind.TURN_UNKNOWN, turn_id))

    def _lane(self, thread: ThreadRecord) -> Lane:
        lane = self._lanes.get(thread.key)
        if lane is None:
            lane = self._lanes[thread.key] = Lane(thread)
        self._keys[thread.native_id] = thread.key
        return lane

    def _hear(self, lane: Lane, signals: Iterable[tuple[Signal, Any]]) -> None:
        for signal, at in signals:
            held = lane.submitting
            changed = lane.hear(signal, at)
            if isinstance(signal, ItemDone):
                if not held:
                    data = {"type": signal.type, "text": signal.text}
                    self._registrar.tell(lane, News(EventKind.ITEM_COMPLETED, signal.turn_id, data))
            elif not changed:
                continue
            elif isinstance(signal, TurnStarted):
                self._registrar.mark(lane, News(EventKind.TURN_STARTED, signal.turn_id))
            elif isinstance(signal, TurnEnded):
                self._registrar.mark(lane, News(ENDINGS[signal.status], signal.turn_id))
            else:
                self._registrar.mark(lane)

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
        await self._storage.threads.update(
            thread.key, native_id=native_id, updated_at=self._clock.now()
        )
        lane.native_id = native_id
        self._keys[native_id] = thread.key
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
        recorded = False
        try:
            await self._registrar.store(lane)
            recorded = True
            turn = await self._hand_over(thread, lane, text, before)
        except (OutcomeUnknown, CodexTimeout) as error:
            lane.conclude(TurnStatus.UNKNOWN, error.message, self._clock.now())
            self._registrar.tell(lane, News(EventKind.TURN_UNKNOWN))
            raise _unknown(thread, turn, error) from error
        except StorageError:
            lane.turn = before  # nothing was recorded, so nothing was handed over
            raise
        except DispatchError as error:
            lane.conclude(TurnStatus.FAILED, error.message, self._clock.now())
            raise
        except anyio.get_cancelled_exc_class():
            if recorded:
                gone = "the sender went away before Codex answered"
                lane.conclude(TurnStatus.UNKNOWN, gone, self._clock.now())
                self._registrar.tell(lane, News(EventKind.TURN_UNKNOWN))
            else:
                lane.turn = before
            raise
        finally:
            self._hear(lane, lane.release())
            self._registrar.mark(lane)
            if recorded and (lane.handed or 0) <= self._lost_generation:
                self._lose(lane)  # Codex died between its answer and now
        return turn

    async def _hand_over(
        self, thread: ThreadRecord, lane: Lane, text: str, before: TurnRecord | None
    ) -> TurnRecord:
        """Give the submitted message to Codex and return the turn it is in: SUBMITTED, or STARTED if that ran already."""
        turn = lane.turn
        if turn is None or turn.message_id is None:
            raise ValueError("no message was submitted")
        try:
            lane.handed = self._link.generation
            turn_id = await appserver.threads.start_turn(
                self._link.codex, lane.native_id, text, turn.message_id, thread.settings
            )
        except appserver.threads.ThreadUnknown:
            # Nothing has happened: Codex unloaded the thread, or was replaced, after we had looked.
            lane.generation = None
            with _nothing_sent():
                await self._ensure_loaded(thread, lane)
            lane.handed = self._link.generation
            turn_id = await appserver.threads.start_turn(
                self._link.codex, lane.native_id, text, turn.message_id, thread.settings
            )
        if lane.adopt(turn_id, before):
            return replace(turn, id=turn_id)
        log.warning("thread %s: the message joined turn %s, which ran already", thread.ref, turn_id)
        return replace(turn, id=turn_id, status=TurnStatus.STARTED)

    async def _look_back(self, thread: ThreadRecord, lane: Lane) -> None:
        """Settle the last turn before another one; history that Codex refuses to give does not block the thread."""
        if not lane.unresolved:
            return
        try:
            await self._resolve(thread, lane)
        except (CodexUnavailable, CodexOverloaded, CodexTimeout):
            raise
        except CodexError as error:
            log.warning("thread %s: the end of its turn stays unknown: %s", thread.ref, error)

    async def _recover_one(self, thread: ThreadRecord) -> None:
        lane = self._lane(thread)
        async with lane.lock:
            if not lane.unresolved:
                return
            try:
                await self._resolve(thread, lane)
            except (CodexError, OutcomeUnknown) as error:
                log.warning("thread %s: the end of its turn stays unknown: %s", thread.ref, error)

    async def _resolve(self, thread: ThreadRecord, lane: Lane) -> None:
        """Learn from history what became of the newest turn; the caller holds the lane's lock.

        That history has no trace of it proves that it did not run only once the process it was given to is gone.
        """
        turn, generation = lane.turn, self._link.generation
        if turn is None or not lane.unresolved:
            return
        try:
            if lane.generation != generation or not generation:
                await appserver.threads.resume(self._link.codex, lane.native_id)
                lane.generation = generation or self._link.generation
            found = await appserver.threads.find_turn(
                self._link.codex, lane.native_id, turn_id=turn.id, message_id=turn.message_id
            )
        except appserver.threads.ThreadUnknown:
            if lane.materialized:
                raise
            found = None
        if not lane.unresolved or lane.turn is None:
            return  # Codex has said it meanwhile
        if found is not None and found.status is TurnStatus.INTERRUPTED and turn.message_id:
            # Codex stores a message before it asks the model, but opens the turn before that.
            found = found if found.has_message else None
        if found is not None and found.status is TurnStatus.STARTED:
            lane.found_running(found.id)
        elif found is not None:
            lane.turn = replace(lane.turn, id=found.id)
            lane.materialized = True
            lane.conclude(found.status, found.error, self._clock.now())
        elif lane.handed == self._link.generation:
            return
        else:
            lane.conclude(TurnStatus.FAILED, NEVER_RAN, self._clock.now())
        log.info("thread %s: its turn is %s", thread.ref, lane.turn.status)
        self._registrar.mark(lane, News(ENDINGS[lane.turn.status], lane.turn.id))


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
