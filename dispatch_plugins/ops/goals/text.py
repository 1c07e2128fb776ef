"""Goals as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import Source, ThreadStatus, printable

if TYPE_CHECKING:
    from dispatch_core.api import ThreadView, View
    from dispatch_plugins.ops.goals.contract import (
        Goal,
        GoalClearOutput,
        GoalSetOutput,
        GoalStatusOutput,
    )

SHOWN = {
    "active": ("●", "cyan"),
    "paused": ("■", "yellow"),
    "blocked": ("✗", "red"),
    "usageLimited": ("✗", "red"),
    "budgetLimited": ("■", "yellow"),
    "complete": ("✓", "green"),
}


def render_status(output: GoalStatusOutput, view: View) -> str:
    """The goal and what it has used."""
    name = _name(output.thread) if output.thread else output.id
    if output.goal is None:
        return f"{name} has no goal"
    return f"{_lines(name, output.goal, view)}{_next(output.thread, output.goal)}"


def render_set(output: GoalSetOutput, view: View) -> str:
    """The goal as it is now, what it has used, and what comes next."""
    return f"{_lines(_name(output.thread), output.goal, view)}{_next(output.thread, output.goal)}"


def render_clear(output: GoalClearOutput, view: View) -> str:
    """Whether a goal was forgotten, and what still runs."""
    name = _name(output.thread)
    if not output.cleared:
        return f"{name} had no goal"
    text = f"{view.paint('✓ cleared', 'green')}  {name}"
    if output.thread.status is ThreadStatus.BUSY:
        text += f"\n  next: dispatch stop {output.thread.ref} ends its turn, which goes on"
    return text


def _lines(name: str, goal: Goal, view: View) -> str:
    symbol, color = SHOWN.get(goal.status, ("·", ""))
    used = f"{goal.tokens_used:,}"
    if goal.token_budget is None:
        tokens = f"{used} used, no budget"
    else:
        tokens = f"{used} of {goal.token_budget:,} used, {goal.tokens_remaining:,} left"
    head = f"{view.paint(f'{symbol} {goal.status}', color)}  {name}"
    fields = view.fields(
        [
            ("tokens", tokens),
            ("time", f"{goal.time_used_seconds:g} s"),
            ("changed", f"{view.age(goal.updated_at)} ago" if goal.updated_at else None),
        ]
    )
    return "\n".join([head, *view.block(goal.objective), fields])


def _next(thread: ThreadView | None, goal: Goal) -> str:
    """Return the line with the next command, of a thread that takes one."""
    if thread is None or thread.source is not Source.OWN or goal.status == "complete":
        return ""
    ref = thread.ref
    if goal.status == "active" and thread.status is ThreadStatus.IDLE and goal.token_budget:
        return f"\n  next: dispatch goal set {ref} --status active starts the next turn"
    if goal.status == "active" and thread.status is not ThreadStatus.IDLE:
        return f"\n  next: dispatch goal set {ref} --status paused ends it after the running turn"
    if goal.token_budget is not None and goal.tokens_used >= goal.token_budget:
        more = goal.tokens_used + goal.token_budget
        return f"\n  next: dispatch goal set {ref} --status active --token-budget {more}"
    return f"\n  next: dispatch goal set {ref} --status active{_limit(goal)}"


def _limit(goal: Goal) -> str:
    return "" if goal.token_budget else " --token-budget N"


def _name(thread: ThreadView) -> str:
    return f"{printable(thread.handle)} ({thread.ref})"
