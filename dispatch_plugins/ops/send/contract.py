"""What ``send`` and ``stop`` take and what they answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dispatch_core.api import OpInput, OpOutput, ThreadView, TurnView, cli_field, thread_field

State = Literal["submitted", "merged", "steered", "accepted", "interjected", "injected"]
Detail = Literal["auto", "high", "original"]


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
    steer: bool = cli_field(False, description="Say it to the turn that runs.")
    interject: bool = cli_field(
        False, description="Interrupt the turn that runs, and start one with the message."
    )
    context: bool = cli_field(False, description="Put it into the context without starting a turn.")
    intro: bool = cli_field(
        False,
        description="Say at the end which thread sent it and how to answer; only from inside a managed thread.",
    )


class Receipt(OpOutput):
    """What is known about a message. Accepted is not done."""

    id: str | None = Field(
        description="Id of the message; Codex stores it with the turn. Null for context, which has none."
    )
    state: State = Field(
        description="submitted: it started a turn. merged: it joined a turn that ran already. "
        "steered: it is in the running turn; one that was about to end may leave the answer to the next. "
        "accepted: the running turn gets it after its present step, unless it is interrupted before. "
        "interjected: it started a turn in place of the interrupted one. "
        "injected: it is in the context."
    )
    turn_id: str | None = Field(description="The turn the message is in; null for context.")


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
