"""Codex's thread methods as plain calls: typed in, the few facts we need out."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from dispatch_core.appserver import history
from dispatch_core.appserver.calls import call, typed
from dispatch_core.appserver.signals import turn_status
from dispatch_core.appserver.thread_messages import (
    Started,
    ThreadChoices,
    ThreadFacts,
    ThreadForkParams,
    ThreadIdParams,
    ThreadNameSetParams,
    ThreadResumeParams,
    ThreadRevertParams,
    ThreadStartParams,
    read_facts,
    read_started,
)
from dispatch_core.contracts.records import ThreadSettings, TurnRecord
from dispatch_core.errors import CodexError, OutcomeUnknown, ValidationFailed

if TYPE_CHECKING:
    from dispatch_core.contracts.context import Codex

log = logging.getLogger(__name__)

THREAD_SOURCE = "dispatch"
NO_SETTINGS = ThreadSettings()

P = TypeVar("P", bound=ThreadChoices)


async def start(
    codex: Codex, *, cwd: str, settings: ThreadSettings, ephemeral: bool = False
) -> Started:
    """Start a thread. Nothing is on disk before its first turn. Raises ValidationFailed for settings that make no sense."""
    params = _params(
        ThreadStartParams,
        **_choices(settings),
        cwd=cwd,
        personality=settings.personality,
        ephemeral=ephemeral or None,
        thread_source=THREAD_SOURCE,
    )
    return read_started(await call(codex, "thread/start", params))


async def resume(codex: Codex, thread_id: str, settings: ThreadSettings = NO_SETTINGS) -> Started:
    """Load a thread and subscribe to it. Raises ThreadUnknown when Codex has no such thread on disk.

    Of the settings it is told those that it does not keep: tier, personality and summary are lost with the process, and the
    instructions with the next compaction.
    """
    params = _params(
        ThreadResumeParams,
        thread_id=thread_id,
        service_tier=settings.service_tier,
        personality=settings.personality,
        base_instructions=settings.base_instructions,
        developer_instructions=settings.developer_instructions,
        config=_config(None, settings.summary),
    )
    return read_started(await call(codex, "thread/resume", params))


async def fork(
    codex: Codex,
    thread_id: str,
    *,
    settings: ThreadSettings,
    cwd: str | None,
    last_turn: str | None,
) -> Started:
    """Start a thread with the history of another; it is on disk at once. Raises ThreadUnknown, or TurnUnknown."""
    params = _params(
        ThreadForkParams,
        **_choices(settings),
        thread_id=thread_id,
        cwd=cwd,
        last_turn_id=last_turn,
        thread_source=THREAD_SOURCE,
    )
    return read_started(await call(codex, "thread/fork", params))


async def read(codex: Codex, thread_id: str) -> ThreadFacts:
    """Return what Codex knows of a thread, without loading it. Raises ThreadUnknown."""
    return read_facts(await call(codex, "thread/read", ThreadIdParams(thread_id=thread_id)))


async def rename(codex: Codex, thread_id: str, name: str) -> None:
    """Name a thread in Codex's own lists. Raises ThreadUnknown, also for an archived one."""
    await call(codex, "thread/name/set", ThreadNameSetParams(thread_id=thread_id, name=name))


async def set_name(codex: Codex, thread_id: str, name: str) -> None:
    """Name a thread in Codex's own lists; a failure is only logged, for the name is a courtesy."""
    try:
        await rename(codex, thread_id, name)
    except (CodexError, OutcomeUnknown) as error:
        log.warning("thread %s could not be named in Codex: %s", thread_id, error)


async def archive(codex: Codex, thread_id: str) -> None:
    """Archive a thread; its running turn is interrupted. Raises ThreadUnknown, also for one that is archived."""
    await call(codex, "thread/archive", ThreadIdParams(thread_id=thread_id))


async def unarchive(codex: Codex, thread_id: str) -> ThreadFacts:
    """Bring an archived thread back, without loading it. Raises NotArchived."""
    return read_facts(await call(codex, "thread/unarchive", ThreadIdParams(thread_id=thread_id)))


async def revert(codex: Codex, thread_id: str, before_turn: str) -> None:
    """Forget a turn and all later ones. Raises TurnUnknown, or CapabilityUnavailable for an older history."""
    params = ThreadRevertParams(thread_id=thread_id, before_turn_id=before_turn)
    await call(codex, "thread/revert", params)


async def compact(codex: Codex, thread_id: str) -> None:
    """Start a turn that replaces the context by a summary; only ``turn/started`` names it."""
    await call(codex, "thread/compact/start", ThreadIdParams(thread_id=thread_id))


async def newest_turn(codex: Codex, thread_id: str, *, now: datetime) -> TurnRecord | None:
    """Return the newest turn of a history as a record, None when there is none. now: for a turn without a time."""
    try:
        turn = await history.newest(codex, thread_id)
    except CodexError as error:
        raise typed(error) from error
    if turn is None:
        return None
    clients = (item.get("clientId") for item in turn.items if item.get("type") == "userMessage")
    return TurnRecord(
        message_id=next((client for client in clients if isinstance(client, str)), None),
        id=turn.id,
        status=turn_status(turn.status),
        started_at=_moment(turn.started_at) or now,
        completed_at=_moment(turn.completed_at),
        error=turn.error_message,
    )


def _choices(settings: ThreadSettings) -> dict[str, Any]:
    """Return the fields of ThreadChoices. Raises ValidationFailed for settings that exclude each other."""
    if settings.permissions is not None and settings.sandbox is not None:
        raise ValidationFailed(
            "a permission profile and a sandbox mode exclude each other",
            hint="give one of them: --permissions or --sandbox",
        )
    return {
        "sandbox": settings.sandbox,
        "permissions": settings.permissions,
        "approval_policy": settings.approval_policy,
        "approvals_reviewer": settings.approvals_reviewer,
        "model": settings.model,
        "model_provider": settings.model_provider,
        "service_tier": settings.service_tier,
        "base_instructions": settings.base_instructions,
        "developer_instructions": settings.developer_instructions,
        "config": _config(settings.effort, settings.summary),
    }


def _config(effort: str | None, summary: str | None) -> dict[str, Any] | None:
    """Return the settings that Codex takes only as keys of its configuration."""
    values = {"model_reasoning_effort": effort, "model_reasoning_summary": summary}
    return {key: value for key, value in values.items() if value is not None} or None


def _params(kind: type[P], **fields: Any) -> P:
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise ValidationFailed(
            f"{field}: {first['msg']}", hint="dispatch new --help lists the values"
        ) from error


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
