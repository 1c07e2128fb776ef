"""Search in one thread: every item that matches, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.api import (
    CodexError,
    NotFound,
    ThreadRecord,
    ThreadStatus,
    ValidationFailed,
)
from dispatch_plugins.ops.search.models import Hit, SearchOutput
from dispatch_plugins.ops.shared.paging import Feed, Row, from_cursor, to_cursor
from dispatch_plugins.ops.shared.places import is_in
from dispatch_plugins.ops.shared.stored import StoredThread, moment, stored_thread

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import OpContext
    from dispatch_plugins.ops.search.threads import Terms
    from dispatch_plugins.ops.shared.paging import Fetch

ITEMS = 100  # per page of a managed thread's history
TURNS = 20  # per page of an unmanaged one's
PATIENCE = 20  # pages in one call
NAME = "items"
ROLES = {"userMessage": "user", "agentMessage": "agent", "reasoning": "reasoning"}


@dataclass(frozen=True, slots=True)
class _Text:
    """The text of one item."""

    turn_id: str
    item_id: str | None
    role: str
    at: datetime | None
    text: str


async def search_items(context: OpContext, terms: Terms, question: int) -> SearchOutput:
    """Return one page of the items of a thread that match. The dates are about the items; other filters leave all or nothing.

    Raises ThreadNotFound, and ValidationFailed for an order that a history cannot be read in.
    """
    request = terms.request
    if request.ascending or request.sort != "updated_at":
        raise ValidationFailed(
            "search: with --thread the newest items come first",
            hint="leave out --sort and --ascending",
        )
    place = from_cursor(request.after, question, [NAME])[NAME]
    thread = await context.lanes.locate(str(request.thread), fuzzy=True)
    if isinstance(thread, ThreadRecord):
        about, fetch = _managed(thread), _managed_pages(context, terms, thread)
    else:
        stored = await _read(context, thread)
        about, fetch = _unmanaged(stored), _unmanaged_pages(context, terms, stored.id)
    excluded = terms.managed not in (None, about.managed) or not is_in(about.cwd, terms.places)
    feed = Feed(fetch, None if excluded else place, patience=PATIENCE)
    hits: list[Hit] = []
    while len(hits) < request.limit and await feed.head() is not None:
        hits.append(_hit(about, feed.take().value, terms))
    if len(hits) >= request.limit:
        await feed.head()  # so that the last page is known to be the last
    notes = ["only a part of the history was read: go on with next"] if feed.paused else []
    return SearchOutput(
        query=request.query,
        hits=hits,
        next=to_cursor(question, {NAME: feed.place}),
        complete=not notes,
        notes=notes,
    )


def _managed_pages(context: OpContext, terms: Terms, thread: ThreadRecord) -> Fetch[_Text]:
    async def fetch(cursor: str | None) -> tuple[list[Row[_Text]], str | None]:
        page = await context.lanes.history(thread, ITEMS, before=cursor)
        texts = [
            _Text(item.turn_id, item.item_id, item.role, item.at, item.text or "")
            for item in reversed(page.items)
        ]
        return _matching(texts, terms), page.older

    return fetch


def _unmanaged_pages(context: OpContext, terms: Terms, native_id: str) -> Fetch[_Text]:
    async def fetch(cursor: str | None) -> tuple[list[Row[_Text]], str | None]:
        params = {"threadId": native_id, "limit": TURNS, "cursor": cursor, "itemsView": "full"}
        answer = await context.codex.request("thread/turns/list", params)
        texts = [
            text
            for turn in _objects(answer.get("data"))
            for item in reversed(_objects(turn.get("items")))
            if (text := _text(turn, item)) is not None
        ]
        following = answer.get("nextCursor")
        return _matching(texts, terms), following if isinstance(following, str) else None

    return fetch


def _matching(texts: list[_Text], terms: Terms) -> list[Row[_Text]]:
    return [
        Row(f"{text.turn_id}/{text.item_id}", None, text)
        for text in texts
        if terms.in_time(text.at) and terms.matcher.fits(text.text)
    ]


def _text(turn: dict[str, Any], item: dict[str, Any]) -> _Text | None:
    """Return what an item of a raw turn says, None when it says nothing."""
    parts = [item.get("text"), item.get("command"), item.get("aggregatedOutput")]
    parts += [part.get("text") for part in _objects(item.get("content"))]
    text = "\n".join(part for part in parts if isinstance(part, str) and part)
    turn_id, item_id = turn.get("id"), item.get("id")
    if not text or not isinstance(turn_id, str):
        return None
    return _Text(
        turn_id,
        item_id if isinstance(item_id, str) else None,
        ROLES.get(str(item.get("type")), "tool"),
        moment(turn.get("startedAt")),
        text,
    )


async def _read(context: OpContext, native_id: str) -> StoredThread:
    try:
        answer = await context.codex.request(
            "thread/read", {"threadId": native_id, "includeTurns": False}
        )
    except CodexError as error:
        if type(error) is not CodexError:
            raise
        raise NotFound(
            f"Codex has no thread {native_id}",
            hint="dispatch list, or dispatch list --unmanaged, shows the threads",
            details={"selector": native_id, "cause": error.message},
        ) from error
    raw = answer.get("thread")
    found = stored_thread(raw) if isinstance(raw, dict) else None
    if found is None:
        raise CodexError(f"Codex did not describe thread {native_id}")
    return found


def _managed(thread: ThreadRecord) -> Hit:
    return Hit(
        ref=thread.ref,
        id=thread.native_id,
        handle=thread.handle,
        managed=True,
        name=thread.title,
        cwd=thread.cwd,
        archived=thread.status is ThreadStatus.ARCHIVED,
        created_at=thread.created_at,
        updated_at=thread.updated_at,
        found_in=["codex"],
        snippet="",
        matches=[],
    )


def _unmanaged(thread: StoredThread) -> Hit:
    return Hit(
        id=thread.id,
        managed=False,
        name=thread.name,
        preview=thread.preview,
        cwd=thread.cwd,
        archived="archived_sessions" in (thread.path or ""),
        created_at=thread.created_at,
        updated_at=thread.updated_at,
        found_in=["codex"],
        snippet="",
        matches=[],
        path=thread.path,
    )


def _hit(about: Hit, item: _Text, terms: Terms) -> Hit:
    snippet, matches = terms.matcher.around(item.text)
    return about.model_copy(
        update={
            "snippet": snippet,
            "matches": matches,
            "role": item.role,
            "turn_id": item.turn_id,
            "item_id": item.item_id,
            "at": item.at,
        }
    )


def _objects(value: object) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
