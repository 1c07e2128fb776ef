"""What ``send`` and ``stop`` take and what they answer."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import Literal

from pydantic import Field

from dispatch_core.api import (
    DeliveryState,
    OpInput,
    OpOutput,
    ThreadView,
    TurnView,
    cli_field,
    thread_field,
)

Way = Literal["merged", "steered", "accepted", "interjected", "injected"]
Detail = Literal["auto", "high", "original"]
KEY_LIMIT = 200


class SendInput(OpInput):
    """A message for a thread, and how it is said. Without a mode it starts a turn."""

    thread: str = thread_field(aliases=("lane",))
    text: str | None = cli_field(None, description="The message.", argument=True, stdin=True)
    input_file: str | None = cli_field(
        None,
        description="UTF-8 file with the message, in place of the text.",
        file=True,
        min_length=1,
    )
    image: list[str] = cli_field(
        [],
        description="Picture that goes with the message: PNG, JPEG, GIF or WebP, at most 20 MiB.",
        file=True,
    )
    image_detail: Detail | None = cli_field(
        None, description="How closely the model looks at the pictures."
    )
    queue: bool = cli_field(
        False, description="Send it when the thread is idle and what was queued before is done."
    )
    steer: bool = cli_field(False, description="Say it to the turn that runs.")
    interject: bool = cli_field(
        False, description="Interrupt the turn that runs, and start one with the message."
    )
    context: bool = cli_field(False, description="Put it into the context without starting a turn.")
    expires: str | None = cli_field(
        None,
        description="With queue: do not send it any more after this time (30s, 10m, 2h, 1d) or moment (ISO 8601).",
        min_length=1,
        max_length=64,
    )
    idempotency_key: str | None = cli_field(
        None,
        description="Your name for this message: repeated with the same one it is not sent again. "
        f"1 to {KEY_LIMIT} printable characters.",
        min_length=1,
        max_length=KEY_LIMIT,
        aliases=("key",),
    )
    intro: bool = cli_field(
        False,
        description="Say at the end which thread sent it and how to answer; only from inside a managed thread.",
    )


class Receipt(OpOutput):
    """What is known about a message. Accepted is not done."""

    id: str | None = Field(
        description="Id of the message, which Codex stores with the turn: what dispatch delivery get takes. Null for context, "
        "which has none."
    )
    state: DeliveryState | Way = Field(
        description="queued: it is on disk and will be sent. submitted: it started a turn. sending: it is being sent. "
        "merged: it joined a turn that ran already. "
        "steered: it is in the running turn; one that was about to end may leave the answer to the next. "
        "accepted: the running turn gets it after its present step, unless it is interrupted before. "
        "interjected: it started a turn in place of the interrupted one. "
        "injected: it is in the context. Any other: how a message with this key, sent before, stands."
    )
    turn_id: str | None = Field(
        description="The turn the message is in; null for context, and until there is one."
    )
    position: int | None = Field(
        default=None,
        description="For queued: how many messages of the thread are queued before it; null for any other.",
    )
    duplicate: bool = Field(
        default=False,
        description="Whether the key was used before: then nothing was sent, and this is the receipt of that message.",
    )
    expires_at: datetime | None = Field(
        default=None, description="When it is not sent any more; null for never."
    )


class SendOutput(OpOutput):
    """The receipt of a message."""

    thread: ThreadView = Field(description="Where it was sent.")
    receipt: Receipt = Field(description="What is known about the message.")


class StopInput(OpInput):
    """Which thread to stop."""

    thread: str = thread_field(aliases=("lane",))


class StopOutput(OpOutput):
    """The turn that was stopped."""

    thread: ThreadView = Field(description="The thread.")
    turn: TurnView | None = Field(description="The turn, after it ended.")
    commands_stopped: int | None = Field(
        description="How many commands that it had running were stopped; null if Codex cannot tell."
    )
