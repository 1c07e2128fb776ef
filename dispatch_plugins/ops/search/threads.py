"""Search over all threads: the index and Codex's own search, merged in one order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from dispatch_core.api import (
    CapabilityUnavailable,
    CodexError,
    DispatchError,
    OutcomeUnknown,
    SearchQuery,
    ThreadStatus,
    unmarked,
)
from dispatch_plugins.ops.search.models import FoundIn, Hit, SearchOutput
from dispatch_plugins.ops.shared.paging import Feed, Place, Row, from_cursor, to_cursor
from dispatch_plugins.ops.shared.places import is_in, narrowest
from dispatch_plugins.ops.shared.stored import SOURCE_KINDS, StoredThread, managed_id, stored_thread

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import OpContext, SearchHit, ThreadRecord
    from dispatch_plugins.ops.search.matching import Matcher
    from dispatch_plugins.ops.search.models import SearchInput
    from dispatch_plugins.ops.shared.paging import Fetch

INDEX, PRESENT, ARCHIVED = "index", "codex", "codex-archived"
FEEDS = (INDEX, PRESENT, ARCHIVED)
MISSED = "missed"  # in a cursor: the sources that failed on a page before, and are not asked again
CODEX_PAGE = 50
PATIENCE = 10  # pages of one source in one call; what is behind them is on the next page


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked for, resolved. places: see ``places.under``; none: no directory can be in all of them."""

    request: SearchInput
    matcher: Matcher
    managed: bool | None
    places: tuple[tuple[str, ...], ...]
    since: datetime | None
    until: datetime | None

    def in_time(self, moment: datetime | None) -> bool:
        """Return whether a date is within the bounds; one that is not known only if there are none."""
        if moment is None:
            return self.since is None and self.until is None
        return (self.since is None or moment >= self.since) and (
            self.until is None or moment <= self.until
        )


@dataclass(frozen=True, slots=True)
class _Stored:
    """A thread that Codex found."""

    thread: StoredThread
    snippet: str


@dataclass(slots=True)
class _Search:
    """One page in the making.

    under: as the index takes it, None when no thread can be there. both: threads that the index and Codex found. broken: by
    source, why it was not searched. missed: sources that failed on a page before.
    """

    context: OpContext
    terms: Terms
    under: tuple[str, ...] | None
    both: set[str] = field(default_factory=set)
    broken: dict[str, DispatchError] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    behind: int = 0

    def query(self, **changes: object) -> SearchQuery:
        """Return the question as the index takes it."""
        request = self.terms.request
        values: dict[str, object] = {
            "text": request.query,
            "managed": self.terms.managed,
            "under": self.under or (),
            "since": self.terms.since,
            "until": self.terms.until,
            "date_field": request.date_field,
            "archived": None if request.archived else False,
            "sort": request.sort,
            "ascending": request.ascending,
            "limit": request.limit,
        }
        return SearchQuery(**{**values, **changes})  # type: ignore[arg-type]

    def order(self, moment: datetime | None) -> float | None:
        """Return what to sort by, ascending, for the date that the answer is sorted by."""
        if moment is None:
            return None
        return moment.timestamp() if self.terms.request.ascending else -moment.timestamp()


