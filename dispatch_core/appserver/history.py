"""What Codex has written down about a thread; the only proof of what became of a message."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from dispatch_core.appserver.items import item_text
from dispatch_core.appserver.messages import ThreadTurnsListParams, TurnInfo
from dispatch_core.contracts.context import HistoryItem
from dispatch_core.errors import CodexError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from dispatch_core.contracts.context import Codex

PAGE = 20
MAX_PAGES = 500
NO_TURN_YET = ("not materialized yet", "list_turns is not supported yet")


async def last_items(codex: Codex, thread_id: str, limit: int) -> list[HistoryItem]:
    """Return the last limit items, oldest first; none before the first turn.

    Raises CodexError if Codex does not know the thread, or as ``Codex.request`` does.
    """
    items: list[HistoryItem] = []
    async with aclosing(newest_first(codex, thread_id, page=min(limit, PAGE))) as stream:
        async for turn in stream:
            items += [
                HistoryItem(
                    turn_id=turn.id,
                    item_id=item_id if isinstance(item_id := item.get("id"), str) else None,
                    type=str(item.get("type")),
                    text=item_text(item),
                )
                for item in reversed(turn.items)
            ]
            if len(items) >= limit:
                break
    return items[: max(0, limit)][::-1]


async def find_turn(
    codex: Codex, thread_id: str, *, turn_id: str | None, client_id: str | None
) -> TurnInfo | None:
    """Return the newest turn with this id, or with a user message of this clientUserMessageId.

    None: the whole history was read and it is not there. Raises as last_items.
    """
    async with aclosing(newest_first(codex, thread_id)) as stream:
        async for turn in stream:
            if turn.id == turn_id or (client_id is not None and turn.holds_message(client_id)):
                return turn
    return None


async def newest_first(
    codex: Codex, thread_id: str, *, page: int = PAGE
) -> AsyncGenerator[TurnInfo, None]:
    """Iterate over the turns of a thread with all their items, asking for further pages as needed.

    page: turns per request. Raises CodexError when the history does not end.
    """
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        params = ThreadTurnsListParams(thread_id=thread_id, limit=max(1, page), cursor=cursor)
        try:
            answer = await codex.request("thread/turns/list", params.wire())
        except CodexError as error:
            if cursor is None and _says_no_turn_yet(error):
                return
            raise
        data = answer.get("data")
        for turn in data if isinstance(data, list) else ():
            if isinstance(turn, dict) and isinstance(turn.get("id"), str):
                yield TurnInfo.model_validate(turn)
        cursor = answer.get("nextCursor")
        if not isinstance(cursor, str):
            return
    raise CodexError(
        f"the history of thread {thread_id} did not end after {MAX_PAGES * page} turns",
        hint="read it with codex resume",
    )


def _says_no_turn_yet(error: CodexError) -> bool:
    # The code differs between versions (-32600, -32601) and says nothing; the prose tells.
    return type(error) is CodexError and any(text in error.message for text in NO_TURN_YET)
