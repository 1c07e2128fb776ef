"""Goals in Codex: what is asked of it, what its answers and its prose mean."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dispatch_core.api import (
    ActiveWriter,
    AuthorityDenied,
    CapabilityUnavailable,
    CodexError,
    DispatchError,
    ThreadNotFound,
    ThreadStatus,
    ValidationFailed,
)
from dispatch_plugins.ops.goals.contract import Goal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dispatch_core.api import OpContext, ThreadRecord


async def get(context: OpContext, native_id: str) -> Goal | None:
    """Return the goal of a Codex thread, None when it has none. Raises ThreadNotFound, for an archived thread as well."""
    result = await ask(context, "thread/goal/get", {"threadId": native_id}, native_id)
    found = result.get("goal")
    return read_goal(found) if isinstance(found, dict) else None


async def goal_of(context: OpContext, thread: ThreadRecord) -> Goal | None:
    """Return the goal of a managed thread; one that Codex never stored has none.

    Raises AuthorityDenied for an archived thread and CapabilityUnavailable for an ephemeral one.
    """
    if thread.ephemeral:
        raise ephemeral(thread.ref)
    if thread.status is ThreadStatus.ARCHIVED:
        raise AuthorityDenied(
            f"{thread.handle} ({thread.ref}) is archived; Codex shows its goal only once it is restored",
            hint=f"dispatch restore {thread.ref}",
        )
    try:
        return await get(context, thread.native_id)
    except ThreadNotFound:
        if thread.materialized:
            raise
        return None


async def change(
    context: OpContext, method: str, params: Mapping[str, Any], thread: ThreadRecord
) -> dict[str, Any]:
    """Send a request that changes the goal of a managed thread and return its result."""
    # A person's wish weighs more with Codex than what an agent or a trigger does by itself.
    author = {"origin": "user"} if context.caller.principal == "human" else {}
    try:
        return await ask(
            context, method, {"threadId": thread.native_id, **author, **params}, thread.ref
        )
    except ThreadNotFound as error:
        error.hint = f"Codex has not stored it; dispatch send {thread.ref} TEXT starts it anew"
        raise


async def ask(
    context: OpContext, method: str, params: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Send a request and return its result, an error as what it means. name: how people call the thread."""
    try:
        return await context.codex.request(method, params)
    except CodexError as error:
        if type(error) is not CodexError:
            raise
        raise _typed(error, name) from error


def _typed(error: CodexError, name: str) -> DispatchError:
    """Return what an error of Codex means; nearly all have one code, so its prose decides."""
    for prose, make in MEANINGS.items():
        if prose in error.message:
            return make(name)
    return error


def _without_goals(name: str) -> CapabilityUnavailable:
    return CapabilityUnavailable(
        f"the Codex that holds {name} has no goals",
        hint="upgrade Codex, or switch its feature goals on",
    )


def _cleared(name: str) -> ValidationFailed:
    return ValidationFailed(
        f"the goal of {name} was cleared meanwhile",
        hint=f"dispatch goal set {name} OBJECTIVE --token-budget N makes one",
    )


def ephemeral(name: str) -> CapabilityUnavailable:
    """Return the error for a thread that can have no goal."""
    return CapabilityUnavailable(
        f"{name} is ephemeral, and Codex keeps no goal for a thread that it does not store",
        hint="dispatch new NAME makes a thread that is stored",
    )


def read_goal(wire: Mapping[str, Any]) -> Goal:
    """Read a goal as Codex sends it; what is missing or odd costs nothing but itself."""
    budget, used = wire.get("tokenBudget"), _number(wire.get("tokensUsed"))
    budget = int(budget) if isinstance(budget, int) else None
    return Goal(
        objective=str(wire.get("objective") or ""),
        status=str(wire.get("status") or "unknown"),
        token_budget=budget,
        tokens_used=int(used),
        tokens_remaining=None if budget is None else max(0, budget - int(used)),
        time_used_seconds=_number(wire.get("timeUsedSeconds")),
        created_at=_moment(wire.get("createdAt")),
        updated_at=_moment(wire.get("updatedAt")),
    )


def _number(value: object) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _moment(value: object) -> datetime | None:
    seconds = _number(value)
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


MEANINGS: Mapping[str, Callable[[str], DispatchError]] = {
    "thread not found": ThreadNotFound,
    "no rollout found": ThreadNotFound,
    "thread not loaded": ThreadNotFound,
    "ephemeral thread": ephemeral,
    "active writer": ActiveWriter,
    "no goal exists": _cleared,
    "unknown variant `thread/goal": _without_goals,
    "goals feature is disabled": _without_goals,
}
