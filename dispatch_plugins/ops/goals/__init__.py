"""Goals: what a thread works towards by itself, turn after turn, until it is done, stopped or out of budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import Example, Intent, Op, PluginSettings, hookimpl
from dispatch_plugins.ops.goals.contract import (
    GoalClearInput,
    GoalClearOutput,
    GoalSetInput,
    GoalSetOutput,
    GoalStatusInput,
    GoalStatusOutput,
)
from dispatch_plugins.ops.goals.handlers import goal_clear, goal_set, goal_status
from dispatch_plugins.ops.goals.text import render_clear, render_set, render_status

if TYPE_CHECKING:
    from collections.abc import Iterable

STATUS = Op(
    name="goal.status",
    summary="Show the goal of a thread, and what it has used",
    noun="goal",
    input=GoalStatusInput,
    output=GoalStatusOutput,
    handler=goal_status,
    intent=Intent.READ,
    idempotent=True,
    examples=(
        Example(
            title="a thread without a goal",
            input={"thread": "@builder"},
            output={"goal": None, "thread": {"handle": "@builder"}},
        ),
        Example(title="no such thread", input={"thread": "@nobody"}, error="not_found"),
    ),
    render=render_status,
)
SET = Op(
    name="goal.set",
    summary="Give a thread a goal, or change it, pause it, let it go on",
    noun="goal",
    input=GoalSetInput,
    output=GoalSetOutput,
    handler=goal_set,
    intent=Intent.WRITE,
    idempotent=True,
    timeout=60.0,
    examples=(
        Example(
            title="a goal that does not start yet",
            input={
                "thread": "@reviewer",
                "objective": "Bring every test to green",
                "status": "paused",
                "token_budget": 200000,
            },
            output={
                "goal": {
                    "objective": "Bring every test to green",
                    "status": "paused",
                    "token_budget": 200000,
                    "tokens_used": 0,
                    "tokens_remaining": 200000,
                }
            },
        ),
        Example(
            title="a goal without a limit must be meant",
            input={"thread": "@reviewer", "objective": "Bring every test to green"},
            error="validation",
        ),
    ),
    render=render_set,
)
CLEAR = Op(
    name="goal.clear",
    summary="Forget the goal of a thread",
    noun="goal",
    input=GoalClearInput,
    output=GoalClearOutput,
    handler=goal_clear,
    intent=Intent.DESTROY,
    idempotent=True,
    examples=(
        Example(
            title="there was none",
            input={"thread": "@builder"},
            output={"cleared": False},
        ),
        Example(title="an archived thread", input={"thread": "@retired"}, error="authority"),
    ),
    render=render_clear,
)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on goals."""
    return (STATUS, SET, CLEAR)
