"""Carries what is known about lanes into the registry, and says what happened once it is there."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.contracts.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskStatus

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.lane import Lane

log = logging.getLogger(__name__)

RETRY = 5.0  # seconds until a state that could not be written is written again


@dataclass(frozen=True, slots=True)
class News:
    """What is to be published about a thread. data: None stands for the thread's status."""

    kind: EventKind
    turn_id: str | None = None
    data: Mapping[str, Any] | None = None


@dataclass(slots=True)
class _Pending:
    lane: Lane
    news: list[News] = field(default_factory=list)


class Registrar:
    """Writes states in order and publishes news in order, after the state they speak of. ``run`` owns the task."""

    def __init__(
        self, threads: ThreadStore, events: Events, clock: Clock, *, retry: float = RETRY
    ) -> None:
        self._threads = threads
        self._events = events
        self._clock = clock
        self._retry = retry
        self._pending: dict[str, _Pending] = {}
        self._unsaved: dict[str, Lane] = {}
        self._wake = anyio.Event()
        self._flushing = anyio.Lock()

    def mark(self, lane: Lane, *news: News) -> None:
        """The state of a lane has changed; it is written soon, and then the news is published."""
        lane.dirty = True
        self.tell(lane, *news)

    def tell(self, lane: Lane, *news: News) -> None:
        """Publish news after all that was marked or told before."""
        self._pending.setdefault(lane.key, _Pending(lane)).news.extend(news)
        self._wake.set()

    async def store(self, lane: Lane) -> ThreadRecord:
        """Write the state of a lane now. Raises StorageError."""
        changes = {
            "status": lane.status,
            "title": lane.title,
            "materialized": lane.materialized,
            "updated_at": self._clock.now(),
        }
        if lane.turn is None:
            return await self._threads.update(lane.key, **changes)
        return await self._threads.set_turn(lane.key, lane.turn, **changes)

    async def flush(self) -> None:
        """Write and publish everything that is pending; on return it is done, or logged."""
        async with self._flushing:
            unsaved, self._unsaved = self._unsaved, {}
            for lane in unsaved.values():
                lane.dirty = True
                self._pending.setdefault(lane.key, _Pending(lane))
            while self._pending:
                await self._save(self._pending.pop(next(iter(self._pending))))

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Flush whenever something is pending, and try again what could not be written, until cancelled."""
        task_status.started()
        while True:
            with anyio.move_on_after(self._retry if self._unsaved else None):
                await self._wake.wait()
            self._wake = anyio.Event()
            await self.flush()

    async def _save(self, pending: _Pending) -> None:
        lane, changed = pending.lane, pending.lane.dirty
        lane.dirty = False
        status = lane.status
        if changed:
            try:
                await self.store(lane)
            except Exception:
                # The backend may be anybody's; what happened is known here and must not be lost with one write.
                log.exception("thread %s: its state is not in the registry", lane.key)
                self._unsaved[lane.key] = lane
        known = {"status": status.value}
        for news in pending.news or [News(EventKind.THREAD_STATUS)]:
            self._events.publish(
                news.kind,
                thread=lane.key,
                turn_id=news.turn_id,
                data=known if news.data is None else news.data,
            )
        lane.touch()
