"""What ``wait`` takes and what it answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dispatch_core.api import (
    DeliveryState,
    OpInput,
    OpOutput,
    Selectors,
    ThreadView,
    TurnView,
    cli_field,
    thread_field,
)

Outcome = Literal[
    "done", "failed", "interrupted", "needs_attention", "unknown", "nothing", "running"
]


class WaitInput(OpInput):
    """Whom to wait for, until when, and how long."""

    thread: Selectors = thread_field(
        description="Refs, ids, handles (@name) or titles of managed threads.",
        min_length=1,
        max_length=100,
    )
    until: Literal["done", "needs-attention", "any"] = cli_field(
        "any",
        description="done: the turn has ended, whatever is asked meanwhile; needs-attention: a person must act, or nothing runs "
        "any more; any: whichever comes first.",
    )
    first: bool = cli_field(
        False, description="Return when the first of the threads is there instead of all."
    )
    timeout: float | None = cli_field(
        None,
        description="Give up after this many seconds; 0 only looks. Waits for ever when left out.",
        ge=0,
    )


class WaitedDelivery(OpOutput):
    """A message of which it is unknown whether it ran, that was queued and came to nothing, or that still cannot be sent."""

    id: str = Field(description="Its id: what dispatch delivery get takes.")
    state: DeliveryState = Field(description="unknown, dead, rejected or queued.")
    reason: str | None = Field(
        description="What is in doubt, why it came to nothing, or what it waits for."
    )


class WaitedRequest(OpOutput):
    """What Codex asks."""

    id: str = Field(description="Its id: what dispatch request show takes.")
    summary: str = Field(description="What is asked, in one line.")


class WaitResult(OpOutput):
    """How it stands with one thread."""

    thread: ThreadView = Field(description="The thread.")
    outcome: Outcome = Field(
        description="done, failed or interrupted; needs_attention: a person must act; unknown: Codex went away and is not "
        "back, or it cannot be told whether a message ran; nothing: the thread has had no turn; running: only with first, of "
        "the others."
    )
    turn: TurnView | None = Field(description="The latest turn.")
    text: str | None = Field(
        description="The final message of that turn; null if it has none, or Codex is down."
    )
    asks: WaitedRequest | None = Field(
        description="What Codex asks, when a person must act: the newest of its open requests in the thread."
    )
    delivery: WaitedDelivery | None = Field(
        default=None,
        description="The message that holds the thread because its outcome is unknown, or the newest one if it came to nothing.",
    )


class WaitOutput(OpOutput):
    """How the turns ended."""

    results: list[WaitResult] = Field(description="One for each thread, in the order given.")
