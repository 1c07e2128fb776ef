"""What is known, right now, about one thread: a small state machine fed by Codex's signals. No I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio

from dispatch_core.appserver.signals import (
    ArchiveChanged,
    CommandStarted,
    ItemDone,
    MessageSeen,
    NameChanged,
    Signal,
    StatusChanged,
    ThreadDeleted,
    TurnEnded,
    TurnsReverted,
    TurnStarted,
    TurnTroubled,
)
from dispatch_core.contracts.records import ThreadRecord, ThreadStatus, TurnRecord, TurnStatus
from dispatch_core.engine.deliveries.flight import OF_THE_MODEL

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.engine.deliveries.flight import Flight

REVERTED = "turns were taken back; history says which one is the newest"
UNHEARD = "Codex says that nothing runs, and has not said how the turn ended"
SILENCE = timedelta(seconds=5)
REMEMBERED = 32  # ended turns, and messages, by which late news about them is recognised


class Lane:
    """The live state of a managed thread.

    generation: of the Codex process the thread is loaded in, None when it is in none. handed: of the process the newest
    message was given to, None when that was before this daemon. turn: the newest turn; while a message is on its way, the one
    that it is to start. previous: the newest turn before that. latest_end: of
    the turns the one that ended last. flight: the delivery that is on its way. held: the id of a
    delivery of which a person must say what became of it before another one goes. sending: somebody is in the middle of
    sending. lock: held while a message is handed over and while history is read for the end of a turn. submitting: a message is
    on its way and Codex has not said which turn it became; signals that arrive meanwhile are held back, because the answer
    precedes them on the wire. reverts: how many times Codex was asked to take turns back and has not said that it did.
    idle_since: when Codex said that nothing runs, while it has not said how the turn ended; silent: it has gone on not
    saying it. dirty:
    what is here must reach the registry before anybody is told that the thread is settled; saving: it is being written.
    """

    def __init__(self, record: ThreadRecord) -> None:
        self.key = record.key
        self.native_id = record.native_id
        self.archived = record.status is ThreadStatus.ARCHIVED
        self.materialized = record.materialized
        self.title = record.title
        self.turn = record.turn
        self.previous: TurnRecord | None = None
        self.latest_end: TurnRecord | None = None
        self.flight: Flight | None = None
        self.held: str | None = None
        self.active: str | None = None
        self.waiting = False
        self.broken = record.status is ThreadStatus.ERROR
        self.generation: int | None = None
        self.handed: int | None = None
        self.sending = False
        self.submitting = False
        self.reverts = 0
        self.silent = False
        self.idle_since: datetime | None = None
        self.dirty = False
        self.saving = False
        self.lock = anyio.Lock(fast_acquire=True)
        self._unplaced: str | None = None
        self._held: list[tuple[Signal, datetime]] = []
        self._ended: deque[str] = deque(maxlen=REMEMBERED)
        self._started: set[str] = set()
        self._said: deque[str] = deque(maxlen=REMEMBERED)
        self._commands: dict[str, str] = {}
        self._changed = anyio.Event()

    @property
    def status(self) -> ThreadStatus:
        """What the thread is doing, from what is known here."""
        if self.archived:
            return ThreadStatus.ARCHIVED
        if self.active is not None or self.submitting:
            return ThreadStatus.WAITING_APPROVAL if self.waiting else ThreadStatus.BUSY
        if self.held is not None:
            return ThreadStatus.UNKNOWN
        if self.in_doubt or (self.turn is not None and not self.turn.status.finished):
            return ThreadStatus.UNKNOWN
        if self.broken or (self.turn is not None and self.turn.status is TurnStatus.FAILED):
            return ThreadStatus.ERROR
        return ThreadStatus.IDLE

    @property
    def settled(self) -> bool:
        """Whether nothing runs, and the registry was told."""
        return not (self.dirty or self.saving) and self.active is None and not self.submitting

    @property
    def unresolved(self) -> bool:
        """Whether a message was handed over or a turn ran, and only history can tell what became of it."""
        pending = self.turn is not None and not self.turn.status.finished
        return (pending or self.in_doubt) and self.active is None and not self.submitting

    @property
    def in_doubt(self) -> bool:
        """Whether only history can tell what became of the delivery on its way; another turn may have come and gone since."""
        return self.flight is not None and self.flight.doubt

    @property
    def carries(self) -> bool:
        """Whether the newest turn is that of the delivery on its way, and not one that somebody else has begun since."""
        if self.flight is None or self.turn is None:
            return False
        named = self.turn.id is not None and self.turn.id == self.flight.turn_id
        return named or self.turn.message_id == self.flight.id

    @property
    def known_turn(self) -> TurnRecord | None:
        """The newest turn that Codex has named: what the registry keeps, for the message on its way is a delivery."""
        on_its_way = self.flight is not None or self.submitting
        unnamed = self.turn is not None and self.turn.id is None
        return self.previous if on_its_way and unnamed else self.turn

    def started(self, turn_id: str) -> bool:
        """Whether Codex has said that this turn runs; before that it cannot be interrupted."""
        return turn_id in self._started or turn_id in self._ended

    def ended(self, turn_id: str) -> bool:
        """Whether Codex has said that this turn has ended."""
        return turn_id in self._ended

    def said(self, message_id: str) -> bool:
        """Whether Codex has made this message part of a turn."""
        return message_id in self._said

    def commands_besides(self, turn_id: str) -> set[str]:
        """Return the items of the commands that run since another turn, left running on purpose."""
        return {item for item, turn in self._commands.items() if turn != turn_id}

    async def change(self) -> None:
        """Wait until something changes."""
        await self._changed.wait()

    def touch(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed = anyio.Event()

    def submit(self, turn: TurnRecord) -> None:
        """A message is about to be handed to Codex."""
        self.previous = self.known_turn
        self.turn = turn
        self.submitting = True
        self.broken = False
        self.touch()

    def adopt(self, turn_id: str, before: TurnRecord | None) -> bool:
        """Codex has answered; return whether the message started this turn, or joined one that is known already.

        before: the newest turn before the message. A turn that the message joined stays the turn of whoever started it.
        """
        known = before is not None and before.id == turn_id
        joined = known or self.started(turn_id)
        if known:
            self.turn = before
        elif self.turn is not None:
            owner = None if joined else self.turn.message_id
            self.turn = replace(self.turn, id=turn_id, message_id=owner)
        if turn_id not in self._ended:
            self.active = turn_id
            if joined and self.turn is not None:
                self.turn = replace(self.turn, status=TurnStatus.STARTED, completed_at=None)
        self.touch()
        return not joined

    def found_running(self, turn_id: str) -> None:
        """History says that the newest turn still runs."""
        if self.turn is not None:
            self.turn = replace(
                self.turn, id=turn_id, status=TurnStatus.STARTED, error=None, completed_at=None
            )
        self.active = turn_id
        self._started.add(turn_id)
        self.materialized = True
        self.touch()

    def conclude(self, status: TurnStatus, error: str | None, at: datetime) -> None:
        """The newest turn stands at status without Codex having said so on the wire."""
        if self.turn is not None:
            ended = at if status.finished else None
            self.turn = replace(self.turn, status=status, error=error, completed_at=ended)
        self.active = None
        self.waiting = False
        self.touch()

    def depart(self, flight: Flight) -> None:
        """A delivery is on its way, recorded as such."""
        self.flight = flight

    def board(self, flight: Flight, turn: TurnRecord) -> None:
        """A delivery was on its way when the daemon ended; what became of it, and of its turn, is to be found out."""
        self.previous = self.turn if self.turn is None or self.turn.id != turn.id else None
        if self.previous is not None and self.previous.started_at < turn.started_at:
            flight.since = (
                self.previous.id
            )  # a newer one would hide the message from whoever reads back to it
        self.flight, self.turn = flight, turn
        self.touch()

    def land(self, held: str | None) -> None:
        """What became of the delivery is in the registry. held: its id, if a person has to decide."""
        self.flight = None
        self.held = held or self.held
        self.touch()

    def withdraw(self) -> None:
        """The message on its way has not become a turn; one that somebody else has begun since stays."""
        self._unplaced = None
        if self.flight is not None and not self.carries:
            self.touch()
            return
        self.turn = self.previous
        self.active = None
        self.waiting = False
        self.touch()

    def release(self) -> list[tuple[Signal, datetime]]:
        """Submitting is over; return the signals that were held back, in order."""
        self.submitting = False
        held, self._held = self._held, []
        return held

    def rename(self, title: str | None) -> bool:
        """The thread has this name in Codex; return whether that is new."""
        changed, self.title = title != self.title, title
        return changed

    def put_away(self, *, archived: bool) -> bool:
        """The thread is archived, and then not loaded, or no longer; return whether that is new."""
        changed = archived != self.archived
        self.archived = archived
        if archived:
            self.generation = None
        self.touch()
        return changed

    def gone(self) -> bool:
        """Codex has the thread no more; return whether that is new."""
        changed = not self.broken
        self.generation = None
        self.broken = True
        self.touch()
        return changed

    def take_back(self) -> None:
        """The newest turn may be no part of the thread any longer; only history can tell which one is."""
        if self.turn is not None:
            self.turn = replace(self.turn, status=TurnStatus.UNKNOWN, error=REVERTED)
        self.touch()

    def fall_silent(self, at: datetime) -> bool:
        """Give up hearing how the turn ended, if Codex said ``SILENCE`` ago that nothing runs; return whether that is new.

        One damaged line may have said it. History has to tell.
        """
        if self.active is None or self.idle_since is None or at - self.idle_since < SILENCE:
            return False
        self.silent, self.idle_since = True, None
        if self.flight is not None and self.flight.state.in_flight:
            self.flight.doubt = True
        self.conclude(TurnStatus.UNKNOWN, UNHEARD, at)
        return True

    def lose(self, at: datetime) -> bool:
        """Codex is gone; return whether a turn was cut off, whose end is unknown now."""
        self.generation = None
        self.waiting = False
        self.silent, self.idle_since = False, None
        self._started.clear()
        self._commands.clear()
        self.reverts = 0
        if self.flight is not None and self.flight.state.in_flight:
            self.flight.doubt = self.flight.witnessed = True
        self.touch()
        if self.active is None:
            return False
        if self.turn is not None and self.turn.message_id is None and self._unplaced is not None:
            # Whether our message became this turn was about to be said; history will say it.
            self.turn = replace(self.turn, message_id=self._unplaced)
            self._unplaced = None
        self.conclude(TurnStatus.UNKNOWN, "Codex went away while the turn ran", at)
        return True

    def hear(self, signal: Signal, at: datetime) -> bool:  # noqa: C901, PLR0911, PLR0912 -- one for each signal
        """Take in a signal; return whether anything changed that the registry should know."""
        if self.submitting:
            self._held.append((signal, at))
            return False
        if self.flight is not None:
            self.flight.hear(signal, at)
        match signal:
            case TurnStarted(turn_id=turn_id):
                return self._turn_started(turn_id, at)
            case TurnEnded():
                return self._turn_ended(signal, at)
            case TurnTroubled(turn_id=turn_id, message=message):
                return self._trouble(turn_id, message)
            case StatusChanged():
                return self._status_changed(signal, at)
            case MessageSeen(turn_id=turn_id, client_id=client_id):
                return self._message_seen(turn_id, client_id)
            case NameChanged(name=name):
                return self.rename(name)
            case ArchiveChanged(archived=archived):
                return self.put_away(archived=archived)
            case ThreadDeleted():
                return self.gone()
            case TurnsReverted():
                return self._reverted()
            case CommandStarted(turn_id=turn_id, item_id=item_id):
                self._commands[item_id] = turn_id
                return False
            case ItemDone(turn_id=turn_id, item_id=done):
                if done is not None:
                    self._commands.pop(done, None)
                # Codex had stored the thread when it asked the model for this.
                self.materialized = self.materialized or signal.type in OF_THE_MODEL
                return self._trouble(turn_id, None)  # it gets on again

    def _turn_started(self, turn_id: str, at: datetime) -> bool:
        if turn_id in self._ended:
            return False
        self.active = turn_id
        self.silent, self.idle_since = False, None
        self._started.add(turn_id)
        if self.turn is None or self.turn.id != turn_id:
            if self.turn is not None and self.turn.id is None:
                self._unplaced = self.turn.message_id
            self.turn = TurnRecord(
                message_id=None, id=turn_id, status=TurnStatus.STARTED, started_at=at
            )
        else:
            self.turn = replace(self.turn, status=TurnStatus.STARTED)
        self.touch()
        return True

    def _turn_ended(self, signal: TurnEnded, at: datetime) -> bool:
        self._ended.append(signal.turn_id)
        self._started.discard(signal.turn_id)
        self.silent, self.idle_since = False, None
        self.materialized = True
        if self.active in (signal.turn_id, None):
            self.active = None
            self.waiting = False
        if self.turn is None or self.turn.id != signal.turn_id:
            self.touch()
            return False
        error = signal.error
        if error is None and signal.status is not TurnStatus.COMPLETED:
            error = self.turn.error  # why somebody may have lost patience with it
        self.turn = replace(self.turn, status=signal.status, error=error, completed_at=at)
        self.latest_end = self.turn
        self.touch()
        return True

    def _trouble(self, turn_id: str, message: str | None) -> bool:
        """Keep what is in the way of the running turn, None for nothing, as its error; return whether that is new."""
        turn = self.turn
        if turn is None or turn.id != turn_id or self.active != turn_id or turn.error == message:
            return False
        self.turn = replace(turn, error=message)
        return True

    def _reverted(self) -> bool:
        if self.reverts:
            self.reverts -= 1  # as we have asked
            return False
        self.take_back()
        return True

    def _status_changed(self, signal: StatusChanged, at: datetime) -> bool:
        changed = signal.waiting != self.waiting
        self.waiting = signal.waiting
        self.idle_since = at if signal.idle and self.active is not None else None
        if not signal.loaded:
            self.generation = None
        if changed:
            self.touch()
        return changed

    def _message_seen(self, turn_id: str, client_id: str) -> bool:
        """The exact evidence of which turn a message became, also when the answer to it was lost."""
        self._said.append(client_id)
        self.touch()
        if self.turn is None or client_id != self._unplaced or self.turn.id != turn_id:
            return False
        self.turn = replace(self.turn, message_id=client_id)
        self._unplaced = None
        return True
