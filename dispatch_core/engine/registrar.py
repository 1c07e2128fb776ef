"""Carries what is known about lanes into the registry, and says what happened once it is there."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.contracts.deliveries import DeliveryState
from dispatch_core.contracts.events import EventKind
from dispatch_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from anyio.abc import TaskStatus

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.lane import Lane

log = logging.getLogger(__name__)

RETRY = 5.0  # seconds until a state that could not be written is written again
KEEP_DEADLINE = 10.0  # seconds for a write that nobody may cancel
DELAY = 0.1  # seconds that a state may wait for the next one, to be written with it


@dataclass(frozen=True, slots=True)
class News:
    """What is to be published about a thread. data: None stands for the thread's status."""

    kind: EventKind
    turn_id: str | None = None
    data: Mapping[str, Any] | None = None


@dataclass(slots=True)
class _Pending:
    """changed: the state has changed, which is news even if nothing else is."""

    lane: Lane
    changed: bool = False
    news: list[News] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Late:
    """A state that is written at ``due`` (of the event loop's clock) unless a newer one of its lane is written before."""

    lane: Lane
    due: float


class Registrar:
    """Writes states in order and publishes news in order, after the state they speak of. ``run`` owns the task.

    follow: writes down what is known of the delivery that a lane has on its way. retry, delay: seconds, see RETRY and DELAY.
    """

    def __init__(
        self,
        threads: ThreadStore,
        events: Events,
        clock: Clock,
        *,
        follow: Callable[[Lane], Coroutine[Any, Any, None]],
        retry: float = RETRY,
        delay: float = DELAY,
    ) -> None:
        self._threads = threads
        self._events = events
        self._clock = clock
        self._follow = follow
        self._retry = retry
        self._delay = delay
        self._pending: dict[str, _Pending] = {}
        self._late: dict[str, _Late] = {}
        self._wake = anyio.Event()
        self._flushing = anyio.Lock(fast_acquire=True)

    def mark(self, lane: Lane, *news: News) -> None:
        """The state of a lane has changed; it is written soon, and then the news is published."""
        lane.dirty = True
        self._change(lane, news)

    def defer(self, lane: Lane, *news: News) -> None:
        """The state of a lane has changed in a way that a restart finds out anyway; the news need not wait for the registry.

        It is written with the next state of the lane, or after ``delay`` seconds: in a quick turn a write of its own would
        only stand in the way of the one that counts.
        """
        self._put_off(lane, self._delay)
        self._change(lane, news)

    def tell(self, lane: Lane, *news: News) -> None:
        """Publish news after all that was marked, deferred or told before."""
        self._pending.setdefault(lane.key, _Pending(lane)).news.extend(news)
        self._wake.set()

    async def store(self, lane: Lane) -> ThreadRecord:
        """Write the state of a lane now. Raises StorageError."""
        self._late.pop(lane.key, None)
        changes = {
            "status": lane.status,
            "title": lane.title,
            "materialized": lane.materialized,
            "updated_at": self._clock.now(),
        }
        return await self._threads.set_turn(lane.key, lane.known_turn, **changes)

    async def settle(self, lane: Lane) -> None:
        """Write what is known of the lane's delivery now, and its state soon; what fails now is written once it can be."""
        with anyio.move_on_after(KEEP_DEADLINE, shield=True):
            try:
                await self._follow(lane)
            except StorageError:
                log.exception("thread %s: its delivery is not in the registry", lane.key)
                self._put_off(lane, self._retry)
        self.mark(lane)

    async def catch_up(self, lane: Lane) -> None:
        """Write what was deferred of a lane and of its delivery now, for somebody who is about to read it.

        What cannot be written is written once it can be.
        """
        with anyio.move_on_after(KEEP_DEADLINE, shield=True):
            try:
                await self._write(lane)
            except Exception:
                log.exception("thread %s: its state is not in the registry", lane.key)
                self._put_off(lane, self._retry)

    async def keep(self, lane: Lane) -> ThreadRecord:
        """Write what Codex has done, whether the caller is cancelled or not; what fails now is written once it can be.

        Raises StorageError.
        """
        with anyio.move_on_after(KEEP_DEADLINE, shield=True):
            try:
                return await self.store(lane)
            except StorageError:
                self.mark(lane)
                raise
        self.mark(lane)
        raise StorageError(
            f"the registry took nothing for {KEEP_DEADLINE:g} s; what Codex has done is written once it can be",
            hint="dispatch registry check",
        )

    async def flush(self) -> None:
        """Write and publish everything that is pending or put off; on return it is done, or logged."""
        await self._work(math.inf)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Write and publish what is pending, and what was put off when its time comes, until cancelled."""
        task_status.started()
        while True:
            due = min((late.due for late in self._late.values()), default=math.inf)
            with anyio.CancelScope(deadline=due):
                await self._wake.wait()
            self._wake = anyio.Event()
            await self._work(anyio.current_time())

    def _change(self, lane: Lane, news: Iterable[News]) -> None:
        self.tell(lane, *news)
        self._pending[lane.key].changed = True

    def _put_off(self, lane: Lane, seconds: float) -> None:
        self._late.setdefault(lane.key, _Late(lane, anyio.current_time() + seconds))
        self._wake.set()

    async def _work(self, now: float) -> None:
        async with self._flushing:
            for late in list(self._late.values()):
                if late.due <= now:
                    late.lane.dirty = True
                    self._pending.setdefault(late.lane.key, _Pending(late.lane))
            while self._pending:
                await self._save(self._pending.pop(next(iter(self._pending))))

    async def _write(self, lane: Lane) -> None:
        """Write what is known of a lane's delivery, and its state; at once, so that a backend can commit both together."""
        if lane.flight is not None and lane.flight.state is DeliveryState.UNKNOWN:
            await self._follow(lane)  # the lane is held from then on, which is part of its state
            await self.store(lane)
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow, lane)
            await self.store(lane)

    async def _save(self, pending: _Pending) -> None:
        lane, dirty = pending.lane, pending.lane.dirty
        lane.dirty = False
        status = lane.status
        if dirty:
            lane.saving = True
            try:
                await self._write(lane)
            except Exception:
                # The backend may be anybody's; what happened is known here and must not be lost with one write.
                log.exception("thread %s: its state is not in the registry", lane.key)
                self._put_off(lane, self._retry)
            finally:
                lane.saving = False
        if pending.changed and not pending.news:
            pending.news.append(News(EventKind.THREAD_STATUS))
        known = {"status": status.value}
        for news in pending.news:
            self._events.publish(
                news.kind,
                thread=lane.key,
                turn_id=news.turn_id,
                data=known if news.data is None else news.data,
            )
        lane.touch()
