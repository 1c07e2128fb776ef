"""What the registry keeps, as frozen data. No storage object leaves its plugin; these do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class Source(StrEnum):
    """Who made a thread. It decides authority: own threads may be written, attached threads only read."""

    OWN = "own"
    ATTACHED = "attached"


class ThreadStatus(StrEnum):
    """What a thread is doing, as far as is known."""

    IDLE = "idle"
    BUSY = "busy"
    WAITING_APPROVAL = "waiting_approval"
    ARCHIVED = "archived"
    ERROR = "error"
    UNKNOWN = "unknown"


class TurnStatus(StrEnum):
    """Where a turn stands.

    SUBMITTED: handed to Codex, which has not said that it runs. UNKNOWN: Codex went away and history has not been read yet.
    """

    SUBMITTED = "submitted"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    UNKNOWN = "unknown"

    @property
    def finished(self) -> bool:
        return self in (TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.INTERRUPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadSettings:
    """What a thread was created with; it applies to every later turn. None is omitted on the wire.

    permissions: a permission profile, instead of sandbox and approvals. service_tier: the id Codex knows. output_schema: JSON
    schema of every final answer. base_instructions and developer_instructions: texts; Codex takes them when the thread starts.
    """

    sandbox: str | None = None
    approval_policy: str | None = None
    approvals_reviewer: str | None = None
    permissions: str | None = None
    model: str | None = None
    model_provider: str | None = None
    effort: str | None = None
    summary: str | None = None
    personality: str | None = None
    service_tier: str | None = None
    output_schema: Mapping[str, Any] | None = None
    base_instructions: str | None = None
    developer_instructions: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInUse:
    """What Codex said it uses for a thread, when it was started, resumed or read. None: it did not say."""

    provider: str | None = None
    model: str | None = None
    effort: str | None = None
    service_tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture in a message. path: absolute, of a PNG, JPEG, GIF or WebP file. detail: auto, high or original."""

    path: str
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is said to a thread: text, with any number of pictures."""

    text: str
    images: tuple[Image, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """The latest turn of a thread.

    message_id: the uuid7 of the message that started it, sent to Codex as ``clientUserMessageId`` and the key by which the
    turn is found again in history. id: Codex's turn id, None until Codex has named it.
    """

    message_id: str | None
    id: str | None
    status: TurnStatus
    started_at: datetime
    completed_at: datetime | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedTurn(TurnRecord):
    """A turn that was interrupted. commands_stopped: how many of its commands were ended with it, None if Codex cannot tell."""

    commands_stopped: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadRecord:
    """A managed thread.

    key: our own uuid7, stable for ever. native_id: the provider's id, which can change when a thread that Codex never wrote to
    disk has to be started again. ref: six characters, allocated once. handle: ``@name``. materialized: whether Codex has
    persisted a turn, so that the thread survives its app-server. ephemeral: Codex never writes it to disk. in_use: the model as
    Codex last told it, None when it never did.
    """

    key: str
    provider: str
    native_id: str
    ref: str
    handle: str
    title: str | None
    source: Source
    status: ThreadStatus
    cwd: str
    settings: ThreadSettings
    created_at: datetime
    updated_at: datetime
    materialized: bool = False
    ephemeral: bool = False
    in_use: ModelInUse | None = None
    turn: TurnRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedRecord:
    """A JSON value that Codex gave us at a moment and that may be asked for again."""

    value: Any
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRecord:
    """One line of the audit log. detail: at most 120 characters, never a message body in full. outcome: "ok" or an error code."""

    at: datetime
    op: str
    principal: str
    outcome: str
    thread: str | None = None
    trigger_id: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRecord:
    """A durable binding: when (kind, config) → action (op, args).

    config: the kind's own options without ``kind``. thread: the selector the action goes to, kept as the user wrote it and
    resolved when it fires. next_at: for time kinds, the next instant in UTC.
    """

    id: str
    name: str
    kind: str
    config: Mapping[str, Any]
    thread: str
    op: str
    args: Mapping[str, Any] = field(default_factory=dict)
    enabled: bool = True
    created_at: datetime
    next_at: datetime | None = None


class FiringStatus(StrEnum):
    """Where one occasion stands.

    UNKNOWN: the daemon or Codex died before the outcome was known; it is not repeated.
    """

    CLAIMED = "claimed"
    DONE = "done"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class FiringRecord:
    """One occasion of a trigger. (trigger_id, key) is unique."""

    trigger_id: str
    key: str
    status: FiringStatus
    at: datetime
    detail: str | None = None
