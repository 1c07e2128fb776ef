"""A thread's history as a whole: forked, reverted, compacted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from pydantic import Field, model_validator

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    PluginSettings,
    ThreadSettings,
    ThreadView,
    TurnView,
    ValidationFailed,
    View,
    cli_field,
    hookimpl,
    printable,
    thread_field,
    thread_view,
    turn_view,
)
from dispatch_plugins.ops.shared.access import NAME_LIMIT, ApprovalPolicy, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from dispatch_core.api import ThreadRecord

MOST_TURNS = 100  # as many as Codex gives at once


class ForkInput(OpInput):
    """What is to be forked, and how the fork differs."""

    thread: str = thread_field()
    name: str = cli_field(
        description="Name of the fork; its handle is @NAME.",
        argument=True,
        min_length=1,
        max_length=NAME_LIMIT,
    )
    last_turn: str | None = cli_field(
        None, description="Id of the last turn to take over; all of them when left out."
    )
    cwd: str | None = cli_field(
        None, description="Working directory; the thread's own when left out.", path=True
    )
    model: str | None = cli_field(
        None, description="Model; the thread's own when left out.", min_length=1
    )
    effort: str | None = cli_field(
        None, description="Reasoning effort; the thread's own when left out.", min_length=1
    )
    sandbox: Sandbox | None = cli_field(
        None, description="What commands may touch; the thread's own setting when left out."
    )
    permissions: str | None = cli_field(
        None, description="Permission profile, instead of a sandbox.", min_length=1
    )
    approval_policy: ApprovalPolicy | None = cli_field(
        None, description="When Codex asks first; the thread's own setting when left out."
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.sandbox is not None and self.permissions is not None:
            raise ValueError("sandbox and permissions exclude each other: give one of them")
        return self


class ForkOutput(OpOutput):
    """The fork."""

    thread: ThreadView = Field(description="The new thread.")
    turn: TurnView | None = Field(description="The newest turn that it took over.")
    source: ThreadView = Field(description="The thread whose history it begins with.")


class RevertInput(OpInput):
    """Which turns of which thread to take back."""

    thread: str = thread_field()
    turns: int = cli_field(
        1, description="Take back this many of the newest turns.", ge=1, le=MOST_TURNS
    )
    before_turn: str | None = cli_field(
        None, description="Id of the first turn to take back, instead of a number.", min_length=1
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.before_turn is not None and "turns" in self.model_fields_set:
            raise ValueError("turns and before_turn exclude each other: give one of them")
        return self


class RevertOutput(OpOutput):
    """What is left."""

    thread: ThreadView = Field(description="The thread.")
    before_turn: str = Field(description="Id of the first turn that was taken back.")
    turn: TurnView | None = Field(description="The newest turn that is left.")


class CompactInput(OpInput):
    """Which thread's context to compact."""

    thread: str = thread_field()


class CompactOutput(OpOutput):
    """The turn in which the context is summarised."""

    thread: ThreadView = Field(description="The thread.")
    turn: TurnView | None = Field(description="The turn that does it; wait waits for it.")


async def fork(context: OpContext, request: ForkInput) -> ForkOutput:
    """Start a thread of our own with the history of another, which may be attached or in use elsewhere."""
    source = await context.lanes.resolve(request.thread)
    if request.cwd is not None:
        directory = anyio.Path(request.cwd)
        if not directory.is_absolute() or not await directory.is_dir():
            raise ValidationFailed(
                f"fork: cwd: {request.cwd} is not a directory",
                hint="make the directory, or name another with --cwd",
            )
    settings = ThreadSettings(
        model=request.model,
        effort=request.effort,
        sandbox=request.sandbox,
        permissions=request.permissions,
        approval_policy=request.approval_policy,
    )
    thread = await context.lanes.fork(
        source, name=request.name, settings=settings, cwd=request.cwd, last_turn=request.last_turn
    )
    return ForkOutput(
        thread=thread_view(thread), turn=turn_view(thread.turn), source=thread_view(source)
    )


async def revert(context: OpContext, request: RevertInput) -> RevertOutput:
    """Make a thread forget its newest turns. What they did to files stays."""
    thread = await context.lanes.writable(request.thread)
    before = request.before_turn or await _first_to_take_back(context, thread, request.turns)
    thread = await context.lanes.revert(thread, before_turn=before)
    return RevertOutput(thread=thread_view(thread), before_turn=before, turn=turn_view(thread.turn))


