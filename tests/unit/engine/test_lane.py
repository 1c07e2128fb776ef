"""The state machine of a lane, under any order of news."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.appserver.signals import (
    ItemDone,
    MessageSeen,
    NameChanged,
    StatusChanged,
    TurnEnded,
    TurnStarted,
    TurnTroubled,
)
from dispatch_core.contracts.records import (
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
)
from dispatch_core.engine.lane import Lane

NOW = datetime(2026, 5, 4, tzinfo=UTC)
T = "thread-1"
TURNS = st.sampled_from(["a", "b", "c"])
ENDS = st.sampled_from([TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.INTERRUPTED])
SIGNALS = st.one_of(
    st.builds(TurnStarted, st.just(T), TURNS),
    st.builds(TurnEnded, st.just(T), TURNS, ENDS, st.none()),
    st.builds(
        StatusChanged,
        st.just(T),
        st.sampled_from(["idle", "active", "notLoaded", "systemError"]),
        st.sampled_from([(), ("waitingOnApproval",)]),
    ),
    st.builds(MessageSeen, st.just(T), TURNS, st.just("m")),
    st.builds(ItemDone, st.just(T), TURNS, st.just("agentMessage"), st.just("x")),
    st.builds(TurnTroubled, st.just(T), TURNS, st.sampled_from(["no network", "overloaded"])),
    st.builds(NameChanged, st.just(T), st.just("name")),
)


def make_lane(turn=None):
    return Lane(
        ThreadRecord(
            key="k",
            provider="codex",
            native_id=T,
            ref="0AAAA1",
            handle="@x",
            title="x",
            source=Source.OWN,
            status=ThreadStatus.IDLE,
            cwd="/",
            settings=ThreadSettings(),
            created_at=NOW,
            updated_at=NOW,
            turn=turn,
        )
    )


def submitted(message_id="m"):
    return TurnRecord(message_id=message_id, id=None, status=TurnStatus.SUBMITTED, started_at=NOW)


@given(st.lists(SIGNALS, max_size=30))
def test_an_ended_turn_never_runs_again(signals):
    lane, ended = make_lane(), set()

    for signal in signals:
        lane.hear(signal, NOW)
        if isinstance(signal, TurnEnded):
            ended.add(signal.turn_id)
        assert lane.active not in ended


@given(st.lists(SIGNALS, max_size=30))
def test_it_is_settled_once_every_turn_that_started_has_ended(signals):
    lane = make_lane()
    for signal in signals:
        lane.hear(signal, NOW)

    for turn_id in ("a", "b", "c"):
        lane.hear(TurnEnded(T, turn_id, TurnStatus.COMPLETED, None), NOW)

    assert lane.settled
    assert not lane.unresolved
    assert lane.status in (ThreadStatus.IDLE, ThreadStatus.ERROR)


@given(st.lists(SIGNALS, max_size=15), st.lists(SIGNALS, max_size=15))
def test_news_that_were_held_back_have_the_effect_they_would_have_had(before, during):
    held, direct = make_lane(), make_lane()
    for signal in before:
        held.hear(signal, NOW)
        direct.hear(signal, NOW)

    held.submitting = True
    assert not any(held.hear(signal, NOW) for signal in during)
    released = held.release()
    for signal, at in released:
        held.hear(signal, at)
    for signal in during:
        direct.hear(signal, NOW)

    assert [signal for signal, _ in released] == during
    assert (held.status, held.active, held.turn, held.title) == (
        direct.status,
        direct.active,
        direct.turn,
        direct.title,
    )
    assert held.release() == []


@given(st.lists(SIGNALS, max_size=15))
def test_a_turn_that_ended_while_its_message_was_on_its_way_is_not_running(during):
    lane = make_lane()
    lane.submit(submitted())
    for signal in during:
        lane.hear(signal, NOW)

    lane.adopt("a", None)
    for signal, at in lane.release():
        lane.hear(signal, at)

    if any(isinstance(s, TurnEnded) and s.turn_id == "a" for s in during):
        assert lane.active != "a"


@given(st.lists(SIGNALS, max_size=15))
def test_nothing_runs_once_codex_is_gone(signals):
    lane = make_lane()
    for signal in signals:
        lane.hear(signal, NOW)
    ran = lane.active is not None

    cut = lane.lose(NOW)

    assert cut == ran
    assert lane.active is None
    assert lane.generation is None
    assert lane.unresolved == cut
    assert (lane.status is ThreadStatus.UNKNOWN) == cut


def test_a_turn_started_by_somebody_else_is_nobodys_message():
    lane = make_lane()

    lane.hear(TurnStarted(T, "a"), NOW)

    assert (lane.turn.id, lane.turn.message_id) == ("a", None)
    assert lane.status is ThreadStatus.BUSY


def test_a_turn_started_by_somebody_else_is_not_given_a_lost_message():
    lane = make_lane()
    lane.submit(submitted())
    lane.conclude(TurnStatus.UNKNOWN, "no answer", NOW)
    lane.release()

    lane.hear(TurnStarted(T, "a"), NOW)
    lane.hear(MessageSeen(T, "a", "other"), NOW)

    assert lane.turn.message_id is None


@pytest.mark.parametrize(
    ("turn", "status"),
    [
        (TurnStatus.SUBMITTED, ThreadStatus.UNKNOWN),
        (TurnStatus.STARTED, ThreadStatus.UNKNOWN),
        (TurnStatus.UNKNOWN, ThreadStatus.UNKNOWN),
        (TurnStatus.COMPLETED, ThreadStatus.IDLE),
        (TurnStatus.INTERRUPTED, ThreadStatus.IDLE),
        (TurnStatus.FAILED, ThreadStatus.ERROR),
    ],
)
def test_after_a_restart_a_thread_is_what_its_last_turn_says(turn, status):
    record = TurnRecord(message_id="m", id="a", status=turn, started_at=NOW)

    assert make_lane(record).status is status


def test_a_merged_message_leaves_the_turn_to_the_one_who_started_it():
    lane = make_lane()
    lane.submit(submitted("first"))
    lane.adopt("a", None)
    lane.release()
    lane.conclude(TurnStatus.UNKNOWN, "no news", NOW)
    before = lane.turn
    lane.submit(submitted("second"))

    new = lane.adopt("a", before)

    assert not new
    assert (lane.turn.message_id, lane.turn.status) == ("first", TurnStatus.STARTED)
    assert lane.active == "a"


def troubled():
    lane = make_lane()
    lane.hear(TurnStarted(T, "a"), NOW)
    assert lane.hear(TurnTroubled(T, "a", "no network"), NOW)
    return lane


def test_what_is_in_the_way_of_a_turn_is_its_error_while_it_runs():
    lane = troubled()

    again = lane.hear(TurnTroubled(T, "a", "no network"), NOW)

    assert not again
    assert (lane.turn.error, lane.turn.status) == ("no network", TurnStatus.STARTED)
    assert lane.status is ThreadStatus.BUSY


def test_a_turn_that_gets_on_again_has_no_error():
    lane = troubled()

    changed = lane.hear(ItemDone(T, "a", "agentMessage", "x"), NOW)

    assert changed
    assert lane.turn.error is None


@pytest.mark.parametrize(
    ("status", "said", "error"),
    [
        (TurnStatus.COMPLETED, None, None),
        (TurnStatus.INTERRUPTED, None, "no network"),
        (TurnStatus.FAILED, "gave up", "gave up"),
    ],
)
def test_only_a_turn_that_did_not_end_well_keeps_an_error(status, said, error):
    lane = troubled()

    lane.hear(TurnEnded(T, "a", status, said), NOW)

    assert lane.turn.error == error


def test_the_trouble_of_another_turn_is_not_this_ones():
    lane = make_lane()
    lane.hear(TurnStarted(T, "a"), NOW)

    changed = lane.hear(TurnTroubled(T, "b", "no network"), NOW)

    assert not changed
    assert lane.turn.error is None
