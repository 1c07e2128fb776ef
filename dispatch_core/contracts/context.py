"""What a handler may touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.deliveries import Deliveries
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.history import History
    from dispatch_core.contracts.records import (
        Message,
        StoppedTurn,
        ThreadRecord,
        ThreadSettings,
        TriggerRecord,
        TurnRecord,
    )
    from dispatch_core.contracts.requests import Requests
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
    """One item of a thread's history, oldest first. type: Codex's item type; text: what a person would read.

    role: "user", "agent", "reasoning", "tool" or "other". at: when it was begun. status: of the turn it is in.
    """

    turn_id: str
    item_id: str | None
    type: str
    text: str | None
    role: str = "other"
    at: datetime | None = None
    turn_status: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """A part of a thread's history, oldest item first. older: where to go on towards the beginning, None at the beginning."""

    items: tuple[HistoryItem, ...]
    older: str | None


class Lanes(Protocol):
    """Managed threads in action: resolution, authority, and the turn that runs in each."""

    async def resolve(self, selector: str, *, fuzzy: bool = False) -> ThreadRecord:
        """Return the one thread a selector names: ref, id, handle or title, in this order; with fuzzy, a unique part of a title.

        Raises ThreadNotFound or AmbiguousSelector.
        """
        ...

    async def writable(self, selector: str) -> ThreadRecord:
        """Resolve exactly, and raise AuthorityDenied unless the thread may be written: our own, and not archived.

        An attached thread may be written as well when ``[policy] allow_attached_writes`` says so.
        """
        ...

    async def locate(self, selector: str, *, fuzzy: bool = False) -> ThreadRecord | str:
        """Return the managed thread that a selector names, or the selector itself if it is the full id of an unmanaged thread.

        Raises as resolve. What is not shaped like an id, or begins with ``@``, is never taken for one.
        """
        ...

    async def create(
        self, *, name: str, cwd: str, settings: ThreadSettings, ephemeral: bool = False
    ) -> ThreadRecord:
        """Start a thread in Codex and register it as our own. Raises ValidationFailed when the name is taken."""
        ...

    async def attach(self, native_id: str) -> ThreadRecord:
        """Register a thread that somebody else made, from its metadata; never resumes it.

        One that is managed is returned unchanged. Raises ThreadNotFound when Codex has no such thread; nothing is registered
        unless Codex described it.
        """
        ...

    async def load(self, thread: ThreadRecord) -> ThreadRecord:
        """Make Codex hold the thread, hear from now on what it does, and return it as it is then.

        One that Codex never stored is started anew, under another native_id. Raises as ``Deliveries.send``; nothing is sent.
        """
        ...

    def check_text(self, text: str) -> None:
        """Raise ValidationFailed for text that ``send`` would refuse."""
        ...

    def check_message(self, message: Message) -> None:
        """Raise ValidationFailed for a message that ``send`` would refuse: its text, or a picture that is none."""
        ...

    async def steer(self, thread: ThreadRecord, message: Message) -> TurnRecord:
        """Add a message to the running turn and return that turn. Codex drops the answer it was streaming and starts it anew.

        Raises NoActiveTurn when none runs, also when it ended on the way; then nothing was said. OutcomeUnknown when
        it cannot be told.
        """
        ...

    async def inject(self, thread: ThreadRecord, text: str) -> None:
        """Put text into the thread's context without starting a turn; the model sees it on the next one."""
        ...

    async def interrupt(self, thread: ThreadRecord) -> StoppedTurn:
        """Interrupt the running turn, stop the commands it leaves running, and return the turn once it has ended.

        Raises NoActiveTurn when none runs.
        """
        ...

    async def rename(self, thread: ThreadRecord, name: str) -> ThreadRecord:
        """Give a thread another name, here and in Codex. Raises ValidationFailed when another managed thread has it."""
        ...

    async def archive(self, thread: ThreadRecord) -> ThreadRecord:
        """Archive a thread, here and in Codex; a turn that runs is interrupted. One that is archived is returned unchanged."""
        ...

    async def restore(self, thread: ThreadRecord) -> ThreadRecord:
        """Bring an archived thread back, without loading it. Raises ValidationFailed when its name was taken meanwhile."""
        ...

    async def fork(
        self,
        thread: ThreadRecord,
        *,
        name: str,
        settings: ThreadSettings,
        cwd: str | None = None,
        last_turn: str | None = None,
    ) -> ThreadRecord:
        """Start a thread of our own that begins with the history of this one, up to and with last_turn.

        settings: what is None is taken over from the thread. Raises ValidationFailed when there is no history to fork.
        """
        ...

    async def revert(self, thread: ThreadRecord, *, before_turn: str) -> ThreadRecord:
        """Forget a turn and all later ones; files are not touched. Raises LaneBusy, or CapabilityUnavailable."""
        ...

    async def compact(self, thread: ThreadRecord) -> TurnRecord | None:
        """Start to replace the thread's context by a summary; it is a turn that can be waited for. Raises LaneBusy."""
        ...

    async def settled(self, thread: ThreadRecord) -> ThreadRecord:
        """Return the thread once no turn runs in it and no message waits to be sent, or it needs attention.

        It waits without a deadline of its own. A turn that ended with Codex is settled from history first; UNKNOWN remains when
        Codex cannot be started again.
        """
        ...

    async def history(
        self, thread: ThreadRecord, limit: int, *, before: str | None = None
    ) -> HistoryPage:
        """Return limit items up to ``before`` (``older`` of another page), or the last ones; none for a thread without a turn.

        Asks Codex for as few turns as hold them. Raises ValidationFailed for a cursor that makes no sense.
        """
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
    """Everything a handler may touch, made anew for each call. A thirteenth field needs a design note."""

    caller: Caller
    lanes: Lanes
    deliveries: Deliveries
    requests: Requests
    codex: Codex
    store: Storage
    events: Events
    clock: Clock
    triggers: Triggers
    daemon: Daemon
    ops: OpCaller
    history: History
