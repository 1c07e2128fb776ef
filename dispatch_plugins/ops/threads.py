"""Threads: make one, list them, look at one and at its history."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import anyio
from pydantic import Field

from dispatch_core.api import (
    DispatchError,
    Example,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    OutcomeUnknown,
    PartialSuccess,
    PluginSettings,
    ThreadSettings,
    ThreadView,
    TurnView,
    ValidationFailed,
    View,
    cli_field,
    glyph,
    hookimpl,
    printable,
    safe_block,
    thread_view,
    turn_view,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatch_core.api import ThreadRecord, TurnRecord

NAME_LIMIT = 100
THREAD = "Ref, id, handle (@name) or title of a managed thread."


class Sandbox(StrEnum):
    """What commands of the thread may touch."""

    READ_ONLY = "read-only"
    WORKSPACE_WRITE = "workspace-write"
    DANGER_FULL_ACCESS = "danger-full-access"


class ApprovalPolicy(StrEnum):
    """When Codex asks before it runs a command."""

    UNTRUSTED = "untrusted"
    ON_REQUEST = "on-request"
    NEVER = "never"


class NewInput(OpInput):
    """What a new thread is to be."""

    name: str = cli_field(
        description="Name of the thread; its handle is @NAME.",
        argument=True,
        min_length=1,
        max_length=NAME_LIMIT,
    )
    text: str | None = cli_field(None, description="First message.", argument=True, stdin=True)
    cwd: str = cli_field(
        description="Working directory of the thread.", path=True, default_cwd=True, min_length=1
    )
    model: str | None = cli_field(
        None, description="Model; Codex's own choice when left out.", min_length=1
    )
    sandbox: Sandbox | None = cli_field(
        None, description="What commands may touch; Codex's own setting when left out."
    )
    approval_policy: ApprovalPolicy | None = cli_field(
        None, description="When Codex asks first; Codex's own setting when left out."
    )
    send: bool = cli_field(True, description="Send the text at once.")


class NewOutput(OpOutput):
    """The thread, and its first turn if a message was sent."""

    thread: ThreadView = Field(description="The new thread.")
    message_accepted: bool = Field(description="Whether a first message was handed to Codex.")
    turn: TurnView | None = Field(description="The turn it started; null when nothing was sent.")


class ListInput(OpInput):
    """Which threads to list."""

    archived: bool = cli_field(False, description="Show archived threads as well.")
    limit: int = cli_field(200, description="At most this many.", ge=1, le=1000)
    after: str | None = cli_field(
        None, description="Continue after this cursor: next of the page before."
    )


class ThreadRow(OpOutput):
    """A thread in a list."""

    thread: ThreadView = Field(description="The thread.")
    model: str | None = Field(
        description="The model it was made with; null for Codex's own choice."
    )
    turn: TurnView | None = Field(description="The latest turn; null before the first.")
    created_at: datetime = Field(description="When it was registered.")
    updated_at: datetime = Field(description="When something last changed.")


class ListOutput(OpOutput):
    """Threads in order of creation."""

    threads: list[ThreadRow] = Field(description="The threads of this page.")
    next: str | None = Field(description="Cursor of the next page; null on the last.")


class GetInput(OpInput):
    """Which thread to look at."""

    thread: str = cli_field(description=THREAD, argument=True)


class GetOutput(OpOutput):
    """Everything the registry knows of a thread."""

    thread: ThreadView = Field(description="The thread.")
    turn: TurnView | None = Field(description="The latest turn; null before the first.")
    model: str | None = Field(description="Model setting; null for Codex's own choice.")
    sandbox: str | None = Field(description="Sandbox setting; null for Codex's own.")
    approval_policy: str | None = Field(description="Approval setting; null for Codex's own.")
    created_at: datetime = Field(description="When it was registered.")
    updated_at: datetime = Field(description="When something last changed.")


class TailInput(OpInput):
    """Which thread, and how much of it."""

    thread: str = cli_field(description=THREAD, argument=True)
    limit: int = cli_field(
        20, description="At most this many items, the newest ones.", ge=1, le=500
    )


class Item(OpOutput):
    """One item of a thread's history."""

    turn_id: str = Field(description="The turn it belongs to.")
    item_id: str | None = Field(description="Codex's id of the item.")
    type: str = Field(
        description="Codex's item type, such as userMessage, agentMessage, commandExecution."
    )
    text: str | None = Field(description="What a person would read of it.")


