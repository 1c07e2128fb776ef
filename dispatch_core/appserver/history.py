"""What Codex has written down about a thread; the only proof of what became of a message."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.calls import typed
from dispatch_core.appserver.cursors import ByItem, ByTurn, decode, encode, invalid_cursor
from dispatch_core.appserver.items import item_text, role_of
from dispatch_core.appserver.messages import TurnInfo
from dispatch_core.appserver.signals import turn_status
from dispatch_core.appserver.thread_messages import ThreadItemsListParams, ThreadTurnsListParams
from dispatch_core.contracts.context import HistoryItem, HistoryPage
from dispatch_core.errors import CodexError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from dispatch_core.appserver.messages import ItemsView
    from dispatch_core.contracts.context import Codex

PAGE = 20  # turns per request
ITEMS = 100  # items per request, as many as Codex gives
MAX_PAGES = 500
NO_TURN_YET = ("not materialized yet", "list_turns is not supported yet")
NO_ITEMS = (
    "thread/items/list is not supported yet"  # an older history, no turn yet, or no such thread
)
BAD_CURSOR = ("invalid cursor", NO_ITEMS)


async def page(
    codex: Codex, thread_id: str, limit: int, *, before: str | None = None
) -> HistoryPage:
    """Return limit items up to before, or the last ones, oldest first; none before the first turn.

    before: ``older`` of another page of this thread. Items that came since are on no older page, and none is on two.
    Raises ValidationFailed for a cursor that makes no sense, ThreadUnknown when Codex has no such thread,
    CapabilityUnavailable for an ephemeral one.
    """
    place = decode(before) if before is not None else ByItem()
    try:
        try:
            if isinstance(place, ByItem):
                return await _by_item(codex, thread_id, max(limit, 1), place)
        except CodexError as error:
            if before is not None or NO_ITEMS not in error.message:
                raise
            place = ByTurn()
        return await _by_turn(codex, thread_id, max(limit, 1), place)
    except CodexError as error:
        if before is not None and any(text in error.message for text in BAD_CURSOR):
            raise invalid_cursor() from error
        raise typed(error) from error


async def find_turn(
    codex: Codex, thread_id: str, *, turn_id: str | None, client_id: str | None
) -> TurnInfo | None:
    """Return the newest turn with this id, or with a user message of this clientUserMessageId.

    None: the whole history was read and it is not there. Raises CodexError if Codex does not know the thread, or as
    ``Codex.request`` does.
    """
    async with aclosing(newest_first(codex, thread_id)) as stream:
        async for turn in stream:
            if turn.id == turn_id or (client_id is not None and turn.holds_message(client_id)):
                return turn
    return None


async def newest(codex: Codex, thread_id: str) -> TurnInfo | None:
    """Return the newest turn, with its first message; None before the first. Raises as find_turn."""
    async with aclosing(newest_first(codex, thread_id, page=1, view="summary")) as stream:
        async for turn in stream:
            return turn
    return None


async def newest_first(
    codex: Codex, thread_id: str, *, page: int = PAGE, view: ItemsView = "full"
) -> AsyncGenerator[TurnInfo, None]:
    """Iterate over the turns of a thread, asking for further pages as needed.

    page: turns per request. view: how much of each turn. Raises CodexError when the history does not end.
    """
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        turns, cursor = await _turns(codex, thread_id, cursor, limit=max(1, page), view=view)
        for turn in turns:
            yield turn
        if cursor is None:
            return
    raise CodexError(
        f"the history of thread {thread_id} did not end after {MAX_PAGES * page} turns",
        hint="read it with codex resume",
    )


async def _by_item(codex: Codex, thread_id: str, limit: int, place: ByItem) -> HistoryPage:
    """Return a page of a history that Codex gives by items, with what it says of their turns."""
    entries: list[dict[str, Any]] = []
    cursor = place.items
    while len(entries) < limit:
        params = ThreadItemsListParams(
            thread_id=thread_id, limit=min(limit - len(entries), ITEMS), cursor=cursor
        )
        answer = await codex.request("thread/items/list", params.wire())
        entries += [
            entry
            for entry in _objects(answer.get("data"))
            if isinstance(entry.get("item"), dict) and isinstance(entry.get("turnId"), str)
        ]
        cursor = _string(answer.get("nextCursor"))
        if cursor is None:
            break
    turns, among = await _turns_of(
        codex, thread_id, {entry["turnId"] for entry in entries}, place.turns
    )
    items = tuple(
        _item(
            entry["item"],
            turn_id=entry["turnId"],
            turn=turns.get(entry["turnId"]),
            at=_moment(entry.get("startedAtMs"), per_second=1000),
        )
        for entry in reversed(entries)
    )
    return HistoryPage(items=items, older=encode(ByItem(cursor, among)) if cursor else None)


async def _turns_of(
    codex: Codex, thread_id: str, wanted: set[str], cursor: str | None
) -> tuple[dict[str, TurnInfo], str | None]:
    """Return turns by id, without their items, and the cursor of the turns among which the oldest of them is."""
    found: dict[str, TurnInfo] = {}
    for _ in range(MAX_PAGES if wanted else 0):
        turns, following = await _turns(codex, thread_id, cursor, limit=PAGE, view="notLoaded")
        found.update((turn.id, turn) for turn in turns if turn.id in wanted)
        if following is None or len(found) == len(wanted):
            break
        cursor = following
    return found, cursor


async def _by_turn(codex: Codex, thread_id: str, limit: int, place: ByTurn) -> HistoryPage:
    """Return a page of a history that Codex gives by turns only."""
    items: list[HistoryItem] = []  # newest first
    cursor, next_turn = place.turns, place.turn
    for _ in range(MAX_PAGES):
        turns, following = await _turns(
            codex, thread_id, cursor, limit=min(limit, PAGE), view="full"
        )
        for turn in turns:
            if next_turn not in (None, turn.id):
                continue  # turns that came since
            held = turn.items if next_turn is None else turn.items[: place.left]
            next_turn = None
            rest = max(0, len(held) - (limit - len(items)))
            items += [_item(item, turn_id=turn.id, turn=turn) for item in reversed(held[rest:])]
            if rest:
                return _page(items, ByTurn(cursor, turn.id, rest))
        if following is None:
            break
        if len(items) >= limit:
            return _page(items, ByTurn(following))
        cursor = following
    if next_turn is not None:
        raise invalid_cursor()
    return _page(items, None)


async def _turns(
    codex: Codex, thread_id: str, cursor: str | None, *, limit: int, view: ItemsView
) -> tuple[list[TurnInfo], str | None]:
    """Return one page of turns, newest first, and the cursor of the next; nothing before the first turn."""
    params = ThreadTurnsListParams(thread_id=thread_id, limit=limit, cursor=cursor, items_view=view)
    try:
        answer = await codex.request("thread/turns/list", params.wire())
    except CodexError as error:
        if cursor is None and _says_no_turn_yet(error):
            return [], None
        raise
    turns = [
        TurnInfo.model_validate(turn)
        for turn in _objects(answer.get("data"))
        if isinstance(turn.get("id"), str)
    ]
    return turns, _string(answer.get("nextCursor"))


def _page(newest_first: list[HistoryItem], older: ByTurn | None) -> HistoryPage:
    return HistoryPage(items=tuple(reversed(newest_first)), older=encode(older) if older else None)


def _item(
    item: Mapping[str, Any], *, turn_id: str, turn: TurnInfo | None, at: datetime | None = None
) -> HistoryItem:
    status = turn_status(turn.status) if turn is not None else None
    began = _moment(turn.started_at) if turn is not None else None
    return HistoryItem(
        turn_id=turn_id,
        item_id=_string(item.get("id")),
        type=str(item.get("type")),
        text=item_text(item),
        role=role_of(item),
        at=at or began,
        turn_status=status.value if status is not None else None,
    )


def _moment(value: object, *, per_second: int = 1) -> datetime | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return datetime.fromtimestamp(value / per_second, UTC)


def _objects(value: object) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _says_no_turn_yet(error: CodexError) -> bool:
    # The code differs between versions (-32600, -32601) and says nothing; the prose tells.
    return type(error) is CodexError and any(text in error.message for text in NO_TURN_YET)
