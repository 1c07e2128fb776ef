"""What the ops on deliveries take and what they answer."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it

from pydantic import Field

from dispatch_core.api import (
    DeliveryState,
    OpInput,
    OpOutput,
    Selectors,
    ThreadView,
    When,
    cli_field,
    thread_field,
)

ONE = "Id of the delivery, its last 8 characters, or the idempotency key that you gave it."
PAGE_LIMIT = 500


class ListInput(OpInput):
    """Which deliveries to list."""

    thread: str | None = thread_field(
        None, description="Only of this thread.", argument=False, aliases=("lane",)
    )
    state: list[DeliveryState] = cli_field([], description="Only in this state.")
    limit: int = cli_field(50, description="At most this many.", ge=1, le=PAGE_LIMIT)
    after: str | None = cli_field(
        None,
        description="Continue after this cursor: next of the page before.",
        aliases=("cursor",),
        max_length=64,
    )


class DeadInput(OpInput):
    """Which of the deliveries that were given up to list."""

    thread: str | None = thread_field(
        None, description="Only of this thread.", argument=False, aliases=("lane",)
    )
    limit: int = cli_field(50, description="At most this many.", ge=1, le=PAGE_LIMIT)
    after: str | None = cli_field(
        None,
        description="Continue after this cursor: next of the page before.",
        aliases=("cursor",),
        max_length=64,
    )


class OneInput(OpInput):
    """Which delivery."""

    delivery: str = cli_field(description=ONE, argument=True, min_length=1, max_length=200)


class CancelInput(OpInput):
    """Which deliveries to withdraw."""

    delivery: Selectors = cli_field(
        description=f"{ONE} Several are allowed.", argument=True, min_length=1, max_length=100
    )


class EditInput(OpInput):
    """Which delivery, and what it is to say."""

    delivery: str = cli_field(description=ONE, argument=True, min_length=1, max_length=200)
    text: str | None = cli_field(None, description="The new text.", argument=True, stdin=True)
    input_file: str | None = cli_field(
        None,
        description="UTF-8 file with the new text, in place of the text.",
        file=True,
        min_length=1,
    )


class ReorderInput(OpInput):
    """Which delivery, and where it is to stand."""

    delivery: str = cli_field(description=ONE, argument=True, min_length=1, max_length=200)
    before: str | None = cli_field(
        None,
        description="Put it before this delivery of the same thread.",
        min_length=1,
        max_length=200,
    )
    first: bool = cli_field(False, description="Put it before all others.")
    last: bool = cli_field(False, description="Put it behind all others.")


class ResolveInput(OpInput):
    """Which delivery, and what became of it."""

    delivery: str = cli_field(description=ONE, argument=True, min_length=1, max_length=200)
    sent: bool = cli_field(False, description="It ran: count it as done, and go on.")
    resend: bool = cli_field(
        False, description="Send it again, before all others. If it did run, it runs twice."
    )
    drop: bool = cli_field(False, description="Forget it: it is not sent again.")


class EpochView(OpOutput):
    """The Codex process that a message was given to."""

    boot_id: str = Field(description="The start of the machine it belongs to.")
    pid: int = Field(description="Its process id.")
    start_time: int | None = Field(description="Clock ticks from boot; null if unknown.")
    generation: int = Field(description="The how manieth Codex process of its daemon it was.")
    version: str | None = Field(description="Of Codex; null if unknown.")


class DeliveryView(OpOutput):
    """A delivery, in short."""

    id: str = Field(description="Its id, which Codex stores with the turn.")
    thread: ThreadView = Field(description="Where it goes.")
    state: DeliveryState = Field(
        description="queued, sending, submitted, running; done, failed, interrupted, rejected, dead, cancelled, expired; "
        "unknown: a person must decide."
    )
    when: When = Field(
        description="now: at once or not at all; idle: queued; interject: in place of a turn."
    )
    position: int | None = Field(
        description="For queued: how many messages of the thread come before it; null otherwise."
    )
    preview: str | None = Field(
        description="The first line of the message; null when it is no longer kept."
    )
    reason: str | None = Field(description="Why it ended so, or what is in doubt; null otherwise.")
    turn_id: str | None = Field(description="The turn it is in; null before there is one.")
    principal: str = Field(description="Who sent it: human, agent:ID or trigger:ID.")
    key: str | None = Field(description="The sender's idempotency key; null without one.")
    created_at: datetime = Field(description="When it was accepted.")
    ended_at: datetime | None = Field(description="When it ended; null while it has not.")
    expires_at: datetime | None = Field(description="When it is not sent any more; null: never.")


class Step(OpOutput):
    """A command that can be given now."""

    command: str = Field(description="The command line.")
    what: str = Field(description="What it does.")


class DeliveryOutput(OpOutput):
    """One delivery, and what can be done with it."""

    delivery: DeliveryView = Field(description="The delivery.")
    next: list[Step] = Field(description="What can be done now.")


class GetOutput(DeliveryOutput):
    """Everything that is known about a delivery."""

    text: str | None = Field(description="The message; null when it is no longer kept.")
    images: list[str] = Field(description="The files of its pictures.")
    sha256: str = Field(description="Of the text, which is kept longer than the text.")
    attempt: int = Field(description="How many times it was given to Codex.")
    deaths: int = Field(
        description="How many Codex processes ended while they had it and it had not begun."
    )
    epoch: EpochView | None = Field(description="The Codex process that got it last, if one did.")
    claimed_at: datetime | None = Field(description="When it was given to Codex last.")
    merged: bool = Field(description="Whether Codex put it into a turn that ran already.")
    evidence: str | None = Field(
        description="How the state is known: answer, event, history, operator or daemon."
    )
    retry_of: str | None = Field(description="The delivery that this one repeats, if it does.")


class ListOutput(OpOutput):
    """Deliveries, newest first."""

    deliveries: list[DeliveryView] = Field(description="The deliveries of this page.")
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class ChangedOutput(OpOutput):
    """What became of each delivery, in the order they were given."""

    deliveries: list[DeliveryView] = Field(description="The deliveries.")


class QueueOutput(OpOutput):
    """What waits in a thread, in the order in which it will be sent."""

    deliveries: list[DeliveryView] = Field(description="The queue.")