class TailOutput(OpOutput):
    """The end of a thread's history, oldest item first."""

    thread: ThreadView = Field(description="The thread.")
    items: list[Item] = Field(description="The last items.")


async def new(context: OpContext, request: NewInput) -> NewOutput:
    """Start a thread in Codex, register it as our own, and send its first message."""
    name = request.name.strip().removeprefix("@").strip()
    if not name or name != printable(name):
        raise ValidationFailed(
            "new: name: give a name of printable characters", hint="dispatch new builder"
        )
    directory = anyio.Path(request.cwd)
    if not directory.is_absolute() or not await directory.is_dir():
        raise ValidationFailed(
            f"new: cwd: {request.cwd} is not a directory",
            hint="make the directory, or name another with --cwd",
        )
    text = request.text if request.send else None
    if text is not None:
        context.lanes.check_text(text)  # before there is a thread that would be left behind
    settings = ThreadSettings(
        sandbox=request.sandbox, approval_policy=request.approval_policy, model=request.model
    )
    thread = await context.lanes.create(name=name, cwd=request.cwd, settings=settings)
    turn = None
    if text is not None:
        turn = await _first_message(context, thread, text)
        thread = await context.store.threads.get(thread.key) or thread
    return NewOutput(
        thread=thread_view(thread), message_accepted=turn is not None, turn=turn_view(turn)
    )


async def _first_message(context: OpContext, thread: ThreadRecord, text: str) -> TurnRecord:
    try:
        return await context.lanes.send(thread, text)
    except OutcomeUnknown:
        raise
    except DispatchError as error:
        raise PartialSuccess(
            f"{thread.handle} ({thread.ref}) was made, but its first message was not accepted: {error.message}",
            hint=f"dispatch send {thread.ref} TEXT",
            details={"thread": thread.ref, "error": error.to_dict()},
        ) from error


async def list_threads(context: OpContext, request: ListInput) -> ListOutput:
    """Return one page of the managed threads."""
    found = await context.store.threads.list(
        archived=request.archived, limit=request.limit + 1, after=request.after
    )
    page = found[: request.limit]
    more = len(found) > request.limit
    return ListOutput(
        threads=[_row(thread) for thread in page], next=page[-1].key if more else None
    )


async def get(context: OpContext, request: GetInput) -> GetOutput:
    """Return what the registry knows of a thread."""
    thread = await context.lanes.resolve(request.thread, fuzzy=True)
    return GetOutput(
        thread=thread_view(thread),
        turn=turn_view(thread.turn),
        model=thread.settings.model,
        sandbox=thread.settings.sandbox,
        approval_policy=thread.settings.approval_policy,
        created_at=thread.created_at,
        updated_at=thread.updated_at,
    )


async def tail(context: OpContext, request: TailInput) -> TailOutput:
    """Return the end of a thread's history, as Codex has it."""
    thread = await context.lanes.resolve(request.thread, fuzzy=True)
    items = await context.lanes.history(thread, request.limit)
    return TailOutput(
        thread=thread_view(thread),
        items=[Item(turn_id=i.turn_id, item_id=i.item_id, type=i.type, text=i.text) for i in items],
    )


def _row(thread: ThreadRecord) -> ThreadRow:
    return ThreadRow(
        thread=thread_view(thread),
        model=thread.settings.model,
        turn=turn_view(thread.turn),
        created_at=thread.created_at,
        updated_at=thread.updated_at,
    )


def render_new(output: NewOutput, view: View) -> str:
    """Say which thread there is now and what to do next."""
    thread = output.thread
    said = "its first message was accepted" if output.message_accepted else "nothing was sent yet"
    step = (
        f"dispatch wait {thread.ref}"
        if output.message_accepted
        else f"dispatch send {thread.ref} TEXT"
    )
    return f"{view.paint(printable(thread.handle), 'bold')} is thread {thread.ref}; {said}\n  next: {step}"


def render_list(output: ListOutput, view: View) -> str:
    """One line a thread."""
    if not output.threads:
        return "no threads yet\n  next: dispatch new NAME TEXT"
    rows = [
        [
            row.thread.ref,
            row.thread.handle,
            glyph(row.thread.status.value),
            view.age(row.updated_at),
            row.model or "-",
            row.thread.cwd,
        ]
        for row in output.threads
    ]
    table = view.table(["REF", "NAME", "STATE", "AGE", "MODEL", "DIRECTORY"], rows, flexible=5)
    return f"{table}\nmore: dispatch list --after {output.next}" if output.next else table


