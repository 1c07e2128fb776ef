"""Managed threads in action: resolution, authority, the turn that runs in each, and what the registry says of it."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.context import HistoryPage
from dispatch_core.contracts.deliveries import DeliveryFilter, DeliveryState
from dispatch_core.contracts.records import (
    Message,
    Source,
    StoppedTurn,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
)
from dispatch_core.engine import selectors
from dispatch_core.engine.branches import Branches, nothing_done
from dispatch_core.engine.deliveries.courier import PAUSES, Courier
from dispatch_core.engine.deliveries.desk import DeliveryDesk
from dispatch_core.engine.deliveries.flight import Flight
from dispatch_core.engine.deliveries.ledger import Ledger
from dispatch_core.engine.deliveries.reconciliation import Reconciliation
from dispatch_core.engine.deliveries.retention import collect_for_ever
from dispatch_core.engine.lifecycle import Lifecycle
from dispatch_core.engine.recovery import Recovery
from dispatch_core.engine.refusals import archived, check_directory, refuse_ephemeral
from dispatch_core.engine.registrar import Registrar
from dispatch_core.engine.roster import Roster
from dispatch_core.engine.steering import PATIENCE, Patience, Steering
from dispatch_core.engine.submission import Submission
from dispatch_core.engine.texts import check_message, check_text
from dispatch_core.errors import (
    AuthorityDenied,
    CodexError,
    DispatchError,
    OutcomeUnknown,
)
from dispatch_core.settings import PolicySection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from anyio.abc import TaskStatus

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import DeliveryRecord
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink

log = logging.getLogger(__name__)

NO_POLICY = PolicySection()
ATTENTION = 2.0  # seconds a question of Codex must stand before a person is said to be needed


class Lanes:
    """All managed threads. ``run`` owns the tasks that send what waits, and that carry what is heard into the registry.

    attention: seconds a question of Codex must stand before a wait ends with it; most are answered at once. booted_at: when the
    machine was started, and boot names that start; that history has no trace of what was sent before then proves nothing.
    pauses: seconds between two tries of a message that cannot go now, the first and the longest. deliveries: the messages on
    their way.
    """

    def __init__(  # noqa: PLR0913 -- collaborators
        self,
        storage: Storage,
        events: Events,
        clock: Clock,
        link: CodexLink,
        *,
        attention: float = ATTENTION,
        booted_at: datetime | None = None,
        boot: str = "",
        pauses: tuple[float, float] = PAUSES,
        policy: PolicySection = NO_POLICY,
        patience: Patience = PATIENCE,
    ) -> None:
        self._policy = policy
        self._storage = storage
        self._events = events
        self._clock = clock
        self._link = link
        self._attention = attention
        self._ledger = Ledger(
            storage.deliveries, events, clock, on_free=self._wake, on_unqueued=self._touch
        )
        self._registrar = Registrar(storage.threads, events, clock, follow=self._ledger.follow)
        self._roster = Roster(self._registrar, clock)
        self._lanes = self._roster.lanes
        self._recovery = Recovery(
            storage.threads,
            clock,
            link,
            self._roster,
            self._registrar,
            Reconciliation(clock, link, self._registrar, boot),
            booted_at=booted_at,
        )
        self._submission = Submission(
            threads=storage.threads,
            clock=clock,
            link=link,
            roster=self._roster,
            registrar=self._registrar,
            recovery=self._recovery,
        )
        self._steering = Steering(
            clock=clock,
            link=link,
            roster=self._roster,
            registrar=self._registrar,
            recovery=self._recovery,
            submission=self._submission,
            patience=patience,
        )
        self._lifecycle = Lifecycle(
            threads=storage.threads,
            events=events,
            clock=clock,
            link=link,
            roster=self._roster,
            registrar=self._registrar,
            recovery=self._recovery,
        )
        self._branches = Branches(
            threads=storage.threads,
            events=events,
            clock=clock,
            link=link,
            roster=self._roster,
            registrar=self._registrar,
            recovery=self._recovery,
            submission=self._submission,
            lifecycle=self._lifecycle,
        )
        self._courier = Courier(
            store=storage.deliveries,
            threads=storage.threads,
            clock=clock,
            link=link,
            roster=self._roster,
            recovery=self._recovery,
            submission=self._submission,
            ledger=self._ledger,
            pauses=pauses,
        )
        self.deliveries = DeliveryDesk(
            storage=storage,
            clock=clock,
            roster=self._roster,
            submission=self._submission,
            steering=self._steering,
            ledger=self._ledger,
            registrar=self._registrar,
            courier=self._courier,
            finding_out=patience.finding_out,
        )

    # Resolution and authority

    async def resolve(self, selector: str, *, fuzzy: bool = False) -> ThreadRecord:
        """Return the one thread a selector names. Raises ThreadNotFound or AmbiguousSelector."""
        return await selectors.resolve(self._storage.threads, selector, fuzzy=fuzzy)

    async def locate(self, selector: str, *, fuzzy: bool = False) -> ThreadRecord | str:
        """Return the managed thread that a selector names, or the selector itself if it is an unmanaged thread's full id."""
        return await selectors.locate(self._storage.threads, selector, fuzzy=fuzzy)

    async def writable(self, selector: str) -> ThreadRecord:
        """Resolve exactly, and raise AuthorityDenied unless the thread may be written."""
        thread = await self.resolve(selector)
        if thread.source is not Source.OWN and not self._policy.allow_attached_writes:
            raise AuthorityDenied(
                f"{thread.handle} ({thread.ref}) is attached: it can be read, not written",
                hint=f"dispatch fork {thread.ref} NAME makes a thread of your own; "
                "[policy] allow_attached_writes = true allows it",
            )
        if thread.status is ThreadStatus.ARCHIVED:
            raise archived(thread)
        return thread

    def key_of(self, native_id: str) -> str | None:
        """Return our key of a Codex thread that was used in this daemon's life."""
        return self._roster.key_of(native_id)

    def active(self) -> list[str]:
        """Return the keys of the threads in which a turn runs."""
        return self._roster.active()

    # What ops do

    async def create(
        self, *, name: str, cwd: str, settings: ThreadSettings, ephemeral: bool = False
    ) -> ThreadRecord:
        """Start a thread in Codex and register it as our own. Raises ValidationFailed when the name is taken."""
        return await self._lifecycle.create(
            name=name, cwd=cwd, settings=settings, ephemeral=ephemeral
        )

    async def attach(self, native_id: str) -> ThreadRecord:
        """Register a thread that somebody else made; one that is managed is returned unchanged."""
        return await self._lifecycle.attach(native_id)

    async def load(self, thread: ThreadRecord) -> ThreadRecord:
        """Make Codex hold the thread and return it as it is then; one that it never stored is started anew."""
        await check_directory(thread)
        lane = self._roster.lane(thread)
        async with lane.lock:
            with nothing_done(thread):
                await self._submission.ensure_loaded(thread, lane)
        return await self._storage.threads.get(thread.key) or thread

    def holds(self, key: str) -> bool:
        """Return whether the Codex that runs now has loaded a thread."""
        lane = self._lanes.get(key)
        return lane is not None and lane.generation == self._link.generation

    def held(self) -> list[str]:
        """Return the Codex ids of the threads that the Codex that runs now has loaded."""
        return [lane.native_id for key, lane in self._lanes.items() if self.holds(key)]

    def check_text(self, text: str) -> None:
        """Raise ValidationFailed for text that Codex would refuse, drop or misread."""
        check_text(text)

    def check_message(self, message: Message) -> None:
        """Raise ValidationFailed for a message that Codex would refuse, drop or misread."""
        check_message(message)

    async def steer(self, thread: ThreadRecord, message: Message) -> TurnRecord:
        """Add a message to the running turn and return that turn. Raises NoActiveTurn when none runs."""
        self.check_message(message)
        return await self._steering.steer(thread, message)

    async def inject(self, thread: ThreadRecord, text: str) -> None:
        """Put text into the thread's context without starting a turn."""
        self.check_text(text)
        await self._steering.inject(thread, text)

    async def interrupt(self, thread: ThreadRecord) -> StoppedTurn:
        """Interrupt the running turn and return it once it has ended. Raises NoActiveTurn when none runs."""
        return await self._steering.interrupt(thread)

    async def rename(self, thread: ThreadRecord, name: str) -> ThreadRecord:
        """Give a thread another name, here and in Codex."""
        return await self._lifecycle.rename(thread, name)

    async def archive(self, thread: ThreadRecord) -> ThreadRecord:
        """Archive a thread, here and in Codex."""
        return await self._lifecycle.archive(thread)

    async def restore(self, thread: ThreadRecord) -> ThreadRecord:
        """Bring an archived thread back, without loading it."""
        return await self._lifecycle.restore(thread)

    async def fork(
        self,
        thread: ThreadRecord,
        *,
        name: str,
        settings: ThreadSettings,
        cwd: str | None = None,
        last_turn: str | None = None,
    ) -> ThreadRecord:
        """Start a thread of our own that begins with the history of this one."""
        return await self._branches.fork(
            thread, name=name, settings=settings, cwd=cwd, last_turn=last_turn
        )

    async def revert(self, thread: ThreadRecord, *, before_turn: str) -> ThreadRecord:
        """Forget a turn and all later ones."""
        return await self._branches.revert(thread, before_turn=before_turn)

    async def compact(self, thread: ThreadRecord) -> TurnRecord | None:
        """Start to replace the thread's context by a summary."""
        return await self._branches.compact(thread)

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

    async def history(
        self, thread: ThreadRecord, limit: int, *, before: str | None = None
    ) -> HistoryPage:
        """Return limit items up to ``before``, or the last ones; none for a thread of which Codex has stored no turn."""
        refuse_ephemeral(thread, "be shown")
        lane = self._roster.lane(thread)
        if lane.turn is None and not lane.materialized:
            return HistoryPage(items=(), older=None)
        try:
            return await appserver.history.page(
                self._link.codex, lane.native_id, limit, before=before
            )
        except appserver.calls.ThreadUnknown:
            if lane.materialized:
                raise
            return HistoryPage(items=(), older=None)

    # Stopping

    def stop_sending(self) -> None:
        """Start no turn any more with a message that waits; the next daemon does."""
        self._courier.stop()

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
        """Find out, from Codex's history, what became of everything whose end is not known; then send what waits."""
        try:
            await self._recovery.recover()
        except Exception:
            self._courier.ready()  # what is in doubt holds its own thread, and no other
            raise
        self._courier.ready()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Send what waits, and carry what was heard into the registry, then publish it, until cancelled."""
        async with anyio.create_task_group() as tasks:
            await self._take_up()
            await tasks.start(self._courier.run)
            tasks.start_soon(self._recovery.watch)
            tasks.start_soon(collect_for_ever, self._storage.deliveries, self._clock)
            await self._registrar.run(task_status=task_status)

    # Private

    def _wake(self, key: str) -> None:
        self._courier.wake(key)

    def _touch(self, key: str) -> None:
        if lane := self._lanes.get(key):
            lane.touch()

    async def _take_up(self) -> None:
        """Take up what a former daemon had on its way, and what is in doubt."""
        await self._ledger.open()
        for record in await self._storage.deliveries.in_flight():
            await self._board(record)
        doubtful = DeliveryFilter(states=frozenset({DeliveryState.UNKNOWN}))
        # Newest first, so that of several the oldest remains: the one that the store's head names.
        for record in await self._storage.deliveries.list(doubtful, limit=1_000_000):
            if thread := await self._storage.threads.get(record.thread):
                self._roster.lane(thread).held = record.id

    async def _board(self, record: DeliveryRecord) -> None:
        """A delivery was on its way when the former daemon ended: whether it ran, history has to say."""
        thread = await self._storage.threads.get(record.thread)
        if thread is None:
            return
        turn = TurnRecord(
            message_id=record.id,
            id=record.turn_id,
            status=TurnStatus.UNKNOWN,
            started_at=record.claimed_at or record.created_at,
            error="the daemon ended while it was on its way",
        )
        self._roster.lane(thread).board(Flight(record, doubt=True), turn)

    async def _interrupt_quietly(self, key: str) -> None:
        try:
            thread = await self._storage.threads.get(key)
            if thread is not None:
                await self.interrupt(thread)
        except DispatchError as error:
            log.warning("thread %s: %s", key, error)

    def _about_to_send(self, lane: Lane) -> bool:
        """Whether a message waits that nothing but time keeps from being sent."""
        blocked = lane.held is not None or lane.archived or self._courier.stopped
        return self._ledger.waiting[lane.key] > 0 and not blocked

    async def _still(self, lane: Lane) -> None:
        """Wait until nothing runs or is about to, and history is not about to be read, or a question of Codex stands."""
        while (
            not lane.settled
            or (lane.unresolved and self._recovery.ahead)
            or self._about_to_send(lane)
        ):
            if not lane.waiting:
                await lane.change()
                continue
            with anyio.move_on_after(self._attention) as patience:
                await lane.change()
            if patience.cancelled_caught and lane.waiting:
                return
