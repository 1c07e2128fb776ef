"""Rows of the registry as the records they stand for, and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import (
    ActionRecord,
    CachedRecord,
    DeliveryRecord,
    DeliveryState,
    Epoch,
    FiringRecord,
    FiringStatus,
    Image,
    Message,
    ModelInUse,
    RequestKind,
    RequestRecord,
    RequestState,
    Source,
    StorageError,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TriggerRecord,
    TurnRecord,
    TurnStatus,
    When,
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


def delivery_values(delivery: DeliveryRecord) -> tuple[Any, ...]:
    """Return the columns of a delivery, in their order, but for its position. Raises ValueError for an impossible value."""
    return (
        delivery.id,
        delivery.thread,
        DeliveryState(delivery.state).value,
        When(delivery.when).value,
        delivery.digest,
        delivery.principal,
        text_of(delivery.created_at),
        *_body(delivery.message),
        delivery.key,
        delivery.attempt,
        delivery.deaths,
        None if delivery.epoch is None else str(delivery.epoch),
        delivery.turn_id,
        int(delivery.merged),
        delivery.evidence,
        delivery.reason,
        delivery.retry_of,
        optional_text(delivery.expires_at),
        optional_text(delivery.claimed_at),
        optional_text(delivery.ended_at),
    )


def delivery_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that fields of a DeliveryRecord are kept in. Raises ValueError for an impossible value."""
    columns = {}
    for name, value in changes.items():
        if name == "message":
            columns["text"], columns["images"] = _body(value)
        else:
            encode = _DELIVERY_ENCODERS.get(name)
            columns[name] = value if encode is None else encode(value)
    return columns


def request_values(request: RequestRecord) -> tuple[Any, ...]:
    """Return the columns of a request, in their order. Raises TypeError or ValueError unless its body is JSON."""
    return (
        request.id,
        request.thread,
        request.turn_id,
        request.item_id,
        request.method,
        RequestKind(request.kind).value,
        request.rpc_id,
        request.epoch,
        request.summary,
        request.digest,
        None if request.body is None else _json(dict(request.body)),
        int(request.cut),
        RequestState(request.state).value,
        text_of(request.asked_at),
        text_of(request.deadline),
        request.answered_by,
        request.decision,
        optional_text(request.answered_at),
        optional_text(request.closed_at),
        request.detail,
    )


class _ThreadDraft:
    """A ThreadRecord that can still be written."""

    __slots__ = ThreadRecord.__slots__


class _DeliveryDraft:
    """A DeliveryRecord that can still be written."""

    __slots__ = DeliveryRecord.__slots__


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


def delivery_of(row: tuple[Any, ...]) -> DeliveryRecord:
    """Return the delivery that a row of DELIVERY columns stands for."""
    (
        delivery_id, thread, state, when, digest, principal, created_at, text, images, key, attempt, deaths, epoch,
        turn_id, merged, evidence, reason, retry_of, expires_at, claimed_at, ended_at, position,
    ) = row  # fmt: skip
    try:
        return DeliveryRecord(
            id=delivery_id,
            thread=thread,
            state=DeliveryState(state),
            when=When(when),
            digest=digest,
            principal=principal,
            created_at=_moment(created_at),
            message=None if text is None else _message(text, images),
            position=position,
            key=key,
            attempt=attempt,
            deaths=deaths,
            epoch=None if epoch is None else Epoch.parse(epoch),
            turn_id=turn_id,
            merged=merged == 1,
            evidence=evidence,
            reason=reason,
            retry_of=retry_of,
            expires_at=None if expires_at is None else _moment(expires_at),
            claimed_at=None if claimed_at is None else _moment(claimed_at),
            ended_at=None if ended_at is None else _moment(ended_at),
        )
    except _UNREADABLE as problem:
        raise _unreadable("delivery", delivery_id, problem) from problem


def placed(delivery: DeliveryRecord, position: int) -> DeliveryRecord:
    """Return a delivery with its position. Every message that is accepted comes by: ``replace`` takes four times as long."""
    draft: Any = _DeliveryDraft()
    for name in DeliveryRecord.__slots__:
        setattr(draft, name, getattr(delivery, name))
    draft.position = position
    draft.__class__ = DeliveryRecord
    record: DeliveryRecord = draft
    return record


def request_of(row: tuple[Any, ...]) -> RequestRecord:
    """Return the request that a row of REQUEST columns stands for."""
    (
        request_id, thread, turn_id, item_id, method, kind, rpc_id, epoch, summary, digest, body, cut, state, asked_at,
        deadline, answered_by, decision, answered_at, closed_at, detail,
    ) = row  # fmt: skip
    try:
        return RequestRecord(
            id=request_id,
            thread=thread,
            turn_id=turn_id,
            item_id=item_id,
            method=method,
            kind=RequestKind(kind),
            rpc_id=rpc_id,
            epoch=epoch,
            summary=summary,
            digest=digest,
            body=None if body is None else json.loads(body),
            cut=cut == 1,
            state=RequestState(state),
            asked_at=_moment(asked_at),
            deadline=_moment(deadline),
            answered_by=answered_by,
            decision=decision,
            answered_at=None if answered_at is None else _moment(answered_at),
            closed_at=None if closed_at is None else _moment(closed_at),
            detail=detail,
        )
    except _UNREADABLE as problem:
        raise _unreadable("request", request_id, problem) from problem


def _body(message: Message | None) -> tuple[str | None, str | None]:
    if message is None:
        return None, None
    if not message.images:
        return message.text, None
    return message.text, _json([[image.path, image.detail] for image in message.images])


def _message(text: str, images: str | None) -> Message:
    if images is None:
        return Message(text=text)
    pictures = tuple(Image(path=path, detail=detail) for path, detail in json.loads(images))
    return Message(text=text, images=pictures)


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
_DELIVERY_ENCODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "state": lambda value: DeliveryState(value).value,
    "when": lambda value: When(value).value,
    "created_at": text_of,
    "epoch": lambda value: None if value is None else str(value),
    "merged": int,
    "expires_at": optional_text,
    "claimed_at": optional_text,
    "ended_at": optional_text,
}
