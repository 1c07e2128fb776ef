"""Messages: say something to a thread, in one of several ways, and stop the turn that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import (
    DeliveryState,
    Example,
    Image,
    Intent,
    Op,
    OpContext,
    PluginSettings,
    TurnStatus,
    ValidationFailed,
    When,
    hookimpl,
    thread_view,
    turn_view,
)
from dispatch_plugins.ops.send.contract import (
    Receipt,
    SendInput,
    SendOutput,
    StopInput,
    StopOutput,
    Way,
)
from dispatch_plugins.ops.send.text import render_send, render_stop
from dispatch_plugins.ops.shared.deadlines import deadline
from dispatch_plugins.ops.shared.drafts import Draft, message_of
from dispatch_plugins.ops.shared.queues import ahead_of, last_in_queue

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from dispatch_core.api import DeliveryRecord, Message, ThreadRecord, TurnRecord

MODES = ("queue", "steer", "interject", "context")
DELIVERED = {None: When.NOW, "queue": When.IDLE, "interject": When.INTERJECT}

STARTED = frozenset({DeliveryState.SUBMITTED, DeliveryState.RUNNING, DeliveryState.DONE})


async def send(context: OpContext, request: SendInput) -> SendOutput:
    """Say the message in the way that was asked for. Nothing is said unless everything about it is right."""
    mode = _mode(request)
    expires_at = deadline(request.expires, "expires", now=context.clock.now())
    thread = await context.lanes.writable(request.thread)
    images = [Image(path=path, detail=request.image_detail) for path in request.image]
    draft = Draft(
        text=request.text, input_file=request.input_file, images=images, intro=request.intro
    )
    message = await message_of(context, draft)
    if mode in DELIVERED:
        when = DELIVERED[mode]
        receipt = await _deliver(
            context, thread, message, when, key=request.idempotency_key, expires_at=expires_at
        )
    else:
        receipt = await _say(context, thread, message, steer=mode == "steer")
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
    """Return the mode that was asked for, None for a plain message. Raises ValidationFailed for what does not go together."""
    asked = [mode for mode in MODES if getattr(request, mode)]
    if len(asked) > 1:
        names = " and ".join(f"--{mode}" for mode in asked)
        raise _apart(
            asked,
            f"{names} exclude each other: a message is said in one way",
            "give one of them; without any the message starts a turn",
        )
    mode = asked[0] if asked else None
    if request.image and mode == "context":
        raise _apart(
            ["image", "context"],
            "pictures cannot be put into the context",
            "leave --context out, or name the file in the text",
        )
    if request.image_detail is not None and not request.image:
        raise _apart(
            ["image_detail"],
            "--image-detail says how a picture is looked at, and there is none",
            "add --image PATH",
        )
    if request.expires is not None and mode != "queue":
        raise _apart(
            ["expires"],
            "--expires is for a message that waits; without --queue it is sent at once or not at all",
            "add --queue, or leave --expires out",
        )
    _check_key(request.idempotency_key, mode)
    return mode


def _check_key(key: str | None, mode: str | None) -> None:
    if key is None:
        return
    if not key.isprintable() or key != key.strip():
        raise _apart(
            ["idempotency_key"],
            "an idempotency key is printable characters, without space around them",
            "use letters, digits and dashes, such as nightly-2026-05-04",
        )
    if mode not in DELIVERED:
        raise _apart(
            ["idempotency_key", str(mode)],
            f"--idempotency-key does not go with --{mode}, which keeps no record of a message",
            f"leave one of them out; a repeated --{mode} is said twice",
        )


def _apart(fields: list[str], why: str, hint: str) -> ValidationFailed:
    return ValidationFailed(why, hint=hint, details={"fields": fields})


async def _deliver(
    context: OpContext,
    thread: ThreadRecord,
    message: Message,
    when: When,
    *,
    key: str | None,
    expires_at: datetime | None,
) -> Receipt:
    known = await _known(context, key)
    delivery = await context.deliveries.send(
        thread, message, context.caller, when=when, key=key, expires_at=expires_at
    )
    duplicate = known is not None and delivery.id == known.id
    place = await ahead_of(context, delivery) if duplicate else last_in_queue(context, delivery)
    return Receipt(
        id=delivery.id,
        state=_state(delivery, duplicate=duplicate),
        turn_id=delivery.turn_id,
        position=place,
        duplicate=duplicate,
        expires_at=delivery.expires_at,
    )


async def _known(context: OpContext, key: str | None) -> DeliveryRecord | None:
    if key is None:
        return None
    return await context.store.deliveries.keyed(context.caller.principal, key)


def _state(delivery: DeliveryRecord, *, duplicate: bool) -> DeliveryState | Way:
    """Return what a receipt says. How far a turn that was started has got by now is left out: that would be chance."""
    if duplicate:
        return delivery.state
    if delivery.merged:
        return "merged"
    if delivery.turn_id is None or delivery.state not in STARTED:
        return delivery.state
    return "interjected" if delivery.when is When.INTERJECT else DeliveryState.SUBMITTED


async def _say(
    context: OpContext, thread: ThreadRecord, message: Message, *, steer: bool
) -> Receipt:
    if not steer:
        await context.lanes.inject(thread, message.text)
        return Receipt(id=None, state="injected", turn_id=None)
    turn: TurnRecord = await context.lanes.steer(thread, message)
    state: Way = "steered" if turn.status is TurnStatus.STARTED else "accepted"
    return Receipt(id=turn.message_id, state=state, turn_id=turn.id)


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
                    title="queue a message behind those that wait already",
                    input={"thread": "@planner", "text": "Plan the holidays", "queue": True},
                    output={"receipt": {"state": "queued", "turn_id": None, "duplicate": False}},
                ),
                Example(
                    title="repeat one with its key: it is not sent again",
                    input={
                        "thread": "@builder",
                        "text": "Say hello",
                        "idempotency_key": "hello",
                    },
                    output={"receipt": {"state": "done", "duplicate": True, "position": None}},
                ),
                Example(
                    title="the key of another message",
                    input={
                        "thread": "@builder",
                        "text": "Say goodbye",
                        "idempotency_key": "hello",
                    },
                    error="delivery_conflict",
                ),
                Example(
                    title="a turn runs already",
                    input={"thread": "@planner", "text": "Plan the holidays"},
                    error="lane_busy",
                ),
                Example(
                    title="only what waits can expire",
                    input={"thread": "@reviewer", "text": "Review it", "expires": "10m"},
                    error="validation",
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
