"""``tail``: the end of a thread's history, backwards by pages, and forwards as it grows."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import TYPE_CHECKING, Literal

import anyio
from pydantic import Field

from dispatch_core.api import (
    EventKind,
    Gap,
    OpInput,
    OpOutput,
    ThreadView,
    TurnStatus,
    TurnView,
    ValidationFailed,
    cli_field,
    thread_field,
    thread_view,
    turn_view,
)
from dispatch_plugins.ops.shared.queues import Standing, standing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from dispatch_core.api import Event, HistoryItem, OpContext, ThreadRecord

PAGES = 50  # of a history that are read for one call
READ = 100  # items in each of them when looking for what is new
POLL = 2.0  # seconds after which history is read again without news: other processes write threads too, and send none
MARKS = 2  # turns whose last item a cursor knows: a command can end after its turn did
CURSOR_LIMIT = 2000
NEWS = frozenset(
    {
        EventKind.ITEM_COMPLETED,
        EventKind.TURN_STARTED,
        EventKind.TURN_COMPLETED,
        EventKind.TURN_FAILED,
        EventKind.TURN_INTERRUPTED,
        EventKind.TURN_UNKNOWN,
    }
)

TURN_FAILED = "turnFailed"  # not an item of Codex: why a turn failed, told once to who follows

Role = Literal["user", "agent", "reasoning", "tool", "other"]
Marks = Mapping[str, str]


class TailInput(OpInput):
    """Which thread, and how much of it."""

    thread: str = thread_field(aliases=("lane",))
    limit: int = cli_field(
        20, description="At most this many items, the newest ones.", ge=1, le=500
    )
    role: list[Role] = cli_field(default_factory=list, description="Only items of this role.")
    before: str | None = cli_field(
        None, description="The items before this cursor: older of another page."
    )
    after: str | None = cli_field(
        None,
        description="The items after this cursor, as soon as there are any: cursor of the call before.",
    )
    timeout: float = cli_field(
        25.0, description="With after: wait this many seconds at most.", ge=0, le=60
    )
    full: bool = cli_field(
        False, description="Show people everything: output of tools, reasoning, long messages."
    )


class Item(OpOutput):
    """One item of a thread's history."""

    turn_id: str = Field(description="The turn it belongs to.")
    item_id: str | None = Field(description="Codex's id of the item.")
    type: str = Field(
        description="Codex's item type, such as userMessage, agentMessage, commandExecution; or turnFailed, after a cursor."
    )
    role: str = Field(description="user, agent, reasoning, tool or other.")
    text: str | None = Field(description="What a person would read of it.")
    at: datetime | None = Field(description="When it was begun, as far as Codex says.")
    turn_status: str | None = Field(description="How its turn stands.")


class TailOutput(OpOutput):
    """A part of a thread's history, oldest item first."""

    thread: ThreadView = Field(description="The thread.")
    turn: TurnView | None = Field(description="The latest turn; null on a page before the last.")
    items: list[Item] = Field(description="The items.")
    older: str | None = Field(
        description="What to pass as before for the items before these; null at the beginning."
    )
    cursor: str | None = Field(
        description="What to pass as after for the items that follow; null on a page before the last."
    )
    continues: bool = Field(
        description="Whether the first item belongs to the turn in which the cursor ended."
    )
    previous: str | None = Field(
        default=None,
        description="Behind a cursor: the role of the item before the first; null on a page.",
    )
    gap: bool = Field(
        description="Whether the place of the cursor is gone from history; then these are the last items."
    )
    full: bool = Field(description="Whether people asked to see everything.")
    queued: int = Field(
        default=0, description="On the last page: how many messages wait for the thread."
    )
    in_doubt: str | None = Field(
        default=None,
        description="On the last page: the message that holds the thread because it is unknown whether it ran.",
    )


@dataclass(frozen=True, slots=True)
class _Cursor:
    """How far a history was shown. marks: last item by turn, of the last turns. told: the failed turn whose error was shown."""

    marks: Marks
    told: str | None


@dataclass(frozen=True, slots=True)
class _Batch:
    """What is new behind marks, oldest first. gap: the marks are gone. previous: role of the item before the first."""

    items: Sequence[HistoryItem]
    gap: bool
    previous: str | None = None


async def tail(context: OpContext, request: TailInput) -> TailOutput:
    """Return the end of a thread's history, as Codex has it, or what comes before or after a cursor."""
    if request.before is not None and request.after is not None:
        raise ValidationFailed(
            "tail: before and after exclude each other", hint="dispatch tail --help"
        )
    cursor = None if request.after is None else _from_cursor(request.after)
    thread = await context.lanes.resolve(request.thread, fuzzy=True)
    if cursor is not None:
        return await _follow(context, thread, request, cursor)
    items, older = await _page(context, thread, request)
    last = request.before is None
    thread = await context.store.threads.get(thread.key) or thread
    before = await standing(context, thread) if last else Standing(0, None)
    return TailOutput(
        thread=thread_view(thread),
        turn=turn_view(thread.turn) if last else None,
        items=[item_view(item) for item in items if _wanted(item, request)],
        older=older,
        cursor=_to_cursor(_Cursor(_marks(items), _failed(thread))) if last else None,
        continues=False,
        previous=None,
        gap=False,
        full=request.full,
        queued=before.queued,
        in_doubt=before.in_doubt,
    )


def item_view(item: HistoryItem) -> Item:
    """Return the output form of an item."""
    return Item(
        turn_id=item.turn_id,
        item_id=item.item_id,
        type=item.type,
        role=item.role,
        text=item.text,
        at=item.at,
        turn_status=item.turn_status,
    )


