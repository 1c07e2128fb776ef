"""Codex's thread and turn methods as plain calls: typed in, the few facts we need out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.appserver import history
from dispatch_core.appserver.messages import (
    ThreadNameSetParams,
    ThreadResumeParams,
    ThreadStartParams,
    TurnInterruptParams,
    TurnStartParams,
    sandbox_policy,
    text_input,
)
from dispatch_core.appserver.signals import turn_status
from dispatch_core.errors import CodexError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from dispatch_core.contracts.context import Codex, HistoryItem
    from dispatch_core.contracts.records import ThreadSettings, TurnStatus

log = logging.getLogger(__name__)

THREAD_SOURCE = "dispatch"
UNKNOWN_THREAD = ("no rollout found", "thread not loaded", "thread not found")


class ThreadUnknown(CodexError):
    """Codex has no such thread on disk."""


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """What history says about a turn. has_message: whether the message that was looked for is in it."""

    id: str
    status: TurnStatus
    error: str | None
    has_message: bool


async def start(codex: Codex, *, cwd: str, settings: ThreadSettings) -> str:
    """Start a thread and return its id. Nothing is on disk before its first turn."""
    params = ThreadStartParams(
        cwd=cwd,
        sandbox=settings.sandbox,
        approval_policy=settings.approval_policy,
        model=settings.model,
        model_provider=settings.model_provider,
        thread_source=THREAD_SOURCE,
    )
    result = await _request(codex, "thread/start", params)
    return str(result["thread"]["id"])


async def resume(codex: Codex, thread_id: str) -> None:
    """Load a thread and subscribe to it. Raises ThreadUnknown when Codex has no such thread on disk."""
    await _request(
        codex, "thread/resume", ThreadResumeParams(thread_id=thread_id, exclude_turns=True)
    )


async def set_name(codex: Codex, thread_id: str, name: str) -> None:
    """Name a thread in Codex's own lists; a failure is only logged, for the name is a courtesy."""
    try:
        await _request(
            codex, "thread/name/set", ThreadNameSetParams(thread_id=thread_id, name=name)
        )
    except (CodexError, OutcomeUnknown) as error:
        log.warning("thread %s could not be named in Codex: %s", thread_id, error)


async def start_turn(
    codex: Codex, thread_id: str, text: str, message_id: str, settings: ThreadSettings
) -> str:
    """Start a turn with one message and return its id. The thread's own settings go with every turn."""
    params = TurnStartParams(
        thread_id=thread_id,
        input=[text_input(text)],
        client_user_message_id=message_id,
        model=settings.model,
        effort=settings.effort,
        approval_policy=settings.approval_policy,
        sandbox_policy=sandbox_policy(settings.sandbox) if settings.sandbox else None,
    )
    result = await _request(codex, "turn/start", params)
    return str(result["turn"]["id"])


async def interrupt(codex: Codex, thread_id: str, turn_id: str) -> None:
    """Ask Codex to end a turn; one that has ended meanwhile is no error."""
    try:
        await _request(
            codex, "turn/interrupt", TurnInterruptParams(thread_id=thread_id, turn_id=turn_id)
        )
    except CodexError as error:
        if "no active turn" not in error.message and "expected active turn" not in error.message:
            raise


async def last_items(codex: Codex, thread_id: str, limit: int) -> Sequence[HistoryItem]:
    """Return the last items of a thread's history, oldest first. Raises ThreadUnknown when Codex has no such thread."""
    try:
        return await history.last_items(codex, thread_id, limit)
    except CodexError as error:
        raise _typed(error) from error


async def find_turn(
    codex: Codex, thread_id: str, *, turn_id: str | None, message_id: str | None
) -> FoundTurn | None:
    """Return the turn that a message became, from history, or None when history has none."""
    try:
        turn = await history.find_turn(codex, thread_id, turn_id=turn_id, client_id=message_id)
    except CodexError as error:
        raise _typed(error) from error
    if turn is None:
        return None
    has_message = message_id is not None and turn.holds_message(message_id)
    return FoundTurn(turn.id, turn_status(turn.status), turn.error_message, has_message)


async def _request(codex: Codex, method: str, params: BaseModel) -> dict[str, Any]:
    try:
        return await codex.request(method, params.model_dump(by_alias=True, exclude_none=True))
    except CodexError as error:
        raise _typed(error) from error


def _typed(error: CodexError) -> CodexError:
    """Nearly every error of Codex has the code -32600; only its prose tells them apart."""
    if type(error) is CodexError and any(text in error.message for text in UNKNOWN_THREAD):
        return ThreadUnknown(error.message, hint=error.hint, details=error.details)
    return error
