"""The effects of ``new`` in their order: the thread, its goal, its first message. What fails does not undo what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatch_core.api import (
    CodexError,
    DispatchError,
    LaneBusy,
    OutcomeUnknown,
    PartialSuccess,
    Source,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
    ValidationFailed,
)

if TYPE_CHECKING:
    from dispatch_core.api import Message, OpContext, ThreadRecord
    from dispatch_plugins.ops.new.draft import Draft

GOAL_OP = "goal.set"
SURFACE = "op"
NO_SUCH_PROVIDER = "Model provider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What came of it."""

    thread: ThreadRecord
    goal_set: bool
    turn: TurnRecord | None


def check(context: OpContext, draft: Draft) -> None:
    """Raise ValidationFailed for what would be refused once the thread is there."""
    if draft.message is not None:
        context.lanes.check_message(draft.message)
    known = {info.name for info in context.ops.ops(SURFACE)} if draft.value("goal") else {GOAL_OP}
    if GOAL_OP not in known:
        raise ValidationFailed(
            "new: goal: no plugin provides goals",
            hint="dispatch plugins shows what is disabled or failed to load",
            details={"field": "goal"},
        )


async def check_name(context: OpContext, draft: Draft) -> None:
    """Raise ValidationFailed when another thread has the name, as ``make`` does."""
    for rival in await context.store.threads.find("handle", f"@{draft.name}"):
        if rival.source is Source.OWN and rival.status is not ThreadStatus.ARCHIVED:
            raise ValidationFailed(
                f"there is a thread {rival.handle} already: {rival.ref}",
                hint=f"choose another name, or dispatch send {rival.ref} TEXT",
                details={"field": "name", "thread": rival.ref},
            )


async def make(context: OpContext, draft: Draft) -> Made:
    """Make the thread, set its goal and send its first message.

    Raises PartialSuccess once the thread is there, OutcomeUnknown when it cannot be told whether the message was accepted.
    """
    thread = await _create(context, draft)
    if draft.value("goal") is not None:
        await _set_goal(context, draft, thread)
    turn = None
    if draft.message is not None:
        turn = await _first_message(context, draft, thread, draft.message)
    thread = await context.store.threads.get(thread.key) or thread
    return Made(thread=thread, goal_set=draft.value("goal") is not None, turn=turn)


async def _create(context: OpContext, draft: Draft) -> ThreadRecord:
    try:
        return await context.lanes.create(
            name=draft.name, cwd=draft.cwd, settings=draft.settings, ephemeral=draft.ephemeral
        )
    except CodexError as error:
        provider = draft.value("model_provider")
        if provider is None or NO_SUCH_PROVIDER not in error.message:
            raise
        raise ValidationFailed(
            f"new: model_provider: Codex knows no provider {provider!r}",
            hint=f"[model_providers.{provider}] in Codex's config.toml makes one",
            details={"field": "model_provider", "error": error.to_dict()},
        ) from error


async def _set_goal(context: OpContext, draft: Draft, thread: ThreadRecord) -> None:
    args = {"thread": thread.ref, "objective": draft.value("goal")}
    if draft.goal_unbounded:
        args["unbounded"] = True
    elif draft.goal_budget is not None:
        args["token_budget"] = draft.goal_budget
    try:
        await context.ops.call(GOAL_OP, args, context.caller)
    except DispatchError as error:
        rest = "its goal was not set and nothing was sent"
        step = f"dispatch goal set {thread.ref} OBJECTIVE"
        raise _partial(thread, rest, step, error, goal_set=False) from error


async def _first_message(
    context: OpContext, draft: Draft, thread: ThreadRecord, message: Message
) -> TurnRecord:
    try:
        try:
            sent = await context.deliveries.send(thread, message, context.caller)
        except LaneBusy:
            # A goal starts turns by itself, so its first one may run already; the message is for that one then.
            return await context.lanes.steer(thread, message)
        status = TurnStatus.STARTED if sent.merged else TurnStatus.SUBMITTED
        return TurnRecord(
            message_id=sent.id, id=sent.turn_id, status=status, started_at=sent.created_at
        )
    except OutcomeUnknown:
        raise
    except DispatchError as error:
        goal_set = draft.value("goal") is not None
        rest = "its first message was not accepted"
        step = f"dispatch send {thread.ref} TEXT"
        raise _partial(thread, rest, step, error, goal_set=goal_set) from error


def _partial(
    thread: ThreadRecord, rest: str, step: str, error: DispatchError, *, goal_set: bool
) -> PartialSuccess:
    done = "was made and its goal set" if goal_set else "was made"
    return PartialSuccess(
        f"{thread.handle} ({thread.ref}) {done}, but {rest}: {error.message}",
        hint=step,
        details={"thread": thread.ref, "goal_set": goal_set, "error": error.to_dict()},
    )
