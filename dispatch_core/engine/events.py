"""One stream of runtime events: a bounded ring that every subscriber reads at its own pace by cursor."""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.contracts.events import Event, EventKind, Gap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dispatch_core.contracts.context import Clock

CAPACITY = 4096


class EventBus:
    """The stream. Publishing never waits: readers share the ring and one wake-up, and one that falls behind is told so."""

    def __init__(self, clock: Clock, *, capacity: int = CAPACITY) -> None:
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=capacity)
        self._next_seq = 1
        self._changed = anyio.Event()

    @property
    def last_seq(self) -> int:
        """The seq of the newest event; 0 before the first."""
        return self._next_seq - 1

    def publish(
        self,
        kind: EventKind,
        *,
        thread: str | None = None,
        turn_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """Append an event and wake the subscribers."""
        event = Event(
            seq=self._next_seq,
            at=self._clock.now(),
            kind=kind,
            thread=thread,
            turn_id=turn_id,
            data=dict(data or {}),
        )
        self._next_seq += 1
        self._ring.append(event)
        self._changed.set()
        self._changed = anyio.Event()
        return event

    @asynccontextmanager
    async def subscribe(
        self, *, after: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event | Gap]]:
        """Iterate over events with a seq greater than ``after``, or from the moment of subscribing on."""
        yield self._read(self._next_seq if after is None else after + 1)

    async def _read(self, seq: int) -> AsyncIterator[Event | Gap]:
        while True:
            oldest = self._next_seq - len(self._ring)
            if seq < oldest or seq > self._next_seq:
                seq = oldest
                yield Gap(seq)
                continue
            if seq == self._next_seq:
                await self._changed.wait()
                continue
            event = self._ring[seq - oldest]
            seq += 1
            yield event