async def compact(context: OpContext, request: CompactInput) -> CompactOutput:
    """Let Codex replace what the model sees of the history by a summary."""
    thread = await context.lanes.writable(request.thread)
    turn = await context.lanes.compact(thread)
    thread = await context.store.threads.get(thread.key) or thread
    return CompactOutput(thread=thread_view(thread), turn=turn_view(turn))


async def _first_to_take_back(context: OpContext, thread: ThreadRecord, turns: int) -> str:
    """Return the id of the turn that is so many turns from the end."""
    if thread.ephemeral:
        return ""  # which is refused for what it is
    ids: list[str] = []
    if thread.materialized or thread.turn is not None:
        params = {"threadId": thread.native_id, "limit": turns, "itemsView": "notLoaded"}
        answer = await context.codex.request("thread/turns/list", params)
        ids = [str(turn["id"]) for turn in answer.get("data") or ()]
    if len(ids) < turns:
        held = f"{len(ids) or 'no'} turn{'' if len(ids) == 1 else 's'}"
        raise ValidationFailed(
            f"{thread.handle} ({thread.ref}) has {held}; {turns} cannot be taken back",
            hint=f"dispatch tail {thread.ref} shows them",
        )
    return ids[turns - 1]


def render_fork(output: ForkOutput, view: View) -> str:
    """Say which thread there is now, and from where."""
    thread, source = output.thread, output.source
    said = (
        f"{view.paint(printable(thread.handle), 'bold')} is thread {thread.ref}, "
        f"forked from {printable(source.handle)} ({source.ref})"
    )
    return f"{view.wrap(said, indent='  ')}\n  next: dispatch send {thread.ref} TEXT"


def render_revert(output: RevertOutput, view: View) -> str:
    """Say what is left of the history, and what is not undone."""
    thread = output.thread
    left = f"its newest turn is now {output.turn.id}" if output.turn else "no turn is left"
    said = f"{view.paint(printable(thread.handle), 'bold')} ({thread.ref}): {left}"
    return f"{view.wrap(said, indent='  ')}\n  files are as the turns left them"


def render_compact(output: CompactOutput, view: View) -> str:
    """Say that it has begun, which is not that it is done."""
    thread = output.thread
    state = view.status(output.turn.status.value) if output.turn else "accepted"
    said = f"{state}  {printable(thread.handle)} ({thread.ref}) is being summarised"
    return f"{view.wrap(said, indent='  ')}\n  next: dispatch wait {thread.ref}"


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops."""
    return (
        Op(
            name="fork",
            summary="Start a thread with the history of another one",
            noun="thread",
            input=ForkInput,
            output=ForkOutput,
            handler=fork,
            intent=Intent.WRITE,
            idempotent=False,
            examples=(
                Example(
                    title="try something else from here",
                    input={"thread": "@spare", "name": "spare-copy"},
                    output={
                        "thread": {"handle": "@spare-copy", "source": "own"},
                        "source": {"handle": "@spare"},
                    },
                ),
                Example(
                    title="a thread without history cannot be forked",
                    input={"thread": "@reviewer", "name": "reviewer-copy"},
                    error="validation",
                ),
            ),
            render=render_fork,
        ),
        Op(
            name="revert",
            summary="Take back the newest turns of a thread; files stay",
            noun="thread",
            input=RevertInput,
            output=RevertOutput,
            handler=revert,
            intent=Intent.DESTROY,
            idempotent=False,
            examples=(
                Example(
                    title="take back the newest turn",
                    input={"thread": "@spare"},
                    output={"thread": {"handle": "@spare"}, "turn": {"status": "completed"}},
                ),
                Example(
                    title="there is nothing to take back before the first turn",
                    input={"thread": "@reviewer"},
                    error="validation",
                ),
            ),
            render=render_revert,
        ),
        Op(
            name="compact",
            summary="Summarise what the model sees of a thread's history",
            noun="thread",
            input=CompactInput,
            output=CompactOutput,
            handler=compact,
            intent=Intent.WRITE,
            idempotent=False,
            timeout=90.0,
            examples=(
                Example(
                    title="begin to compact; wait says when it is done",
                    input={"thread": "@spare"},
                    output={"thread": {"handle": "@spare"}},
                ),
                Example(
                    title="there is nothing to summarise before the first turn",
                    input={"thread": "@reviewer"},
                    error="validation",
                ),
            ),
            render=render_compact,
        ),
    )
