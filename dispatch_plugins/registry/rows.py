"""Rows of the registry as the records they stand for, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import (
    ActionRecord,
    CachedRecord,
    FiringRecord,
    FiringStatus,
    ModelInUse,
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
_IN_USE: Final = tuple(ModelInUse.__dataclass_fields__)

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
        _json(dict(trigger.config)),
        trigger.thread,
        trigger.op,
        _json(dict(trigger.args)),
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


def cached_values(value: Any, at: datetime) -> tuple[str, str]:
    """Return the columns of a cached value, in their order. Raises TypeError or ValueError unless it is JSON."""
    return _json(value), text_of(at)


class _ThreadDraft:
    """A ThreadRecord that can still be written."""

    __slots__ = ThreadRecord.__slots__


class _TurnDraft:
    """A TurnRecord that can still be written."""

    __slots__ = TurnRecord.__slots__


def thread_of(row: tuple[Any, ...]) -> ThreadRecord:
    """Return the thread, with its latest turn, that a row of THREAD and TURN columns stands for."""
    # A frozen dataclass sets each field through object.__setattr__, which takes longer than reading
    # the row. Python lets an object change its class if both have the same slots.
    draft: Any = _ThreadDraft()
    (
        draft.key, draft.provider, draft.native_id, draft.ref, draft.handle, draft.title, source, status,
        draft.cwd, settings, created_at, updated_at, materialized, ephemeral, in_use,
        message_id, turn_id, turn_status, started_at, completed_at, error,
    ) = row  # fmt: skip
    try:
        draft.source = _SOURCES[source]
        draft.status = _STATUSES[status]
        draft.settings = _settings_of(settings)
        draft.created_at = _moment(created_at)
        draft.updated_at = _moment(updated_at)
        draft.materialized = materialized == 1
        draft.ephemeral = ephemeral == 1
        draft.in_use = None if in_use is None else _in_use_of(in_use)
        draft.turn = None
        if turn_status is not None:
            turn: Any = _TurnDraft()
            turn.message_id = message_id
            turn.id = turn_id
            turn.status = _TURN_STATUSES[turn_status]
            turn.started_at = _moment(started_at)
            turn.completed_at = None if completed_at is None else _moment(completed_at)
            turn.error = error
            turn.__class__ = TurnRecord
            draft.turn = turn
    except _UNREADABLE as problem:
        raise _unreadable("thread", draft.key, problem) from problem
    draft.__class__ = ThreadRecord
    thread: ThreadRecord = draft
    return thread


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


def cached_of(name: str, row: tuple[Any, ...]) -> CachedRecord:
    """Return what a row of CACHED columns stands for."""
    value, at = row
    try:
        return CachedRecord(value=json.loads(value), at=_moment(at))
    except _UNREADABLE as problem:
        raise _unreadable("cached value", name, problem) from problem


@lru_cache(maxsize=256)
def _settings_of(text: str) -> ThreadSettings:
    content = json.loads(text)
    return ThreadSettings(**{name: content.get(name) for name in _SETTINGS})


@lru_cache(maxsize=256)
def _in_use_of(text: str) -> ModelInUse:
    content = json.loads(text)
    return ModelInUse(**{name: content.get(name) for name in _IN_USE})


def _settings_text(settings: ThreadSettings) -> str:
    given = {name: getattr(settings, name) for name in _SETTINGS}
    if settings.output_schema is not None:
        given["output_schema"] = dict(settings.output_schema)
    return _json(_without_none(given))


def _in_use_text(in_use: ModelInUse | None) -> str | None:
    if in_use is None:
        return None
    return _json(_without_none({name: getattr(in_use, name) for name in _IN_USE}))


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if value is not None}


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


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
    "ephemeral": int,
    "in_use": _in_use_text,
}
