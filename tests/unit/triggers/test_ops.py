"""The ops on triggers, with the real engine behind them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from pydantic import ValidationError

from dispatch_core.contracts.trigger import TriggerConfig, TriggerKind
from dispatch_core.contracts.view import View
from dispatch_core.errors import (
    AmbiguousSelector,
    DispatchError,
    ThreadNotFound,
    TriggerNotFound,
    ValidationFailed,
)
from dispatch_core.testing.examples import mismatch
from dispatch_plugins.ops.triggers import ADD, LIST, PAUSE, REMOVE, RESUME, dispatch_ops

pytestmark = pytest.mark.anyio

HOURLY = {"name": "hourly", "when": "interval", "seconds": 3600, "thread": "@builder", "text": "?"}
REVIEW = {
    "name": "review",
    "when": "turn_completed",
    "on": "@builder",
    "thread": "@reviewer",
    "text": "go",
}


async def run(world, engine, op, **given):
    return await op.handler(world.context(engine), op.input.model_validate(given))


EXAMPLES = [(op, example) for op in dispatch_ops(None) for example in op.examples]


@pytest.mark.parametrize(
    ("op", "example"),
    EXAMPLES,
    ids=[f"{op.name} {number}" for number, (op, _) in enumerate(EXAMPLES)],
)
async def test_the_examples_are_true(world, op, example):
    async with world.running() as engine:
        nightly = world.trigger("nightly", kind="cron", cron="0 3 * * *")
        await engine.add(replace(nightly, args={"text": "Summarise the day"}))

        if example.error is not None:
            with pytest.raises(DispatchError) as caught:
                await run(world, engine, op, **example.input)
            assert caught.value.code == example.error
            return
        output = await run(world, engine, op, **example.input)

    shown = output.model_dump(mode="json")
    assert mismatch(example.output, shown) is None


async def test_an_added_trigger_is_shown_as_it_is_stored(world):
    async with world.running() as engine:
        added = await run(world, engine, ADD, **HOURLY)

        listed = await run(world, engine, LIST)

    assert listed.triggers == [added]
    assert len(added.id) == 8
    assert int(added.id, 16) >= 0
    assert added.model_dump(mode="json", exclude={"id"}) == {
        "name": "hourly",
        "when": "every 3600 s",
        "kind": "interval",
        "config": {"seconds": 3600},
        "action": "send",
        "thread": "@builder",
        "text": "?",
        "enabled": True,
        "created_at": "2026-03-02T12:00:00Z",
        "next_at": "2026-03-02T13:00:00Z",
        "last_firing": None,
    }


async def test_a_turn_completed_trigger_names_the_ref_and_fires(world):
    async with world.running() as engine:
        added = await run(world, engine, ADD, **REVIEW)

        world.turn_ends("t1")
        await world.settle()
        [shown] = (await run(world, engine, LIST)).triggers

    assert added.when == "turn_completed of 0AbCd1"
    assert (shown.last_firing.key, shown.last_firing.status) == ("t1", "done")
    assert world.actions.calls[0][1] == {"text": "go", "thread": "@reviewer"}


async def test_further_options_reach_the_kind(world):
    async with world.running() as engine:
        added = await run(world, engine, ADD, **REVIEW, option={"statuses": "failed,interrupted"})

    assert added.config == {"thread": "0AbCd1", "statuses": ["failed", "interrupted"]}
    assert added.when == "turn_completed of 0AbCd1 (failed, interrupted)"


async def test_a_kind_of_a_plugin_takes_its_own_options(world):
    class MoonConfig(TriggerConfig):
        kind: Literal["acme.moon"] = "acme.moon"
        phase: str

    world.kinds["acme.moon"] = TriggerKind(
        name="acme.moon", summary="x", config=MoonConfig, match=lambda config, event: None
    )
    async with world.running() as engine:
        added = await run(
            world,
            engine,
            ADD,
            name="tide",
            when="acme.moon",
            thread="@builder",
            text="x",
            option={"phase": "full"},
        )

    assert added.when == "acme.moon phase=full"
    assert added.next_at is None


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({**HOURLY, "when": "intervall"}, "when", "no trigger kind 'intervall'"),
        ({**HOURLY, "seconds": None}, "seconds", "needs 'seconds'"),
        ({**HOURLY, "cron": "* * * * *"}, "cron", "does not use 'cron'"),
        ({**HOURLY, "on": "@reviewer"}, "on", "does not use 'on'"),
        ({**HOURLY, "option": {"colour": "red"}}, "colour", "does not use 'colour'"),
        ({**HOURLY, "option": {"seconds": "5"}}, "option", "'option' repeats seconds"),
        ({**REVIEW, "on": None}, "on", "needs 'on'"),
        ({**REVIEW, "seconds": 5}, "seconds", "does not use 'seconds'"),
        ({**REVIEW, "timezone": "UTC"}, "timezone", "does not use 'timezone'"),
        ({**HOURLY, "action": "sned"}, "action", "no op 'sned'"),
        ({**HOURLY, "action": "get"}, "text", "action 'get' does not use 'text'"),
        ({**HOURLY, "text": None}, "text", "action 'send' needs 'text'"),
        (
            {**HOURLY, "when": "cron", "seconds": None, "cron": "0 0 30 2 *"},
            "cron",
            "can never fire",
        ),
    ],
)
async def test_a_wrong_field_is_refused_by_name(world, given, field, words):
    async with world.running() as engine:
        with pytest.raises(ValidationFailed, match=words) as caught:
            await run(world, engine, ADD, **given)

    assert caught.value.details["field"] == field
    assert caught.value.hint
    assert world.triggers.rows == {}


async def test_a_read_action_needs_no_text(world):
    async with world.running() as engine:
        added = await run(world, engine, ADD, **{**HOURLY, "action": "get", "text": None})

    assert (added.action, added.text) == ("get", None)


async def test_a_name_is_given_once(world):
    async with world.running() as engine:
        await run(world, engine, ADD, **HOURLY)

        with pytest.raises(ValidationFailed, match="already a trigger named 'hourly'"):
            await run(world, engine, ADD, **HOURLY)


@pytest.mark.parametrize("name", ["", "two words", "-x", "x" * 65, "a\nb", "a/b"])
async def test_a_name_that_is_hard_to_type_is_refused(name):
    with pytest.raises(ValidationError):
        ADD.input.model_validate({**HOURLY, "name": name})


@pytest.mark.parametrize("field", ["thread", "on"])
async def test_a_thread_that_is_not_there_is_not_found(world, field):
    async with world.running() as engine:
        with pytest.raises(ThreadNotFound):
            await run(world, engine, ADD, **{**REVIEW, field: "@nobody"})


async def test_an_ambiguous_thread_keeps_its_own_error(world):
    async def resolve(selector, *, fuzzy=False):
        raise AmbiguousSelector(selector, [{"ref": "a"}, {"ref": "b"}])

    async with world.running() as engine:
        world.threads.writable, resolve_one = world.threads.resolve, resolve
        world.threads.resolve = resolve_one
        with pytest.raises(AmbiguousSelector):
            await run(world, engine, ADD, **REVIEW)


@pytest.mark.parametrize("source", ["@builder", "0AbCd1"])
async def test_a_trigger_that_would_fire_itself_needs_permission(world, source):
    loop = {**REVIEW, "thread": "@builder", "on": source}
    async with world.running() as engine:
        with pytest.raises(ValidationFailed) as caught:
            await run(world, engine, ADD, **loop)
        allowed = await run(world, engine, ADD, **loop, allow_loop=True)

    assert caught.value.details["field"] == "allow_loop"
    assert allowed.enabled


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_trigger_is_paused_resumed_and_removed_by_id_or_name(world, by):
    async with world.running() as engine:
        selector = getattr(await run(world, engine, ADD, **HOURLY), by)

        paused = await run(world, engine, PAUSE, trigger=selector)
        resumed = await run(world, engine, RESUME, trigger=selector)
        removed = await run(world, engine, REMOVE, trigger=selector)
        with pytest.raises(TriggerNotFound):
            await run(world, engine, REMOVE, trigger=selector)

    assert (paused.enabled, paused.next_at) == (False, None)
    assert (resumed.enabled, resumed.next_at is not None) == (True, True)
    assert removed.name == "hourly"


async def test_an_id_goes_before_a_name_that_looks_like_it(world):
    async with world.running() as engine:
        first = await run(world, engine, ADD, **HOURLY)
        await run(world, engine, ADD, **{**HOURLY, "name": first.id})

        removed = await run(world, engine, REMOVE, trigger=first.id)

    assert removed.name == "hourly"


async def test_people_see_tables_that_no_text_can_break(world):
    async with world.running() as engine:
        one = await run(world, engine, ADD, **{**REVIEW, "text": "go\x1b[2J\nnow"})
        await run(world, engine, ADD, **HOURLY)
        world.turn_ends("t1")
        await world.clock.advance(60)
        listed = await run(world, engine, LIST)
        view = View(width=100, color=False, now=world.clock.now())

        table = LIST.render(listed, view)
        single = ADD.render(listed.triggers[0], view)

    hourly = listed.triggers[1].id
    assert [" ".join(line.split()) for line in table.splitlines()] == [
        "NAME ID WHEN ACTION STATE NEXT LAST",
        f"review {one.id} turn_completed of 0AbCd1 send → @reviewer ✓ on - ✓ done",
        f"hourly {hourly} every 3600 s send → @builder ✓ on in 59m -",
    ]
    assert "text    go [2J now" in single
    assert "last    ✓ done 1m ago" in single


async def test_no_triggers_say_how_to_make_one(world):
    async with world.running() as engine:
        listed = await run(world, engine, LIST)

    assert "trigger add" in LIST.render(listed, View(width=80, color=True, now=world.clock.now()))


async def test_the_schemas_of_the_ops_can_be_built():
    for op in dispatch_ops(None):
        assert op.input.model_json_schema()["type"] == "object"
        assert op.output.model_json_schema(mode="serialization")["type"] == "object"
