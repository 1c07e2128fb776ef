"""Threads of Codex that are not in the registry, as far as they can be acted on by id."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from dispatch_core.api import CodexError, ThreadNotFound, ValidationFailed

if TYPE_CHECKING:
    from dispatch_core.api import Codex

UNKNOWN = ("no rollout found", "no archived rollout found", "thread not loaded", "thread not found")


async def is_archived(codex: Codex, thread_id: str) -> bool | None:
    """Return whether Codex has archived a thread, None when it has no such thread."""
    try:
        answer = await codex.request("thread/read", {"threadId": thread_id})
    except CodexError as error:
        if _unknown(error):
            return None
        raise
    thread: dict[str, Any] = answer.get("thread") or {}
    return PurePath(str(thread.get("path"))).parent.name == "archived_sessions"


async def rename(codex: Codex, thread_id: str, name: str) -> None:
    """Name a thread in Codex's lists. Raises ThreadNotFound, or ValidationFailed for an archived one."""
    try:
        await codex.request("thread/name/set", {"threadId": thread_id, "name": name})
    except CodexError as error:
        if not _unknown(error):
            raise
        if await is_archived(codex, thread_id) is None:
            raise ThreadNotFound(thread_id) from error
        raise ValidationFailed(
            f"{thread_id} is archived: Codex renames only what is not",
            hint=f"dispatch restore {thread_id}",
        ) from error


async def archive(codex: Codex, thread_id: str) -> bool:
    """Archive a thread and return whether it was not before. Raises ThreadNotFound."""
    return await _put(codex, "thread/archive", thread_id, archived=True)


async def restore(codex: Codex, thread_id: str) -> bool:
    """Bring a thread back and return whether it was archived. Raises ThreadNotFound."""
    return await _put(codex, "thread/unarchive", thread_id, archived=False)


async def _put(codex: Codex, method: str, thread_id: str, *, archived: bool) -> bool:
    try:
        await codex.request(method, {"threadId": thread_id})
    except CodexError as error:
        if not _unknown(error):
            raise
        # Codex remembers also threads whose file is gone, and can do nothing with them.
        if await is_archived(codex, thread_id) is not archived:
            raise ThreadNotFound(thread_id) from error
        return False
    return True


def _unknown(error: CodexError) -> bool:
    return any(text in error.message for text in UNKNOWN)
