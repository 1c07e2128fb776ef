"""Until when something holds, as people write it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from dispatch_core.api import ValidationFailed, printable

SPAN = re.compile(r"(\d{1,7})\s*([smhdw])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=366)
FORMS = "write how long (30s, 10m, 2h, 1d) or a moment (2026-05-04T09:30Z)"


def deadline(text: str | None, field: str, *, now: datetime) -> datetime | None:
    """Return the instant that a text stands for, in UTC and later than now; None for none.

    A moment without an offset is local. Raises ValidationFailed naming the field.
    """
    if text is None:
        return None
    shown = printable(text)
    try:
        end = _instant(text.strip(), now)
        late = end <= now
        far = end - now > LONGEST
    except (ValueError, OverflowError, OSError) as error:
        raise _wrong(field, f"{shown!r} is no length of time and no moment") from error
    if late:
        raise _wrong(field, f"{shown!r} is over already")
    if far:
        raise _wrong(field, f"{shown!r} is more than a year away")
    return end


def _instant(text: str, now: datetime) -> datetime:
    if found := SPAN.fullmatch(text):
        return now + timedelta(**{UNITS[found[2]]: int(found[1])})
    if len(text) <= len("2026-05-04"):
        raise ValueError("a day is no moment")
    return datetime.fromisoformat(text).astimezone(UTC)


def _wrong(field: str, why: str) -> ValidationFailed:
    return ValidationFailed(f"{field}: {why}", hint=FORMS, details={"field": field})
