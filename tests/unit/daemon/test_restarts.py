"""Ends are answered with starts: soon, later, after a pause, or not before a person acts."""

from __future__ import annotations

import pytest

from dispatch_core.daemon.restarts import Breaker, RestartPlan, Restarts

STEPS = 300


def bounds(restarts, uptime, step):
    """Return the longest pause seen for each of the first ends, over many histories that end so far apart."""
    seen = [[restarts().ended(0, 0) for _ in range(STEPS)]]
    for ends in range(2, step + 1):
        drawn = []
        for _ in range(STEPS):
            fresh = restarts()
            pauses = [fresh.ended(n * 1000, uptime) for n in range(ends)]
            drawn.append(pauses[-1])
        seen.append(drawn)
    return [max(drawn) for drawn in seen], [min(drawn) for drawn in seen]


def test_pauses_double_up_to_the_longest_and_are_drawn_from_zero():
    most, least = bounds(lambda: Restarts(RestartPlan()), 0, 9)

    expected = [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert all(drawn <= bound for drawn, bound in zip(most, expected, strict=True))
    assert all(drawn > bound * 0.8 for drawn, bound in zip(most, expected, strict=True))
    assert all(drawn < bound * 0.2 for drawn, bound in zip(least, expected, strict=True))


def test_ten_minutes_of_uptime_start_the_pauses_over():
    restarts = Restarts(RestartPlan())
    for number in range(8):
        restarts.ended(number * 1000, 0)

    assert restarts.ended(10_000, 600) <= 0.5
    assert restarts.total == 9


def test_four_ends_a_minute_open_nothing_and_the_fifth_does():
    restarts = Restarts(RestartPlan())
    before = [restarts.ended(now, 1) for now in (0, 10, 20, 30)]
    state = restarts.breaker

    pause = restarts.ended(59, 1)

    assert max(before) <= 4
    assert state is Breaker.CLOSED
    assert (pause, restarts.breaker, restarts.openings) == (60, Breaker.OPEN, 1)


def test_ends_further_apart_open_nothing():
    restarts = Restarts(RestartPlan())
    for now in range(0, 400, 20):
        restarts.ended(now, 1)

    assert restarts.breaker is Breaker.CLOSED


@pytest.mark.parametrize(
    ("uptime", "expected"), [(0, Breaker.OPEN), (59, Breaker.OPEN), (60, Breaker.CLOSED)]
)
def test_the_one_try_decides_whether_it_is_closed(uptime, expected):
    restarts = Restarts(RestartPlan())
    for now in range(5):
        restarts.ended(now, 0)
    restarts.starting()
    trying = restarts.breaker

    pause = restarts.ended(70 + uptime, uptime)

    assert trying is Breaker.HALF_OPEN
    assert restarts.breaker is expected
    assert (pause == 60) is (expected is Breaker.OPEN)


def test_one_that_lasts_closes_it_while_it_still_runs():
    restarts = Restarts(RestartPlan())
    for now in range(5):
        restarts.ended(now, 0)
    restarts.starting()

    restarts.lasted(60)
    closed = (restarts.breaker, restarts.openings)
    restarts.lasted(600)

    assert closed == (Breaker.CLOSED, 1)
    assert restarts.openings == 0


def test_the_third_opening_needs_a_person():
    restarts = Restarts(RestartPlan())
    for now in range(5):
        restarts.ended(now, 0)
    pauses = []
    for now in (65, 126):
        restarts.starting()
        pauses.append(restarts.ended(now, 0))

    assert pauses == [60, None]
    assert restarts.breaker is Breaker.TRIPPED
    restarts.starting()
    assert restarts.breaker is Breaker.TRIPPED
