"""What the ops on deliveries do."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from dispatch_core.api import (
    DeliveryFilter,
    DeliveryState,
    DispatchError,
    PartialSuccess,
    ValidationFailed,
    Verdict,
)
from dispatch_plugins.ops.deliveries.contract import (
    ChangedOutput,
    ListOutput,
    QueueOutput,
)
from dispatch_plugins.ops.deliveries.selecting import find_delivery
from dispatch_plugins.ops.deliveries.views import all_of, one_of, view_of, views_of
from dispatch_plugins.ops.shared.drafts import Draft, message_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from dispatch_core.api import DeliveryRecord, OpContext
    from dispatch_plugins.ops.deliveries.contract import (
        CancelInput,
        DeadInput,
        DeliveryOutput,
        DeliveryView,
        EditInput,
        GetOutput,
        ListInput,
        OneInput,
        ReorderInput,
        ResolveInput,
    )

ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHOWN = 200  # messages of a queue that are shown after it was changed


async def list_deliveries(context: OpContext, request: ListInput) -> ListOutput:
    """Return one page of deliveries, newest first."""
    return await _page(context, request, frozenset(request.state))


async def list_dead(context: OpContext, request: DeadInput) -> ListOutput:
    """Return one page of the deliveries that were given up, newest first."""
    return await _page(context, request, frozenset({DeliveryState.DEAD}))


async def get(context: OpContext, request: OneInput) -> GetOutput:
    """Return everything about one delivery."""
    return await all_of(context, await find_delivery(context, request.delivery))


async def cancel(context: OpContext, request: CancelInput) -> ChangedOutput:
    """Withdraw deliveries one after the other; an error of one does not keep the others from their turn."""
    views: list[DeliveryView] = []
    errors: list[tuple[str, DispatchError]] = []
    for selector in dict.fromkeys(request.delivery):
        try:
            delivery = await find_delivery(context, selector)
            cancelled = await context.deliveries.cancel(delivery, context.caller)
        except DispatchError as error:
            errors.append((selector, error))
        else:
            views.append(await view_of(context, cancelled))
    if not errors:
        return ChangedOutput(deliveries=views)
    if not views and len(errors) == 1:
        raise errors[0][1]
    failed = [{"delivery": selector, "error": error.to_dict()} for selector, error in errors]
    listed = "; ".join(f"{selector}: {error.message}" for selector, error in errors)
    raise PartialSuccess(
        f"{len(views)} of {len(views) + len(errors)} deliveries were cancelled. {listed}",
        hint=errors[0][1].hint,
        details={"deliveries": [v.model_dump(mode="json") for v in views], "failed": failed},
    )


async def edit(context: OpContext, request: EditInput) -> DeliveryOutput:
    """Replace the text of a delivery that is queued; its pictures stay."""
    delivery = await find_delivery(context, request.delivery)
    draft = Draft(text=request.text, input_file=request.input_file)
    if delivery.message is not None:
        draft = replace(draft, images=delivery.message.images)
    message = await message_of(context, draft)
    return await one_of(context, await context.deliveries.edit(delivery, message, context.caller))


async def reorder(context: OpContext, request: ReorderInput) -> QueueOutput:
    """Put a delivery elsewhere in the queue of its thread."""
    asked = [name for name in ("before", "first", "last") if getattr(request, name)]
    if len(asked) != 1:
        raise ValidationFailed(
            "a delivery goes to one place"
            if asked
            else "it was not said where to put the delivery",
            hint="give one of --before ID, --first and --last; dispatch delivery list --state queued shows what waits",
            details={"fields": asked or ["before", "first", "last"]},
        )
    delivery = await find_delivery(context, request.delivery)
    before: DeliveryRecord | None = None
    if request.before is not None:
        before = await find_delivery(context, request.before)
    elif request.first:
        queue = await context.store.deliveries.queue(delivery.thread, 1)
        before = queue[0] if queue else None
    if before is not None and before.id == delivery.id and request.before is not None:
        raise ValidationFailed(
            "a delivery cannot go before itself",
            hint="name another one, or use --first or --last; dispatch delivery list --state queued shows what waits",
            details={"fields": ["before"]},
        )
    if before is None or before.id != delivery.id:
        await context.deliveries.reorder(delivery, before=before)
    shown = await context.store.deliveries.queue(delivery.thread, SHOWN)
    return QueueOutput(deliveries=await views_of(context, shown))


async def resolve(context: OpContext, request: ResolveInput) -> DeliveryOutput:
    """Say what became of a delivery whose outcome is unknown."""
    asked = [verdict for verdict in Verdict if getattr(request, verdict.value)]
    if len(asked) != 1:
        raise ValidationFailed(
            "a delivery has one outcome"
            if asked
            else "it was not said what became of the delivery",
            hint="give one of --sent, --resend and --drop; dispatch delivery get ID says what is known",
            details={"fields": [verdict.value for verdict in asked or Verdict]},
        )
    delivery = await find_delivery(context, request.delivery)
    resolved = await context.deliveries.resolve(delivery, asked[0], context.caller)
    return await one_of(context, resolved)


async def requeue(context: OpContext, request: OneInput) -> DeliveryOutput:
    """Queue the message of a delivery that has ended once more, as a new delivery."""
    delivery = await find_delivery(context, request.delivery)
    return await one_of(context, await context.deliveries.requeue(delivery, context.caller))


async def _page(
    context: OpContext, request: ListInput | DeadInput, states: Collection[DeliveryState]
) -> ListOutput:
    if request.after is not None and not ID.fullmatch(request.after):
        raise ValidationFailed(
            "after: that is not a cursor",
            hint="pass next of the page before, unchanged",
            details={"field": "after"},
        )
    thread: str | None = None
    if request.thread is not None:
        thread = (await context.lanes.resolve(request.thread, fuzzy=True)).key
    wanted = DeliveryFilter(thread=thread, states=states, before=request.after)
    found = await context.store.deliveries.list(wanted, request.limit + 1)
    page = found[: request.limit]
    return ListOutput(
        deliveries=await views_of(context, page),
        next=page[-1].id if len(found) > request.limit else None,
    )
