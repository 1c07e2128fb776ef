"""The real clock; tests pass another."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """Time as the machine tells it."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)


def boot_time() -> datetime:
    """Return when the machine was started, to a second or so, as the present clock puts it.

    Where the system does not count its sleep (macOS), it seems to have been started later than it was.
    """
    running = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    return datetime.now(UTC) - timedelta(seconds=running)
