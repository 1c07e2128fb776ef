"""Runtime events: what happened, in dispatch's own small vocabulary. Nothing outside ``appserver`` sees Codex's."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime


class EventKind(StrEnum):
    """The vocabulary.

    ``thread.*``, ``turn.*``, ``item.*``, ``goal.*``, ``delivery.*`` and ``request.*`` events carry a thread key.
    """

    TURN_STARTED = "turn.started"
    TURN_COMPLETED = "turn.completed"
    TURN_FAILED = "turn.failed"
    TURN_INTERRUPTED = "turn.interrupted"
    TURN_UNKNOWN = "turn.unknown"
    ITEM_COMPLETED = "item.completed"
    THREAD_CREATED = "thread.created"
    THREAD_STATUS = "thread.status"
    THREAD_CHANGED = "thread.changed"
    GOAL_CHANGED = "goal.changed"
    DELIVERY_CHANGED = "delivery.changed"
    REQUEST_OPENED = "request.opened"
    REQUEST_CLOSED = "request.closed"
    APPROVAL_REQUESTED = "approval.requested"
    TRIGGER_CHANGED = "trigger.changed"
    TRIGGER_FIRED = "trigger.fired"
    CODEX_STATE = "codex.state"
    DAEMON_STATE = "daemon.state"
    PROGRESS = "op.progress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    seq: its place in this daemon's stream, from 1. thread: the key of a managed thread. data: JSON, without message bodies
    except the text of a completed item.
    """

    seq: int
    at: datetime
    kind: EventKind
    thread: str | None = None
    turn_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gap:
    """Some events are missing before the next one: the cursor was too old, of another daemon, or the reader too slow."""

    next_seq: int


class Events(Protocol):
    """The stream of runtime events."""

    @property
    def last_seq(self) -> int:
        """The seq of the newest event; 0 before the first."""
        ...

    def publish(
        self,
        kind: EventKind,
        *,
        thread: str | None = None,
        turn_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Event:
        """Append an event and wake the subscribers. Never waits; a reader that falls behind gets a Gap."""
        ...

    def subscribe(
        self, *, after: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Event | Gap]]:
        """Iterate over events with a seq greater than ``after``, or from now on."""
        ...
