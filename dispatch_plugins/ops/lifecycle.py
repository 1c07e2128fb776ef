"""What becomes of a thread as a whole: it is renamed, archived and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from dispatch_core.api import (
    DispatchError,
    Example,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    PartialSuccess,
    PluginSettings,
    Selectors,
    ThreadView,
    ValidationFailed,
    View,
    cli_field,
    hookimpl,
    printable,
    thread_field,
    thread_view,
)
from dispatch_plugins.ops.shared import unmanaged
from dispatch_plugins.ops.shared.access import NAME_LIMIT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

ANY_THREAD = "Ref, id, handle (@name) or title of a managed thread, or the full id of another one"
HERE_ONLY = "Codex has no history of it: it is archived here only"
EPHEMERAL = "it is ephemeral: it is only taken off the list"


class RenameInput(OpInput):
    """Which thread, and what it is to be called."""

    thread: str = thread_field(description=f"{ANY_THREAD}.")
    name: str = cli_field(
        description="The new name; the handle of a managed thread becomes @NAME.",
        argument=True,
        min_length=1,
        max_length=NAME_LIMIT,
    )


class RenameOutput(OpOutput):
    """The thread under its new name."""

    id: str = Field(description="Codex's own thread id.")
    name: str = Field(description="The name in Codex's lists.")
    managed: bool = Field(description="Whether the thread is in the registry.")
    changed: bool = Field(description="Whether it had another name before.")
    thread: ThreadView | None = Field(description="The thread; null for one that is not managed.")


class ArchiveInput(OpInput):
    """Which threads to archive."""

    thread: Selectors = thread_field(
        description=f"{ANY_THREAD}; several are allowed.", min_length=1, max_length=100
    )


class RestoreInput(OpInput):
    """Which threads to restore."""

    thread: Selectors = thread_field(
        description=f"{ANY_THREAD}; several are allowed.", min_length=1, max_length=100
    )


class Outcome(OpOutput):
    """What became of one thread."""

    id: str = Field(description="Codex's own thread id.")
    managed: bool = Field(description="Whether the thread is in the registry.")
    changed: bool = Field(description="Whether there was anything to do.")
    note: str | None = Field(description="What else there is to know; null for nothing.")
    thread: ThreadView | None = Field(description="The thread; null for one that is not managed.")


class ThreadsOutput(OpOutput):
    """What became of each thread, in the order they were given."""

    threads: list[Outcome] = Field(description="The threads.")


async def rename(context: OpContext, request: RenameInput) -> RenameOutput:
    """Give a thread another name, in the registry and in Codex's lists."""
    name = request.name.strip().removeprefix("@").strip()
    if not name or name != printable(name):
        raise ValidationFailed(
            "rename: name: give a name of printable characters", hint="dispatch rename OLD NEW"
        )
    found = await context.lanes.locate(request.thread)
    if isinstance(found, str):
        await unmanaged.rename(context.codex, found, name)
        return RenameOutput(id=found, name=name, managed=False, changed=True, thread=None)
    thread = await context.lanes.rename(found, name)
    return RenameOutput(
        id=thread.native_id,
        name=name,
        managed=True,
        changed=thread is not found,
        thread=thread_view(thread),
    )


async def archive(context: OpContext, request: ArchiveInput) -> ThreadsOutput:
    """Take threads off the lists, here and in Codex; a turn that runs in one is interrupted."""
    return await _each(context, request.thread, _archive, "archived")


async def restore(context: OpContext, request: RestoreInput) -> ThreadsOutput:
    """Bring archived threads back."""
    return await _each(context, request.thread, _restore, "restored")


async def _archive(context: OpContext, selector: str) -> Outcome:
    found = await context.lanes.locate(selector)
    if isinstance(found, str):
        return _unmanaged(found, await unmanaged.archive(context.codex, found), "archived already")
    thread = await context.lanes.archive(found)
    changed = thread is not found
    note = None if changed else "it was archived already"
    if changed and thread.ephemeral:
        note = EPHEMERAL
    elif changed and not await unmanaged.is_archived(context.codex, thread.native_id):
        note = HERE_ONLY
    return Outcome(
        id=thread.native_id, managed=True, changed=changed, note=note, thread=thread_view(thread)
    )


async def _restore(context: OpContext, selector: str) -> Outcome:
    found = await context.lanes.locate(selector)
    if isinstance(found, str):
        return _unmanaged(found, await unmanaged.restore(context.codex, found), "not archived")
    thread = await context.lanes.restore(found)
    changed = thread is not found
    return Outcome(
        id=thread.native_id,
        managed=True,
        changed=changed,
        note=None if changed else "it was not archived",
        thread=thread_view(thread),
    )


