"""Deliveries as ops see them: which one is meant, until when it holds, how it reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dispatch_core.contracts.deliveries import DeliveryRecord, DeliveryState
from dispatch_core.contracts.records import Message
from dispatch_core.errors import ValidationFailed
from dispatch_plugins.ops.deliveries.views import steps
from dispatch_plugins.ops.shared.deadlines import deadline
from dispatch_plugins.ops.shared.queues import ahead_words, first_line, queued_words, short

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ID = "01a08340-5251-7d23-87b0-50f6e1911115"


def record(state: DeliveryState, **more: object) -> DeliveryRecord:
    plain = {"thread": "k", "when": "idle", "digest": "d", "principal": "human"}
    return DeliveryRecord(id=ID, state=state, created_at=NOW, **plain, **more)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30s", timedelta(seconds=30)),
        ("10m", timedelta(minutes=10)),
        (" 2h ", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        ("2 w", timedelta(weeks=2)),
        ("2026-05-04T12:30:00Z", timedelta(minutes=30)),
        ("2026-05-04T14:30+02:00", timedelta(minutes=30)),
    ],
)
def test_a_deadline_is_a_length_of_time_or_a_moment(text, expected):
    assert deadline(text, "expires", now=NOW) == NOW + expected


def test_no_deadline_is_none():
    assert deadline(None, "expires", now=NOW) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("soon", "no length of time"),
        ("10", "no length of time"),
        ("-5m", "no length of time"),
        ("2026-05-05", "no length of time"),
        ("0s", "over already"),
        ("2026-05-04T11:59Z", "over already"),
        ("9999999w", "no length of time"),
        ("500d", "more than a year"),
        ("2999-01-01T00:00Z", "more than a year"),
    ],
)
def test_what_is_no_deadline_is_refused_by_name(text, why):
    with pytest.raises(ValidationFailed, match=why) as refused:
        deadline(text, "expires", now=NOW)

    assert refused.value.message.startswith("expires: ")
    assert "30s" in refused.value.hint


def test_ids_are_told_apart_by_their_end():
    assert short(ID) == "e1911115"
    assert ID.endswith(short(ID))


@pytest.mark.parametrize(
    ("text", "line"),
    [("one", "one"), ("\n\n  two \nthree", "two"), ("", ""), (" \n ", "")],
)
def test_a_message_is_named_by_its_first_line(text, line):
    assert first_line(text) == line


def test_counts_are_said_in_words():
    assert [ahead_words(n) for n in (0, 1, 2)] == [
        "it is next",
        "1 message before it",
        "2 messages before it",
    ]
    assert queued_words(1, "0A").startswith("1 message: dispatch delivery list --thread 0A")


@pytest.mark.parametrize("state", list(DeliveryState))
def test_every_state_says_what_can_be_done(state):
    found = steps(record(state, message=Message(text="hello"), turn_id="t"), "0BGeK1")

    assert found
    assert all(step.command.startswith("dispatch ") for step in found)


def test_only_a_delivery_in_doubt_is_resolved_and_only_an_ended_one_is_sent_again():
    verbs = {}
    for state in DeliveryState:
        found = steps(record(state, message=Message(text="hello")), "0BGeK1")
        verbs[state] = {step.command.split()[2] for step in found if " delivery " in step.command}

    assert {state for state, words in verbs.items() if "resolve" in words} == {
        DeliveryState.UNKNOWN
    }
    assert {state for state, words in verbs.items() if "requeue" in words} == {
        state for state in DeliveryState if state.ended
    }
    assert {state for state, words in verbs.items() if "cancel" in words} == {DeliveryState.QUEUED}


def test_a_message_that_is_not_kept_any_more_cannot_be_sent_again():
    found = steps(record(DeliveryState.DEAD, message=None), "0BGeK1")

    assert found == []
