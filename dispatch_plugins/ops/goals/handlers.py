"""Showing, setting and clearing goals; what must not become active is refused before Codex is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import ValidationFailed, thread_view
from dispatch_plugins.ops.goals import codex
from dispatch_plugins.ops.goals.contract import (
    GoalClearOutput,
    GoalSetOutput,
    GoalStatusOutput,
)

if TYPE_CHECKING:
    from dispatch_core.api import OpContext, ThreadRecord
    from dispatch_plugins.ops.goals.contract import (
        Goal,
        GoalClearInput,
        GoalSetInput,
        GoalStatusInput,
    )


async def goal_status(context: OpContext, request: GoalStatusInput) -> GoalStatusOutput:
    """Return the goal of a thread; of a thread that is not managed as well."""
    found = await context.lanes.locate(request.thread, fuzzy=True)
    if isinstance(found, str):
        goal = await codex.get(context, found)
        return GoalStatusOutput(id=found, thread=None, goal=goal)
    return GoalStatusOutput(
        id=found.native_id, thread=thread_view(found), goal=await codex.goal_of(context, found)
    )


async def goal_set(context: OpContext, request: GoalSetInput) -> GoalSetOutput:
    """Make a goal or change it. One that would be active has a budget, or the caller said that it needs none.

    The check comes first: an active goal starts turns the moment it is set, so nothing could be taken back.
    """
    thread = await context.lanes.writable(request.thread)
    _check(thread, request)
    before = await codex.goal_of(context, thread)
    # A goal of a thread that is not loaded starts nothing, and one that Codex never stored can have none.
    if _will_be_active(thread, request, before) or not thread.materialized:
        thread = await context.lanes.load(thread)
    result = await codex.change(context, "thread/goal/set", _changes(request), thread)
    thread = await context.store.threads.get(thread.key) or thread
    return GoalSetOutput(thread=thread_view(thread), goal=codex.read_goal(result["goal"]))


async def goal_clear(context: OpContext, request: GoalClearInput) -> GoalClearOutput:
    """Forget the goal. The turn that runs goes on."""
    thread = await context.lanes.writable(request.thread)
    if await codex.goal_of(context, thread) is None:
        return GoalClearOutput(thread=thread_view(thread), cleared=False)
    result = await codex.change(context, "thread/goal/clear", {}, thread)
    return GoalClearOutput(thread=thread_view(thread), cleared=result.get("cleared") is True)


def _check(thread: ThreadRecord, request: GoalSetInput) -> None:
    """Raise ValidationFailed for what makes no sense whatever goal there is."""
    if thread.ephemeral:
        raise codex.ephemeral(thread.ref)
    if request.token_budget is not None and request.unbounded:
        raise ValidationFailed(
            "a goal has a token budget or none, not both",
            hint="give --token-budget N or --unbounded",
        )
    if (
        request.objective is None
        and request.status is None
        and request.token_budget is None
        and not request.unbounded
    ):
        raise ValidationFailed(
            "nothing is to change",
            hint=f"give an objective, --status or --token-budget; dispatch goal status {thread.ref} shows the goal",
        )
    if request.objective is not None and (
        not request.objective.strip() or any("\ud800" <= c <= "\udfff" for c in request.objective)
    ):
        raise ValidationFailed(
            "the objective is empty or no valid Unicode",
            hint="say what the thread is to reach, or - to read it from stdin",
        )


def _will_be_active(thread: ThreadRecord, request: GoalSetInput, before: Goal | None) -> bool:
    """Return whether the goal will be active. Raises ValidationFailed if there is none, or it must not become active so."""
    if before is None and request.objective is None:
        raise ValidationFailed(
            f"{thread.handle} ({thread.ref}) has no goal to change",
            hint=f"dispatch goal set {thread.ref} OBJECTIVE --token-budget N makes one",
        )
    status = request.status or (before.status if before else "active")
    if status != "active":
        return False
    if before is not None and request.status is None:
        return True  # it is active already, and whoever made it so was asked
    budget = request.token_budget
    if budget is None and before is not None and not request.unbounded:
        budget = before.token_budget
    if budget is None and not request.unbounded:
        raise ValidationFailed(
            "an active goal starts one turn after another by itself, and this one has no token budget",
            hint="add --token-budget N to limit what it may use, or --unbounded if it may go on without a limit",
        )
    used = before.tokens_used if before else 0
    if budget is not None and used >= budget:
        raise ValidationFailed(
            f"the goal has used {used:,} tokens of {budget:,}, so Codex would not go on with it",
            hint=f"give it more with --token-budget, or begin anew: dispatch goal clear {thread.ref}",
            details={"tokens_used": used, "token_budget": budget},
        )
    return True


def _changes(request: GoalSetInput) -> dict[str, Any]:
    given = {
        "objective": request.objective,
        "status": request.status,
        "tokenBudget": request.token_budget,
    }
    params: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    # To Codex null removes a budget; what is left out stays.
    return {**params, "tokenBudget": None} if request.unbounded else params