def _unmanaged(thread_id: str, changed: bool, otherwise: str) -> Outcome:
    note = None if changed else f"it was {otherwise}"
    return Outcome(id=thread_id, managed=False, changed=changed, note=note, thread=None)


async def _each(
    context: OpContext,
    selectors: list[str],
    act: Callable[[OpContext, str], Awaitable[Outcome]],
    done: str,
) -> ThreadsOutput:
    """Act on one thread after the other; an error of one does not keep the others from their turn."""
    outcomes: list[Outcome] = []
    errors: list[tuple[str, DispatchError]] = []
    for selector in selectors:
        try:
            outcomes.append(await act(context, selector))
        except DispatchError as error:
            errors.append((selector, error))
    if not errors:
        return ThreadsOutput(threads=outcomes)
    if len(selectors) == 1:
        raise errors[0][1]
    failed = [{"thread": selector, "error": error.to_dict()} for selector, error in errors]
    listed = "; ".join(f"{selector}: {error.message}" for selector, error in errors)
    raise PartialSuccess(
        f"{len(outcomes)} of {len(selectors)} threads were {done}. {listed}",
        hint=errors[0][1].hint,
        details={"threads": [o.model_dump(mode="json") for o in outcomes], "failed": failed},
    )


def render_rename(output: RenameOutput, view: View) -> str:
    """Say what the thread is called now."""
    if output.thread is None:
        name = view.paint(printable(output.name), "bold")
        return view.wrap(f"{output.id} is called {name} now; it is not managed", indent="  ")
    handle = view.paint(printable(output.thread.handle), "bold")
    if not output.changed:
        return view.wrap(f"{handle} ({output.thread.ref}) has that name already", indent="  ")
    return view.wrap(f"{output.thread.ref} is called {handle} now", indent="  ")


def render_threads(output: ThreadsOutput, view: View) -> str:
    """One line a thread, and what there is to know about it."""
    return "\n".join(_line(outcome, view) for outcome in output.threads)


def render_archive(output: ThreadsOutput, view: View) -> str:
    """One line a thread, and how to undo it."""
    names = [o.thread.ref if o.thread else o.id for o in output.threads if o.changed]
    lines = render_threads(output, view)
    them = "it" if len(names) == 1 else "them"
    step = f"  next: dispatch restore {' '.join(names)} brings {them} back"
    return f"{lines}\n{view.wrap(step, indent='    ')}" if names else lines


def _line(outcome: Outcome, view: View) -> str:
    if outcome.thread is None:
        text = f"{outcome.id}, not managed"
    else:
        state = view.status(outcome.thread.status.value)
        text = f"{state}  {printable(outcome.thread.handle)} ({outcome.thread.ref})"
    return view.wrap(f"{text}: {outcome.note}" if outcome.note else text, indent="  ")


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops."""
    return (
        Op(
            name="rename",
            summary="Give a thread another name",
            noun="thread",
            input=RenameInput,
            output=RenameOutput,
            handler=rename,
            intent=Intent.WRITE,
            idempotent=False,
            examples=(
                Example(
                    title="a name that the thread has already changes nothing",
                    input={"thread": "@spare", "name": "spare"},
                    output={"changed": False, "managed": True, "thread": {"handle": "@spare"}},
                ),
                Example(
                    title="a name that another thread has is refused",
                    input={"thread": "@spare", "name": "builder"},
                    error="validation",
                ),
            ),
            render=render_rename,
        ),
        Op(
            name="archive",
            summary="Archive threads: off the lists, here and in Codex",
            noun="thread",
            input=ArchiveInput,
            output=ThreadsOutput,
            handler=archive,
            intent=Intent.DESTROY,
            idempotent=True,
            timeout=300.0,
            examples=(
                Example(
                    title="archive a thread",
                    input={"thread": ["@retired"]},
                    output={"threads": [{"managed": True, "thread": {"status": "archived"}}]},
                ),
                Example(
                    title="an unknown name",
                    input={"thread": ["@nobody"]},
                    error="not_found",
                ),
            ),
            render=render_archive,
        ),
        Op(
            name="restore",
            summary="Bring archived threads back",
            noun="thread",
            input=RestoreInput,
            output=ThreadsOutput,
            handler=restore,
            intent=Intent.WRITE,
            idempotent=True,
            timeout=300.0,
            examples=(
                Example(
                    title="restore a thread",
                    input={"thread": ["@retired"]},
                    output={
                        "threads": [
                            {"changed": True, "thread": {"handle": "@retired", "status": "idle"}}
                        ]
                    },
                ),
                Example(
                    title="an unknown name",
                    input={"thread": ["@nobody"]},
                    error="not_found",
                ),
            ),
            render=render_threads,
        ),
    )
