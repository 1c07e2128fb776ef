"""What the ops on requests take and what they answer."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import Any

from pydantic import Field

from dispatch_core.api import (
    OpInput,
    OpOutput,
    RequestKind,
    RequestState,
    ThreadView,
    cli_field,
    thread_field,
)

ONE = "Id of the request, or its last 8 characters."
DAY = 86_400.0  # seconds


class ListInput(OpInput):
    """Which requests to list."""

    thread: str | None = thread_field(None, description="Only of this thread.", argument=False)
    state: list[RequestState] = cli_field([], description="Only in this state; open if left out.")
    all: bool = cli_field(False, description="In any state.")
    limit: int = cli_field(50, description="At most this many.", ge=1, le=500)
    after: str | None = cli_field(
        None, description="Continue after next of the page before.", max_length=64
    )


class ShowInput(OpInput):
    """Which request."""

    request: str = cli_field(description=ONE, argument=True, min_length=1, max_length=64)


class RespondInput(OpInput):
    """Which request, and the answer; exactly one."""

    request: str = cli_field(description=ONE, argument=True, min_length=1, max_length=64)
    accept: bool = cli_field(False, description="Yes, this once.")
    decline: bool = cli_field(False, description="No; the turn goes on.")
    cancel: bool = cli_field(False, description="No, and the turn is interrupted.")
    answer: list[str] = cli_field(
        [],
        description="QUESTION=VALUE for a question that is asked; repeated for several.",
        max_length=100,
    )
    content: Any = cli_field(
        None,
        description="The result of a tool, as text or JSON, or a JSON object that fills in a form.",
    )
    unseen: bool = cli_field(False, description="Accept although it is too long to be shown whole.")
    dry_run: bool = cli_field(False, description="Only show what would be sent to Codex.")


class DeferInput(OpInput):
    """Which request, and how long it is to wait."""

    request: str = cli_field(description=ONE, argument=True, min_length=1, max_length=64)
    seconds: float = cli_field(
        1800.0,
        description="Seconds from now until it is declined, at most a day.",
        gt=0,
        le=DAY,
        aliases=("for",),
    )


class RequestView(OpOutput):
    """A request, in short."""

    id: str = Field(description="Its id.")
    kind: RequestKind = Field(description="What Codex wants.")
    state: RequestState = Field(
        description="open, answering (on its way to Codex), answered, declined, expired, orphaned (Codex is gone) or "
        "cancelled (the question went away)."
    )
    summary: str = Field(description="What is asked, in one line.")
    turn_id: str | None = Field(description="The turn that waits.")
    asked_at: datetime = Field(description="When Codex asked.")
    deadline: datetime = Field(description="When it is declined unless somebody answers.")
    answered_by: str | None = Field(description="human, policy or deadline.")
    decision: str | None = Field(description="accept, decline, cancel or answer.")
    closed_at: datetime | None = Field(description="When it ended.")
    detail: str | None = Field(description="Why it ended so.")


class ListedRequest(RequestView):
    """A request, and where it was made."""

    thread: ThreadView | None = Field(description="The thread; null if it is not in the registry.")


class ListOutput(OpOutput):
    """Requests, the latest deadline first."""

    requests: list[ListedRequest] = Field(description="The requests.")
    next: str | None = Field(description="Pass as after for the next page; null at the end.")


class ChoiceView(OpOutput):
    """One way to answer."""

    command: str = Field(description="The command that answers so.")
    meaning: str = Field(description="What follows from it.")


class ShowOutput(OpOutput):
    """All there is to know about a request."""

    thread: ThreadView | None = Field(description="The thread; null if it is not in the registry.")
    request: RequestView = Field(description="The request.")
    method: str = Field(description="What Codex calls it.")
    digest: str = Field(description="SHA-256 of all that was asked.")
    body: dict[str, Any] | None = Field(
        description="What is asked, in the words of its kind; null once it is closed."
    )
    cut: bool = Field(description="Whether the body was too long to be kept whole.")
    choices: list[ChoiceView] = Field(
        description="How it can be answered; none once it is not open."
    )


class RespondOutput(OpOutput):
    """What became of the answer."""

    thread: ThreadView | None = Field(description="The thread; null if it is not in the registry.")
    request: RequestView = Field(description="The request as it is now.")
    answer: dict[str, Any] = Field(description="What Codex is told.")
    dry_run: bool = Field(description="True: nothing was sent.")


class DeferOutput(OpOutput):
    """The request with its new deadline."""

    thread: ThreadView | None = Field(description="The thread; null if it is not in the registry.")
    request: RequestView = Field(description="The request as it is now.")
