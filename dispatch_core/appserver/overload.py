"""What to do when Codex says that it has too much to do: ask again, later and later, and ask less at a time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIES = 8
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds; each is drawn between 0 and a bound that doubles
# Requests in flight. Of hundreds at a time Codex refuses some, and leaves others without any answer.
MOST, LEAST = 32, 4
STEP = 4
CALM = 1.0  # seconds: one burst of refusals halves the limit once


def pauses() -> Iterator[float]:
    """Give the seconds to wait before each further try, with full jitter; one less than there are tries."""
    bound = FIRST_PAUSE
    for _ in range(TRIES - 1):
        yield random.uniform(0, bound)  # noqa: S311 -- jitter
        bound = min(bound * 2, LONGEST_PAUSE)


class Places:
    """How many requests may be in flight: halved when Codex is slow or refuses for it, and given back step by step."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._limiter = anyio.CapacityLimiter(most)
        self._narrowed = -CALM

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limiter.total_tokens)

    async def take(self, borrower: object) -> None:
        """Wait for a place, first come, first served."""
        await self._limiter.acquire_on_behalf_of(borrower)

    def give_back(self, borrower: object) -> None:
        """Let the next one have the place."""
        self._limiter.release_on_behalf_of(borrower)

    def narrow(self) -> None:
        """Halve the limit, down to 4; not twice within a second."""
        now = anyio.current_time()
        if now - self._narrowed < CALM:
            return
        self._narrowed = now
        self._limiter.total_tokens = max(min(LEAST, self._most), self.limit // 2)

    def widen(self) -> None:
        """Raise the limit by 4, up to what it was at first."""
        if self.limit < self._most:
            self._limiter.total_tokens = min(self._most, self.limit + STEP)
