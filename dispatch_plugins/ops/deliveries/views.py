"""How deliveries appear in every output."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from dispatch_core.api import DeliveryState, StorageError, printable, thread_view
from dispatch_plugins.ops.deliveries.contract import (
    DeliveryOutput,
    DeliveryView,
    EpochView,
    GetOutput,
    Step,
)
from dispatch_plugins.ops.shared.queues import ahead_of, first_line, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatch_core.api import DeliveryRecord, OpContext, ThreadView

PREVIEW = 200  # characters
QUEUE = 1000  # messages of one queue that are counted for a list


async def views_of(context: OpContext, deliveries: Sequence[DeliveryRecord]) -> list[DeliveryView]:
    """Return deliveries of any threads as views, in the same order."""
    threads = {key: await _thread(context, key) for key in {one.thread for one in deliveries}}
    waiting = {one.thread for one in deliveries if one.state is DeliveryState.QUEUED}
    places: dict[str, int] = {}
    for key in waiting:
        queue = await context.store.deliveries.queue(key, QUEUE)
        places |= {one.id: index for index, one in enumerate(queue)}
        await checkpoint()  # a store may answer at once, and nobody else would have a turn
    return [_view(one, threads[one.thread], places) for one in deliveries]


async def view_of(context: OpContext, delivery: DeliveryRecord) -> DeliveryView:
    """Return one delivery as a view."""
    ahead = await ahead_of(context, delivery)
    places = {} if ahead is None else {delivery.id: ahead}
    return _view(delivery, await _thread(context, delivery.thread), places)


async def one_of(context: OpContext, delivery: DeliveryRecord) -> DeliveryOutput:
    """Return a delivery with what can be done with it."""
    view = await view_of(context, delivery)
    return DeliveryOutput(delivery=view, next=steps(delivery, view.thread.ref))


async def all_of(context: OpContext, delivery: DeliveryRecord) -> GetOutput:
    """Return everything about a delivery."""
    view, message = await view_of(context, delivery), delivery.message
    return GetOutput(
        delivery=view,
        next=steps(delivery, view.thread.ref),
        text=message.text if message else None,
        images=[image.path for image in message.images] if message else [],
        sha256=delivery.digest,
        attempt=delivery.attempt,
        deaths=delivery.deaths,
        epoch=EpochView.model_validate(delivery.epoch, from_attributes=True)
        if delivery.epoch
        else None,
        claimed_at=delivery.claimed_at,
        merged=delivery.merged,
        evidence=delivery.evidence,
        retry_of=delivery.retry_of,
    )


def steps(delivery: DeliveryRecord, ref: str) -> list[Step]:
    """Return what can be done with a delivery as it stands."""
    one = short(delivery.id)
    if delivery.state is DeliveryState.UNKNOWN:
        pairs = [
            (f"dispatch tail {ref}", "shows what the thread has of it"),
            (f"dispatch delivery resolve {one} --sent", "it ran: count it as done"),
            (f"dispatch delivery resolve {one} --resend", "it did not run: send it again"),
            (f"dispatch delivery resolve {one} --drop", "forget it"),
        ]
    elif delivery.state is DeliveryState.QUEUED:
        pairs = [
            (f"dispatch wait {ref}", "waits until it is done"),
            (f"dispatch delivery edit {one} TEXT", "replaces its text"),
            (f"dispatch delivery reorder {one} --first", "sends it before the others"),
            (f"dispatch delivery cancel {one}", "withdraws it"),
        ]
    elif delivery.state.in_flight:
        pairs = [
            (f"dispatch wait {ref}", "waits until it is done"),
            (f"dispatch stop {ref}", "interrupts its turn"),
        ]
    else:
        pairs = [(f"dispatch tail {ref}", "shows what came of it")] if delivery.turn_id else []
        if delivery.message is not None:
            again = "once more" if delivery.attempt else "after all"
            pairs.append((f"dispatch delivery requeue {one}", f"sends it {again}"))
    return [Step(command=command, what=what) for command, what in pairs]


async def _thread(context: OpContext, key: str) -> ThreadView:
    record = await context.store.threads.get(key)
    if record is None:  # a delivery cannot be stored without its thread
        raise StorageError(
            f"the registry has a delivery for a thread {key} that it does not have",
            hint="dispatch doctor",
        )
    return thread_view(record)


def _view(delivery: DeliveryRecord, thread: ThreadView, places: Mapping[str, int]) -> DeliveryView:
    message = delivery.message
    return DeliveryView(
        id=delivery.id,
        thread=thread,
        state=delivery.state,
        when=delivery.when,
        position=places.get(delivery.id) if delivery.state is DeliveryState.QUEUED else None,
        preview=printable(first_line(message.text))[:PREVIEW] if message else None,
        reason=delivery.reason,
        turn_id=delivery.turn_id,
        principal=delivery.principal,
        key=delivery.key,
        created_at=delivery.created_at,
        ended_at=delivery.ended_at,
        expires_at=delivery.expires_at,
    )
