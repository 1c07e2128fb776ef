"""Threads as Codex has stored them, managed or not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_core.api import OpContext

# Left out, Codex lists only what a person started in an editor or a terminal.
SOURCE_KINDS = (
    "cli", "vscode", "exec", "appServer", "subAgent", "subAgentReview", "subAgentCompact",
    "subAgentThreadSpawn", "subAgentOther", "unknown",
)  # fmt: skip
PAGE = 100  # the most that Codex gives at once
STATUS = {"idle": "idle", "active": "busy", "systemError": "error", "notLoaded": "not_loaded"}
PREVIEW = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredThread:
    """A thread on Codex's disk. origin: what made it: cli, vscode, exec, subAgent or another word of Codex."""

    id: str
    name: str | None
    preview: str | None
    cwd: str | None
    status: str
    origin: str | None
    provider: str | None
    model: str | None
    path: str | None
    archived: bool
    created_at: datetime | None
    updated_at: datetime | None


def stored_thread(thread: Mapping[str, Any], *, archived: bool = False) -> StoredThread | None:
    """Return what Codex says of a thread, None if it says nothing that can be used."""
    if not isinstance(native_id := thread.get("id"), str):
        return None
    preview = " ".join((_text(thread.get("preview")) or "").split())
    path = _text(thread.get("path"))
    return StoredThread(
        id=native_id,
        name=_text(thread.get("name")),
        preview=preview[:PREVIEW] or None,
        cwd=_text(thread.get("cwd")),
        status="archived" if archived else _status(thread.get("status")),
        origin=_origin(thread.get("source")),
        provider=_text(thread.get("modelProvider")),
        model=_text(thread.get("model")),
        path=path,
        archived=archived,
        created_at=moment(thread.get("createdAt")),
        updated_at=moment(thread.get("updatedAt")),
    )


async def managed_id(context: OpContext, native_id: str) -> bool:
    """Return whether a thread of Codex is in the registry."""
    return bool(await context.store.threads.find("native_id", native_id))


def moment(seconds: object) -> datetime | None:
    """Return the instant that Codex writes as seconds since 1970, None if it does not."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _status(status: object) -> str:
    if not isinstance(status, dict):
        return "unknown"
    word = STATUS.get(str(status.get("type")), "unknown")
    flags = status.get("activeFlags")
    waiting = isinstance(flags, list) and "waitingOnApproval" in flags
    return "waiting_approval" if word == "busy" and waiting else word


def _origin(source: object) -> str | None:
    if isinstance(source, dict):
        kind, inner = next(iter(source.items()), (None, None))
        return inner if kind == "custom" and isinstance(inner, str) else _text(kind)
    return _text(source)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
