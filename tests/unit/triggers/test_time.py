"""The arithmetic of interval and cron."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatch_plugins.triggers.time import (
    CronConfig,
    IntervalConfig,
    cron_next_after,
    interval_next_after,
)

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/Sao_Paulo",
]
EXPRESSIONS = [
    "* * * * *",
    "*/7 * * * *",
    "30 2 * * *",
    "*/20 2 * * *",
    "0-59 1-3 * * *",
    "0 0 * * *",
    "0 */2 * * *",
    "0 9 * * 1-5",
    "0 0 29 2 *",
    "15 10 L * *",
    "0 12 * * MON#2",
    "59 23 31 12 *",
]
INSTANTS = st.datetimes(
    min_value=datetime.fromisoformat("1990-01-01"),
    max_value=datetime.fromisoformat("2090-01-01"),
    timezones=st.just(UTC),
)


def firings(config, start, end):
    """Return every instant of a cron configuration in [start, end), in UTC."""
    found, moment = [], start - timedelta(seconds=1)
    while (moment := cron_next_after(config, moment)) is not None and moment < end:
        found.append(moment)
    return found


def local_day(zone, *date):
    day = datetime(*date, tzinfo=ZoneInfo(zone))
    return day.astimezone(UTC), (day + timedelta(days=1)).astimezone(UTC)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES), st.sampled_from(ZONES), INSTANTS)
def test_a_cron_instant_is_aware_and_strictly_later(expression, zone, shown_in, moment):
    config = CronConfig(cron=expression, timezone=zone)

    found = cron_next_after(config, moment.astimezone(ZoneInfo(shown_in)))

    assert found is not None
    assert found.utcoffset() == timedelta(0)
    assert found > moment


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["*/7 3 * * *", "30 4 * * 1-5", "0 0 29 2 *", "5 */6 1 * *"]),
    st.sampled_from(ZONES),
    INSTANTS,
)
def test_a_cron_instant_shows_a_wall_time_of_the_expression_or_the_end_of_a_gap(
    expression, zone, moment
):
    config = CronConfig(cron=expression, timezone=zone)

    local = cron_next_after(config, moment).astimezone(ZoneInfo(zone))

    minutes = set(range(0, 60, 7)) if expression.startswith("*/7") else {int(expression.split()[0])}
    just_before = (local.astimezone(UTC) - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    assert local.minute in minutes or just_before.utcoffset() != local.utcoffset()


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 366 * 86400), INSTANTS, INSTANTS)
def test_an_interval_instant_is_strictly_later_in_phase_and_the_first_such(seconds, anchor, moment):
    config = IntervalConfig(seconds=seconds, anchor=anchor)

    found = interval_next_after(config, moment)

    assert found > moment
    assert (found - anchor) % timedelta(seconds=seconds) == timedelta(0)
    assert found == anchor or found - timedelta(seconds=seconds) <= moment


def test_an_interval_keeps_its_pace_through_a_change_of_the_clocks():
    berlin = ZoneInfo("Europe/Berlin")
    anchor = datetime(2026, 3, 28, 12, 0, tzinfo=berlin)
    config = IntervalConfig(seconds=86400, anchor=anchor)

    found = interval_next_after(config, datetime(2026, 3, 28, 13, 0, tzinfo=berlin))

    assert found - anchor.astimezone(UTC) == timedelta(days=1)


@pytest.mark.parametrize(
    ("zone", "date", "cron", "expected"),
    [
        ("Europe/Berlin", (2026, 3, 29), "30 2 * * *", ["2026-03-29T01:00:00+00:00"]),
        ("America/New_York", (2026, 3, 8), "30 2 * * *", ["2026-03-08T07:00:00+00:00"]),
        ("Australia/Lord_Howe", (2026, 10, 4), "15 2 * * *", ["2026-10-03T15:30:00+00:00"]),
        ("Europe/Berlin", (2026, 3, 29), "*/20 2 * * *", ["2026-03-29T01:00:00+00:00"]),
    ],
)
def test_an_instant_that_the_clocks_skip_fires_once_right_after_the_gap(zone, date, cron, expected):
    config = CronConfig(cron=cron, timezone=zone)

    found = firings(config, *local_day(zone, *date))

    assert [instant.isoformat() for instant in found] == expected


@pytest.mark.parametrize(
    ("zone", "date", "cron", "expected"),
    [
        ("Europe/Berlin", (2026, 10, 25), "30 2 * * *", ["2026-10-25T00:30:00+00:00"]),
        ("America/New_York", (2026, 11, 1), "30 1 * * *", ["2026-11-01T05:30:00+00:00"]),
        ("Australia/Lord_Howe", (2026, 4, 5), "45 1 * * *", ["2026-04-04T14:45:00+00:00"]),
    ],
)
def test_an_instant_that_the_clocks_repeat_fires_the_first_time_only(zone, date, cron, expected):
    config = CronConfig(cron=cron, timezone=zone)

    found = firings(config, *local_day(zone, *date))

    assert [instant.isoformat() for instant in found] == expected


def test_within_a_repeated_hour_the_next_instant_is_never_an_earlier_one():
    config = CronConfig(cron="30 2 * * *", timezone="Europe/Berlin")
    second_pass = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)

    found = cron_next_after(config, second_pass)

    assert found == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_an_hourly_cron_runs_every_hour_of_the_long_and_of_the_short_day():
    config = CronConfig(cron="0 * * * *", timezone="Europe/Berlin")

    long_day = firings(config, *local_day("Europe/Berlin", 2026, 10, 25))
    short_day = firings(config, *local_day("Europe/Berlin", 2026, 3, 29))

    assert (len(long_day), len(short_day)) == (25, 23)


def test_a_leap_day_is_waited_for():
    config = CronConfig(cron="0 0 29 2 *")

    found = cron_next_after(config, datetime(2026, 1, 1, tzinfo=UTC))

    assert found == datetime(2028, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("cron", {"cron": "0 0 30 2 *"}),
        ("cron", {"cron": "0 0 31 4,6 *"}),
        ("cron", {"cron": "61 * * * *"}),
        ("cron", {"cron": "* * * *"}),
        ("cron", {"cron": "0 0 0 * * *"}),
        ("cron", {"cron": ""}),
        ("cron", {"cron": "*/0 * * * *"}),
        ("cron", {"cron": "@daily"}),
        ("cron", {"cron": "9" * 5000 + " * * * *"}),
        ("timezone", {"cron": "* * * * *", "timezone": "Europe/Atlantis"}),
        ("timezone", {"cron": "* * * * *", "timezone": "../../etc/passwd"}),
        ("timezone", {"cron": "* * * * *", "timezone": "Europe"}),
        ("timezone", {"cron": "* * * * *", "timezone": ""}),
    ],
)
def test_an_impossible_cron_is_refused_by_field(field, options):
    with pytest.raises(ValidationError) as caught:
        CronConfig(**options)

    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


@pytest.mark.parametrize("seconds", [0, -1, 10**12, 1.5, "soon"])
def test_an_impossible_interval_is_refused(seconds):
    with pytest.raises(ValidationError):
        IntervalConfig(seconds=seconds)


def test_time_that_has_run_out_has_no_next_instant():
    end = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    assert interval_next_after(IntervalConfig(seconds=60), end) is None
    assert cron_next_after(CronConfig(cron="0 0 1 1 *"), end) is None
