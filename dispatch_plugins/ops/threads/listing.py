"""``list``: the managed threads, or those of Codex that are not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from dispatch_core.api import (
    OpInput,
    OpOutput,
    ThreadView,
    TurnView,
    ValidationFailed,
    View,
    cli_field,
    glyph,
    thread_view,
    turn_view,
)
from dispatch_plugins.ops.shared.paging import (
    START,
    Feed,
    Place,
    Row,
    fingerprint,
    from_cursor,
    to_cursor,
)
from dispatch_plugins.ops.shared.places import is_in, under
from dispatch_plugins.ops.shared.stored import (
    PAGE,
    SOURCE_KINDS,
    StoredThread,
    managed_id,
    stored_thread,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatch_core.api import OpContext, ThreadRecord
    from dispatch_plugins.ops.shared.paging import Fetch

STORE_PAGE = 1000
PATIENCE = 20  # pages of Codex in one call; what is behind them is on the next page
WIDE = 100  # columns from which unmanaged threads show where they came from

Status = Literal[
    "idle", "busy", "waiting_approval", "archived", "error", "unknown", "not_loaded"
]  # fmt: skip
MANAGED = ("managed",)
UNMANAGED = ("present", "archived")


class ListInput(OpInput):
    """Which threads to list."""

    unmanaged: bool = cli_field(
        False, description="List the threads of Codex that are not managed, instead."
    )
    archived: bool = cli_field(False, description="Show archived threads as well.")
    status: list[Status] = cli_field(
        default_factory=list, description="Only threads in this state."
    )
    repo: str | None = cli_field(
        None, description="Only threads in the Git repository that this directory is in.", path=True
    )
    directory: str | None = cli_field(
        None, description="Only threads in this directory or below.", path=True, aliases=("dir",)
    )
    limit: int = cli_field(200, description="At most this many.", ge=1, le=1000)
    after: str | None = cli_field(
        None,
        description="Continue after this cursor: next of the page before.",
        aliases=("cursor",),
    )


class UnmanagedView(OpOutput):
    """A thread of Codex that is not managed, in short."""

    ref: None = Field(default=None, description="Only managed threads have a ref.")
    id: str = Field(description="Codex's own thread id; what attach takes.")
    handle: None = Field(default=None, description="Only managed threads have a handle.")
    title: str | None = Field(description="Its name in Codex.")
    key: None = Field(default=None, description="Only managed threads have a key.")
    managed: Literal[False] = Field(default=False, description="It is not in the registry.")
    source: Literal["unmanaged"] = Field(
        default="unmanaged", description="It can be read once it is attached."
    )
    status: str = Field(
        description="As Codex says it: not_loaded (another process may use it), idle, busy, waiting_approval, error, archived."
    )
    cwd: str | None = Field(description="Absolute working directory of the thread.")


class ThreadRow(OpOutput):
    """A thread in a list."""

    thread: ThreadView | UnmanagedView = Field(description="The thread.")
    preview: str | None = Field(
        description="How its first message begins; null for managed threads."
    )
    origin: str | None = Field(
        description="What made it: cli, vscode, exec, subAgent…; null for managed threads."
    )
    provider: str | None = Field(description="Its model provider, as Codex last said.")
    model: str | None = Field(
        description="The model it uses, as Codex last said, else the one it was made with."
    )
    turn: TurnView | None = Field(
        description="The latest turn; null before the first, and for unmanaged threads."
    )
    queued: int = Field(
        default=0, description="How many messages wait for it; 0 for unmanaged threads."
    )
    created_at: datetime | None = Field(description="When it was registered, or made by Codex.")
    updated_at: datetime | None = Field(description="When something last changed.")


class ListOutput(OpOutput):
    """Threads, what changed last first; unmanaged ones that are archived come last."""

    managed: bool = Field(description="Whether these are managed threads.")
    threads: list[ThreadRow] = Field(description="The threads of this page.")
    next: str | None = Field(description="Cursor of the next page; null on the last.")


@dataclass(frozen=True, slots=True)
class _Filter:
    """What a thread must be like. statuses: any, if there are none."""

    statuses: frozenset[str]
    places: tuple[tuple[str, ...], ...]

    def wants(self, status: str, cwd: str | None) -> bool:
        return (not self.statuses or status in self.statuses) and is_in(cwd, self.places)


async def list_threads(context: OpContext, request: ListInput) -> ListOutput:
    """Return one page of threads. A thread that changes while pages are read may be listed twice, but is not left out."""
    places = await under(repo=request.repo, directory=request.directory)
    wanted = _Filter(frozenset(request.status), places)
    question = fingerprint(request.model_dump(exclude={"after", "limit"}))
    if request.unmanaged:
        return await _unmanaged(context, request, wanted, question)
    return await _managed(context, request, wanted, question)


async def _managed(
    context: OpContext, request: ListInput, wanted: _Filter, question: int
) -> ListOutput:
    """The registry holds threads in order of creation, so all of them are read for a page."""
    place = from_cursor(request.after, question, MANAGED)["managed"] or START
    archived = request.archived or "archived" in wanted.statuses
    threads = await _everything(context, archived=archived)
    if wanted.statuses or wanted.places:
        threads = [t for t in threads if wanted.wants(t.status.value, t.cwd)]
    threads.sort(key=_changed, reverse=True)
    began = _moment(place.page) if place.page is not None else None
    rest = threads if began is None else _behind(threads, place, began)
    page = rest[: request.limit]
    following = None
    if len(rest) > request.limit:
        began = began or threads[0].updated_at
        last = Place(began.isoformat(), page[-1].key, page[-1].updated_at.timestamp())
        following = to_cursor(question, {"managed": last})
    rows = [_managed_row(thread, context.deliveries.waiting(thread.key)) for thread in page]
    return ListOutput(managed=True, threads=rows, next=following)


def _behind(threads: list[ThreadRecord], place: Place, began: datetime) -> list[ThreadRecord]:
    """Return what comes behind a place, of threads sorted newest first.

    began: the newest change when the first page was made. What changed since comes last, in order of its change: were it in
    front, no cursor would lead to it.
    """
    if place.last is None or place.order is None:
        return threads
    last = (_moment(place.order), place.last)
    late = [thread for thread in reversed(threads) if thread.updated_at > began]
    if last[0] > began:
        return [thread for thread in late if _changed(thread) > last]
    early = [t for t in threads if t.updated_at <= began and _changed(t) < last]
    return [*early, *late]


def _changed(thread: ThreadRecord) -> tuple[datetime, str]:
    return thread.updated_at, thread.key


async def _everything(context: OpContext, *, archived: bool) -> list[ThreadRecord]:
    found: list[ThreadRecord] = []
    after: str | None = None
    while True:
        page = await context.store.threads.list(archived=archived, limit=STORE_PAGE, after=after)
        found += page
        if len(page) < STORE_PAGE:
            return found
        after = page[-1].key


async def _unmanaged(
    context: OpContext, request: ListInput, wanted: _Filter, question: int
) -> ListOutput:
    places = from_cursor(request.after, question, UNMANAGED)
    if not (request.archived or "archived" in wanted.statuses):
        places["archived"] = None
    if wanted.statuses == {"archived"}:
        places["present"] = None
    feeds = {
        name: Feed(
            _pages(context, wanted, archived=name == "archived"), places[name], patience=PATIENCE
        )
        for name in UNMANAGED
    }
    rows: list[ThreadRow] = []
    for feed in feeds.values():
        while len(rows) < request.limit and await feed.head() is not None:
            rows.append(_unmanaged_row(feed.take().value))
        if len(rows) >= request.limit or feed.paused:
            break
    if len(rows) >= request.limit:
        for feed in feeds.values():
            await feed.head()  # so that the last page is known to be the last
    following = to_cursor(question, {name: f.place for name, f in feeds.items()})
    return ListOutput(managed=False, threads=rows, next=following)


def _pages(context: OpContext, wanted: _Filter, *, archived: bool) -> Fetch[StoredThread]:
    """Return how a feed gets its pages of unmanaged threads from Codex."""

    async def fetch(cursor: str | None) -> tuple[list[Row[StoredThread]], str | None]:
        params = {
            "limit": PAGE,
            "sortKey": "updated_at",
            "sourceKinds": list(SOURCE_KINDS),
            "archived": archived,
            "cursor": cursor,
            # The first page has Codex look at its files, for some may have come by another way; the others need not.
            "useStateDbOnly": cursor is not None,
        }
        answer = await context.codex.request("thread/list", params)
        data, following = answer.get("data"), answer.get("nextCursor")
        rows = []
        for raw in data if isinstance(data, list) else ():
            thread = stored_thread(raw, archived=archived) if isinstance(raw, dict) else None
            if thread is None or not wanted.wants(thread.status, thread.cwd):
                continue
            if not await managed_id(context, thread.id):
                order = -thread.updated_at.timestamp() if thread.updated_at else None
                rows.append(Row(thread.id, order, thread))
        return rows, following if isinstance(following, str) else None

    return fetch


def _moment(value: str | float) -> datetime:
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value).astimezone(UTC)
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValidationFailed(
            "after: that is not a cursor", hint="pass next of the page before, unchanged"
        ) from error


def _managed_row(thread: ThreadRecord, queued: int) -> ThreadRow:
    used = thread.in_use
    return ThreadRow(
        thread=thread_view(thread),
        preview=None,
        origin=None,
        provider=(used.provider if used else None) or thread.settings.model_provider,
        model=(used.model if used else None) or thread.settings.model,
        turn=turn_view(thread.turn),
        queued=queued,
        created_at=thread.created_at,
        updated_at=thread.updated_at,
    )


def _unmanaged_row(thread: StoredThread) -> ThreadRow:
    return ThreadRow(
        thread=UnmanagedView(id=thread.id, title=thread.name, status=thread.status, cwd=thread.cwd),
        preview=thread.preview,
        origin=thread.origin,
        provider=thread.provider,
        model=thread.model,
        turn=None,
        created_at=thread.created_at,
        updated_at=thread.updated_at,
    )


def render_list(output: ListOutput, view: View) -> str:
    """One line a thread."""
    lines = []
    if not output.threads:
        lines.append("no managed threads" if output.managed else "no unmanaged threads")
    else:
        table = _managed_table if output.managed else _unmanaged_table
        lines.append(table(output.threads, view))
    if output.next:
        lines.append(f"more: add --after {output.next}")
    elif not output.threads and output.managed:
        lines.append("  next: dispatch new NAME TEXT, or dispatch list --unmanaged")
    elif output.threads and not output.managed:
        lines.append(view.paint("  next: dispatch attach ID", "dim"))
    return "\n".join(lines)


def _managed_table(rows: Sequence[ThreadRow], view: View) -> str:
    """A table; how many messages wait has a column when any do."""
    waiting = any(row.queued for row in rows)
    cells = [
        [
            row.thread.ref or "-",
            row.thread.handle or "-",
            glyph(str(row.thread.status)),
            *([f"+{row.queued}" if row.queued else "-"] if waiting else []),
            view.age(row.updated_at),
            row.model or "-",
            view.directory(row.thread.cwd),
        ]
        for row in rows
    ]
    header = ["REF", "NAME", "STATE", *(["QUEUED"] if waiting else []), "AGE", "MODEL", "DIRECTORY"]
    last = len(header) - 1
    return view.table(header, cells, flexible=(1, last), from_left={last}, whole={0})


def _unmanaged_table(rows: Sequence[ThreadRow], view: View) -> str:
    wide = view.width >= WIDE
    cells = [
        [
            row.thread.id,
            row.thread.title or row.preview or "-",
            view.age(row.updated_at),
            *([glyph(str(row.thread.status)), row.origin or "-"] if wide else []),
            view.directory(row.thread.cwd),
        ]
        for row in rows
    ]
    header = ["ID", "NAME", "AGE", *(["STATE", "FROM"] if wide else []), "DIRECTORY"]
    last = len(header) - 1
    # An id that is cut is of no use: attach takes a whole one.
    return view.table(header, cells, flexible=(1, last), from_left={last}, whole={0})