async def _page(
    context: OpContext, thread: ThreadRecord, request: TailInput
) -> tuple[list[HistoryItem], str | None]:
    """Return items with at most limit wanted ones, oldest first, and where to go on towards the beginning.

    Never more are asked for than may be taken, so that ``older`` of the last page fits.
    """
    found: list[HistoryItem] = []
    cursor, lacking = request.before, request.limit
    for _ in range(PAGES):
        page = await context.lanes.history(thread, lacking, before=cursor)
        found[:0] = page.items
        cursor = page.older
        lacking -= sum(_wanted(item, request) for item in page.items)
        if lacking <= 0 or cursor is None:
            break
    return found, cursor


async def _follow(
    context: OpContext, thread: ThreadRecord, request: TailInput, cursor: _Cursor
) -> TailOutput:
    """Return what is new behind the cursor, as soon as there is something, or nothing at the timeout.

    History alone says what is new, so that nothing is shown twice or lost; events only say when to look.
    """
    deadline = anyio.current_time() + request.timeout
    while True:
        async with context.events.subscribe() as stream:
            thread = await context.store.threads.get(thread.key) or thread
            batch = await _since(context, thread, cursor.marks)
            taken = _take(batch.items, request)
            shown = [item_view(item) for item in taken if _wanted(item, request)]
            told = cursor.told
            if len(taken) == len(batch.items) and _failed(thread) not in (None, told):
                told = _failed(thread)
                shown += _failure(thread, request)
            left = deadline - anyio.current_time()
            if shown or batch.gap or left <= 0:
                break
            with anyio.move_on_after(min(left, POLL)):
                await _news(stream, thread.key)
    marks = _marks(taken, {} if batch.gap else cursor.marks)
    return TailOutput(
        thread=thread_view(thread),
        turn=turn_view(thread.turn),
        items=shown,
        older=None,
        cursor=_to_cursor(_Cursor(marks, told)),
        continues=bool(shown) and not batch.gap and shown[0].turn_id in cursor.marks,
        previous=batch.previous if shown else None,
        gap=batch.gap,
        full=request.full,
    )


async def _news(stream: AsyncIterator[Event | Gap], key: str) -> None:
    """Return when something has happened in a thread, or may have."""
    async for event in stream:
        if isinstance(event, Gap) or (event.thread == key and event.kind in NEWS):
            return


def _failed(thread: ThreadRecord) -> str | None:
    """Return the id of the latest turn if it failed."""
    turn = thread.turn
    return turn.id if turn is not None and turn.status is TurnStatus.FAILED else None


def _failure(thread: ThreadRecord, request: TailInput) -> list[Item]:
    turn = thread.turn
    if turn is None or turn.id is None or (request.role and "other" not in request.role):
        return []
    return [
        Item(
            turn_id=turn.id,
            item_id=None,
            type=TURN_FAILED,
            role="other",
            text=turn.error,
            at=turn.completed_at,
            turn_status=turn.status.value,
        )
    ]


async def _since(context: OpContext, thread: ThreadRecord, marks: Marks) -> _Batch:
    """Return the items behind the marks. Reads backwards until all marks were passed."""
    found: list[HistoryItem] = []
    missing = set(marks.items())
    cursor: str | None = None
    for _ in range(PAGES):
        page = await context.lanes.history(thread, READ, before=cursor)
        found[:0] = page.items
        missing -= {(item.turn_id, item.item_id) for item in page.items}
        cursor = page.older
        if cursor is None or (marks and not missing):
            break
    if marks and len(missing) == len(marks):
        return _Batch(found[-READ:], gap=True)
    fresh: list[HistoryItem] = []
    passed: set[str] = set()
    known = {turn for turn, item in marks.items() if (turn, item) not in missing}
    for item in found:
        if item.turn_id not in known:
            # A turn without a mark is new if it comes behind one with a mark.
            if passed or not marks:
                fresh.append(item)
        elif item.turn_id in passed:
            fresh.append(item)
        elif item.item_id == marks[item.turn_id]:
            passed.add(item.turn_id)
    at = found.index(fresh[0]) if fresh else len(found)
    return _Batch(fresh, gap=False, previous=found[at - 1].role if at else None)


def _take(items: Sequence[HistoryItem], request: TailInput) -> list[HistoryItem]:
    """Return the first items, with at most limit wanted ones."""
    taken: list[HistoryItem] = []
    room = request.limit
    for item in items:
        room -= _wanted(item, request)
        if room < 0:
            break
        taken.append(item)
    return taken


def _wanted(item: HistoryItem, request: TailInput) -> bool:
    return not request.role or item.role in request.role


def _marks(items: Sequence[HistoryItem], before: Marks | None = None) -> Marks:
    """Return the last item of each of the last turns, after items were shown behind marks."""
    marks = dict(before or {})
    for item in items:
        if item.item_id is not None:
            marks[item.turn_id] = item.item_id
    return dict(list(marks.items())[-MARKS:])


def _to_cursor(cursor: _Cursor) -> str:
    data = json.dumps([list(cursor.marks.items()), cursor.told], separators=(",", ":"))
    return urlsafe_b64encode(data.encode()).decode().rstrip("=")


def _from_cursor(text: str) -> _Cursor:
    try:
        if len(text) > CURSOR_LIMIT:
            raise ValueError("too long")
        pairs, told = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        marks = {turn: item for turn, item in pairs}  # noqa: C416 -- a pair of anything else must fail
        if not all(isinstance(part, str) for part in [*marks, *marks.values(), told or ""]):
            raise TypeError("ids are text")
    except (ValueError, TypeError, RecursionError) as error:
        raise ValidationFailed(
            "after: that is not a cursor of tail", hint="pass cursor of the call before, unchanged"
        ) from error
    return _Cursor(marks, told)
