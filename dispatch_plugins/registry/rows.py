"""Rows of the registry as the records they stand for, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import (
    ActionRecord,
    FiringRecord,
    FiringStatus,
    Source,
    StorageError,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TriggerRecord,
    TurnRecord,
    TurnStatus,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SOURCES: Final = {source.value: source for source in Source}
_STATUSES: Final = {status.value: status for status in ThreadStatus}
_TURN_STATUSES: Final = {status.value: status for status in TurnStatus}
_SETTINGS: Final = tuple(ThreadSettings.__dataclass_fields__)

# What decoding raises on a value that no build of this schema has written.
_UNREADABLE = (KeyError, ValueError, TypeError)
_moment = datetime.fromisoformat


def text_of(moment: datetime) -> str:
    """Return a moment as text that sorts as time does: UTC, microseconds. Raises ValueError if naive."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def optional_text(moment: datetime | None) -> str | None:
    """Return text_of a moment, or None."""
    return None if moment is None else text_of(moment)


def column_value(name: str, value: Any) -> Any:
    """Return what the column of a ThreadRecord field holds. Raises ValueError for an impossible value."""
    encode = _ENCODERS.get(name)
    return value if encode is None else encode(value)


def turn_values(turn: TurnRecord) -> tuple[Any, ...]:
    """Return the columns of a turn, in their order."""
    return (
        turn.message_id,
        turn.id,
        TurnStatus(turn.status).value,
        text_of(turn.started_at),
        optional_text(turn.completed_at),
        turn.error,
    )


def trigger_values(trigger: TriggerRecord) -> tuple[Any, ...]:
    """Return the columns of a trigger, in their order. Raises TypeError or ValueError unless it is JSON."""
    return (
        trigger.id,
        trigger.name,
        trigger.kind,
        _json(trigger.config),
        trigger.thread,
        trigger.op,
        _json(trigger.args),
        int(trigger.enabled),
        text_of(trigger.created_at),
        optional_text(trigger.next_at),
    )


def action_values(action: ActionRecord) -> tuple[Any, ...]:
    """Return the columns of an action, in their order."""
    return (
        text_of(action.at),
        action.op,
        action.principal,
        action.outcome,
        action.thread,
        action.trigger_id,
        action.detail,
    )


# The same rows are read again and again, and a record is frozen: remembering the last ones makes a
# list of a thousand threads twice as fast.
@lru_cache(maxsize=2048)
def thread_of(row: tuple[Any, ...]) -> ThreadRecord:
    """Return the thread, with its latest turn, that a row of THREAD and TURN columns stands for."""
    (
        key, provider, native_id, ref, handle, title, source, status, cwd, settings,
        created_at, updated_at, materialized,
        message_id, turn_id, turn_status, started_at, completed_at, error,
    ) = row  # fmt: skip
    try:
        turn = None
        if turn_status is not None:
            turn = TurnRecord(
                message_id=message_id,
                id=turn_id,
                status=_TURN_STATUSES[turn_status],
                started_at=_moment(started_at),
                completed_at=None if completed_at is None else _moment(completed_at),
                error=error,
            )
        return ThreadRecord(
            key=key,
            provider=provider,
            native_id=native_id,
            ref=ref,
            handle=handle,
            title=title,
            source=_SOURCES[source],
            status=_STATUSES[status],
            cwd=cwd,
            settings=_settings_of(settings),
            created_at=_moment(created_at),
            updated_at=_moment(updated_at),
            materialized=bool(materialized),
            turn=turn,
        )
    except _UNREADABLE as problem:
        raise _unreadable("thread", key, problem) from problem


def trigger_of(row: tuple[Any, ...]) -> TriggerRecord:
    """Return the trigger that a row of TRIGGER columns stands for."""
    trigger_id, name, kind, config, thread, op, args, enabled, created_at, next_at = row
    try:
        return TriggerRecord(
            id=trigger_id,
            name=name,
            kind=kind,
            config=json.loads(config),
            thread=thread,
            op=op,
            args=json.loads(args),
            enabled=bool(enabled),
            created_at=_moment(created_at),
            next_at=None if next_at is None else _moment(next_at),
        )
    except _UNREADABLE as problem:
        raise _unreadable("trigger", trigger_id, problem) from problem


def firing_of(row: tuple[Any, ...]) -> FiringRecord:
    """Return the firing that a row of FIRING columns stands for."""
    trigger_id, key, status, at, detail = row
    try:
        return FiringRecord(
            trigger_id=trigger_id,
            key=key,
            status=FiringStatus(status),
            at=_moment(at),
            detail=detail,
        )
    except _UNREADABLE as problem:
        raise _unreadable("firing", key, problem) from problem


def action_of(row: tuple[Any, ...]) -> ActionRecord:
    """Return the action that a row of ACTION columns stands for."""
    at, op, principal, outcome, thread, trigger_id, detail = row
    try:
        return ActionRecord(
            at=_moment(at),
            op=op,
            principal=principal,
            outcome=outcome,
            thread=thread,
            trigger_id=trigger_id,
            detail=detail,
        )
    except _UNREADABLE as problem:
        raise _unreadable("action", str(at), problem) from problem


@lru_cache(maxsize=256)
def _settings_of(text: str) -> ThreadSettings:
    content = json.loads(text)
    return ThreadSettings(**{name: content.get(name) for name in _SETTINGS})


def _settings_text(settings: ThreadSettings) -> str:
    given = {name: getattr(settings, name) for name in _SETTINGS}
    return _json({name: value for name, value in given.items() if value is not None})


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(dict(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _unreadable(noun: str, name: str, problem: Exception) -> StorageError:
    return StorageError(
        f"the registry holds a {noun} {name!r} that this build cannot read: {problem!r}",
        hint="dispatch down, and restore the newest registry.db.bak-* or a backup of your own",
    )


_ENCODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "source": lambda value: Source(value).value,
    "status": lambda value: ThreadStatus(value).value,
    "settings": _settings_text,
    "created_at": text_of,
    "updated_at": text_of,
    "materialized": int,
}
