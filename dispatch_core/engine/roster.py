"""The lanes in use, and what each of them hears: signals become state, and news of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.signals import (
    ArchiveChanged,
    ItemDone,
    NameChanged,
    Signal,
    ThreadDeleted,
    TurnEnded,
    TurnsReverted,
    TurnStarted,
    TurnTroubled,
    project,
)
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import TurnStatus
from dispatch_core.engine.lane import Lane
from dispatch_core.engine.registrar import News

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.engine.registrar import Registrar

ENDINGS = {
    TurnStatus.COMPLETED: EventKind.TURN_COMPLETED,
    TurnStatus.FAILED: EventKind.TURN_FAILED,
    TurnStatus.INTERRUPTED: EventKind.TURN_INTERRUPTED,
    TurnStatus.UNKNOWN: EventKind.TURN_UNKNOWN,
    TurnStatus.STARTED: EventKind.TURN_STARTED,
}


class Roster:
    """Every lane that was used in this daemon's life. lanes: by our key."""

    def __init__(self, registrar: Registrar, clock: Clock) -> None:
        self._registrar = registrar
        self._clock = clock
        self.lanes: dict[str, Lane] = {}
        self._keys: dict[str, str] = {}

    def lane(self, thread: ThreadRecord) -> Lane:
        """Return the lane of a thread; from now on its notifications are heard."""
        lane = self.lanes.get(thread.key)
        if lane is None:
            lane = self.lanes[thread.key] = Lane(thread)
        self._keys[thread.native_id] = thread.key
        return lane

    def key_of(self, native_id: str) -> str | None:
        """Return our key of a Codex thread that was used in this daemon's life."""
        return self._keys.get(native_id)

    def readdress(self, lane: Lane, native_id: str) -> None:
        """The thread of a lane is another one in Codex from now on."""
        lane.native_id = native_id
        self._keys[native_id] = lane.key

    def active(self) -> list[str]:
        """Return the keys of the threads in which a turn runs."""
        return [key for key, lane in self.lanes.items() if lane.active or lane.submitting]

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """Take in a notification of Codex; called in wire order, never waits."""
        signal = project(method, params)
        key = self._keys.get(signal.thread_id) if signal is not None else None
        if signal is not None and key is not None:
            self.hear(self.lanes[key], [(signal, self._clock.now())])

    def hear(self, lane: Lane, signals: Iterable[tuple[Signal, Any]]) -> None:
        """Take in signals for one lane, in order."""
        for signal, at in signals:
            held = lane.submitting
            changed = lane.hear(signal, at)
            if isinstance(signal, ItemDone):
                if not held:
                    data = {"type": signal.type, "text": signal.text}
                    tell = self._registrar.defer if changed else self._registrar.tell
                    tell(lane, News(EventKind.ITEM_COMPLETED, signal.turn_id, data))
            elif not changed:
                continue
            elif isinstance(signal, TurnTroubled):
                self._registrar.defer(lane)
            elif isinstance(signal, TurnStarted):
                # Of a turn of ours the registry knows already that it was submitted.
                ours = lane.turn is not None and lane.turn.message_id is not None
                write = self._registrar.defer if ours else self._registrar.mark
                write(lane, News(EventKind.TURN_STARTED, signal.turn_id))
            elif isinstance(signal, TurnEnded):
                self._registrar.mark(lane, News(ENDINGS[signal.status], signal.turn_id))
            elif change := _change(signal):
                self._registrar.mark(lane, News(EventKind.THREAD_CHANGED, None, {"change": change}))
            else:
                self._registrar.mark(lane)

    def lose(self, lane: Lane) -> None:
        """The Codex that the lane's thread was loaded in is gone."""
        if lane.lose(self._clock.now()):
            turn_id = lane.turn.id if lane.turn else None
            self._registrar.mark(lane, News(EventKind.TURN_UNKNOWN, turn_id))


def _change(signal: Signal) -> str | None:
    """Return the word for what a signal says has become of a thread as a whole."""
    match signal:
        case NameChanged():
            return "renamed"
        case ArchiveChanged(archived=archived):
            return "archived" if archived else "restored"
        case ThreadDeleted():
            return "deleted"
        case TurnsReverted():
            return "reverted"
    return None
