"""Watching what happens, live."""

from __future__ import annotations

import json
from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import TYPE_CHECKING, Any

import anyio
from pydantic import Field

from dispatch_core.api import (
    Event,
    EventKind,
    Example,
    Gap,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    PluginSettings,
    Selectors,
    Stream,
    ValidationFailed,
    View,
    cli_field,
    hookimpl,
    printable,
    thread_field,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE = 500  # events of one answer
PAGE_CHARACTERS = 1_000_000  # of JSON in one answer, so that it always fits into a frame
POLL = 30.0  # seconds an unbounded call waits for the first event
LONGEST = 3600.0
MAX_SEQ_DIGITS = 18
GLYPHS = {
    EventKind.TURN_STARTED: ("●", "cyan"),
    EventKind.TURN_COMPLETED: ("✓", "green"),
    EventKind.TURN_FAILED: ("✗", "red"),
    EventKind.TURN_INTERRUPTED: ("■", "yellow"),
    EventKind.TURN_UNKNOWN: ("~", "yellow"),
    EventKind.APPROVAL_REQUESTED: ("?", "yellow"),
    EventKind.THREAD_CREATED: ("+", "green"),
    EventKind.TRIGGER_FIRED: ("»", "cyan"),
}

SPEAKERS = {"userMessage": "you", "agentMessage": "codex"}


class WatchInput(OpInput):
    """What to watch, from where on, and for how long."""

    thread: Selectors = thread_field(
        default=[],
        description="Refs, ids, handles (@name) or titles of managed threads; everything when left out.",
        max_length=100,
    )
    kinds: list[EventKind] = cli_field(
        [],
        description="Only these kinds of event; all but op.progress when left out.",
        aliases=("kind",),
    )
    after: str | None = cli_field(
        None, description="Go on behind this cursor; from now on when left out.", max_length=256
    )
    limit: int | None = cli_field(
        None,
        description="Return when there are this many; when left out, as soon as there is one.",
        ge=1,
        le=PAGE,
    )
    timeout: float | None = cli_field(
        None,
        description="Return what there is after this many seconds; 0 does not wait.",
        ge=0,
        le=LONGEST,
    )


class WatchedThread(OpOutput):
    """The thread of an event."""

    key: str = Field(description="dispatch's own id of the thread.")
    ref: str | None = Field(description="Its ref; null when it is not in the registry any more.")
    handle: str | None = Field(description="Its handle.")


class WatchedEvent(OpOutput):
    """One thing that happened."""

    cursor: str = Field(description="Where to go on after it.")
    at: datetime = Field(description="When.")
    kind: EventKind = Field(description="What.")
    thread: WatchedThread | None = Field(description="In which thread, if in one.")
    turn_id: str | None = Field(description="In which turn, if in one.")
    data: dict[str, Any] = Field(description="More about it; each kind has its own fields.")


class WatchOutput(OpOutput):
    """What happened, oldest event first."""

    events: list[WatchedEvent] = Field(description="The events.")
    cursor: str = Field(description="Where to go on: after of the next call.")
    gap: bool = Field(
        description="Whether events are missing before the first: the cursor was too old, or of another run of the daemon."
    )


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


def render_watch(output: WatchOutput, view: View) -> str:
    """One line an event."""
    lines = [view.paint("… some events may be missing here", "yellow")] if output.gap else []
    lines += [_line(event, view) for event in output.events]
    return "\n".join(lines) or "nothing has happened"


def _line(event: WatchedEvent, view: View) -> str:
    time = event.at.astimezone().strftime("%H:%M:%S")
    sign, color = GLYPHS.get(event.kind, ("·", "dim"))
    name = ""
    if event.thread is not None:
        name = f"{printable(event.thread.handle or '')} ({event.thread.ref or event.thread.key})  "
    head = f"{time}  {name}{sign} {event.kind.value}"
    painted = f"{view.paint(time, 'dim')}  {name}{view.paint(f'{sign} {event.kind.value}', color)}"
    more = _shorten(_detail(event), view.width - _columns(head) - 2)
    return f"{painted}  {more}" if more else painted


def _detail(event: WatchedEvent) -> str:
    """Return what a person would like to know of an event's data, on one line."""
    data = event.data
    if "text" in data:
        speaker = SPEAKERS.get(str(data.get("type")), data.get("type"))
        text = " ".join(str(data["text"] or "").split())
        return printable(f"{speaker}: {text}" if speaker else text)
    if event.kind.value.startswith("turn."):
        data = {name: value for name, value in data.items() if name != "status"}
    return printable(", ".join(f"{name} {value}" for name, value in data.items() if _plain(value)))


def _plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and value != ""


def _columns(text: str) -> int:
    """Return at most how many columns a text takes."""
    return sum(1 if char.isascii() or char in "●✓✗■·»…" else 2 for char in text)


def _shorten(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    kept, room = [], width - 1
    for char in text:
        room -= _columns(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" if kept else ""


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
