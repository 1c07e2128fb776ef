"""Threads that others made: attach them, and keep the histories of all indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from pydantic import Field

from dispatch_core.api import (
    CodexError,
    DispatchError,
    EventKind,
    Example,
    Intent,
    NotFound,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    PartialSuccess,
    PluginSettings,
    Selectors,
    SyncReport,
    ThreadNotFound,
    ThreadRecord,
    ThreadView,
    View,
    cli_field,
    glyph,
    hookimpl,
    printable,
    thread_view,
)
from dispatch_plugins.ops.shared.histories import SyncView, sync_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TELL_EVERY = 0.1  # seconds between two events of progress
TARGETS = 100  # in one call
KIB, MIB = 1 << 10, 1 << 20
SHOWN_PROBLEMS = 10


class AttachInput(OpInput):
    """Which threads to attach."""

    thread: Selectors = cli_field(
        description="Full ids of threads of Codex, as dispatch list --unmanaged shows them.",
        argument=True,
        complete="thread",
        min_length=1,
        max_length=TARGETS,
    )
    sync: bool = cli_field(
        False, description="Read their histories into the search index as well, quickly."
    )


class Attached(OpOutput):
    """A thread that is managed now."""

    thread: ThreadView = Field(description="The thread.")
    new: bool = Field(description="Whether it was not managed before.")
    sync: SyncView = Field(description="How much of its history is in the search index.")


class AttachOutput(OpOutput):
    """The threads, in the order they were named in."""

    attached: list[Attached] = Field(description="Each thread, once.")


class SyncInput(OpInput):
    """Which histories to read, and how much of them."""

    thread: Selectors = cli_field(
        default_factory=list,
        description="Only these threads: ref, id, name, or the full id of an unmanaged one; left out, all.",
        argument=True,
        complete="thread",
        max_length=TARGETS,
    )
    full: bool = cli_field(
        False, description="Read the whole of every history, not only its beginning and end."
    )


class Synced(OpOutput):
    """A thread whose history was asked for."""

    id: str = Field(description="Codex's id of the thread.")
    managed: bool = Field(description="Whether it is in the registry; a sync does not change that.")
    thread: ThreadView | None = Field(description="The thread, if it is managed.")
    sync: SyncView = Field(description="How much of its history is in the search index.")


class SyncOutput(OpOutput):
    """What was read."""

    threads: list[Synced] = Field(description="The threads that were named.")
    sources: int = Field(description="Files that were looked at.")
    changed: int = Field(description="How many of them had something to read.")
    new: int = Field(description="How many were seen for the first time.")
    moved: int = Field(description="How many have another path, such as in the archive.")
    gone: int = Field(description="How many are gone.")
    documents: int = Field(description="Texts that were added to the index.")
    bytes_read: int = Field(description="Bytes that were read.")
    seconds: float = Field(description="How long it took.")
    problems: list[str] = Field(description="Files that could not be read, and why.")


async def attach(context: OpContext, request: AttachInput) -> AttachOutput:
    """Register threads that somebody else made, from their metadata. Nothing is resumed, and attached threads are only read.

    Each is attached or not by itself. Raises PartialSuccess, with every outcome, when some could not be.
    """
    done: dict[str, tuple[ThreadRecord, bool]] = {}
    failed: dict[str, DispatchError] = {}
    for selector in dict.fromkeys(request.thread):
        try:
            record, new = await _attach(context, selector)
        except DispatchError as error:
            failed[selector] = error
        else:
            done.setdefault(record.key, (record, new))
    if request.sync and done:
        await context.history.sync(native_ids=[record.native_id for record, _ in done.values()])
    if failed:
        raise _failure(list(done.values()), failed)
    sources = context.history.sources([record.native_id for record, _ in done.values()])
    return AttachOutput(
        attached=[
            Attached(
                thread=thread_view(record), new=new, sync=sync_view(sources.get(record.native_id))
            )
            for record, new in done.values()
        ]
    )


async def _attach(context: OpContext, selector: str) -> tuple[ThreadRecord, bool]:
    """Return the managed thread, and whether it was attached just now."""
    try:
        found = await context.lanes.locate(selector)
    except ThreadNotFound as error:
        raise NotFound(
            f"{selector!r} is neither a managed thread nor the full id of one in Codex",
            hint="dispatch list --unmanaged shows the ids; attach takes a whole one",
            details=error.details,
        ) from error
    if isinstance(found, ThreadRecord):
        return found, False
    try:
        return await context.lanes.attach(found), True
    except ThreadNotFound as error:
        raise _unknown(found) from error


def _failure(
    done: Sequence[tuple[ThreadRecord, bool]], failed: dict[str, DispatchError]
) -> DispatchError:
    """Return the one error, or one that names every outcome."""
    if len(failed) == 1 and not done:
        return next(iter(failed.values()))
    results: list[dict[str, Any]] = [
        {"thread": r.ref, "id": r.native_id, "new": new, "error": None} for r, new in done
    ]
    results += [{"thread": name, "error": error.to_dict()} for name, error in failed.items()]
    reasons = "; ".join(error.message for error in failed.values())
    return PartialSuccess(
        f"{len(done)} of {len(done) + len(failed)} threads are attached: {reasons}",
        hint="dispatch list --unmanaged shows the ids that can be attached",
        details={"results": results},
    )


async def sync(context: OpContext, request: SyncInput) -> SyncOutput:
    """Read what is new in histories into the search index. It registers no thread, and gives no right to write one."""
    named: dict[str, ThreadRecord | None] = {}
    for selector in request.thread:
        found = await context.lanes.locate(selector)
        if isinstance(found, ThreadRecord):
            named[found.native_id] = found
        else:
            await _must_exist(context, found)
            named[found] = None
    report = await context.history.sync(
        native_ids=list(named) if named else None,
        full=request.full,
        progress=_teller(context, "reading histories"),
    )
    sources = context.history.sources(list(named))
    threads = [
        Synced(
            id=native_id,
            managed=record is not None,
            thread=thread_view(record) if record else None,
            sync=sync_view(sources.get(native_id)),
        )
        for native_id, record in named.items()
    ]
    return _output(threads, report)


async def _must_exist(context: OpContext, native_id: str) -> None:
    """Raise NotFound when neither the index nor Codex has such a thread."""
    if context.history.sources([native_id]):
        return
    try:
        await context.codex.request("thread/read", {"threadId": native_id, "includeTurns": False})
    except CodexError as error:
        if type(error) is not CodexError:
            raise
        raise _unknown(native_id) from error


def _unknown(native_id: str) -> NotFound:
    return NotFound(
        f"Codex has no thread {native_id}",
        hint="dispatch list --unmanaged shows the threads that are not managed",
        details={"selector": native_id},
    )


def _output(threads: list[Synced], report: SyncReport) -> SyncOutput:
    return SyncOutput(
        threads=threads,
        sources=report.sources,
        changed=report.changed,
        new=report.new,
        moved=report.moved,
        gone=report.gone,
        documents=report.documents,
        bytes_read=report.bytes_read,
        seconds=report.seconds,
        problems=list(report.problems),
    )


def _teller(context: OpContext, text: str) -> Callable[[int, int], None]:
    """Return a function that publishes progress, at most ten times a second and at the end. Called on the event loop."""
    told = -TELL_EVERY

    def tell(done: int, total: int) -> None:
        nonlocal told
        now = anyio.current_time()
        if now - told < TELL_EVERY and done < total:
            return
        told = now
        context.events.publish(
            EventKind.PROGRESS, data={"op": "sync", "text": text, "done": done, "total": total}
        )

    return tell


def render_attach(output: AttachOutput, view: View) -> str:
    """A line for each thread."""
    lines = []
    for item in output.attached:
        thread = item.thread
        word = "attached" if item.new else "managed already"
        name = view.paint(printable(thread.handle), "bold")
        said = f"{word}: {name} ({thread.ref})  {view.directory(thread.cwd)}"
        lines.append(view.wrap(said, indent="  "))
    if len(output.attached) == 1:
        ref = output.attached[0].thread.ref
        lines.append(f"  next: dispatch tail {ref}, or dispatch fork {ref} NAME to go on with it")
    return "\n".join(lines)


def render_sync(output: SyncOutput, view: View) -> str:
    """The threads that were named, the sums, and what went wrong."""
    lines = []
    if output.threads:
        rows = [
            [
                item.thread.ref if item.thread else item.id,
                item.thread.handle if item.thread else "-",
                glyph(item.sync.state.value),
                view.age(item.sync.latest_event_at),
                view.directory(item.sync.path),
            ]
            for item in output.threads
        ]
        header = ["THREAD", "NAME", "INDEXED", "NEWEST", "FILE"]
        lines.append(view.table(header, rows, flexible=4, from_left={4}, whole={0}))
    lines.append(view.wrap(_sums(output), indent="  "))
    lines += [
        view.paint(view.fit(f"not read: {problem}"), "red")
        for problem in output.problems[:SHOWN_PROBLEMS]
    ]
    if len(output.problems) > SHOWN_PROBLEMS:
        lines.append(f"and {len(output.problems) - SHOWN_PROBLEMS} more: dispatch sync --json")
    return "\n".join(lines)


def _sums(output: SyncOutput) -> str:
    """Return how much there was to read, in one sentence."""
    histories = f"{output.sources} histor{'y' if output.sources == 1 else 'ies'}"
    counts = {
        "changed": output.changed,
        "new": output.new,
        "moved": output.moved,
        "gone": output.gone,
    }
    news = "".join(f", {count} {word}" for word, count in counts.items() if count)
    if not output.bytes_read:
        return f"{histories}{news or ', nothing new'}"
    size = output.bytes_read
    amount = f"{size / MIB:.1f} MiB" if size >= MIB else f"{-(-size // KIB)} KiB"
    texts = f"{output.documents} text{'' if output.documents == 1 else 's'}"
    return f"{histories}{news}: {texts} from {amount} in {output.seconds:.1f} s"


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops."""
    return (
        Op(
            name="attach",
            summary="Manage threads that somebody else made, for reading",
            noun="thread",
            input=AttachInput,
            output=AttachOutput,
            handler=attach,
            intent=Intent.WRITE,
            idempotent=True,
            timeout=120.0,
            examples=(
                Example(
                    title="a thread that is managed already is returned unchanged",
                    input={"thread": ["@builder"]},
                    output={"attached": [{"thread": {"handle": "@builder"}, "new": False}]},
                ),
                Example(
                    title="a thread that Codex does not have",
                    input={"thread": ["01a00000-0000-7000-8000-000000000000"]},
                    error="not_found",
                ),
                Example(
                    title="a part of an id is not enough",
                    input={"thread": ["01a00000"]},
                    error="not_found",
                ),
            ),
            render=render_attach,
        ),
        Op(
            name="sync",
            summary="Read new history into the search index",
            noun="thread",
            input=SyncInput,
            output=SyncOutput,
            handler=sync,
            intent=Intent.WRITE,
            idempotent=True,
            timeout=None,
            progress=True,
            examples=(
                Example(
                    title="one thread, all of it",
                    input={"thread": ["@builder"], "full": True},
                    output={
                        "threads": [{"managed": True, "sync": {"state": "complete"}}],
                        "problems": [],
                    },
                ),
                Example(title="all threads", input={}, output={"threads": []}),
                Example(title="an unknown name", input={"thread": ["@nobody"]}, error="not_found"),
            ),
            render=render_sync,
        ),
    )
