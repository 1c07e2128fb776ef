"""Goals: what may become active, what is asked of Codex, and how its refusals are told."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from dispatch_core.contracts.caller import HUMAN, Caller
from dispatch_core.contracts.records import (
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
)
from dispatch_core.contracts.view import View
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CapabilityUnavailable,
    CodexError,
    CodexUnavailable,
    ThreadNotFound,
    ValidationFailed,
)
from dispatch_plugins.ops.goals.contract import GoalClearInput, GoalSetInput, GoalStatusInput
from dispatch_plugins.ops.goals.handlers import goal_clear, goal_set, goal_status
from dispatch_plugins.ops.goals.text import render_clear, render_set, render_status

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 5, 5, tzinfo=UTC)
VIEW = View(80, color=False, now=NOW)
ACTIVE = {"status": "active", "tokenBudget": 500}


def record(**changes):
    values = {
        "key": "k",
        "provider": "codex",
        "native_id": "n",
        "ref": "0AAAAA",
        "handle": "@builder",
        "title": "builder",
        "source": Source.OWN,
        "status": ThreadStatus.IDLE,
        "cwd": "/",
        "settings": ThreadSettings(),
        "created_at": NOW,
        "updated_at": NOW,
        "materialized": True,
    }
    return ThreadRecord(**{**values, **changes})


class Codex:
    """Keeps one goal as the app-server does; null removes a budget, what is left out stays."""

    def __init__(self, goal=None):
        self.goal = goal
        self.asked = []
        self.refusals = {}

    async def request(self, method, params):
        self.asked.append((method, dict(params)))
        if method in self.refusals:
            raise self.refusals[method]
        if method == "thread/goal/set":
            before = self.goal or {"status": "active", "tokensUsed": 0}
            changes = {k: v for k, v in params.items() if k not in ("threadId", "origin")}
            self.goal = {**before, **changes}
        if method == "thread/goal/clear":
            self.goal = None
            return {"cleared": True}
        return {"goal": self.goal}


class Lanes:
    def __init__(self, thread):
        self.thread = thread
        self.heard = False
        self.anew = None

    async def writable(self, selector):
        return self.thread

    async def locate(self, selector, *, fuzzy=False):
        return self.thread if selector != "unmanaged" else selector

    async def load(self, thread):
        self.heard = True
        return self.anew or thread


def world(goal=None, thread=None, caller=HUMAN):
    thread = thread or record()

    async def get(key):
        return thread

    return SimpleNamespace(
        caller=caller,
        codex=Codex({"objective": "o", "tokensUsed": 0, **goal} if goal else None),
        lanes=Lanes(thread),
        store=SimpleNamespace(threads=SimpleNamespace(get=get)),
    )


def sent(context):
    return [params for method, params in context.codex.asked if method == "thread/goal/set"]


@pytest.mark.parametrize(
    ("before", "words", "allowed"),
    [
        (None, {"objective": "o"}, False),
        (None, {"objective": "o", "token_budget": 5}, True),
        (None, {"objective": "o", "unbounded": True}, True),
        (None, {"objective": "o", "status": "paused"}, True),
        ({"status": "paused"}, {"status": "active"}, False),
        ({"status": "paused", "tokenBudget": 5}, {"status": "active"}, True),
        ({"status": "paused", "tokenBudget": 5}, {"status": "active", "unbounded": True}, True),
        ({"status": "paused", "tokenBudget": 5, "tokensUsed": 5}, {"status": "active"}, False),
        ({"status": "budgetLimited", "tokenBudget": 5, "tokensUsed": 9}, {"objective": "p"}, True),
        ({"status": "active"}, {"objective": "p"}, True),
        ({"status": "active"}, {"status": "active"}, False),
    ],
)
async def test_a_goal_becomes_active_only_with_a_limit_or_when_none_is_meant(
    before, words, allowed
):
    context = world(before)

    if allowed:
        await goal_set(context, GoalSetInput(thread="@builder", **words))
    else:
        with pytest.raises(ValidationFailed):
            await goal_set(context, GoalSetInput(thread="@builder", **words))

    assert bool(sent(context)) == allowed


async def test_only_what_was_given_is_changed_and_unbounded_removes_the_budget():
    context = world({"status": "paused", "tokenBudget": 5})

    await goal_set(context, GoalSetInput(thread="@builder", objective="p"))
    await goal_set(context, GoalSetInput(thread="@builder", unbounded=True))

    assert sent(context) == [
        {"threadId": "n", "origin": "user", "objective": "p"},
        {"threadId": "n", "origin": "user", "tokenBudget": None},
    ]


async def test_a_thread_is_loaded_before_its_goal_becomes_active_and_not_otherwise():
    active, paused = world(), world()

    await goal_set(active, GoalSetInput(thread="@builder", objective="o", token_budget=5))
    await goal_set(paused, GoalSetInput(thread="@builder", objective="o", status="paused"))

    assert (active.lanes.heard, paused.lanes.heard) == (True, False)
    for context in (active, paused):
        assert [m for m, _ in context.codex.asked] == ["thread/goal/get", "thread/goal/set"]


async def test_a_thread_that_codex_never_stored_is_started_anew_and_its_goal_set_there():
    context = world(thread=record(materialized=False))
    context.codex.refusals["thread/goal/get"] = CodexError("thread not found: n")
    context.lanes.anew = record(native_id="anew", materialized=False)

    await goal_set(context, GoalSetInput(thread="@builder", objective="o", token_budget=5))

    assert [params["threadId"] for params in sent(context)] == ["anew"]


async def test_what_an_agent_asks_for_is_not_passed_off_as_a_persons_wish():
    context = world(caller=Caller(principal="agent:t", surface="mcp"))

    await goal_set(context, GoalSetInput(thread="@builder", objective="o", status="paused"))

    assert "origin" not in sent(context)[0]


@pytest.mark.parametrize(
    ("prose", "error"),
    [
        ("Codex refused it: thread not found: n", ThreadNotFound),
        ("Codex refused it: ephemeral thread does not support goals: n", CapabilityUnavailable),
        ("Codex refused it: n already has an active writer", ActiveWriter),
        ("Codex refused it: unknown variant `thread/goal/set`, expected", CapabilityUnavailable),
        ("Codex refused it: goals feature is disabled", CapabilityUnavailable),
        ("Codex refused it: cannot update goal for thread n: no goal exists", ValidationFailed),
    ],
)
async def test_the_prose_of_codex_becomes_a_typed_error_with_the_next_step(prose, error):
    context = world(ACTIVE)
    context.codex.refusals["thread/goal/set"] = CodexError(prose)

    with pytest.raises(error) as caught:
        await goal_set(context, GoalSetInput(thread="@builder", status="paused"))

    assert caught.value.hint


async def test_other_failures_of_codex_stay_what_they_are():
    context = world(ACTIVE)
    context.codex.refusals["thread/goal/get"] = CodexUnavailable("Codex is not running")

    with pytest.raises(CodexUnavailable):
        await goal_status(context, GoalStatusInput(thread="@builder"))


async def test_a_thread_that_codex_never_stored_has_no_goal():
    context = world(thread=record(materialized=False))
    context.codex.refusals["thread/goal/get"] = CodexError("thread not found: n")

    found = await goal_status(context, GoalStatusInput(thread="@builder"))

    assert found.goal is None
    assert "has no goal" in render_status(found, VIEW)


async def test_a_stored_thread_that_is_gone_is_not_taken_for_one_without_a_goal():
    context = world()
    context.codex.refusals["thread/goal/get"] = CodexError("thread not found: n")

    with pytest.raises(ThreadNotFound):
        await goal_status(context, GoalStatusInput(thread="@builder"))


@pytest.mark.parametrize(
    ("thread", "error"),
    [
        (record(status=ThreadStatus.ARCHIVED), AuthorityDenied),
        (record(ephemeral=True), CapabilityUnavailable),
    ],
)
async def test_a_thread_that_can_have_no_goal_now_is_refused_without_asking(thread, error):
    context = world(thread=thread)

    with pytest.raises(error):
        await goal_status(context, GoalStatusInput(thread="@builder"))

    assert context.codex.asked == []


async def test_clearing_a_goal_says_whether_there_was_one_and_what_still_runs():
    context = world(ACTIVE, record(status=ThreadStatus.BUSY))

    first = await goal_clear(context, GoalClearInput(thread="@builder"))
    second = await goal_clear(context, GoalClearInput(thread="@builder"))

    assert (first.cleared, second.cleared) == (True, False)
    assert "dispatch stop 0AAAAA" in render_clear(first, VIEW)
    assert "had no goal" in render_clear(second, VIEW)


@pytest.mark.parametrize(
    ("goal", "shown"),
    [
        ({"status": "active", "tokensUsed": 1234}, "1,234 used, no budget"),
        ({**ACTIVE, "tokensUsed": 100}, "100 of 500 used, 400 left"),
        ({"status": "budgetLimited", "tokenBudget": 5, "tokensUsed": 9}, "--token-budget 14"),
        ({"status": "paused", "tokenBudget": 5}, "--status active"),
        ({"status": "paused"}, "--status active --token-budget N"),
        ({"status": "active", "objective": "one\ntwo\x1b[31m"}, "one\ntwo[31m"),
    ],
)
async def test_what_a_goal_has_used_and_what_comes_next_is_shown(goal, shown):
    found = await goal_status(world(goal), GoalStatusInput(thread="@builder"))

    text = render_status(found, VIEW)

    assert shown in text
    assert max(map(len, text.splitlines())) <= 110


async def test_the_answer_to_a_change_shows_what_was_used():
    context = world({**ACTIVE, "tokensUsed": 120, "timeUsedSeconds": 7, "updatedAt": 1777939200})

    text = render_set(
        await goal_set(context, GoalSetInput(thread="@builder", status="paused")), VIEW
    )

    assert "■ paused  @builder (0AAAAA)" in text
    assert "120 of 500 used, 380 left" in text
    assert "7 s" in text
