"""Codex's notifications, projected once to the few facts the engine acts on. Tolerant: what is missing is None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.items import item_text
from dispatch_core.contracts.records import TurnStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TROUBLE_LIMIT = 500  # characters of what is in the way of a turn
OUTCOMES = {
    "completed": TurnStatus.COMPLETED,
    "failed": TurnStatus.FAILED,
    "interrupted": TurnStatus.INTERRUPTED,
    "inProgress": TurnStatus.STARTED,
}

WAITING = frozenset({"waitingOnApproval", "waitingOnUserInput"})


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """A turn runs."""

    thread_id: str
    turn_id: str


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn has ended; error says why it failed."""

    thread_id: str
    turn_id: str
    status: TurnStatus
    error: str | None


@dataclass(frozen=True, slots=True)
class TurnTroubled:
    """Codex says what is in the way of a turn. The turn goes on, or its end says that it has failed."""

    thread_id: str
    turn_id: str
    message: str


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """What the thread is doing.

    loaded: Codex holds it in memory. waiting: a turn cannot go on without an answer. idle: nothing runs.
    """

    thread_id: str
    loaded: bool
    waiting: bool
    idle: bool


@dataclass(frozen=True, slots=True)
class MessageSeen:
    """A user message is part of a turn; client_id is the id its sender gave it."""

    thread_id: str
    turn_id: str
    client_id: str


@dataclass(frozen=True, slots=True)
class CommandStarted:
    """A command of a turn runs; it may go on after the turn."""

    thread_id: str
    turn_id: str
    item_id: str


@dataclass(frozen=True, slots=True)
class ItemDone:
    """An item of a turn is complete."""

    thread_id: str
    turn_id: str
    type: str
    text: str | None
    item_id: str | None = None


@dataclass(frozen=True, slots=True)
class NameChanged:
    """The thread has another name."""

    thread_id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class ArchiveChanged:
    """The thread was archived, and unloaded, or brought back."""

    thread_id: str
    archived: bool


@dataclass(frozen=True, slots=True)
class ThreadDeleted:
    """The thread is gone for good."""

    thread_id: str


@dataclass(frozen=True, slots=True)
class TurnsReverted:
    """The newest turns of the thread are no longer part of it."""

    thread_id: str


Signal = (
    TurnStarted
    | TurnEnded
    | TurnTroubled
    | StatusChanged
    | MessageSeen
    | CommandStarted
    | ItemDone
    | NameChanged
    | ArchiveChanged
    | ThreadDeleted
    | TurnsReverted
)


def project(method: str, params: Mapping[str, Any]) -> Signal | None:
    """Return the signal that a notification is, or None for everything the engine does not act on."""
    reader = _READERS.get(method)
    thread_id = params.get("threadId")
    if reader is None or not isinstance(thread_id, str):
        return None
    return reader(thread_id, params)


def turn_status(word: object) -> TurnStatus:
    """Return our word for Codex's turn status; an unknown word, or what is none, is UNKNOWN."""
    return OUTCOMES.get(word, TurnStatus.UNKNOWN) if isinstance(word, str) else TurnStatus.UNKNOWN


def error_text(turn: Mapping[str, Any]) -> str | None:
    """Return the message of a turn's error."""
    error = turn.get("error")
    return str(error.get("message") or error) if isinstance(error, dict) else None


def _turn_started(thread_id: str, params: Mapping[str, Any]) -> Signal | None:
    turn_id = _turn(params).get("id")
    return TurnStarted(thread_id, turn_id) if isinstance(turn_id, str) else None


def _turn_completed(thread_id: str, params: Mapping[str, Any]) -> Signal | None:
    turn = _turn(params)
    turn_id = turn.get("id")
    if not isinstance(turn_id, str):
        return None
    return TurnEnded(thread_id, turn_id, turn_status(turn.get("status")), error_text(turn))


def _trouble(thread_id: str, params: Mapping[str, Any]) -> Signal | None:
    turn_id, error = params.get("turnId"), params.get("error")
    if not isinstance(turn_id, str) or not isinstance(error, dict):
        return None
    said = [error.get("message"), error.get("additionalDetails")]
    text = ": ".join(part for part in said if isinstance(part, str) and part)
    return TurnTroubled(thread_id, turn_id, text[:TROUBLE_LIMIT]) if text else None


def _status(thread_id: str, params: Mapping[str, Any]) -> Signal | None:
    status = params.get("status")
    if not isinstance(status, dict):
        return None
    flags = status.get("activeFlags")
    waiting = isinstance(flags, list) and bool(WAITING.intersection(map(str, flags)))
    word = status.get("type")
    return StatusChanged(
        thread_id, loaded=word != "notLoaded", waiting=waiting, idle=word == "idle"
    )


def _item_started(thread_id: str, params: Mapping[str, Any]) -> Signal | None:
    item, turn_id = params.get("item"), params.get("turnId")
    if not isinstance(item, dict) or not isinstance(turn_id, str):
        return None
    client_id, item_id = item.get("clientId"), item.get("id")
    if item.get("type") == "userMessage" and isinstance(client_id, str):
        return MessageSeen(thread_id, turn_id, client_id)
    if item.get("type") == "commandExecution" and isinstance(item_id, str):
        return CommandStarted(thread_id, turn_id, item_id)
    return None


def _item_completed(thread_id: str, params: Mapping[str, Any]) -> Signal | None:
    item, turn_id = params.get("item"), params.get("turnId")
    if not isinstance(item, dict) or not isinstance(turn_id, str):
        return None
    item_id = item.get("id")
    return ItemDone(
        thread_id,
        turn_id,
        str(item.get("type")),
        item_text(item),
        item_id if isinstance(item_id, str) else None,
    )


def _name(thread_id: str, params: Mapping[str, Any]) -> Signal | None:
    name = params.get("threadName")
    return NameChanged(thread_id, name if isinstance(name, str) else None)


def _turn(params: Mapping[str, Any]) -> Mapping[str, Any]:
    turn = params.get("turn")
    return turn if isinstance(turn, dict) else {}


_READERS: dict[str, Callable[[str, Mapping[str, Any]], Signal | None]] = {
    "turn/started": _turn_started,
    "turn/completed": _turn_completed,
    "error": _trouble,
    "thread/status/changed": _status,
    "item/started": _item_started,
    "item/completed": _item_completed,
    "thread/name/updated": _name,
    "thread/archived": lambda thread_id, _: ArchiveChanged(thread_id, archived=True),
    "thread/unarchived": lambda thread_id, _: ArchiveChanged(thread_id, archived=False),
    "thread/deleted": lambda thread_id, _: ThreadDeleted(thread_id),
    "thread/reverted": lambda thread_id, _: TurnsReverted(thread_id),
}
