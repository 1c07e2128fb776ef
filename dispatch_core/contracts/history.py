"""Histories on disk: how much of each is known, and search over their text.

A *source* is one rollout file of Codex. What is indexed is a *document*: the text of one item of a history, with its place in the
source; the text itself stays in the source and is read from there when a hit is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

SortOrder = Literal["updated_at", "created_at", "relevance"]
DateField = Literal["updated_at", "created_at"]


class SyncState(StrEnum):
    """How much of a source is in the index.

    METADATA: what its head says, no text. PARTIAL: head and tail. COMPLETE: all of it. ERROR: it could not be read.
    """

    UNKNOWN = "unknown"
    METADATA = "metadata"
    PARTIAL = "partial"
    COMPLETE = "complete"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far a source was read.

    offset: bytes, always behind a complete line. (device, inode, size, mtime_ns): as the file was then; a size that no file has,
    or a smaller one with no mtime_ns, says that the reading was not finished. gap: from where to where nothing was read; None
    when everything up to offset was. lines and malformed: of what was read.
    """

    path: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    offset: int
    gap: tuple[int, int] | None = None
    lines: int = 0
    malformed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The text of one item. role: "user", "agent", "reasoning", "tool" or "other". offset: of its line in the source, bytes."""

    offset: int
    at: datetime | None
    turn_id: str | None
    role: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What a source says about its thread. None: it does not say. history_mode: "paginated" or "legacy".

    latest_event_at: of the newest line. latest_turn_id: of the newest turn that ended. lines and malformed: None unless the
    whole source was read. segment: the id of this source; a thread whose turns were reverted has several, and they sort by age.
    base: the segment, and how many bytes of it, that this source continues; of another thread when it was forked.
    """

    native_id: str
    cwd: str | None = None
    title: str | None = None
    preview: str | None = None
    origin: str | None = None
    history_mode: str | None = None
    forked_from: str | None = None
    model_provider: str | None = None
    model: str | None = None
    effort: str | None = None
    created_at: datetime | None = None
    latest_event_at: datetime | None = None
    latest_turn_id: str | None = None
    lines: int | None = None
    malformed: int | None = None
    archived: bool = False
    segment: str | None = None
    base: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySource:
    """A source as the index has it. synced_at: when it was looked at last. error: why state is ERROR."""

    checkpoint: Checkpoint
    facts: SourceFacts
    state: SyncState
    synced_at: datetime
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """What to look for. Every filter is part of the query.

    text: words that must all occur; "quoted words" stand together, and word* is the beginning of a word. managed: only threads
    that are (not) in the registry.
    native_ids: only these threads. under: only threads whose directory is one of these or below one. since and until: inclusive
    bounds on date_field; a thread without that date is outside. archived: None for both. cursor: next of the page before.
    """

    text: str
    managed: bool | None = None
    native_ids: Sequence[str] | None = None
    under: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    date_field: DateField = "updated_at"
    archived: bool | None = False
    sort: SortOrder = "updated_at"
    ascending: bool = False
    limit: int = 20
    cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """A document that matches. snippet: the text around the match, on one line, with the matches between U+0002 and U+0003.

    An index that keeps no text leaves at, turn_id, role and snippet as they are here, and has them read from the source. They
    stay so when the source cannot be read any more.
    """

    facts: SourceFacts
    path: str
    offset: int
    at: datetime | None = None
    turn_id: str | None = None
    role: str = "other"
    snippet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPage:
    """A page of hits, one for each thread that matches: its newest, or most relevant. next: None on the last page.

    behind: sources whose newest text is not in the index yet, as far as is known; a sync reads them.
    """

    hits: tuple[SearchHit, ...]
    next: str | None
    behind: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceChange:
    """What was read of a source.

    replace: drop what was indexed of it before; otherwise the documents are added to it.
    """

    source: HistorySource
    documents: Iterable[Document]
    replace: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexAddress:
    """How another process opens the same index: it calls function in module with arguments.

    The function returns a context manager that yields the index.
    """

    module: str
    function: str
    arguments: tuple[str, ...]


class HistoryIndex(Protocol):
    """Sources, their facts, and full-text search over their documents. Disposable: it can be built again from the sources.

    The blocking methods are called in a worker thread of the one indexer; the others on the event loop.
    """

    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """Return how far every source was read, by path. Blocking."""
        ...

    def source(self, path: str) -> HistorySource | None:
        """Return what is known of one source. Blocking."""
        ...

    def expect(self, paths: Sequence[str]) -> None:
        """Take note of new sources, oldest first, that are applied later, in any order or not at all. Blocking.

        An index may keep their documents in this order.
        """
        ...

    def apply(self, changes: Iterable[SourceChange]) -> int:
        """Store what was read, documents and checkpoint of a source together, in large transactions. Blocking.

        A source may come in several changes, each with the checkpoint that its documents reach. Returns the number of documents.
        Raises StorageError; what was committed before stays.
        """
        ...

    def name(self, titles: Mapping[str, str]) -> None:
        """Give threads that are known the titles they have now, by native id. Blocking."""
        ...

    def forget(self, paths: Sequence[str]) -> None:
        """Drop sources that are gone, with their documents. Blocking."""
        ...

    def moved(self, before: str, after: str, *, archived: bool) -> None:
        """A source has another path; its documents stay. Blocking."""
        ...

    def sources(self, native_ids: Sequence[str]) -> Mapping[str, HistorySource]:
        """Return what is known of these threads, by native id. Quick: on the event loop."""
        ...

    async def search(
        self, query: SearchQuery, read: Callable[[SearchHit], SearchHit] | None = None
    ) -> SearchPage:
        """Return the threads that match. Raises ValidationFailed for a query or cursor that makes no sense.

        read: blocking; completes a hit from its source, for an index that keeps no text.
        """
        ...

    def address(self) -> IndexAddress | None:
        """Return how another process opens it, for a long pass; None when only this process can."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a pass over sources did. seconds: wall time. problems: sources that could not be read, with the reason."""

    sources: int
    changed: int
    new: int
    moved: int
    gone: int
    documents: int
    bytes_read: int
    seconds: float
    problems: tuple[str, ...] = ()


class History(Protocol):
    """The histories on disk, kept in the index."""

    async def sync(
        self,
        *,
        native_ids: Sequence[str] | None = None,
        full: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> SyncReport:
        """Read what is new in the sources: of these threads, or of all there are. One pass runs at a time.

        full: the whole of every source that is not COMPLETE; otherwise a source that is new is read at its head and tail, and one
        that grew from where it ended. progress: called with sources done and sources in all.
        """
        ...

    async def search(self, query: SearchQuery) -> SearchPage:
        """Search the index, after a look for what is new. Raises CapabilityUnavailable when the storage backend has none.

        The look is a quick sync of everything that gives up after a second or so, and is left out when the last one was just now
        or one is running.
        """
        ...

    def sources(self, native_ids: Sequence[str]) -> Mapping[str, HistorySource]:
        """Return what is known of these threads, by native id; nothing without an index."""
        ...
