"""The real clock; tests pass another."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """Time as the machine tells it."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)


def boot_id() -> str:
    """Return what names the machine's present start; it is another one after every start."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 -- a kernel file
            return file.read().strip()
    except OSError:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()


def boot_time() -> datetime:
    """Return when the machine was started, to a second or so, as the present clock puts it.

    Where the system does not count its sleep (macOS), it seems to have been started later than it was.
    """
    running = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    return datetime.now(UTC) - timedelta(seconds=running)
