"""The real clock; tests pass another."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """Time as the machine tells it."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)
