"""Options of triggers: what is refused and how it is said, and which of several instants counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AwareDatetime, Field

from dispatch_core.contracts.trigger import TriggerConfig, TriggerKind
from dispatch_core.engine.trigger_config import (
    GRACE,
    bind,
    due,
    kind_named,
    next_instant,
    options_of,
    parse,
    source_of,
)
from dispatch_core.errors import PluginFault, ValidationFailed

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class EveryConfig(TriggerConfig):
    kind: Literal["every"] = "every"
    seconds: int = Field(ge=1)
    label: str = "none"
    anchor: AwareDatetime | None = None


class TurnConfig(TriggerConfig):
    kind: Literal["turn"] = "turn"
    thread: str


def phase(config, moment):
    step = timedelta(seconds=config.seconds)
    return NOW + ((moment - NOW) // step + 1) * step


EVERY = TriggerKind(name="every", summary="x", config=EveryConfig, next_after=phase)
TURN = TriggerKind(name="turn", summary="x", config=TurnConfig, match=lambda c, e: None)


def test_an_unknown_kind_is_refused_with_the_kinds_there_are():
    with pytest.raises(ValidationFailed) as caught:
        kind_named({"turn": TURN, "every": EVERY}, "evry")

    assert caught.value.hint == "use one of: every, turn"
    assert caught.value.details == {"field": "kind", "kinds": ["every", "turn"]}


@pytest.mark.parametrize(
    ("options", "field", "message"),
    [
        ({}, "seconds", "trigger kind 'every' needs 'seconds'"),
        ({"seconds": 1, "cron": "x"}, "cron", "trigger kind 'every' does not use 'cron'"),
        ({"seconds": 0}, "seconds", "'seconds': Input should be greater than or equal to 1"),
        ({"seconds": 1, "kind": "turn"}, "kind", "'kind' is not an option of a trigger"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, field, message):
    with pytest.raises(ValidationFailed) as caught:
        parse(EVERY, options)

    assert caught.value.message == message
    assert caught.value.details["field"] == field


def test_all_wrong_options_are_named_at_once():
    with pytest.raises(ValidationFailed) as caught:
        parse(EVERY, {"cron": "x", "on": "@y"})

    assert caught.value.details["fields"] == ["seconds", "cron", "on"]


def test_what_is_stored_has_its_defaults_and_neither_kind_nor_empty_fields():
    config = parse(EVERY, {"seconds": "60"})

    assert options_of(config) == {"seconds": 60, "label": "none"}
    assert parse(EVERY, options_of(config)) == config


def test_a_thread_is_replaced_by_its_key():
    config = parse(TURN, {"thread": "@x"})

    bound = bind(config, thread="key-1", created_at=NOW)

    assert source_of(config) == "@x"
    assert bound == TurnConfig(thread="key-1")


def test_an_anchor_left_out_is_the_creation_in_whole_seconds():
    created_at = NOW + timedelta(microseconds=999_999)

    left_out = bind(parse(EVERY, {"seconds": 5}), thread=None, created_at=created_at)
    given_one = bind(
        parse(EVERY, {"seconds": 5, "anchor": "2026-01-01T00:00:00Z"}),
        thread=None,
        created_at=created_at,
    )

    assert left_out.anchor == NOW
    assert given_one.anchor == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "answer", [NOW, NOW - timedelta(seconds=1), datetime.fromisoformat("2030-01-01")]
)
def test_an_instant_that_is_naive_or_not_later_is_the_fault_of_the_plugin(answer):
    kind = TriggerKind(name="bad", summary="x", config=EveryConfig, next_after=lambda c, m: answer)

    with pytest.raises(PluginFault, match="'bad'"):
        next_instant(kind, EveryConfig(seconds=1), NOW)


@given(st.integers(1, 10**6), st.integers(0, 10**8), st.integers(0, 10**8))
def test_the_latest_instant_within_the_grace_is_due_and_the_next_is_in_the_future(
    seconds, first, late
):
    config = EveryConfig(seconds=seconds)
    scheduled = phase(config, NOW + timedelta(seconds=first))
    now = scheduled + timedelta(seconds=late)

    instant, following = due(EVERY, config, scheduled=scheduled, now=now)

    assert following > now
    assert following - now <= timedelta(seconds=seconds)
    if instant is None:
        assert following - timedelta(seconds=seconds) < now - GRACE
    else:
        assert instant == following - timedelta(seconds=seconds)
        assert scheduled <= instant <= now
        assert now - instant <= GRACE


def test_an_instant_in_the_future_is_not_due():
    scheduled = NOW + timedelta(seconds=1)

    assert due(EVERY, EveryConfig(seconds=60), scheduled=scheduled, now=NOW) == (None, scheduled)


def test_a_kind_that_ends_has_a_last_instant():
    kind = TriggerKind(name="once", summary="x", config=EveryConfig, next_after=lambda c, m: None)

    assert due(kind, EveryConfig(seconds=1), scheduled=NOW, now=NOW) == (NOW, None)
