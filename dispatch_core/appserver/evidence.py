"""Where Codex's history has a message, and whether all of the history that matters was read."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.appserver import history
from dispatch_core.appserver.signals import turn_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dispatch_core.appserver.messages import TurnInfo
    from dispatch_core.contracts.context import Codex
    from dispatch_core.contracts.records import TurnStatus

PATIENCE = 20.0  # seconds for one history
MAX_TURNS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A user message in a turn. text: all of its text inputs, joined by line ends."""

    turn_id: str
    status: TurnStatus
    error: str | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was found. incomplete: why not all that matters was read, None if it was."""

    found: tuple[StoredMessage, ...]
    incomplete: str | None


async def find_message(
    codex: Codex, thread_id: str, client_id: str, *, since: str | None
) -> Search:
    """Look for a message in the history of a loaded thread, newest turn first, back to the turn ``since`` or the beginning.

    since: id of a turn that was there before the message. Raises as ``Codex.request``, ThreadUnknown when there is no history.
    """
    found: list[StoredMessage] = []
    read = 0
    with anyio.move_on_after(PATIENCE):
        async with aclosing(history.newest_first(codex, thread_id)) as turns:
            async for turn in turns:
                found += _messages(turn, client_id)
                read += 1
                if turn.id == since:
                    return Search(found=tuple(found), incomplete=None)
                if read >= MAX_TURNS:
                    return _cut(found, f"it is longer than {MAX_TURNS} turns")
            return Search(found=tuple(found), incomplete=None)
    return _cut(found, f"reading it took longer than {PATIENCE:g} s")


def _cut(found: list[StoredMessage], why: str) -> Search:
    return Search(found=tuple(found), incomplete=why)


def _messages(turn: TurnInfo, client_id: str) -> Iterable[StoredMessage]:
    for item in turn.items:
        if item.get("type") == "userMessage" and item.get("clientId") == client_id:
            yield StoredMessage(
                turn_id=turn.id,
                status=turn_status(turn.status),
                error=turn.error_message,
                text=_text(item),
            )


def _text(item: Mapping[str, Any]) -> str:
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", ""))
        for part in parts
        if isinstance(part, dict) and part.get("type") == "text"
    )