def render_get(output: GetOutput, view: View) -> str:
    """Name and value lines."""
    thread, turn = output.thread, output.turn
    return view.fields(
        [
            ("thread", f"{view.paint(printable(thread.handle), 'bold')} ({thread.ref})"),
            ("state", view.status(thread.status.value)),
            ("title", printable(thread.title) if thread.title else None),
            ("directory", printable(thread.cwd)),
            ("source", thread.source.value),
            ("model", printable(output.model) if output.model else None),
            ("sandbox", output.sandbox),
            ("approvals", output.approval_policy),
            (
                "latest turn",
                f"{view.status(turn.status.value)} {turn.id or ''}".rstrip()
                if turn
                else "none yet",
            ),
            ("started", view.age(turn.started_at) + " ago" if turn else None),
            ("error", printable(turn.error) if turn and turn.error else None),
            ("codex id", thread.id),
            ("created", view.age(output.created_at) + " ago"),
        ]
    )


def render_tail(output: TailOutput, view: View) -> str:
    """The items as a conversation."""
    if not output.items:
        return f"{printable(output.thread.handle)} has no history yet\n  next: dispatch send {output.thread.ref} TEXT"
    speakers = {"userMessage": ("you", "cyan"), "agentMessage": ("codex", "green")}
    lines = []
    for item in output.items:
        speaker, color = speakers.get(item.type, (printable(item.type), "dim"))
        text = safe_block(item.text or "").strip() or "-"
        lines.append(f"{view.paint(speaker, color)}: {text}")
    return "\n".join(lines)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on threads."""
    return (
        Op(
            name="new",
            summary="Create a thread and send its first message",
            noun="thread",
            input=NewInput,
            output=NewOutput,
            handler=new,
            intent=Intent.WRITE,
            idempotent=False,
            timeout=90.0,
            examples=(
                Example(
                    title="a thread that starts to work at once",
                    input={"name": "tester", "text": "Write a test for the parser", "cwd": "/"},
                    output={
                        "message_accepted": True,
                        "thread": {"handle": "@tester", "source": "own"},
                    },
                ),
                Example(
                    title="a thread that may only read, without a message yet",
                    input={"name": "reader", "cwd": "/", "sandbox": "read-only", "send": False},
                    output={"message_accepted": False, "turn": None},
                ),
                Example(
                    title="a directory that does not exist is refused",
                    input={"name": "lost", "cwd": "/no/such/directory"},
                    error="validation",
                ),
            ),
            render=render_new,
        ),
        Op(
            name="list",
            summary="List the managed threads",
            noun="thread",
            input=ListInput,
            output=ListOutput,
            handler=list_threads,
            intent=Intent.READ,
            idempotent=True,
            examples=(
                Example(
                    title="the first page",
                    input={"limit": 1},
                    output={
                        "threads": [
                            {"thread": {"handle": "@builder"}, "turn": {"status": "completed"}}
                        ]
                    },
                ),
                Example(title="everything", input={"archived": True}, output={"next": None}),
            ),
            render=render_list,
        ),
        Op(
            name="get",
            summary="Show what is known about a thread",
            noun="thread",
            input=GetInput,
            output=GetOutput,
            handler=get,
            intent=Intent.READ,
            idempotent=True,
            examples=(
                Example(
                    title="by handle",
                    input={"thread": "@builder"},
                    output={
                        "thread": {"handle": "@builder", "status": "idle"},
                        "turn": {"status": "completed"},
                    },
                ),
                Example(title="an unknown name", input={"thread": "@nobody"}, error="not_found"),
            ),
            render=render_get,
        ),
        Op(
            name="tail",
            summary="Show the end of a thread's history",
            noun="thread",
            input=TailInput,
            output=TailOutput,
            handler=tail,
            intent=Intent.READ,
            idempotent=True,
            examples=(
                Example(
                    title="the answer of the latest turn",
                    input={"thread": "@builder", "limit": 1},
                    output={
                        "items": [{"type": "agentMessage", "text": "Offline reply: Say hello"}]
                    },
                ),
                Example(
                    title="a thread without history",
                    input={"thread": "@reviewer"},
                    output={"items": []},
                ),
            ),
            render=render_tail,
        ),
    )
