"""The record of how requests end: written in order, tried again while the registry cannot be written, and then told."""

from __future__ import annotations

import logging
from collections import deque
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio

from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import ActionRecord
from dispatch_core.contracts.requests import RequestState
from dispatch_core.contracts.view import printable
from dispatch_core.engine.requests.live import GONE
from dispatch_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.requests import RequestRecord
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.engine.alarm import Sleeper
    from dispatch_core.engine.requests.live import Live

log = logging.getLogger(__name__)

OP = "request.respond"  # how answers that no person gave are called in the action log
KEPT = timedelta(days=90)  # closed requests are remembered
FORGETTING = 1000  # closings after which the old ones are forgotten
RETRY = 1.0  # seconds until the registry is tried again
LAST_WRITES = 3.0  # seconds for what is closed when the daemon stops
DETAIL_LIMIT = 120  # characters of the action log's detail
UNCONFIRMED = f"{GONE}; it had not said that it took the answer"


class Ledger:
    """Endings, on their way into the registry. ``run`` writes them.

    waiting: the requests that Codex waits for, by our id; they leave it when their end is recorded.
    """

    def __init__(self, storage: Storage, events: Events, clock: Clock, sleep: Sleeper) -> None:
        self._storage = storage
        self._events = events
        self._clock = clock
        self._sleep = sleep
        self._writes: deque[Callable[[], Awaitable[None]]] = deque()
        self._asked_for = anyio.Event()
        self._closings = 0
        self.waiting: dict[str, Live] = {}

    def close(self, live: Live, state: RequestState, detail: str | None) -> None:
        """Record the end of a request, soon. Never waits."""
        self._write(partial(self._close, live, state, detail))

    def orphan(self, epoch: str) -> None:
        """Record, soon, that everything that another epoch left open has ended. Never waits."""
        self._write(partial(self._orphan, epoch))

    def forget(self) -> None:
        """Remove, soon, what ended long ago. Never waits."""
        self._write(self._forget)

    async def run(self) -> None:
        """Write what is to be recorded, in order, until cancelled; what is there by then is still written."""
        try:
            while True:
                if not self._writes:
                    self._asked_for = anyio.Event()
                    await self._asked_for.wait()
                await self._write_all()
        finally:
            with anyio.move_on_after(LAST_WRITES, shield=True):
                await self._write_all()

    async def log_action(self, live: Live, by: str, decision: str) -> None:
        """Write an answer that no person gave to the action log."""
        action = ActionRecord(
            at=self._clock.now(),
            op=OP,
            principal=by,
            outcome="ok",
            thread=live.thread.ref if live.thread else None,
            detail=printable(f"{decision}: {live.asked.summary}")[:DETAIL_LIMIT],
        )
        try:
            await self._storage.actions.append(action)
        except Exception:
            # The backend may be anybody's, and Codex has its answer already.
            log.exception("an answer by %s is missing from the action log", by)

    def _write(self, work: Callable[[], Awaitable[None]]) -> None:
        self._writes.append(work)
        self._asked_for.set()

    async def _write_all(self) -> None:
        while self._writes:
            try:
                await self._writes[0]()
            except StorageError as error:
                log.warning("the end of a request is not recorded yet: %s", error)
                await self._sleep(RETRY)
                continue
            except Exception:
                log.exception("the end of a request is not recorded")
            self._writes.popleft()

    async def _close(self, live: Live, state: RequestState, detail: str | None) -> None:
        async with live.lock:  # whoever is claiming it has claimed it, or has not
            record = live.stored
            closed = await self._storage.requests.close(
                record.id,
                state,
                at=self._clock.now(),
                by=live.by,
                decision=live.decision,
                detail=detail,
            )
            live.record = closed or record
        self.waiting.pop(record.id, None)
        live.closed.set()
        if closed is not None:
            self._tell(closed)

    async def _orphan(self, epoch: str) -> None:
        for live in [live for live in self.waiting.values() if live.gone == GONE]:
            await self._close(live, RequestState.ORPHANED, UNCONFIRMED if live.by else GONE)
        # What earlier daemons left, and what was being recorded when Codex went away.
        orphaned = await self._storage.requests.orphan(
            epoch=epoch, at=self._clock.now(), detail=GONE
        )
        for record in orphaned:
            self._tell(record)

    async def _forget(self) -> None:
        await self._storage.requests.forget(self._clock.now() - KEPT)

    def _tell(self, record: RequestRecord) -> None:
        state = record.state.value
        log.info("request %s (%s) is %s", record.id, record.kind.value, state)
        self._events.publish(
            EventKind.REQUEST_CLOSED,
            thread=record.thread,
            turn_id=record.turn_id,
            data={"id": record.id, "kind": record.kind.value, "state": state},
        )
        self._closings += 1
        if self._closings % FORGETTING == 0:
            self.forget()
