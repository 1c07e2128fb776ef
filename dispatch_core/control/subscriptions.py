"""Event subscriptions: cursors, filters, and the loop that writes events to one connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio.lowlevel import checkpoint

from dispatch_core.contracts.events import Event, EventKind, Gap
from dispatch_core.control.wire import Notification, notification_frame, printable
from dispatch_core.errors import ProtocolViolation, ValidationFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

MAX_SEQ_DIGITS = 18
# Events are written without waiting while the socket takes them; after so many the other tasks get their turn.
BURST = 64


class EventSource(Protocol):
    """The stream that connections subscribe to; an EventBus is one."""

    @property
    def last_seq(self) -> int:
        """The seq of the newest event; 0 before the first."""
        ...

    def subscribe(
        self, *, after: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Event | Gap]]:
        """Iterate over events with a seq greater than ``after``; a reader that falls behind gets a Gap."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What one client asked to see. gap: whether events are missing before the first; kinds: None for all."""

    number: int
    instance: str
    after: int
    gap: bool
    kinds: frozenset[str] | None
    thread: str | None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def cursor(self, seq: int) -> str:
        """Return the position behind the event with this seq."""
        return f"{self.instance}:{seq}"

    def wants(self, event: Event) -> bool:
        return (self.kinds is None or event.kind in self.kinds) and (
            self.thread is None or event.thread == self.thread
        )


def parse_subscription(
    params: Mapping[str, Any], *, number: int, instance: str, last_seq: int
) -> Subscription:
    """Return the subscription that the params of $subscribe describe.

    Raises ProtocolViolation for a wrong shape, ValidationFailed for a cursor or an event kind that does not exist.
    """
    unknown = params.keys() - {"after", "kinds", "thread"}
    if unknown:
        raise ProtocolViolation(f"$subscribe has no parameter {min(unknown)!r}")
    thread = params.get("thread")
    if thread is not None and not printable(thread, 256):
        raise ProtocolViolation("$subscribe: 'thread' must be the key of a thread or null")
    after, gap = _position(params.get("after"), instance, last_seq)
    kinds = _kinds(params.get("kinds"))
    return Subscription(
        number=number, instance=instance, after=after, gap=gap, kinds=kinds, thread=thread
    )


async def pump(
    subscription: Subscription, events: EventSource, write: Callable[[bytes], Awaitable[None]]
) -> None:
    """Write what the subscription wants to see until its scope is cancelled.

    Nothing is queued: the events stay in the shared ring while the connection is slow, and a gap is written when they were
    overwritten there before it caught up.
    """

    async def write_whole(seq: int, event: dict[str, Any] | None) -> None:
        # A frame that is cut off by $unsubscribe would spoil the connection. A peer that never reads does not hold this up for
        # ever: the end of its connection ends the write.
        with anyio.CancelScope(shield=True):
            await write(
                notification_frame(
                    Notification(subscription.number, subscription.cursor(seq), event)
                )
            )

    with subscription.scope:
        await checkpoint()
        if subscription.gap:
            await write_whole(subscription.after, None)
        async with AsyncExitStack() as stack:
            items = await stack.enter_async_context(events.subscribe(after=subscription.after))
            if isinstance(items, AsyncGenerator):
                await stack.enter_async_context(aclosing(items))
            count = 0
            async for item in items:
                count += 1
                if isinstance(item, Gap):
                    await write_whole(item.next_seq - 1, None)
                elif subscription.wants(item):
                    await write_whole(item.seq, event_json(item))
                if count % BURST == 0:
                    await checkpoint()


def event_json(event: Event) -> dict[str, Any]:
    """Return an event as clients see it."""
    return {
        "seq": event.seq,
        "at": event.at.isoformat(),
        "kind": str(event.kind),
        "thread": event.thread,
        "turn_id": event.turn_id,
        "data": dict(event.data),
    }


def _position(after: object, instance: str, last_seq: int) -> tuple[int, bool]:
    if after is None:
        return last_seq, False
    if type(after) is not str:
        raise ProtocolViolation("$subscribe: 'after' must be a cursor or null")
    origin, colon, digits = after.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit()) or len(digits) > MAX_SEQ_DIGITS:
        raise ValidationFailed(
            f"{after[:100]!r} is not a cursor", hint="use one that a subscription returned, or null"
        )
    # Another daemon's events are gone; what this one has seen since it started is the best continuation there is.
    return (int(digits), False) if origin == instance else (0, True)


def _kinds(kinds: object) -> frozenset[str] | None:
    if kinds is None:
        return None
    if type(kinds) is not list or not kinds or not all(type(kind) is str for kind in kinds):
        raise ProtocolViolation(
            "$subscribe: 'kinds' must be a list of one or more event kinds, or null"
        )
    known = {str(kind) for kind in EventKind}
    for kind in kinds:
        if kind not in known:
            raise ValidationFailed(
                f"there is no event kind {kind[:100]!r}",
                hint=f"the kinds are {', '.join(sorted(known))}",
            )
    return frozenset(kinds)
