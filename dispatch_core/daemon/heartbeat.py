"""Whether a running app-server still answers. Silence counts only for as long as we ourselves were awake and on time."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.errors import CodexError, CodexUnavailable, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

TICKS = 10  # pieces of the wait for one answer, each of which must have been on time to count


def time_asleep() -> float:
    """Return how long the machine has slept since its start, in seconds; 0 where the system does not tell."""
    # Linux counts sleep in BOOTTIME and not in MONOTONIC; macOS in MONOTONIC and not in UPTIME_RAW.
    counting = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    awake = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
    return time.clock_gettime(counting) - time.clock_gettime(awake)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatPlan:
    """How patient we are with a Codex that does not answer; seconds.

    period: between two beats, and how long an answer is waited for. misses: so many beats in a row without an answer are a hang.
    late: a piece of the wait that took so much longer than asked for does not count. gap: so much longer means that the machine
    slept or that we were stopped; the count starts over, and for calm nothing is called a hang. asleep: returns for how long the
    machine has slept since some fixed time.
    """

    period: float = 10.0
    misses: int = 3
    late: float = 0.5
    gap: float = 2.0
    calm: float = 20.0
    asleep: Callable[[], float] = time_asleep


@dataclass(slots=True)
class Pulse:
    """What the beats have shown.

    at: of the last answer. latency: its, in seconds. missed: without an answer, in a row. late: pieces of waits that took us too
    long to count, as the machine was busy or slept.
    """

    at: datetime | None = None
    latency: float | None = None
    missed: int = 0
    late: int = 0


class Heartbeat:
    """Asks one running app-server at intervals whether it is there.

    probe: sends something cheap and returns the result when it is answered, however late. on_beat: is given what was answered; {}
    for a refusal, which is an answer, too.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[dict[str, Any]]],
        on_beat: Callable[[dict[str, Any]], Awaitable[None]],
        plan: HeartbeatPlan,
    ) -> None:
        self._probe = probe
        self._on_beat = on_beat
        self._plan = plan
        self._calm_until = 0.0
        self.pulse = Pulse()

    async def run(self) -> None:
        """Return when the app-server hangs: it has missed beat after beat while nothing else explains it."""
        plan = self._plan
        while self.pulse.missed < plan.misses or anyio.current_time() < self._calm_until:
            await self._on_time(plan.period if self.pulse.missed == 0 else 0)
            await self._beat()

    async def _beat(self) -> None:
        begun = anyio.current_time()
        answer: dict[str, Any] | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._give_up_on, tasks.cancel_scope)
            answer = await self._answer()
            tasks.cancel_scope.cancel()
        if answer is None:
            log.warning("codex missed %d heartbeats", self.pulse.missed)
            return
        self.pulse.at, self.pulse.missed = datetime.now(UTC), 0
        self.pulse.latency = anyio.current_time() - begun
        await self._on_beat(answer)

    async def _answer(self) -> dict[str, Any]:
        try:
            return await self._probe()
        except (CodexUnavailable, OutcomeUnknown):
            await anyio.sleep_forever()  # it is gone, which others see
            raise
        except CodexError:
            return {}

    async def _give_up_on(self, beat: anyio.CancelScope) -> None:
        """End the beat after its period, of which only what was on time counts."""
        left = TICKS
        while left:
            left -= await self._on_time(self._plan.period / TICKS)
        self.pulse.missed += 1
        beat.cancel()

    async def _on_time(self, seconds: float) -> bool:
        """Wait, and return whether it took no longer than it should."""
        due, slept = anyio.current_time() + seconds, self._plan.asleep()
        await anyio.sleep(seconds)
        late = anyio.current_time() - due + self._plan.asleep() - slept
        if late > self._plan.gap:
            log.info("a pause of %.1f s; what Codex has not answered before does not count", late)
            self.pulse.missed = 0
            self._calm_until = anyio.current_time() + self._plan.calm
        if late > self._plan.late:
            self.pulse.late += 1
            return False
        return True
