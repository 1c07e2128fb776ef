"""Messages: send one, wait for the turn it starts, stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anyio
from pydantic import Field

from dispatch_core.api import (
    CodexError,
    Example,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    OutcomeUnknown,
    PluginSettings,
    ThreadStatus,
    ThreadView,
    TimedOut,
    TurnStatus,
    TurnView,
    View,
    cli_field,
    hookimpl,
    printable,
    safe_block,
    thread_view,
    turn_view,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatch_core.api import ThreadRecord

THREAD = "Ref, id, handle (@name) or title of a managed thread."
OUTCOMES = {
    TurnStatus.COMPLETED: "done",
    TurnStatus.FAILED: "failed",
    TurnStatus.INTERRUPTED: "interrupted",
}
Outcome = Literal["done", "failed", "interrupted", "needs_attention", "unknown", "nothing"]


class SendInput(OpInput):
    """A message for a thread."""

    thread: str = cli_field(description=THREAD, argument=True, aliases=("lane",))
    text: str = cli_field(description="The message.", argument=True, stdin=True)


class Receipt(OpOutput):
    """What is known about a message. Accepted is not done."""

    id: str = Field(description="Id of the message; Codex stores it with the turn.")
    state: Literal["submitted", "merged"] = Field(
        description="submitted: it started a turn. merged: it joined a turn that ran already."
    )
    turn_id: str | None = Field(description="The turn the message is in.")


class SendOutput(OpOutput):
    """The receipt of a message."""

    thread: ThreadView = Field(description="Where it was sent.")
    receipt: Receipt = Field(description="What is known about the message.")


class WaitInput(OpInput):
    """Whom to wait for, and how long."""

    thread: str = cli_field(description=THREAD, argument=True)
    timeout: float | None = cli_field(
        None, description="Give up after this many seconds; waits for ever when left out.", ge=0
    )


class WaitOutput(OpOutput):
    """How the running turn ended."""

    thread: ThreadView = Field(description="The thread.")
    outcome: Outcome = Field(
        description="done, failed or interrupted; needs_attention: a person must act; "
        "unknown: Codex went away and is not back; nothing: the thread has had no turn."
    )
    turn: TurnView | None = Field(description="The latest turn.")
    text: str | None = Field(
        description="The final message of that turn; null if it has none, or Codex is down."
    )


class StopInput(OpInput):
    """Which thread to stop."""

    thread: str = cli_field(description=THREAD, argument=True, aliases=("lane",))


class StopOutput(OpOutput):
    """The turn that was stopped."""

    thread: ThreadView = Field(description="The thread.")
    turn: TurnView | None = Field(description="The turn, after it ended.")


async def send(context: OpContext, request: SendInput) -> SendOutput:
    """Start a turn with the message. A thread in which a turn runs is refused: Codex would merge the two."""
    thread = await context.lanes.writable(request.thread)
    turn = await context.lanes.send(thread, request.text)
    thread = await context.store.threads.get(thread.key) or thread
    state: Literal["submitted", "merged"] = (
        "merged" if turn.status is TurnStatus.STARTED else "submitted"
    )
    receipt = Receipt(id=str(turn.message_id), state=state, turn_id=turn.id)
    return SendOutput(thread=thread_view(thread), receipt=receipt)


async def wait(context: OpContext, request: WaitInput) -> WaitOutput:
    """Wait until no turn runs in the thread or a person must act."""
    thread = await context.lanes.resolve(request.thread, fuzzy=True)
    try:
        with anyio.fail_after(request.timeout):
            thread = await context.lanes.settled(thread)
    except TimeoutError as error:
        raise await _still_runs(context, thread, request.timeout or 0) from error
    return WaitOutput(
        thread=thread_view(thread),
        outcome=_outcome(thread),
        turn=turn_view(thread.turn),
        text=await _final_text(context, thread),
    )


async def stop(context: OpContext, request: StopInput) -> StopOutput:
    """Interrupt the running turn and wait until it has ended."""
    thread = await context.lanes.writable(request.thread)
    turn = await context.lanes.interrupt(thread)
    thread = await context.store.threads.get(thread.key) or thread
    return StopOutput(thread=thread_view(thread), turn=turn_view(turn))


async def _still_runs(context: OpContext, thread: ThreadRecord, seconds: float) -> TimedOut:
    """Return the error of a wait that was too short, with what Codex says is in the way of the turn."""
    thread = await context.store.threads.get(thread.key) or thread
    text = f"the turn in {thread.handle} ({thread.ref}) still runs after {seconds:g} s"
    details = {"thread": thread.ref}
    if thread.turn is not None and thread.turn.error and not thread.turn.status.finished:
        details["error"] = thread.turn.error
        text = f"{text}. Codex says: {printable(thread.turn.error)}"
    return TimedOut(
        text,
        hint=f"dispatch wait {thread.ref}, or dispatch stop {thread.ref}",
        details=details,
    )


def _outcome(thread: ThreadRecord) -> Outcome:
    if thread.status is ThreadStatus.WAITING_APPROVAL:
        return "needs_attention"
    if thread.turn is None:
        return "nothing"
    return OUTCOMES.get(thread.turn.status, "unknown")  # type: ignore[return-value]


async def _final_text(context: OpContext, thread: ThreadRecord) -> str | None:
    if thread.turn is None or thread.turn.status is not TurnStatus.COMPLETED:
        return None
    try:
        items = await context.lanes.history(thread, 1)
    except (CodexError, OutcomeUnknown):
        return None  # Codex is down now; that the turn is done stays true
    final = [
        item for item in items if item.type == "agentMessage" and item.turn_id == thread.turn.id
    ]
    return final[-1].text if final else None


def render_send(output: SendOutput, view: View) -> str:
    """Say that the message was accepted, which is not that it is done."""
    thread = output.thread
    done = "accepted" if output.receipt.state == "submitted" else "merged into a running turn"
    return (
        f"{done} by {view.paint(printable(thread.handle), 'bold')} ({thread.ref}), turn {output.receipt.turn_id}\n"
        f"  next: dispatch wait {thread.ref}"
    )


def render_wait(output: WaitOutput, view: View) -> str:
    """The outcome, then the answer."""
    thread, turn = output.thread, output.turn
    head = f"{view.status(output.outcome)}  {printable(thread.handle)} ({thread.ref})"
    if output.outcome == "needs_attention":
        return f"{head}\n  next: dispatch tail {thread.ref}"
    body = output.text or (turn.error if turn else None)
    return f"{head}\n{safe_block(body)}" if body else head


def render_stop(output: StopOutput, view: View) -> str:
    """How the turn ended."""
    state = output.turn.status.value if output.turn else "unknown"
    return f"{view.status(state)}  {printable(output.thread.handle)} ({output.thread.ref})"


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on messages."""
    return (
        Op(
            name="send",
            summary="Send a message to a thread",
            noun="message",
            input=SendInput,
            output=SendOutput,
            handler=send,
            intent=Intent.WRITE,
            idempotent=False,
            timeout=90.0,
            examples=(
                Example(
                    title="start a turn",
                    input={"thread": "@reviewer", "text": "Review the last commit"},
                    output={"receipt": {"state": "submitted"}, "thread": {"handle": "@reviewer"}},
                ),
                Example(
                    title="an empty message is refused",
                    input={"thread": "@reviewer", "text": " "},
                    error="validation",
                ),
            ),
            render=render_send,
        ),
        Op(
            name="wait",
            summary="Wait until a thread is done or needs attention",
            noun="message",
            input=WaitInput,
            output=WaitOutput,
            handler=wait,
            intent=Intent.READ,
            idempotent=True,
            timeout=None,
            examples=(
                Example(
                    title="a finished turn answers at once",
                    input={"thread": "@builder", "timeout": 30},
                    output={"outcome": "done", "text": "Offline reply: Say hello"},
                ),
                Example(
                    title="a thread without a turn",
                    input={"thread": "@reviewer"},
                    output={"outcome": "nothing", "turn": None},
                ),
            ),
            render=render_wait,
        ),
        Op(
            name="stop",
            summary="Interrupt the turn that runs in a thread",
            noun="message",
            input=StopInput,
            output=StopOutput,
            handler=stop,
            intent=Intent.WRITE,
            idempotent=True,
            examples=(
                Example(title="nothing to stop", input={"thread": "@reviewer"}, error="validation"),
            ),
            render=render_stop,
        ),
    )
