"""Which state of a delivery may follow which. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.contracts.deliveries import DeliveryState as S
from dispatch_core.contracts.records import TurnStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

_OUTCOMES = frozenset({S.DONE, S.FAILED, S.INTERRUPTED})
_FOUND_OUT = frozenset({S.QUEUED, S.UNKNOWN, S.DEAD})  # after Codex went away

NEXT: Mapping[S, frozenset[S]] = {
    S.QUEUED: frozenset({S.SENDING, S.CANCELLED, S.EXPIRED, S.REJECTED}),
    S.SENDING: frozenset({S.SUBMITTED, S.RUNNING, S.REJECTED}) | _OUTCOMES | _FOUND_OUT,
    S.SUBMITTED: frozenset({S.RUNNING}) | _OUTCOMES | _FOUND_OUT,
    # A running turn may be absent from history as well: what was heard is no proof that it was stored.
    S.RUNNING: _OUTCOMES | _FOUND_OUT,
    # As a person decides.
    S.UNKNOWN: frozenset({S.DONE, S.CANCELLED}),
}

OF_TURN: Mapping[TurnStatus, S] = {
    TurnStatus.SUBMITTED: S.SUBMITTED,
    TurnStatus.STARTED: S.RUNNING,
    TurnStatus.COMPLETED: S.DONE,
    TurnStatus.FAILED: S.FAILED,
    TurnStatus.INTERRUPTED: S.INTERRUPTED,
}


def check(before: S, after: S) -> None:
    """Raise ValueError unless a delivery may go from one state to the other; to stay is no step."""
    if before is not after and after not in NEXT.get(before, frozenset()):
        raise ValueError(f"a delivery that is {before.value} cannot become {after.value}")
