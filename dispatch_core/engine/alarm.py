"""Waiting for instants of the wall clock, on a machine that sleeps and whose clock jumps."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dispatch_core.contracts.context import Clock

SLICE = 30.0
JUMP = 60.0

log = logging.getLogger(__name__)


class Sleeper(Protocol):
    """Waiting, injected."""

    async def __call__(self, seconds: float, /) -> None:
        """Return after that many seconds of the machine being awake."""


class Alarm:
    """Waits for the earliest of some instants; its one waiter then looks at the clock again."""

    def __init__(self, clock: Clock, sleep: Sleeper) -> None:
        self._clock = clock
        self._sleep = sleep
        self._disturbed = anyio.Event()

    def disturb(self) -> None:
        """The present wait ends, and so does the next one unless ``reset`` comes first."""
        self._disturbed.set()

    def reset(self) -> None:
        """Forget earlier disturbances; called before the instants are read, to miss no change."""
        if self._disturbed.is_set():
            self._disturbed = anyio.Event()

    async def wait(self, moments: Sequence[datetime]) -> None:
        """Return at the earliest moment, when disturbed, or after SLICE seconds at the latest.

        Without any moment only a disturbance ends it. The slices are there because time spent
        suspended does not count as slept, and because a clock that is set forward brings an instant
        nearer.
        """
        if not moments:
            await self._disturbed.wait()
            return
        before = self._clock.now()
        delay = min(SLICE, max(0.0, (min(moments) - before).total_seconds()))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_at, self._disturbed, tasks.cancel_scope)
            await self._sleep(delay)
            tasks.cancel_scope.cancel()
        passed = (self._clock.now() - before).total_seconds()
        if passed < -JUMP or passed > delay + JUMP:
            log.warning("the clock moved %.0f s during a wait of %.0f s", passed, delay)


async def _cancel_at(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
