"""Sends what waits: in each thread one message at a time, in order, whenever nothing runs in it."""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import failpoints
from dispatch_core.contracts.deliveries import DeliveryState
from dispatch_core.engine.deliveries.ledger import conflict
from dispatch_core.engine.refusals import check_directory
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CodexOverloaded,
    CodexUnavailable,
    DeliveryConflict,
    DispatchError,
    LaneBusy,
    NotFound,
    OutcomeUnknown,
    StorageError,
)

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import DeliveryRecord, DeliveryStore, Epoch
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.deliveries.ledger import Ledger
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.recovery import Recovery
    from dispatch_core.engine.roster import Roster
    from dispatch_core.engine.submission import Submission

log = logging.getLogger(__name__)

# Seconds between two tries of a message that cannot go now: the first and the longest.
PAUSES = (0.5, 30.0)


class Courier:
    """Serves the threads in which something waits. ``run`` owns the tasks, one for each of them while it is served.

    stopped: nothing more is sent.
    """

    def __init__(  # noqa: PLR0913 -- collaborators, all by keyword
        self,
        *,
        store: DeliveryStore,
        threads: ThreadStore,
        clock: Clock,
        link: CodexLink,
        roster: Roster,
        recovery: Recovery,
        submission: Submission,
        ledger: Ledger,
        pauses: tuple[float, float] = PAUSES,
    ) -> None:
        self._store = store
        self._threads = threads
        self._clock = clock
        self._link = link
        self._roster = roster
        self._recovery = recovery
        self._submission = submission
        self._ledger = ledger
        self._pauses = pauses
        self._pauses_of: dict[str, float] = {}
        self._tasks: TaskGroup | None = None
        self._served: set[str] = set()
        self._again: set[str] = set()
        self._ready = anyio.Event()
        self.stopped = False

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            task_status.started()
            await anyio.sleep_forever()

    def wake(self, key: str) -> None:
        """Something may have become possible in a thread."""
        if key in self._served:
            self._again.add(key)
        elif self._tasks is not None and not self.stopped and self._ledger.waiting[key] > 0:
            self._served.add(key)
            self._tasks.start_soon(self._serve, key, name=f"courier {key}")

    def ready(self) -> None:
        """Codex runs, and what was in doubt is settled as far as it can be: everything that waits may go."""
        self._ready.set()
        self._ready = anyio.Event()
        for key in [key for key, count in self._ledger.waiting.items() if count > 0]:
            self.wake(key)

    def stop(self) -> None:
        """Send nothing more; what waits, waits for the next daemon."""
        self.stopped = True
        self._ready.set()

    async def _serve(self, key: str) -> None:
        try:
            while not self.stopped and await self._try_next(key):
                self._again.discard(key)
        finally:
            self._served.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.wake(key)

    async def _try_next(self, key: str) -> bool:
        """Do as ``_next``; what goes wrong delays this thread's messages, and nobody else's."""
        ready = self._ready
        try:
            return await self._next(key)
        except DeliveryConflict:
            return True  # somebody was faster; look again
        except Exception:
            log.exception("thread %s: its messages wait", key)
            await self._pause(key, ready)
            return True

    async def _next(self, key: str) -> bool:
        """Send the first message that waits in a thread; False when nothing can be sent before the thread is woken again."""
        thread = await self._threads.get(key)
        if thread is None:
            return False
        lane = self._roster.lane(thread)
        await self._free(lane)
        if self.stopped:
            return False
        head = await self._store.head(key)
        if head is None or head.state is not DeliveryState.QUEUED:
            return False
        if self._expired(head):
            await self._end(
                head, DeliveryState.EXPIRED, "its time was over before it could be sent"
            )
            return True
        return await self._send(thread, lane, head)

    async def _free(self, lane: Lane) -> None:
        """Wait until Codex is there, and nothing runs or is in doubt in a lane, and it is not put away."""
        while not self.stopped:
            if self._link.epoch is None:
                await self._ready.wait()
            elif not self._taken(lane):
                return
            else:
                await lane.change()

    def _taken(self, lane: Lane) -> bool:
        """Whether nothing may be sent to a lane now; it says when that changes."""
        busy = lane.active is not None or lane.submitting or lane.sending
        unsettled = lane.flight is not None or lane.held is not None or self._recovery.ahead
        return busy or unsettled or lane.archived

    async def _send(self, thread: ThreadRecord, lane: Lane, head: DeliveryRecord) -> bool:
        """Hand over one message; False once it is on its way, or when somebody else wakes us."""
        ready = self._ready
        try:
            await check_directory(thread)
            with self._submission.claim(thread, lane):
                await self._submission.deliver(thread, lane, head, partial(self._claim, head))
        except (LaneBusy, DeliveryConflict):
            return True  # somebody was faster; look again
        except OutcomeUnknown:
            return False  # whoever finds out what became of it wakes us
        except (
            CodexUnavailable,
            CodexOverloaded,
            ActiveWriter,
            AuthorityDenied,
            StorageError,
        ) as error:
            log.info("delivery %s waits: %s", head.id, error.message)
            await self._pause(lane.key, ready)
            return True
        except DispatchError as error:
            await self._hold(head, error, ready)
            return True
        self._pauses_of.pop(lane.key, None)
        return False

    async def _claim(self, head: DeliveryRecord, epoch: Epoch) -> DeliveryRecord:
        """Record that the message is about to be given to a Codex process.

        Raises DeliveryConflict when it is not its turn any more: much may change while its thread is loaded.
        """
        first = await self._store.head(head.thread)
        if self.stopped or first is None or first.id != head.id or self._expired(head):
            raise conflict(head, "it is not to be sent now")
        await failpoints.reach("claim.before_commit")
        record = await self._ledger.move(
            head,
            DeliveryState.SENDING,
            epoch=epoch,
            attempt=head.attempt + 1,
            claimed_at=self._clock.now(),
            reason=None,
        )
        await failpoints.reach("claim.after_commit")
        return record

    def _expired(self, head: DeliveryRecord) -> bool:
        return head.expires_at is not None and head.expires_at <= self._clock.now()

    async def _pause(self, key: str, ready: anyio.Event) -> None:
        """Wait a while, each time longer, or until Codex has come back."""
        first, longest = self._pauses
        pause = self._pauses_of.get(key, first)
        self._pauses_of[key] = min(pause * 2, longest)
        with anyio.move_on_after(random.uniform(pause / 2, pause)):  # noqa: S311 -- jitter
            await ready.wait()

    async def _hold(self, head: DeliveryRecord, error: DispatchError, ready: anyio.Event) -> None:
        """A message whose thread cannot be used waits, and says why; it is over when the thread is gone."""
        now = await self._store.get(head.id)
        if now is None or now.state is not DeliveryState.QUEUED:
            return  # it was refused itself
        why = f"{error.code}: {error.message}"
        if isinstance(error, NotFound):
            await self._end(now, DeliveryState.REJECTED, why, key=None)
            return
        if now.reason != why:
            log.warning("delivery %s waits: %s", head.id, why)
            await self._ledger.move(now, DeliveryState.QUEUED, reason=why)
        await self._pause(head.thread, ready)

    async def _end(
        self, record: DeliveryRecord, state: DeliveryState, why: str, **changes: Any
    ) -> None:
        now = self._clock.now()
        self._pauses_of.pop(record.thread, None)
        await self._ledger.move(
            record, state, evidence="daemon", reason=why, ended_at=now, **changes
        )
