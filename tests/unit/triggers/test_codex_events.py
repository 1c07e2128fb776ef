"""Which events are the end of a turn."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from dispatch_core.api import Event, EventKind
from dispatch_plugins.triggers.codex_events import TurnCompletedConfig, match_turn


def event(kind=EventKind.TURN_COMPLETED, thread="k1", turn_id="t1"):
    return Event(
        seq=1, at=datetime(2026, 1, 1, tzinfo=UTC), kind=kind, thread=thread, turn_id=turn_id
    )


def test_a_completed_turn_of_the_thread_fires_with_the_turn_as_key():
    firing = match_turn(TurnCompletedConfig(thread="k1"), event())

    assert firing is not None
    assert firing.key == "t1"


@pytest.mark.parametrize(
    "other",
    [
        event(thread="k2"),
        event(thread=None),
        event(turn_id=None),
        event(kind=EventKind.TURN_FAILED),
        event(kind=EventKind.TURN_UNKNOWN),
        event(kind=EventKind.TURN_STARTED),
        event(kind=EventKind.TRIGGER_FIRED),
    ],
)
def test_nothing_else_fires(other):
    assert match_turn(TurnCompletedConfig(thread="k1"), other) is None


@pytest.mark.parametrize("statuses", ["failed, interrupted", ["failed", "interrupted"]])
def test_other_ends_count_when_asked_for_as_text_or_as_a_list(statuses):
    config = TurnCompletedConfig(thread="k1", statuses=statuses)

    found = [kind for kind in EventKind if match_turn(config, event(kind=kind))]

    assert found == [EventKind.TURN_FAILED, EventKind.TURN_INTERRUPTED]


@pytest.mark.parametrize("statuses", ["", "done", [], None])
def test_an_unknown_end_is_refused(statuses):
    with pytest.raises(ValidationError):
        TurnCompletedConfig(thread="k1", statuses=statuses)
