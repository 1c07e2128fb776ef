"""Waiting for turns to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anyio
from pydantic import Field

from dispatch_core.api import (
    CodexError,
    EventKind,
    Example,
    Gap,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    OutcomeUnknown,
    PluginSettings,
    Selectors,
    ThreadStatus,
    ThreadView,
    TimedOut,
    TurnStatus,
    TurnView,
    View,
    cli_field,
    hookimpl,
    printable,
    thread_field,
    thread_view,
    turn_view,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dispatch_core.api import ThreadRecord

OUTCOMES = {
    TurnStatus.COMPLETED: "done",
    TurnStatus.FAILED: "failed",
    TurnStatus.INTERRUPTED: "interrupted",
}
Outcome = Literal[
    "done", "failed", "interrupted", "needs_attention", "unknown", "nothing", "running"
]
NAMED = 3  # threads that a message names
LOOK = 0.25  # seconds to find out how it stands; a shorter timeout does not wait for anything else


class WaitInput(OpInput):
    """Whom to wait for, until when, and how long."""

    thread: Selectors = thread_field(
        description="Refs, ids, handles (@name) or titles of managed threads.",
        min_length=1,
        max_length=100,
    )
    until: Literal["done", "needs-attention", "any"] = cli_field(
        "any",
        description="done: the turn has ended, whatever is asked meanwhile; needs-attention: a person must act, or nothing runs "
        "any more; any: whichever comes first.",
    )
    first: bool = cli_field(
        False, description="Return when the first of the threads is there instead of all."
    )
    timeout: float | None = cli_field(
        None,
        description="Give up after this many seconds; 0 only looks. Waits for ever when left out.",
        ge=0,
    )


class WaitResult(OpOutput):
    """How it stands with one thread."""

    thread: ThreadView = Field(description="The thread.")
    outcome: Outcome = Field(
        description="done, failed or interrupted; needs_attention: a person must act; unknown: Codex went away and is not "
        "back; nothing: the thread has had no turn; running: only with first, of the others."
    )
    turn: TurnView | None = Field(description="The latest turn.")
    text: str | None = Field(
        description="The final message of that turn; null if it has none, or Codex is down."
    )
    asks: str | None = Field(
        description="What Codex asks, when a person must act and it is known: the name of its request."
    )


class WaitOutput(OpOutput):
    """How the turns ended."""

    results: list[WaitResult] = Field(description="One for each thread, in the order given.")


async def wait(context: OpContext, request: WaitInput) -> WaitOutput:
    """Wait until no turn runs in the threads, or a person must act."""
    threads = await _resolve(context, request.thread)
    settled: dict[str, ThreadRecord] = {}
    found: dict[str, WaitResult] = {}

    async def one(thread: ThreadRecord) -> None:
        settled[thread.key] = await _ended(context, thread, request.until)
        found[thread.key] = await _result(context, settled[thread.key])
        if request.first:
            tasks.cancel_scope.cancel()

    seconds = request.timeout
    with anyio.move_on_after(None if seconds is None else max(seconds, LOOK)):
        async with anyio.create_task_group() as tasks:
            for thread in threads:
                tasks.start_soon(one, thread)
    results = [found.get(t.key) or await _known(context, t, settled.get(t.key)) for t in threads]
    late = [result for result in results if result.outcome == "running"]
    if len(late) == len(results) or (late and not request.first):
        raise _still_running(results, late, seconds or 0)
    return WaitOutput(results=results)


async def _resolve(context: OpContext, selectors: Sequence[str]) -> list[ThreadRecord]:
    """Return the threads, each once."""
    threads: dict[str, ThreadRecord] = {}
    for selector in selectors:
        thread = await context.lanes.resolve(selector, fuzzy=True)
        threads.setdefault(thread.key, thread)
    return list(threads.values())


async def _ended(context: OpContext, thread: ThreadRecord, until: str) -> ThreadRecord:
    """Return the thread once it is as wanted; a question that stands ends the wait unless only the end of the turn does."""
    async with context.events.subscribe() as events:
        while True:
            settled = await context.lanes.settled(thread)
            if until != "done" or settled.status is not ThreadStatus.WAITING_APPROVAL:
                return settled
            async for event in events:
                if isinstance(event, Gap) or event.thread == thread.key:
                    break


async def _result(context: OpContext, thread: ThreadRecord) -> WaitResult:
    outcome = _outcome(thread)
    return WaitResult(
        thread=thread_view(thread),
        outcome=outcome,
        turn=turn_view(thread.turn),
        text=await _final_text(context, thread),
        asks=await _question(context, thread) if outcome == "needs_attention" else None,
    )


async def _known(
    context: OpContext, thread: ThreadRecord, settled: ThreadRecord | None
) -> WaitResult:
    """Return how it stands with a thread that nobody waits for any longer; settled: if its turn has ended."""
    thread = settled or await context.store.threads.get(thread.key) or thread
    return WaitResult(
        thread=thread_view(thread),
        outcome="running" if settled is None else _outcome(thread),
        turn=turn_view(thread.turn),
        text=None,
        asks=None,
    )


def _still_running(
    results: Sequence[WaitResult], late: Sequence[WaitResult], seconds: float
) -> TimedOut:
    """Return the error of a wait that was too short, with the results so far and what Codex says is in the way."""
    names = [f"{result.thread.handle} ({result.thread.ref})" for result in late[:NAMED]]
    names += [f"{len(late) - NAMED} more"] if len(late) > NAMED else []
    if len(results) == 1:
        text = f"the turn in {names[0]} still runs after {seconds:g} s"
    else:
        text = f"{len(late)} of {len(results)} threads still run after {seconds:g} s: {', '.join(names)}"
    reasons = [result.turn.error for result in late if result.turn and result.turn.error]
    if reasons:
        text = f"{text}. Codex says: {printable(reasons[0])}"
    refs = " ".join(result.thread.ref for result in late[:NAMED])
    return TimedOut(
        text,
        hint=f"dispatch wait {refs}, or dispatch stop {late[0].thread.ref}",
        details={"results": [result.model_dump(mode="json") for result in results]},
    )


def _outcome(thread: ThreadRecord) -> Outcome:
    if thread.status is ThreadStatus.WAITING_APPROVAL:
        return "needs_attention"
    if thread.turn is None:
        return "nothing"
    return OUTCOMES.get(thread.turn.status, "unknown")  # type: ignore[return-value]


async def _final_text(context: OpContext, thread: ThreadRecord) -> str | None:
    if thread.turn is None or thread.turn.status is not TurnStatus.COMPLETED:
        return None
    try:
        page = await context.lanes.history(thread, 1)
    except (CodexError, OutcomeUnknown):
        return None  # Codex is down now; that the turn is done stays true
    final = [item for item in page.items if item.role == "agent" and item.turn_id == thread.turn.id]
    return final[-1].text if final else None


async def _question(context: OpContext, thread: ThreadRecord) -> str | None:
    """Return the newest request that Codex made in the thread, if it is among the events that are still there."""
    asked: str | None = None
    async with context.events.subscribe(after=0) as events:
        # The past is there without waiting; what is waited for has not happened.
        with anyio.move_on_after(0):
            async for event in events:
                if isinstance(event, Gap) or event.thread != thread.key:
                    continue
                if event.kind is EventKind.APPROVAL_REQUESTED:
                    asked = str(event.data.get("method"))
    return asked


def render_wait(output: WaitOutput, view: View) -> str:
    """The outcome of each thread, then its answer; several are kept apart."""
    shown = [_rendered(result, view) for result in output.results]
    return ("\n\n" if any("\n" in text for text in shown) else "\n").join(shown)


def _rendered(result: WaitResult, view: View) -> str:
    thread, turn = result.thread, result.turn
    name = f"{printable(thread.handle)} ({thread.ref})"
    head = view.wrap(f"{view.status(result.outcome)}  {name}", indent="  ")
    if result.outcome == "needs_attention":
        asks = f"\nCodex asks: {printable(result.asks)}" if result.asks else ""
        return f"{head}{asks}\n  next: dispatch tail {thread.ref}"
    if result.outcome == "running":
        return head
    if result.outcome == "nothing":
        return f"{head}\n  next: dispatch send {thread.ref} TEXT"
    body = result.text or (turn.error if turn else None)
    return "\n".join([head, *view.block(body)]) if body else head


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the op."""
    return (
        Op(
            name="wait",
            summary="Wait until threads are done or need attention",
            noun="message",
            input=WaitInput,
            output=WaitOutput,
            handler=wait,
            intent=Intent.READ,
            idempotent=True,
            timeout=None,
            examples=(
                Example(
                    title="a finished turn answers at once",
                    input={"thread": ["@builder"], "timeout": 30},
                    output={"results": [{"outcome": "done", "text": "Offline reply: Say hello"}]},
                ),
                Example(
                    title="until all of several are done",
                    input={"thread": ["@builder", "@reviewer"], "until": "done"},
                    output={
                        "results": [
                            {"outcome": "done"},
                            {"outcome": "nothing", "turn": None},
                        ]
                    },
                ),
                Example(
                    title="an unknown name",
                    input={"thread": ["@builder", "@nobody"]},
                    error="not_found",
                ),
            ),
            render=render_wait,
        ),
    )
