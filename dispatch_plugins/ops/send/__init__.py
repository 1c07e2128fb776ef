"""Messages: say something to a thread, in one of several ways, and stop the turn that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpContext,
    PluginSettings,
    TurnStatus,
    ValidationFailed,
    View,
    hookimpl,
    printable,
    thread_view,
    turn_view,
)
from dispatch_plugins.ops.send.contract import (
    Receipt,
    SendInput,
    SendOutput,
    State,
    StopInput,
    StopOutput,
)
from dispatch_plugins.ops.send.draft import draft

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatch_core.api import Message, ThreadRecord, TurnRecord

MODES = ("steer", "interject", "context")


async def send(context: OpContext, request: SendInput) -> SendOutput:
    """Say the message in the way that was asked for. Nothing is said unless everything about it is right."""
    mode = _mode(request)
    thread = await context.lanes.writable(request.thread)
    message = await draft(context, request)
    receipt = await _say(context, thread, message, mode)
    thread = await context.store.threads.get(thread.key) or thread
    return SendOutput(thread=thread_view(thread), receipt=receipt)


async def stop(context: OpContext, request: StopInput) -> StopOutput:
    """Interrupt the running turn and wait until it has ended."""
    thread = await context.lanes.writable(request.thread)
    turn = await context.lanes.interrupt(thread)
    thread = await context.store.threads.get(thread.key) or thread
    # Known to the engine alone, and not part of what is kept of a turn.
    return StopOutput(
        thread=thread_view(thread),
        turn=turn_view(turn),
        commands_stopped=turn.commands_stopped,
    )


def _mode(request: SendInput) -> str | None:
    """Return the mode that was asked for, None for a plain message. Raises ValidationFailed for two."""
    asked = [mode for mode in MODES if getattr(request, mode)]
    if len(asked) > 1:
        names = " and ".join(f"--{mode}" for mode in asked)
        raise ValidationFailed(
            f"{names} exclude each other: a message is said in one way",
            hint="give one of them; without any the message starts a turn",
            details={"fields": asked},
        )
    mode = asked[0] if asked else None
    if request.image and mode == "context":
        raise ValidationFailed(
            "pictures cannot be put into the context",
            hint="leave --context out, or name the file in the text",
            details={"fields": ["image", "context"]},
        )
    if request.image_detail is not None and not request.image:
        raise ValidationFailed(
            "--image-detail says how a picture is looked at, and there is none",
            hint="add --image PATH",
            details={"fields": ["image_detail"]},
        )
    return mode


async def _say(
    context: OpContext, thread: ThreadRecord, message: Message, mode: str | None
) -> Receipt:
    lanes = context.lanes
    match mode:
        case "steer":
            turn = await lanes.steer(thread, message)
            return _receipt(turn, "steered" if turn.status is TurnStatus.STARTED else "accepted")
        case "interject":
            turn = await lanes.interject(thread, message)
            return _receipt(turn, "merged" if turn.status is TurnStatus.STARTED else "interjected")
        case "context":
            await lanes.inject(thread, message.text)
            return Receipt(id=None, state="injected", turn_id=None)
        case _:
            turn = await lanes.send(thread, message)
            return _receipt(turn, "merged" if turn.status is TurnStatus.STARTED else "submitted")


def _receipt(turn: TurnRecord, state: State) -> Receipt:
    return Receipt(id=turn.message_id, state=state, turn_id=turn.id)


SAID = {
    "submitted": "accepted by",
    "merged": "joined a running turn of",
    "steered": "said to the running turn of",
    "accepted": "accepted, to be read after the present step, by",
    "interjected": "accepted by",
    "injected": "put into the context of",
}


def render_send(output: SendOutput, view: View) -> str:
    """Say that the message was accepted, which is not that it is done."""
    thread, receipt = output.thread, output.receipt
    name = f"{view.paint(printable(thread.handle), 'bold')} ({thread.ref})"
    # Which turn runs is known already; a new one has to be named.
    turn = f", turn {receipt.turn_id}" if receipt.state in ("submitted", "interjected") else ""
    following = (
        f"dispatch send {thread.ref} TEXT starts a turn that sees it"
        if receipt.state == "injected"
        else f"dispatch wait {thread.ref}"
    )
    said = view.wrap(f"{SAID[receipt.state]} {name}{turn}", indent="  ")
    if receipt.state == "interjected":
        said += "\n  the turn that ran is interrupted"
    return f"{said}\n  next: {following}"


def render_stop(output: StopOutput, view: View) -> str:
    """How the turn ended, and what was stopped with it."""
    state = output.turn.status.value if output.turn else "unknown"
    line = f"{view.status(state)}  {printable(output.thread.handle)} ({output.thread.ref})"
    if count := output.commands_stopped:
        line += f"\n  {count} running command{'' if count == 1 else 's'} stopped"
    return line


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
                    title="put something into the context, without a turn",
                    input={"thread": "@spare", "text": "The release is on Friday", "context": True},
                    output={"receipt": {"state": "injected", "id": None, "turn_id": None}},
                ),
                Example(
                    title="only a running turn can be steered",
                    input={"thread": "@builder", "text": "Use tabs", "steer": True},
                    error="no_active_turn",
                ),
                Example(
                    title="a message is said in one way",
                    input={
                        "thread": "@builder",
                        "text": "Stop that",
                        "steer": True,
                        "interject": True,
                    },
                    error="validation",
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
            name="stop",
            summary="Interrupt the turn that runs in a thread",
            noun="message",
            input=StopInput,
            output=StopOutput,
            handler=stop,
            intent=Intent.WRITE,
            idempotent=True,
            examples=(
                Example(
                    title="nothing to stop",
                    input={"thread": "@reviewer"},
                    error="no_active_turn",
                ),
            ),
            render=render_stop,
        ),
    )
