"""What a handler may touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.records import (
        ThreadRecord,
        ThreadSettings,
        TriggerRecord,
        TurnRecord,
    )
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.contracts.surface import OpCaller


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...


class Codex(Protocol):
    """The app-server client, as ops use it."""

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and return its result.

        Raises CodexUnavailable when nothing was sent, CodexOverloaded, CodexTimeout, OutcomeUnknown when Codex went away
        after the request was written, and CodexError for any other error it answers.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryItem:
    """One item of a thread's history, oldest first. type: Codex's item type; text: what a person would read."""

    turn_id: str
    item_id: str | None
    type: str
    text: str | None


class Lanes(Protocol):
    """Managed threads in action: resolution, authority, and the turn that runs in each."""

    async def resolve(self, selector: str, *, fuzzy: bool = False) -> ThreadRecord:
        """Return the one thread a selector names: ref, id, handle or title, in this order; with fuzzy, a unique part of a title.

        Raises ThreadNotFound or AmbiguousSelector.
        """
        ...

    async def writable(self, selector: str) -> ThreadRecord:
        """Resolve exactly, and raise AuthorityDenied unless the thread is our own and not archived."""
        ...

    async def create(self, *, name: str, cwd: str, settings: ThreadSettings) -> ThreadRecord:
        """Start a thread in Codex and register it as our own."""
        ...

    def check_text(self, text: str) -> None:
        """Raise ValidationFailed for text that ``send`` would refuse."""
        ...

    async def send(self, thread: ThreadRecord, text: str) -> TurnRecord:
        """Start a turn with one message and return it as SUBMITTED, recorded before Codex was asked.

        STARTED: Codex put the message into a turn that ran already, because somebody else had started it.
        Raises LaneBusy while a turn runs, ValidationFailed for text Codex would swallow, CodexError when Codex refused, and
        OutcomeUnknown when it cannot be told whether the turn started.
        """
        ...

    async def interrupt(self, thread: ThreadRecord) -> TurnRecord:
        """Interrupt the running turn and return it once it has ended. Raises ValidationFailed when none runs."""
        ...

    async def settled(self, thread: ThreadRecord) -> ThreadRecord:
        """Return the thread once no turn runs in it, or it needs attention. Waits without a deadline of its own.

        A turn that ended with Codex is settled from history first; UNKNOWN remains when Codex cannot be started again.
        """
        ...

    async def history(self, thread: ThreadRecord, limit: int) -> Sequence[HistoryItem]:
        """Return the last limit items, oldest first; none for a thread that has had no turn."""
        ...


class Triggers(Protocol):
    """The trigger engine."""

    async def add(self, trigger: TriggerRecord) -> TriggerRecord:
        """Validate kind and configuration, store the trigger and arm it. Raises ValidationFailed naming the field."""
        ...

    async def remove(self, trigger_id: str) -> None:
        """Disarm and forget a trigger. Raises TriggerNotFound."""
        ...

    async def enable(self, trigger_id: str, *, enabled: bool) -> TriggerRecord:
        """Pause or resume a trigger; what fell due while it was paused does not fire. Raises TriggerNotFound."""
        ...


class Daemon(Protocol):
    """The process this handler runs in."""

    def status(self) -> dict[str, Any]:
        """Return what is known about the daemon, Codex and the plugins, as JSON."""
        ...

    def log_tail(self, limit: int) -> list[str]:
        """Return the last lines of the daemon's log, oldest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class OpContext:
    """Everything a handler may touch, made anew for each call. A tenth field needs a design note."""

    caller: Caller
    lanes: Lanes
    codex: Codex
    store: Storage
    events: Events
    clock: Clock
    triggers: Triggers
    daemon: Daemon
    ops: OpCaller
