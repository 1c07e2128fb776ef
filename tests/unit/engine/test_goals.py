"""Active goals are made to rest before the daemon stops; those of others go on."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.goals import Goals
from dispatch_core.errors import CodexTimeout, CodexUnavailable
from dispatch_plugins.registry.backend import PeeweeStorage

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 5, 5, tzinfo=UTC)


class Codex:
    def __init__(self, loaded):
        self.loaded = loaded
        self.paused = []
        self.refused = {}
        self.going_on = set()

    async def request(self, method, params):
        if method == "thread/loaded/list":
            if isinstance(self.loaded, Exception):
                raise self.loaded
            at = int(params.get("cursor", 0))
            return {
                "data": self.loaded[at : at + 1],
                "nextCursor": str(at + 1) if at + 1 < len(self.loaded) else None,
            }
        if method == "thread/goal/get" and params["threadId"] not in self.refused:
            status = "active" if params["threadId"] in self.going_on else "complete"
            return {"goal": {"status": status} if params["threadId"] != "none" else None}
        if params["threadId"] in self.refused:
            raise self.refused[params["threadId"]]
        self.paused.append((params["threadId"], params["status"]))
        return {"goal": {}}


@pytest.fixture
async def world(tmp_path):
    clock = SimpleNamespace(now=lambda: NOW)
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(tmp_path)
        await storage.open(stack)
        codex = Codex(["a", "b", "x"])
        keys = {"a": "key-a", "b": "key-b", "far": "key-far"}
        events = EventBus(clock)
        goals = Goals(storage, events, clock, codex, keys.get)
        yield SimpleNamespace(goals=goals, codex=codex, events=events, storage=storage)


def updated(world, thread, status="active"):
    world.goals.notified(
        "thread/goal/updated",
        {"threadId": thread, "turnId": "t", "goal": {"status": status, "tokensUsed": 5}},
    )


async def test_active_goals_of_threads_that_are_loaded_and_managed_are_paused_and_recorded(world):
    for thread in ("a", "b", "x", "far"):
        updated(world, thread)

    await world.goals.rest()

    actions = await world.storage.actions.latest(10)
    assert world.codex.paused == [("a", "paused"), ("b", "paused")]
    assert [(action.op, action.principal) for action in actions] == [("daemon.drain", "daemon")] * 2


async def test_goals_that_are_not_active_any_more_are_left_alone(world):
    updated(world, "a")
    updated(world, "a", "complete")
    updated(world, "b")
    world.goals.notified("thread/goal/cleared", {"threadId": "b"})

    await world.goals.rest()

    assert world.codex.paused == []


async def test_what_went_on_in_a_codex_that_is_gone_is_forgotten(world):
    updated(world, "a")

    world.goals.lost()
    await world.goals.rest()

    assert world.codex.paused == []


async def test_one_goal_that_cannot_be_paused_does_not_keep_the_others_going(world):
    updated(world, "a")
    updated(world, "b")
    world.codex.refused["a"] = CodexTimeout("no answer")

    await world.goals.rest()

    outcomes = [action.outcome for action in await world.storage.actions.latest(10)]
    assert world.codex.paused == [("b", "paused")]
    assert sorted(outcomes) == ["codex_timeout", "ok"]


async def test_a_codex_that_does_not_answer_does_not_keep_the_daemon(world):
    updated(world, "a")
    world.codex.loaded = CodexUnavailable("it is gone")

    await world.goals.rest()

    assert world.codex.paused == []


async def test_a_change_is_an_event_of_the_managed_thread(world):
    async with world.events.subscribe(after=0) as events:
        updated(world, "x")  # nobody manages it
        updated(world, "a", "budgetLimited")
        world.goals.notified("thread/goal/cleared", {"threadId": "a"})
        world.goals.notified("turn/started", {"threadId": "a"})
        first, second = [await anext(events) for _ in range(2)]

    assert (first.kind, first.thread, first.turn_id) == (EventKind.GOAL_CHANGED, "key-a", "t")
    assert first.data == {"status": "budgetLimited", "tokens_used": 5, "token_budget": None}
    assert second.data["status"] == "cleared"


async def test_a_goal_that_was_not_heard_of_yet_is_made_to_rest(world):
    world.codex.going_on = {"a"}
    world.codex.refused = {"b": CodexTimeout("no goals here")}

    await world.goals.rest(["a", "b", "none"])

    assert world.codex.paused == [("a", "paused")]


async def test_without_codex_nothing_can_be_asked_and_nothing_raises(world):
    world.codex.refused = {"a": CodexUnavailable("no Codex")}

    await world.goals.rest(["a"])

    assert world.codex.paused == []
