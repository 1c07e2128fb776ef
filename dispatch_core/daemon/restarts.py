"""When an app-server that ended is started again: soon, later and later, after a pause, or not before a person has acted."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class Breaker(StrEnum):
    """Whether starts go on. OPEN: paused. HALF_OPEN: one try is being made. TRIPPED: no more tries."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    TRIPPED = "tripped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPlan:
    """How patient restarts are; seconds.

    The pause before a start is drawn between 0 and a bound that doubles from first to longest, and starts over after an uptime of
    steady. exits within window open the breaker for pause; then one try is made, and it closes when that lasts for window.
    Opened so many times without an uptime of steady in between, it stays open.
    """

    first: float = 0.5
    longest: float = 30.0
    steady: float = 600.0
    exits: int = 5
    window: float = 60.0
    pause: float = 60.0
    openings: int = 3


class Restarts:
    """The starts of one program, and how its ends follow each other. Times are of any clock that does not jump."""

    def __init__(self, plan: RestartPlan) -> None:
        self.plan = plan
        self.breaker = Breaker.CLOSED
        self.total = 0
        self.openings = 0
        self._bound = plan.first
        self._exits: deque[float] = deque(maxlen=plan.exits)

    def recent(self, now: float) -> int:
        """Return how many ends the breaker counts at the moment."""
        return sum(now - at < self.plan.window for at in self._exits)

    def ended(self, now: float, uptime: float) -> float | None:
        """Count an end after so many seconds, and return the seconds until the next start; None: a person must act."""
        self.lasted(uptime)
        self.total += 1
        self._exits.append(now)
        if self.breaker is not Breaker.CLOSED or self.recent(now) >= self.plan.exits:
            return self._open()
        bound, self._bound = self._bound, min(self._bound * 2, self.plan.longest)
        return random.uniform(0, bound)  # noqa: S311 -- jitter

    def starting(self) -> None:
        """A start is made now."""
        if self.breaker is Breaker.OPEN:
            self.breaker = Breaker.HALF_OPEN

    def lasted(self, uptime: float) -> None:
        """It has run for so many seconds and still does."""
        if uptime >= self.plan.steady:
            self._bound, self.openings = self.plan.first, 0
        if self.breaker is Breaker.HALF_OPEN and uptime >= self.plan.window:
            self.breaker = Breaker.CLOSED

    def _open(self) -> float | None:
        self.openings += 1
        if self.openings >= self.plan.openings:
            self.breaker = Breaker.TRIPPED
            return None
        self.breaker = Breaker.OPEN
        return self.plan.pause
