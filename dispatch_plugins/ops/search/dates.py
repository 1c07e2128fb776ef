"""Moments as people write them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from dispatch_core.api import ValidationFailed

AGO = re.compile(r"(\d{1,6})\s*([mhdw])")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
FORMS = "write a day (2026-05-04, today, yesterday), a moment (2026-05-04T09:30Z) or an age (90m, 12h, 7d, 2w)"
DAYS = {"today": 0, "yesterday": 1}


def moment(text: str | None, field: str, *, now: datetime, end: bool = False) -> datetime | None:
    """Return the instant that a text stands for, in UTC. A day is its start or, with end, its last moment, both local.

    A time without an offset is local. Raises ValidationFailed naming the field.
    """
    if text is None:
        return None
    try:
        return _moment(text.strip(), now, end=end).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValidationFailed(f"{field}: {text!r} is no date", hint=FORMS) from error


def _moment(text: str, now: datetime, *, end: bool) -> datetime:
    if found := AGO.fullmatch(text):
        return now - timedelta(**{UNITS[found[2]]: int(found[1])})
    if text in DAYS:
        return _day(now.astimezone().date() - timedelta(days=DAYS[text]), end=end)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(text)
    return _day(day, end=end)


def _day(day: date, *, end: bool) -> datetime:
    # By the calendar and not by 24 hours: a day can have 23 or 25.
    if end:
        return _day(day + timedelta(days=1), end=False) - timedelta(microseconds=1)
    return datetime.combine(day, time()).astimezone()