async def search_threads(context: OpContext, terms: Terms, question: int) -> SearchOutput:
    """Return one page of threads that match, each once.

    A thread that the index finds is left to the index: Codex's pages are checked against it, so that the two are disjoint
    and can be merged by their dates. Raises what is in the way when neither the index nor Codex can be asked.
    """
    request = terms.request
    search = _Search(context, terms, narrowest(terms.places))
    places = from_cursor(request.after, question, (*FEEDS, MISSED))
    failed = places.pop(MISSED)
    search.missed = (failed.page or "").split() if failed is not None else []
    if not request.archived:
        places[ARCHIVED] = None
    if search.under is None:
        places = dict.fromkeys(FEEDS)
    index: Feed[SearchHit] = Feed(_index_pages(search), places[INDEX], patience=PATIENCE)
    codex = {
        name: Feed(_codex_pages(search, name), places[name], patience=PATIENCE)
        for name in (PRESENT, ARCHIVED)
    }
    await index.head()  # first, for Codex's pages are checked against it
    async with anyio.create_task_group() as tasks:
        for feed in codex.values():
            tasks.start_soon(feed.head)
    if INDEX in search.broken and PRESENT in search.broken:
        raise search.broken[PRESENT]
    hits = await _merge(search, index, codex)
    feeds: dict[str, Feed[SearchHit] | Feed[_Stored]] = {INDEX: index, **codex}
    notes = _notes(search, paused=any(feed.paused for feed in feeds.values()))
    following = {name: feed.place for name, feed in feeds.items() if feed.place is not None}
    failures = " ".join(dict.fromkeys([*search.missed, *search.broken]))
    if following and failures:
        following[MISSED] = Place(failures)
    return SearchOutput(
        query=request.query,
        hits=hits,
        next=to_cursor(question, following),
        complete=not notes,
        notes=notes,
    )


async def _merge(
    search: _Search, index: Feed[SearchHit], codex: dict[str, Feed[_Stored]]
) -> list[Hit]:
    """Take the rows that come first, up to the limit, or until it is not known which comes next."""
    hits: list[Hit] = []
    while True:
        indexed = await index.head()
        stored = [(await feed.head(), feed) for feed in codex.values()]
        if index.paused or any(feed.paused for feed in codex.values()):
            return hits
        rows = [(row, feed) for row, feed in stored if row is not None]
        first = min(rows, key=lambda pair: _rank(pair[0]), default=None)
        if len(hits) >= search.terms.request.limit or (indexed is None and first is None):
            return hits
        if first is None or (indexed is not None and _index_first(search, indexed, first[0])):
            hits.append(await _index_hit(search, index.take().value))
        else:
            hits.append(await _codex_hit(search, first[1].take().value))


def _rank(row: Row[SearchHit] | Row[_Stored]) -> float:
    return row.order if row.order is not None else math.inf


def _index_first(search: _Search, indexed: Row[SearchHit], stored: Row[_Stored]) -> bool:
    # Codex ranks nothing, so what it alone finds comes behind all that is ranked.
    return search.terms.request.sort == "relevance" or _rank(indexed) <= _rank(stored)


def _index_pages(search: _Search) -> Fetch[SearchHit]:
    by_created = search.terms.request.sort == "created_at"
    ranked = search.terms.request.sort == "relevance"

    async def fetch(cursor: str | None) -> tuple[list[Row[SearchHit]], str | None]:
        try:
            page = await search.context.history.search(search.query(cursor=cursor))
        except CapabilityUnavailable as error:
            search.broken[INDEX] = error
            return [], None
        search.behind = max(search.behind, page.behind)
        rows = []
        for hit in page.hits:
            date = hit.facts.created_at if by_created else hit.facts.latest_event_at
            rows.append(Row(hit.facts.native_id, None if ranked else search.order(date), hit))
        return rows, page.next

    return fetch


def _codex_pages(search: _Search, name: str) -> Fetch[_Stored]:
    request = search.terms.request
    archived = name == ARCHIVED

    async def fetch(cursor: str | None) -> tuple[list[Row[_Stored]], str | None]:
        params = {
            "searchTerm": search.terms.matcher.literal,
            "archived": archived,
            "cursor": cursor,
            "limit": CODEX_PAGE,
            "sourceKinds": list(SOURCE_KINDS),
            "sortKey": "created_at" if request.sort == "created_at" else "updated_at",
            "sortDirection": "asc" if request.ascending else "desc",
        }
        try:
            answer = await search.context.codex.request("thread/search", params)
        except (CodexError, OutcomeUnknown) as error:
            search.broken[name] = error
            return [], None
        following = answer.get("nextCursor")
        rows = await _not_indexed(
            search, await _rows(search, answer.get("data"), archived=archived)
        )
        return rows, following if isinstance(following, str) else None

    return fetch


