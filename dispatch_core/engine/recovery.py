"""What became of turns whose end Codex took with it, found out from its history."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from dispatch_core import appserver
from dispatch_core.contracts.deliveries import DeliveryState
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import ThreadRecord, TurnRecord, TurnStatus
from dispatch_core.engine.lane import REVERTED
from dispatch_core.engine.refusals import differs
from dispatch_core.engine.registrar import News
from dispatch_core.engine.roster import ENDINGS
from dispatch_core.errors import (
    CodexError,
    CodexOverloaded,
    CodexTimeout,
    CodexUnavailable,
    OutcomeUnknown,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from dispatch_core.appserver.turns import FoundTurn
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.deliveries.reconciliation import Reconciliation
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster

log = logging.getLogger(__name__)

LOOK_AGAIN = 10.0  # seconds after which history is asked again about what is in doubt
ENDED_WITH_CODEX = "the thread was ephemeral and ended with Codex"
PAGE = 200  # threads that are read at a time
AT_ONCE = 8  # threads whose histories are read at the same time
NEVER_RAN = "Codex went away before it stored the message: it did not run; send it again"
REBOOTED = (
    "the machine was started anew before the turn had ended, and Codex's history has no trace of it: "
    "it may have run; look at what it was to do before you send it again"
)


class Recovery:
    """Settles turns from history.

    booted_at: when the machine was started, None to leave that out. ahead: Codex is gone or new, and history is about to be read.
    lost_generation: of the newest Codex process that is gone.
    """

    def __init__(  # noqa: PLR0913 -- collaborators
        self,
        threads: ThreadStore,
        clock: Clock,
        link: CodexLink,
        roster: Roster,
        registrar: Registrar,
        reconciliation: Reconciliation,
        *,
        booted_at: datetime | None,
    ) -> None:
        self._reconciliation = reconciliation
        self._threads = threads
        self._booted_at = booted_at
        self._clock = clock
        self._link = link
        self._roster = roster
        self._registrar = registrar
        self._at_once = anyio.CapacityLimiter(AT_ONCE)
        self.ahead = True
        self.lost_generation = 0

    def lost(self) -> None:
        """Codex is gone: turns that ran are unknown until its history can be read."""
        self.ahead = True
        self.lost_generation = self._link.generation
        for lane in self._roster.lanes.values():
            self._roster.lose(lane)

    def stranded(self) -> None:
        """Codex does not come back for now: nobody waits for its history any longer."""
        self.ahead = False
        for lane in self._roster.lanes.values():
            lane.touch()

    async def recover(self) -> None:
        """Find out what became of every turn whose end is not known, of several threads at once.

        What goes wrong with one thread leaves only that one's turn unknown. Raises StorageError when the threads cannot be read.
        """
        try:
            unsettled = [thread async for thread in self._all() if self._is_unsettled(thread)]
            async with anyio.create_task_group() as tasks:
                for thread in unsettled:
                    tasks.start_soon(self._recover_one, thread)
        except Exception:
            self.stranded()
            raise
        self.stranded()

    async def watch(self) -> None:
        """Ask history again, every so often, about what a Codex that runs has not answered, until cancelled."""
        while True:
            await anyio.sleep(LOOK_AGAIN)  # nobody tells when history has it
            await self.look_again()

    async def look_again(self) -> None:
        """Ask history about every delivery that is in doubt, and every turn whose end was not heard, if Codex runs."""
        for lane in self._roster.lanes.values():
            if lane.fall_silent(self._clock.now()):
                turn_id = lane.turn.id if lane.turn else None
                self._registrar.mark(lane, News(EventKind.TURN_UNKNOWN, turn_id))
        for lane in [each for each in self._roster.lanes.values() if each.in_doubt or each.silent]:
            if lane.unresolved and not self.ahead and self._link.epoch is not None:
                await self._look_again(lane)

    async def look_back(self, thread: ThreadRecord, lane: Lane) -> None:
        """Settle the last turn before another one; history that Codex refuses to give does not block the thread."""
        if not lane.unresolved:
            return
        try:
            await self.resolve(thread, lane)
        except (CodexUnavailable, CodexOverloaded, CodexTimeout):
            raise
        except CodexError as error:
            log.warning("thread %s: the end of its turn stays unknown: %s", thread.ref, error)

    async def resolve(self, thread: ThreadRecord, lane: Lane) -> None:
        """Learn from history what became of the newest turn; the caller holds the lane's lock.

        That history has no trace of it proves that it did not run only once the process it was given to is gone, and only while
        the machine runs on.
        """
        if lane.flight is not None and lane.unresolved:
            await self._reconciliation.reconcile(thread, lane, lane.flight)
        turn = lane.turn
        if turn is None or lane.flight is not None or not lane.unresolved:
            return
        if turn.error == REVERTED:
            await self._find_newest(thread, lane)
            return
        found = await self._find(thread, lane, turn)
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
        elif lane.handed == self._link.generation or turn.error == REBOOTED:
            return
        elif self._booted_at is not None and turn.started_at < self._booted_at:
            # Codex does not sync its history: what was not on the disk when the power went is no proof of anything.
            lane.conclude(TurnStatus.UNKNOWN, REBOOTED, self._clock.now())
        else:
            lane.conclude(TurnStatus.FAILED, NEVER_RAN, self._clock.now())
        log.info("thread %s: its turn is %s", thread.ref, lane.turn.status)
        self._registrar.mark(lane, News(ENDINGS[lane.turn.status], lane.turn.id))

    async def _all(self) -> AsyncIterator[ThreadRecord]:
        """Yield every thread that is not archived, in order of key."""
        after = None
        while page := await self._threads.list(limit=PAGE, after=after):
            for thread in page:
                yield thread
            after = page[-1].key
            await checkpoint()  # a store may answer at once, and nobody else would have a turn

    def _is_unsettled(self, thread: ThreadRecord) -> bool:
        """Whether it is not known what became of a thread's newest turn; of an ephemeral thread it is, after this."""
        if thread.ephemeral:
            self._outlive(self._roster.lane(thread))
            return False
        if lane := self._roster.lanes.get(thread.key):
            return lane.unresolved
        return thread.turn is not None and not thread.turn.status.finished

    async def _recover_one(self, thread: ThreadRecord) -> None:
        lane = self._roster.lane(thread)
        try:
            async with self._at_once, lane.lock:
                await self.resolve(thread, lane)
        except (CodexError, OutcomeUnknown) as error:
            log.warning("thread %s: the end of its turn stays unknown: %s", thread.ref, error)
        except Exception:
            # One thread's trouble must not keep the others from being settled.
            log.exception("thread %s: the end of its turn stays unknown", thread.ref)

    async def _look_again(self, lane: Lane) -> None:
        try:
            thread = await self._threads.get(lane.key)
        except StorageError as error:
            log.warning("thread %s: what is in doubt stays so for now: %s", lane.key, error)
            return
        if thread is not None:
            await self._recover_one(thread)

    async def _find_newest(self, thread: ThreadRecord, lane: Lane) -> None:
        """Turns were taken back, or were about to be: the newest turn is the one that history has."""
        found = await appserver.threads.newest_turn(
            self._link.codex, lane.native_id, now=self._clock.now()
        )
        if not lane.unresolved:
            return  # another turn has begun meanwhile
        lane.turn = found
        log.info("thread %s: its newest turn is %s", thread.ref, lane.turn and lane.turn.id)
        self._registrar.mark(lane)

    def _outlive(self, lane: Lane) -> None:
        """An ephemeral thread is gone with the Codex that held it, and its turn as well."""
        settled = lane.broken and not lane.unresolved
        if lane.generation == self._link.generation or settled:
            return
        if lane.unresolved and (lane.flight is None or lane.carries):
            lane.conclude(TurnStatus.FAILED, ENDED_WITH_CODEX, self._clock.now())
        if lane.flight is not None and lane.in_doubt:
            lane.flight.end(
                DeliveryState.FAILED, "daemon", self._clock.now(), reason=ENDED_WITH_CODEX
            )
        lane.gone()
        self._registrar.mark(lane)

    async def _find(self, thread: ThreadRecord, lane: Lane, turn: TurnRecord) -> FoundTurn | None:
        """Return the turn as history has it; its message id finds it also when its turn id was never recorded."""
        generation = self._link.generation
        try:
            if lane.generation != generation or not generation:
                loaded = await appserver.threads.resume(
                    self._link.codex, lane.native_id, thread.settings
                )
                if not differs(thread, loaded):  # else it is refused when it is used next
                    lane.generation = generation or self._link.generation
            return await appserver.turns.find_turn(
                self._link.codex, lane.native_id, turn_id=turn.id, message_id=turn.message_id
            )
        except appserver.calls.ThreadUnknown:
            if lane.materialized:
                raise
            return None
