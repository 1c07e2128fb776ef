"""The delivery that a lane has given to Codex: what is heard of it, until it is written down. No I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from dispatch_core.appserver.signals import ItemDone, MessageSeen, TurnEnded, TurnStarted
from dispatch_core.contracts.deliveries import DeliveryState
from dispatch_core.engine.deliveries.machine import OF_TURN

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.appserver.signals import Signal
    from dispatch_core.contracts.deliveries import DeliveryRecord

# Items that nobody but the model causes: Codex has asked it before, and stored the message before that.
OF_THE_MODEL = frozenset(
    {"agentMessage", "reasoning", "commandExecution", "fileChange", "mcpToolCall"}
)


class Flight:
    """One delivery in flight.

    record: as the registry has it. state, turn_id, merged, evidence, reason, ended_at: as it is known here, which the registry
    is told next. deaths: of Codex processes that had it. doubt: the process that had it is gone, or did not answer; only
    history can tell. witnessed: this daemon saw that process end. since: id of a turn that history had before the message, None
    when none is known. ran: the model was heard to work on it. refused: Codex did not take it.
    """

    def __init__(
        self, record: DeliveryRecord, *, doubt: bool = False, since: str | None = None
    ) -> None:
        self.record = record
        self.state = record.state
        self.turn_id = record.turn_id
        self.merged = record.merged
        self.evidence = record.evidence
        self.reason = record.reason
        self.ended_at: datetime | None = None
        self.deaths = record.deaths
        self.doubt = doubt
        self.witnessed = False
        self.since = since
        self.ran = False
        self.refused = False
        self.lock = anyio.Lock(fast_acquire=True)

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def changed(self) -> bool:
        """Whether more is known than the registry has."""
        return self.state is not self.record.state or self.turn_id != self.record.turn_id

    def view(self) -> DeliveryRecord:
        """Return the record with what is known here."""
        return replace(
            self.record,
            state=self.state,
            turn_id=self.turn_id,
            merged=self.merged,
            evidence=self.evidence,
            reason=self.reason,
            ended_at=self.ended_at,
        )

    def answered(self, turn_id: str, *, merged: bool) -> None:
        """Codex has put the message into a turn, one that ran already if merged."""
        self.turn_id, self.merged, self.evidence = turn_id, merged, "answer"
        self.state = DeliveryState.RUNNING if merged else DeliveryState.SUBMITTED

    def hear(self, signal: Signal, at: datetime) -> None:
        """Take in what Codex says of the turn that the message is in."""
        if self.state.ended:
            return
        match signal:
            case MessageSeen(turn_id=turn_id, client_id=self.id):
                self._runs(turn_id)
            case TurnStarted(turn_id=turn_id) if turn_id == self.turn_id:
                self._runs(turn_id)
            case ItemDone(turn_id=turn_id, type=kind) if turn_id == self.turn_id:
                self.ran = self.ran or kind in OF_THE_MODEL
            case TurnEnded(turn_id=turn_id) if turn_id == self.turn_id:
                state = OF_TURN.get(signal.status)
                if state is None or not state.ended:
                    self.doubt = True  # it has ended in a way that history may have a word for
                    return
                self.end(state, "event", at, reason=signal.error)

    def end(
        self, state: DeliveryState, evidence: str, at: datetime, *, reason: str | None = None
    ) -> None:
        """The delivery has come to its end."""
        self.state, self.evidence, self.reason, self.ended_at = state, evidence, reason, at
        self.doubt = False

    def _runs(self, turn_id: str) -> None:
        self.turn_id, self.doubt = turn_id, False
        self.state, self.evidence = DeliveryState.RUNNING, "event"
