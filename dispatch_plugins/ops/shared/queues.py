"""The queue of a thread, and how the messages in it are named in text for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from dispatch_core.api import DeliveryState

if TYPE_CHECKING:
    from dispatch_core.api import DeliveryRecord, OpContext, ThreadRecord

SHORT = 8  # characters of an id that are shown
PAGE = 500  # messages of a queue that are read at once


@dataclass(frozen=True, slots=True)
class Standing:
    """What a thread has before it. queued: how many messages wait. in_doubt: id of the one of which it is unknown if it ran."""

    queued: int
    in_doubt: str | None


async def standing(context: OpContext, thread: ThreadRecord) -> Standing:
    """Return what a thread has before it."""
    head = await context.store.deliveries.head(thread.key)
    doubtful = head is not None and head.state is DeliveryState.UNKNOWN
    return Standing(
        queued=context.deliveries.waiting(thread.key),
        in_doubt=head.id if head is not None and doubtful else None,
    )


async def ahead_of(context: OpContext, delivery: DeliveryRecord) -> int | None:
    """Return how many messages of its thread are queued before a delivery; None if it is not queued any more."""
    passed, after = 0, None
    while delivery.state is DeliveryState.QUEUED:
        page = await context.store.deliveries.queue(delivery.thread, PAGE, after=after)
        for index, one in enumerate(page):
            if one.id == delivery.id:
                return passed + index
        if len(page) < PAGE:
            break
        passed, after = passed + len(page), page[-1].position
        await checkpoint()  # a store may answer at once, and nobody else would have a turn
    return None


def last_in_queue(context: OpContext, delivery: DeliveryRecord) -> int | None:
    """Return as ``ahead_of`` for a delivery that was queued a moment ago, without reading the queue."""
    if delivery.state is not DeliveryState.QUEUED:
        return None
    return max(0, context.deliveries.waiting(delivery.thread) - 1)


def short(delivery_id: str) -> str:
    """Return the end of an id, for ids begin with the time: of what was sent together the beginning is the same."""
    return delivery_id[-SHORT:]


def first_line(text: str) -> str:
    """Return the first line of a message that says something, without the space around it."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def queued_words(count: int, ref: str) -> str:
    """Return in words how many messages wait, and how to see them."""
    many = "1 message" if count == 1 else f"{count} messages"
    return f"{many}: dispatch delivery list --thread {ref} --state queued"


def ahead_words(ahead: int) -> str:
    """Return in words how many messages come before one that is queued."""
    if not ahead:
        return "it is next"
    return f"{ahead} message{'' if ahead == 1 else 's'} before it"