async def _rows(search: _Search, data: object, *, archived: bool) -> list[Row[_Stored]]:
    """Return what Codex found, as far as the filters that it does not have let it through."""
    terms, rows = search.terms, []
    for entry in data if isinstance(data, list) else ():
        raw = entry.get("thread") if isinstance(entry, dict) else None
        thread = stored_thread(raw, archived=archived) if isinstance(raw, dict) else None
        if thread is None or not is_in(thread.cwd, terms.places):
            continue
        by_created = terms.request.date_field == "created_at"
        if not terms.in_time(thread.created_at if by_created else thread.updated_at):
            continue
        managed = terms.managed
        if managed is not None and managed is not await managed_id(search.context, thread.id):
            continue
        date = thread.created_at if terms.request.sort == "created_at" else thread.updated_at
        snippet = entry.get("snippet")
        text = snippet if isinstance(snippet, str) else ""
        rows.append(Row(thread.id, search.order(date), _Stored(thread, text)))
    return rows


async def _not_indexed(search: _Search, rows: list[Row[_Stored]]) -> list[Row[_Stored]]:
    """Return the rows that the index does not find by itself."""
    if not rows or INDEX in search.broken or INDEX in search.missed:
        return rows
    ids = [row.id for row in rows]
    page = await search.context.history.search(search.query(native_ids=ids, limit=len(ids)))
    indexed = {hit.facts.native_id for hit in page.hits}
    search.both |= indexed
    return [row for row in rows if row.id not in indexed]


async def _index_hit(search: _Search, hit: SearchHit) -> Hit:
    facts = hit.facts
    record = await _record(search.context, facts.native_id)
    found_in: list[FoundIn] = ["index", "codex"] if facts.native_id in search.both else ["index"]
    snippet, matches = unmarked(hit.snippet)
    return Hit(
        ref=record.ref if record else None,
        id=facts.native_id,
        handle=record.handle if record else None,
        managed=record is not None,
        name=(record.title if record else None) or facts.title,
        preview=facts.preview,
        cwd=facts.cwd or (record.cwd if record else None),
        archived=facts.archived,
        created_at=facts.created_at,
        updated_at=facts.latest_event_at,
        found_in=found_in,
        snippet=snippet,
        matches=matches,
        role=hit.role,
        turn_id=hit.turn_id,
        item_id=None,
        at=hit.at,
        path=hit.path,
        offset=hit.offset,
    )


async def _codex_hit(search: _Search, found: _Stored) -> Hit:
    thread = found.thread
    record = await _record(search.context, thread.id)
    snippet = " ".join(found.snippet.split())
    return Hit(
        ref=record.ref if record else None,
        id=thread.id,
        handle=record.handle if record else None,
        managed=record is not None,
        name=thread.name or (record.title if record else None),
        preview=thread.preview,
        cwd=thread.cwd or (record.cwd if record else None),
        archived=thread.archived or (record is not None and record.status is ThreadStatus.ARCHIVED),
        created_at=thread.created_at,
        updated_at=thread.updated_at,
        found_in=["codex"],
        snippet=snippet,
        matches=search.terms.matcher.marks(snippet),
        role=None,
        turn_id=None,
        item_id=None,
        at=None,
        path=thread.path,
        offset=None,
    )


async def _record(context: OpContext, native_id: str) -> ThreadRecord | None:
    found = await context.store.threads.find("native_id", native_id)
    return found[0] if found else None


def _notes(search: _Search, *, paused: bool) -> list[str]:
    notes = []
    if error := search.broken.get(INDEX):
        notes.append(f"there is no index: {error.message}")
    if error := search.broken.get(PRESENT) or search.broken.get(ARCHIVED):
        notes.append(f"Codex could not be asked, so only the index was searched: {error.message}")
    if search.missed:
        named = "the index" if INDEX in search.missed else "Codex"
        notes.append(f"{named} could not be asked on a page before: begin anew to search all")
    if search.behind:
        notes.append(
            f"{search.behind} histories have text that is not indexed yet: dispatch sync reads it"
        )
    if paused:
        notes.append("the search stopped early, for little of what was found fits: go on with next")
    return notes
