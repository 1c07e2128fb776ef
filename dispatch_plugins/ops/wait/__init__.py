"""Waiting for turns to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.api import (
    CodexError,
    DeliveryFilter,
    DeliveryRecord,
    DeliveryState,
    Example,
    Gap,
    Intent,
    Op,
    OpContext,
    OutcomeUnknown,
    PluginSettings,
    RequestFilter,
    RequestState,
    ThreadStatus,
    TimedOut,
    TurnStatus,
    When,
    hookimpl,
    printable,
    thread_view,
    turn_view,
)
from dispatch_plugins.ops.shared.queues import short
from dispatch_plugins.ops.wait.contract import (
    Outcome,
    WaitedDelivery,
    WaitedRequest,
    WaitInput,
    WaitOutput,
    WaitResult,
)
from dispatch_plugins.ops.wait.text import render_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dispatch_core.api import ThreadRecord

OUTCOMES = {
    TurnStatus.COMPLETED: "done",
    TurnStatus.FAILED: "failed",
    TurnStatus.INTERRUPTED: "interrupted",
}
CAME_TO_NOTHING = frozenset({DeliveryState.DEAD, DeliveryState.REJECTED})
RUNNING = frozenset({ThreadStatus.BUSY, ThreadStatus.WAITING_APPROVAL})
NAMED = 3  # threads that a message names
LOOK = 0.25  # seconds to find out how it stands; a shorter timeout does not wait for anything else


async def wait(context: OpContext, request: WaitInput) -> WaitOutput:
    """Wait until no turn runs in the threads and nothing is queued for them, or a person must act."""
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
    _refuse_doubt(results)
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
    delivery = await _undelivered(context, thread)
    outcome = _outcome(thread)
    if delivery is not None:
        outcome = "unknown" if delivery.state is DeliveryState.UNKNOWN else "failed"
    return WaitResult(
        thread=thread_view(thread),
        outcome=outcome,
        turn=turn_view(thread.turn),
        text=await _final_text(context, thread) if delivery is None else None,
        asks=await _question(context, thread) if outcome == "needs_attention" else None,
        delivery=_waited(delivery) if delivery else None,
    )


def _waited(delivery: DeliveryRecord) -> WaitedDelivery:
    return WaitedDelivery(id=delivery.id, state=delivery.state, reason=delivery.reason)


async def _undelivered(context: OpContext, thread: ThreadRecord) -> DeliveryRecord | None:
    """Return the delivery that holds the thread because its outcome is unknown, or the newest if it was queued for nothing."""
    store = context.store.deliveries
    head = await store.head(thread.key)
    if head is not None:
        return head if head.state is DeliveryState.UNKNOWN else None
    newest = await store.list(DeliveryFilter(thread=thread.key), 1)
    if newest and newest[0].when is When.IDLE and newest[0].state in CAME_TO_NOTHING:
        return newest[0]
    return None


async def _known(
    context: OpContext, thread: ThreadRecord, settled: ThreadRecord | None
) -> WaitResult:
    """Return how it stands with a thread that nobody waits for any longer; settled: if its turn has ended."""
    thread = settled or await context.store.threads.get(thread.key) or thread
    head = None
    if settled is None and thread.status not in RUNNING:
        head = await context.store.deliveries.head(thread.key)
    return WaitResult(
        thread=thread_view(thread),
        outcome="running" if settled is None else _outcome(thread),
        turn=turn_view(thread.turn),
        text=None,
        asks=None,
        delivery=_waited(head) if head and head.state is DeliveryState.QUEUED else None,
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
    hint = f"dispatch wait {refs}, or dispatch stop {late[0].thread.ref}"
    if (
        delivery := next((result.delivery for result in late if result.delivery), None)
    ) is not None:
        why = f"message {delivery.id} still waits to be sent"
        why += f": {printable(delivery.reason)}" if delivery.reason else ""
        text = f"{names[0]}: {why}" if len(results) == 1 else f"{text}. {why}"
        hint = f"dispatch delivery get {short(delivery.id)}"
    return TimedOut(
        text,
        hint=hint,
        details={"results": [result.model_dump(mode="json") for result in results]},
    )


def _refuse_doubt(results: Sequence[WaitResult]) -> None:
    """Raise OutcomeUnknown when it cannot be told of a message whether it ran."""
    for result in results:
        delivery = result.delivery
        if result.outcome != "unknown" or delivery is None:
            continue
        why = f": {printable(delivery.reason)}" if delivery.reason else ""
        name = f"{printable(result.thread.handle)} ({result.thread.ref})"
        raise OutcomeUnknown(
            f"it is unknown whether message {delivery.id} for {name} ran{why}",
            hint=f"dispatch delivery get {short(delivery.id)}",
            details={
                "delivery": delivery.id,
                "results": [one.model_dump(mode="json") for one in results],
            },
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


async def _question(context: OpContext, thread: ThreadRecord) -> WaitedRequest | None:
    """Return the request of the thread that may wait longest, which as a rule is the newest."""
    wanted = RequestFilter(thread=thread.key, states=frozenset({RequestState.OPEN}))
    found = await context.store.requests.list(wanted, 1)
    return WaitedRequest(id=found[0].id, summary=found[0].summary) if found else None


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
