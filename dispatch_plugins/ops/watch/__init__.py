"""Watching what happens, live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.api import (
    Event,
    EventKind,
    Example,
    Gap,
    Intent,
    Op,
    OpContext,
    PluginSettings,
    Stream,
    ValidationFailed,
    hookimpl,
)
from dispatch_plugins.ops.watch.contract import (
    PAGE,
    WatchedEvent,
    WatchedThread,
    WatchInput,
    WatchOutput,
)
from dispatch_plugins.ops.watch.text import render_watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE_CHARACTERS = 1_000_000  # of JSON in one answer, so that it always fits into a frame
POLL = 30.0  # seconds an unbounded call waits for the first event
MAX_SEQ_DIGITS = 18


async def watch(context: OpContext, request: WatchInput) -> WatchOutput:
    """Return the events behind a cursor, and wait for them as long as was asked."""
    keys = {(await context.lanes.resolve(name, fuzzy=True)).key for name in request.thread}
    instance = str(context.daemon.status()["instance"])
    seq, gap = _position(context, request.after, instance)
    batch = _Batch(seq, gap=gap, keys=keys, kinds=request.kinds)
    if request.limit is not None or request.timeout is not None:
        batch.room = request.limit or PAGE
        await _read(context, batch, request.timeout)
    else:
        await _read(context, batch, 0)
        if not batch.events and not batch.gap:
            batch.room = 1
            await _read(context, batch, POLL)
            batch.room = PAGE - 1
            await _read(context, batch, 0)
    return await _output(context, batch, instance)


class _Batch:
    """The events of one answer. seq: of the last one that was looked at. room: how many more there may be."""

    def __init__(self, seq: int, *, gap: bool, keys: set[str], kinds: Sequence[EventKind]) -> None:
        self.seq = seq
        self.gap = gap
        self.events: list[Event] = []
        self.room = PAGE
        self._keys = keys
        self._kinds = kinds
        self._characters = PAGE_CHARACTERS

    def take(self, item: Event | Gap) -> bool:
        """Take in what comes next; return whether there is room for more."""
        if isinstance(item, Gap):
            if self.events:
                return False  # the next answer begins with it: what is missing is always missing before the first event
            self.gap = True
            self.seq = item.next_seq - 1
            return True
        self.seq = item.seq
        if self._wants(item):
            self.events.append(item)
            self.room -= 1
            self._characters -= len(json.dumps(dict(item.data), default=str))
        return self.room > 0 and self._characters > 0

    def _wants(self, event: Event) -> bool:
        if self._kinds and event.kind not in self._kinds:
            return False
        if not self._kinds and event.kind is EventKind.PROGRESS:
            return False
        return not self._keys or event.thread in self._keys


async def _read(context: OpContext, batch: _Batch, seconds: float | None) -> None:
    """Take events until there is no room, for at most so many seconds; 0 takes what is there."""
    async with context.events.subscribe(after=batch.seq) as events:
        with anyio.move_on_after(seconds):
            async for item in events:
                if not batch.take(item):
                    return


def _position(context: OpContext, after: str | None, instance: str) -> tuple[int, bool]:
    """Return the seq behind which to begin, and whether events are missing before it. Raises ValidationFailed."""
    if after is None:
        return context.events.last_seq, False
    origin, colon, digits = after.rpartition(":")
    if not colon or not (digits.isascii() and digits.isdigit()) or len(digits) > MAX_SEQ_DIGITS:
        raise ValidationFailed(
            f"{after!r} is not a cursor",
            hint="use cursor of an earlier answer, or leave it out to watch from now on",
            details={"field": "after"},
        )
    # Another daemon's events are gone; what this one has seen since it started is the best continuation there is.
    return (int(digits), False) if origin == instance else (0, True)


async def _output(context: OpContext, batch: _Batch, instance: str) -> WatchOutput:
    threads: dict[str | None, WatchedThread | None] = {None: None}
    for event in batch.events:
        if event.thread is not None and event.thread not in threads:
            record = await context.store.threads.get(event.thread)
            threads[event.thread] = WatchedThread(
                key=event.thread,
                ref=record.ref if record else None,
                handle=record.handle if record else None,
            )
    return WatchOutput(
        events=[
            WatchedEvent(
                cursor=f"{instance}:{event.seq}",
                at=event.at,
                kind=event.kind,
                thread=threads[event.thread],
                turn_id=event.turn_id,
                data=dict(event.data),
            )
            for event in batch.events
        ],
        cursor=f"{instance}:{batch.seq}",
        gap=batch.gap,
    )


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the op."""
    return (
        Op(
            name="watch",
            summary="Watch what happens in threads, live",
            noun="message",
            input=WatchInput,
            output=WatchOutput,
            handler=watch,
            intent=Intent.READ,
            idempotent=True,
            timeout=None,
            stream=Stream(rows="events", always=True),
            examples=(
                Example(
                    title="what happens in a thread within a second",
                    input={"thread": ["@builder"], "kinds": ["turn.completed"], "timeout": 1},
                    output={"events": [], "gap": False},
                ),
                Example(
                    title="what there is now; behind a cursor of an earlier run",
                    input={"kinds": ["goal.changed"], "after": "earlier:0", "timeout": 0},
                    output={"events": [], "gap": True},
                ),
                Example(title="no cursor", input={"after": "yesterday"}, error="validation"),
            ),
            render=render_watch,
        ),
    )
