"""What is asked about goals, and what is answered."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import Literal

from pydantic import Field

from dispatch_core.api import OpInput, OpOutput, ThreadView, cli_field, thread_field

OBJECTIVE_LIMIT = 4000  # characters Codex takes
ANY_THREAD = "Ref, id, handle (@name) or title of a managed thread, or the full id of any thread."
GoalStatus = Literal["active", "paused", "blocked", "usageLimited", "budgetLimited", "complete"]


class GoalStatusInput(OpInput):
    """Whose goal to show."""

    thread: str = thread_field(description=ANY_THREAD)


class GoalSetInput(OpInput):
    """What is to change in a thread's goal; what is left out stays as it is."""

    thread: str = thread_field()
    objective: str | None = cli_field(
        None,
        description="What the thread is to reach, at most 4000 characters. A new goal needs one.",
        argument=True,
        stdin=True,
        max_length=OBJECTIVE_LIMIT,
    )
    status: GoalStatus | None = cli_field(
        None,
        description="active starts turns at once and again after each; paused lets the running turn end and starts no other. "
        "A new goal is active.",
    )
    token_budget: int | None = cli_field(
        None, description="Tokens after which Codex starts no further turn.", ge=1
    )
    unbounded: bool = cli_field(
        False,
        description="Let it go on without a token budget; one that it has is removed. An active goal needs this or a budget.",
    )


class GoalClearInput(OpInput):
    """Whose goal to forget."""

    thread: str = thread_field()


class Goal(OpOutput):
    """A goal, and what it has used."""

    objective: str = Field(description="What the thread is to reach.")
    status: str = Field(
        description="active, paused, blocked (it cannot go on), usageLimited, budgetLimited or complete."
    )
    token_budget: int | None = Field(description="Tokens it may use; null without a limit.")
    tokens_used: int = Field(description="Tokens used since it was made.")
    tokens_remaining: int | None = Field(
        description="What is left of the budget; null without a limit."
    )
    time_used_seconds: float = Field(description="Seconds its turns have taken.")
    created_at: datetime | None = Field(description="When it was made.")
    updated_at: datetime | None = Field(description="When it last changed.")


class GoalStatusOutput(OpOutput):
    """The goal of a thread."""

    id: str = Field(description="Codex's own thread id.")
    thread: ThreadView | None = Field(description="The thread; null when it is not managed.")
    goal: Goal | None = Field(description="Its goal; null when it has none.")


class GoalSetOutput(OpOutput):
    """The goal as it is now."""

    thread: ThreadView = Field(description="The thread.")
    goal: Goal = Field(description="Its goal.")


class GoalClearOutput(OpOutput):
    """Whether there was a goal."""

    thread: ThreadView = Field(description="The thread.")
    cleared: bool = Field(description="Whether there was a goal to forget.")
