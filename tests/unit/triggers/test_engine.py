"""Occasions fire once, in order, and whatever happens is recorded."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import anyio
import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import FiringStatus
from dispatch_core.contracts.trigger import Firing, TriggerConfig, TriggerKind
from dispatch_core.errors import (
    DaemonUnreachable,
    LaneBusy,
    OutcomeUnknown,
    ThreadNotFound,
    TriggerNotFound,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio

MINUTE, HOUR, DAY = 60, 3600, 86400


def key(world, seconds):
    return (world.start + timedelta(seconds=seconds)).isoformat()


class PlainConfig(TriggerConfig):
    kind: Literal["plain"] = "plain"


# -- time --------------------------------------------------------------------------------------------


async def test_an_interval_fires_one_interval_after_it_was_added_and_then_in_its_phase(world):
    async with world.running() as engine:
        added = await engine.add(world.trigger(seconds=MINUTE))

        await world.clock.advance(59)
        early = list(world.actions.calls)
        await world.clock.advance(121)

    assert added.next_at == world.start + timedelta(seconds=MINUTE)
    assert early == []
    assert world.ledger() == [(key(world, n * MINUTE), "done", None) for n in (1, 2, 3)]


async def test_the_action_goes_to_the_selector_as_written_in_the_name_of_the_trigger(world):
    async with world.running() as engine:
        await engine.add(world.trigger("hi", seconds=1))

        await world.clock.advance(1)

    [(op, args, caller)] = world.actions.calls
    assert (op, args) == ("send", {"text": "hi", "thread": "@reviewer"})
    assert (caller.principal, caller.surface) == ("trigger:000000hi", "trigger")
    assert caller.trigger_id == "000000hi"


async def test_several_triggers_fire_each_at_its_own_time(world):
    async with world.running() as engine:
        await engine.add(world.trigger("slow", seconds=50))
        await engine.add(world.trigger("fast", seconds=20))

        await world.clock.advance(MINUTE)

    assert world.actions.texts == ["fast", "fast", "slow", "fast"]


async def test_a_cron_trigger_stores_its_next_instant_after_each_firing(world):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="cron", cron="0 13 * * *", timezone="Europe/Berlin"))

        await world.clock.advance(DAY)

    assert world.ledger() == [("2026-03-03T12:00:00+00:00", "done", None)]
    assert world.triggers.rows["0000000t"].next_at == world.start + timedelta(days=2)


async def test_of_several_instants_missed_in_a_suspension_the_latest_fires(world):
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=MINUTE))

        await world.settle()
        world.clock.jump(10 * MINUTE + 30)
        await world.clock.advance(30)

    assert world.ledger() == [(key(world, 11 * MINUTE), "done", None)]


async def test_a_forward_jump_of_the_clock_is_noticed_within_a_slice(world, caplog):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="cron", cron="0 20 * * *"))

        await world.settle()
        world.clock.jump(8 * HOUR)
        with caplog.at_level(logging.WARNING):
            await world.clock.advance(30)

    assert world.ledger() == [(key(world, 8 * HOUR), "done", None)]
    assert "the clock moved" in caplog.text


async def test_an_instant_missed_by_more_than_the_grace_is_skipped(world):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="cron", cron="0 13 * * *"))

        await world.settle()
        world.clock.jump(2 * HOUR + MINUTE)
        await world.clock.advance(30)

    assert world.ledger() == []
    assert world.triggers.rows["0000000t"].next_at == world.start + timedelta(hours=25)


async def test_after_years_away_a_fast_interval_fires_once(world):
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=7))
    world.clock.jump(10 * 365 * DAY)

    async with world.running():
        await world.settle()

    assert len(world.ledger()) == 1


async def test_a_backward_jump_does_not_fire_an_instant_twice(world):
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=MINUTE))
        await world.clock.advance(2 * MINUTE)

        world.clock.jump(-HOUR)
        await world.clock.advance(HOUR)

    assert world.ledger() == [(key(world, n * MINUTE), "done", None) for n in (1, 2)]
    assert len(world.actions.calls) == 2


async def test_a_trigger_missed_while_the_daemon_was_down_fires_once_at_its_start(world):
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=MINUTE))
    world.clock.jump(5 * MINUTE + 1)

    async with world.running():
        await world.settle()
        at_start = world.ledger()
        await world.clock.advance(59)

    assert at_start == [(key(world, 5 * MINUTE), "done", None)]
    assert [k for k, _, _ in world.ledger()] == [key(world, n * MINUTE) for n in (5, 6)]


async def test_the_phase_survives_a_storage_that_rounds_fractions_of_a_second(world):
    world.clock.jump(0.4567)
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=MINUTE))
        await world.clock.advance(MINUTE)
    row = world.triggers.rows["0000000t"]
    world.triggers.rows["0000000t"] = replace(row, created_at=row.created_at.replace(microsecond=0))

    async with world.running():
        await world.clock.advance(MINUTE)

    assert [k for k, _, _ in world.ledger()] == [key(world, n * MINUTE) for n in (1, 2)]


async def test_an_anchor_of_ones_own_sets_the_phase(world):
    async with world.running() as engine:
        anchor = (world.start + timedelta(seconds=10)).isoformat()
        await engine.add(world.trigger(seconds=MINUTE, anchor=anchor))

        await world.clock.advance(80)

    assert [k for k, _, _ in world.ledger()] == [key(world, 10), key(world, 70)]


# -- events ------------------------------------------------------------------------------------------


async def test_a_completed_turn_fires_once_however_often_it_is_seen(world):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))

        for _ in range(3):
            world.turn_ends("t1")
        world.turn_ends("t2")
        world.turn_ends("t3", "@reviewer")
        await world.settle()

    assert world.ledger() == [("t1", "done", None), ("t2", "done", None)]


async def test_a_turn_seen_again_after_a_restart_does_not_fire_again(world):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t1")
        await world.settle()

    async with world.running():
        world.turn_ends("t1")
        await world.settle()

    assert len(world.actions.calls) == 1


async def test_engines_that_see_the_same_event_at_once_fire_it_once(world):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        async with world.running():
            world.turn_ends("t1")
            await world.settle()

    assert len(world.actions.calls) == 1


async def test_a_watched_thread_stays_the_same_when_its_handle_changes(world):
    async with world.running() as engine:
        added = await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
    world.threads.all[0] = replace(world.threads.all[0], handle="@renamed")

    async with world.running():
        world.turn_ends("t1", "@renamed")
        await world.settle()

    assert added.config == {"thread": "0AbCd1", "statuses": ["completed"]}
    assert world.ledger() == [("t1", "done", None)]


async def test_an_event_from_before_the_trigger_does_not_fire_it(world):
    async with world.running() as engine:
        world.turn_ends("t1")
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t2")
        await world.settle()

    assert world.ledger() == [("t2", "done", None)]


async def test_an_event_that_comes_while_the_trigger_is_being_stored_does_not_fire_it(world):
    async def turn_ends():
        world.turn_ends("t1")

    world.triggers.writing = turn_ends
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        await world.settle()

    assert world.ledger() == []


async def test_an_event_that_comes_while_the_trigger_is_being_paused_does_not_fire_it(world):
    async def turn_ends():
        world.turn_ends("t1")
        await world.settle()

    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.triggers.writing = turn_ends
        await engine.enable("0000000t", enabled=False)
        await world.settle()

    assert world.ledger() == []


async def test_a_gap_is_logged_and_nothing_is_guessed(world, caplog):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        await world.settle()

        world.turn_ends("lost")
        for _ in range(64):
            world.events.publish(EventKind.ITEM_COMPLETED, thread="other")
        world.turn_ends("seen")
        await world.settle()

    assert world.ledger() == [("seen", "done", None)]
    assert "nothing is guessed" in caplog.text


async def test_a_kind_that_raises_stops_neither_the_engine_nor_other_triggers(world, caplog):
    def broken(config, event):
        raise RuntimeError("boom")

    world.kinds["plain"] = TriggerKind(name="plain", summary="x", config=PlainConfig, match=broken)
    async with world.running() as engine:
        await engine.add(world.trigger("bad", kind="plain"))
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))

        world.turn_ends("t1")
        await world.settle()

    assert world.ledger() == [("t1", "done", None)]
    assert "boom" in caplog.text


async def test_a_key_that_is_too_long_is_refused_and_logged(world, caplog):
    world.kinds["plain"] = TriggerKind(
        name="plain", summary="x", config=PlainConfig, match=lambda c, e: Firing(key="k" * 201)
    )
    async with world.running() as engine:
        await engine.add(world.trigger(kind="plain"))

        world.turn_ends("t1")
        await world.settle()

    assert world.ledger() == []
    assert "201 characters" in caplog.text


# -- kinds with a source of their own ----------------------------------------------------------------


async def test_a_source_fires_is_restarted_when_it_fails_and_closed_when_removed(world):
    log = []

    async def watch(config):
        log.append("opened")
        try:
            yield Firing(key=f"k{len(log)}")
            if len(log) == 1:
                raise RuntimeError("boom")
            await anyio.sleep_forever()
        finally:
            log.append("closed")

    world.kinds["plain"] = TriggerKind(name="plain", summary="x", config=PlainConfig, watch=watch)
    async with world.running() as engine:
        await engine.add(world.trigger(kind="plain"))
        await world.clock.advance(30)
        fired = world.ledger()

        await engine.remove("0000000t")
        await world.settle()
        after_removal = list(log)

    assert fired == [("k1", "done", None), ("k3", "done", None)]
    assert after_removal == ["opened", "closed", "opened", "closed"]


async def test_a_stored_source_is_watched_again_after_a_restart(world):
    async def watch(config):
        yield Firing(key="once")

    world.kinds["plain"] = TriggerKind(name="plain", summary="x", config=PlainConfig, watch=watch)
    async with world.running() as engine:
        await engine.add(world.trigger(kind="plain"))
        await world.settle()

    async with world.running():
        await world.settle()

    assert len(world.actions.calls) == 1


async def test_an_instant_that_is_not_later_disarms_its_trigger_alone(world, caplog):
    answers = iter([world.start + timedelta(seconds=5)])
    world.kinds["plain"] = TriggerKind(
        name="plain",
        summary="x",
        config=PlainConfig,
        next_after=lambda config, moment: next(answers, world.start),
    )
    async with world.running() as engine:
        await engine.add(world.trigger("bad", kind="plain"))
        await engine.add(world.trigger("good", seconds=10))

        await world.clock.advance(10)

    assert world.actions.texts == ["good"]
    assert "strictly later" in caplog.text


# -- outcomes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (LaneBusy("@reviewer", "t0"), "failed", "lane_busy: a turn is running in @reviewer"),
        (ThreadNotFound("@reviewer"), "failed", "not_found: no thread answers to '@reviewer'"),
        (OutcomeUnknown("Codex went away"), "unknown", "unknown_outcome: Codex went away"),
        (RuntimeError("x" * 500), "failed", "internal: RuntimeError: xxx"),
    ],
)
async def test_an_action_that_raises_is_recorded_and_the_next_one_runs(
    world, error, status, detail
):
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=MINUTE))
        world.actions.error = error
        await world.clock.advance(MINUTE)

        world.actions.error = None
        await world.clock.advance(MINUTE)

    first, second = world.ledger()
    assert first[1] == status
    assert first[2].startswith(detail)
    assert len(first[2]) <= 200
    assert second[1:] == ("done", None)


async def test_every_outcome_is_published(world):
    async with world.running() as engine, world.events.subscribe() as stream:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t1")

        published = [await anext(stream) for _ in range(3)]

    assert [event.kind for event in published] == [
        EventKind.TRIGGER_CHANGED,
        EventKind.TURN_COMPLETED,
        EventKind.TRIGGER_FIRED,
    ]
    assert published[2].data == {
        "trigger": "0000000t",
        "key": "t1",
        "status": "done",
        "detail": None,
    }


async def test_a_registry_that_cannot_be_written_costs_the_occasion_and_not_the_engine(world):
    async with world.running() as engine, world.events.subscribe() as stream:
        await engine.add(world.trigger(seconds=MINUTE))
        world.firings.broken = True
        await world.clock.advance(MINUTE)

        world.firings.broken = False
        await world.clock.advance(MINUTE)
        published = [await anext(stream) for _ in range(3)]

    assert world.ledger() == [(key(world, 2 * MINUTE), "done", None)]
    assert published[1].data["detail"] == "storage: the disk is full"


async def test_later_occasions_wait_in_order_and_the_excess_is_an_overrun(world):
    world.actions.gate = anyio.Event()
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        for number in range(13):
            world.turn_ends(f"t{number}")
        await world.settle()

        started = len(world.actions.calls)
        world.actions.gate.set()
        await world.settle()

    assert started == 1
    assert world.actions.most == 1
    assert [status for _, status, _ in world.ledger()] == ["done"] * 11 + ["failed"] * 2
    assert world.ledger()[-1] == ("t12", "failed", "overrun")


async def test_one_slow_trigger_does_not_hold_up_another(world):
    async with world.running() as engine:
        await engine.add(world.trigger("a", kind="turn_completed", thread="@builder"))
        await engine.add(world.trigger("b", kind="turn_completed", thread="@reviewer"))
        world.actions.gate = anyio.Event()
        world.turn_ends("t1", "@builder")
        await world.settle()

        world.actions.gate = None
        world.turn_ends("t2", "@reviewer")
        await world.settle()
        statuses = world.ledger()

    assert statuses == [("t1", "claimed", None), ("t2", "done", None)]


async def test_a_firing_claimed_by_a_former_daemon_is_unknown_and_not_repeated(world):
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
    await world.firings.claim("0000000t", "t1", world.clock.now())

    async with world.events.subscribe() as stream, world.running():
        first = await anext(stream)
        world.turn_ends("t1")
        await world.settle()

    assert first.kind is EventKind.TRIGGER_FIRED
    assert first.data["status"] == FiringStatus.UNKNOWN
    assert world.ledger() == [("t1", "unknown", None)]
    assert world.actions.calls == []


async def test_a_firing_that_a_former_daemon_left_is_run_again_under_its_key_if_that_is_safe(world):
    world.fields = {"text", "idempotency_key"}
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
    await world.firings.claim("0000000t", "t1", world.clock.now())

    async with world.running():
        await world.settle()

    [(_, args, caller)] = world.actions.calls
    assert (args["idempotency_key"], caller.trigger_id) == ("t1", "0000000t")
    assert world.ledger() == [("t1", "done", None)]


async def test_an_action_that_a_stopping_daemon_refused_is_run_by_the_next_one(world):
    world.fields = {"text", "idempotency_key"}
    world.actions.error = DaemonUnreachable("the daemon is stopping")
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t1")
        await world.settle()
        early = world.ledger()
    world.actions.error = None

    async with world.running():
        await world.settle()

    assert early == [("t1", "claimed", None)]
    assert world.ledger() == [("t1", "done", None)]


async def test_what_waits_at_shutdown_is_failed_and_what_runs_is_unknown_at_the_next_start(world):
    world.actions.gate = anyio.Event()
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t1")
        world.turn_ends("t2")
        await world.settle()

    async with world.running():
        await world.settle()

    assert world.ledger() == [
        ("t1", "unknown", None),
        ("t2", "failed", "the daemon stopped before it ran"),
    ]


# -- changes -----------------------------------------------------------------------------------------


async def test_what_falls_due_while_paused_does_not_fire(world):
    async with world.running() as engine:
        await engine.add(world.trigger("clock", seconds=MINUTE))
        await engine.add(world.trigger("turn", kind="turn_completed", thread="@builder"))
        paused = [await engine.enable(i, enabled=False) for i in ("000clock", "0000turn")]
        await world.clock.advance(150)
        world.turn_ends("t1")
        await world.settle()

        resumed = await engine.enable("000clock", enabled=True)
        await engine.enable("0000turn", enabled=True)
        world.turn_ends("t2")
        await world.clock.advance(30)

    assert [(t.enabled, t.next_at) for t in paused] == [(False, None)] * 2
    assert resumed.next_at == world.start + timedelta(seconds=180)
    assert [k for k, _, _ in world.ledger()] == ["t2", key(world, 180)]


async def test_a_paused_trigger_stays_paused_over_a_restart(world):
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=MINUTE))
        await engine.enable("0000000t", enabled=False)

    async with world.running():
        await world.clock.advance(10 * MINUTE)

    assert world.ledger() == []


async def test_pausing_withdraws_what_waits_and_lets_the_running_action_end(world):
    world.actions.gate = anyio.Event()
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t1")
        world.turn_ends("t2")
        await world.settle()

        await engine.enable("0000000t", enabled=False)
        world.actions.gate.set()
        await world.settle()

    assert world.ledger() == [("t1", "done", None), ("t2", "failed", "paused")]


async def test_resuming_never_runs_a_second_action_beside_the_first(world):
    world.actions.gate = anyio.Event()
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t1")
        await world.settle()
        await engine.enable("0000000t", enabled=False)
        await engine.enable("0000000t", enabled=True)

        world.turn_ends("t2")
        await world.settle()
        world.actions.gate.set()
        await world.settle()

    assert world.actions.most == 1
    assert world.ledger() == [("t1", "done", None), ("t2", "done", None)]


async def test_a_removed_trigger_fires_no_more(world):
    world.actions.gate = anyio.Event()
    async with world.running() as engine:
        await engine.add(world.trigger(kind="turn_completed", thread="@builder"))
        world.turn_ends("t1")
        world.turn_ends("t2")
        await world.settle()

        await engine.remove("0000000t")
        world.actions.gate.set()
        world.turn_ends("t3")
        await world.settle()

    assert len(world.actions.calls) == 1
    assert world.ledger() == []


async def test_an_unknown_trigger_is_not_found(world):
    async with world.running() as engine:
        with pytest.raises(TriggerNotFound):
            await engine.remove("nobody")
        with pytest.raises(TriggerNotFound):
            await engine.enable("nobody", enabled=True)


async def test_an_action_may_change_its_own_trigger(world):
    async with world.running() as engine:
        await engine.add(world.trigger(seconds=MINUTE))

        async def remove_itself(caller):
            await engine.remove(caller.trigger_id)

        world.actions.effect = remove_itself
        await world.clock.advance(5 * MINUTE)

    assert world.triggers.rows == {}


async def test_of_two_triggers_with_one_name_added_at_once_one_is_refused(world):
    refused = []

    async def add(engine, trigger_id):
        try:
            await engine.add(replace(world.trigger(seconds=1), id=trigger_id))
        except ValidationFailed as error:
            refused.append(error.details["field"])

    async with world.running() as engine, anyio.create_task_group() as tasks:
        tasks.start_soon(add, engine, "a")
        tasks.start_soon(add, engine, "b")

    assert refused == ["name"]
    assert len(world.triggers.rows) == 1


async def test_what_cannot_be_armed_at_the_start_is_kept_and_the_rest_is_armed(world, caplog):
    await world.triggers.add(world.trigger("gone", kind="acme.moon"))
    await world.triggers.add(world.trigger("lost", kind="turn_completed", thread="@nobody"))
    await world.triggers.add(world.trigger("bad", seconds="soon"))
    await world.triggers.add(world.trigger("good", seconds=10))

    async with world.running() as engine:
        await world.clock.advance(10)
        with pytest.raises(ValidationFailed):
            await engine.add(world.trigger("good", seconds=10))
        await engine.enable("0000gone", enabled=False)
        with pytest.raises(ValidationFailed, match="no trigger kind"):
            await engine.enable("0000gone", enabled=True)

    assert world.actions.texts == ["good"]
    assert caplog.text.count("is not armed") == 3
    assert len(world.triggers.rows) == 4


async def test_a_thread_that_does_not_resolve_is_refused_when_added(world):
    async with world.running() as engine:
        with pytest.raises(ThreadNotFound):
            await engine.add(world.trigger(kind="turn_completed", thread="@nobody"))

    assert world.triggers.rows == {}
