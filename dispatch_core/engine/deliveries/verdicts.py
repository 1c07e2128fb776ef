"""What is to become of a delivery that Codex had when it went away: decided from evidence alone. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from dispatch_core.contracts.deliveries import DeliveryState as S
from dispatch_core.contracts.records import TurnStatus
from dispatch_core.engine.deliveries.machine import OF_TURN

if TYPE_CHECKING:
    from dispatch_core.contracts.deliveries import DeliveryRecord

MAX_DEATHS = 3  # Codex processes that may end with the same message before it is given up
MAX_ATTEMPTS = 20

REBOOTED = (
    "the machine was started anew while it was on its way, and Codex does not make sure that its history "
    "survives that: it may have run"
)
TWICE = "Codex's history has it in more than one turn"
OTHER_TEXT = "Codex's history has another text under its id"
STILL_THERE = "the Codex process that got it may still run"
UNANSWERED = "Codex runs, has not answered for a long time, and its history has no trace of it"
UNPROVEN = (
    "Codex's history has no trace of it, and it is not known of this version of Codex that this proves "
    "that it did not run"
)
NOT_STARTED = "Codex went away before it had stored it: it did not run"
POISON = f"{MAX_DEATHS} Codex processes ended while they had it and before it ran"
TIRED = f"it was given to Codex {MAX_ATTEMPTS} times and never ran"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMessage:
    """A user message with the id of the delivery, in Codex's history. same_text: it says what the delivery says."""

    turn_id: str
    status: TurnStatus
    error: str | None = None
    same_text: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What Codex's history says about a delivery.

    found: where it is. incomplete: why the history could not be read as far as it has to be, None when it was.
    """

    found: tuple[FoundMessage, ...] = ()
    incomplete: str | None = None


class Kind(StrEnum):
    """What is decided.

    ADOPT: it ran, or runs. REQUEUE: it is proven not to have started. UNKNOWN: a person must decide. DEAD: it is given up.
    WAIT: it is too early.
    """

    ADOPT = "adopt"
    REQUEUE = "requeue"
    UNKNOWN = "unknown"
    DEAD = "dead"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do. state: what the delivery becomes, None for WAIT. found: the turn, for ADOPT. reason: in words."""

    kind: Kind
    state: S | None
    reason: str | None = None
    found: FoundMessage | None = None


WAIT = Decision(kind=Kind.WAIT, state=None)


def decide(  # noqa: PLR0913 -- facts, all by keyword
    delivery: DeliveryRecord,
    evidence: Evidence,
    *,
    boot_id: str,
    gone: bool | None,
    proven: bool,
    died: bool,
    late: bool = False,
    silent: bool = False,
) -> Decision:
    """Return what becomes of a delivery in flight.

    boot_id: of this boot. gone: whether the process it was given to is proven to have ended; None: it cannot be told. proven:
    whether this version of Codex stores a message before it asks the model, so that absence means that nothing ran. died: it was
    Codex that ended, and not the daemon that took Codex with it; only that can be the message's fault. late: it was given to
    Codex so long ago that no answer is to be expected. silent: Codex has said that nothing runs in the thread, and not how its
    turn ended.
    """
    if len(evidence.found) > 1:
        return _unknown(TWICE)
    epoch = delivery.epoch
    lives = gone is False and epoch is not None and epoch.boot_id == boot_id
    if evidence.found:
        # Of a turn that has just begun, history may say that it was interrupted; the process that runs it says how it ends.
        early = lives and not silent and evidence.found[0].status is TurnStatus.INTERRUPTED
        return WAIT if early else _adopt(evidence.found[0])
    if lives:
        return _unknown(UNANSWERED) if late else WAIT
    if doubt := _doubt(delivery, evidence, boot_id=boot_id, gone=gone, proven=proven):
        return _unknown(doubt)
    poisonous = died and delivery.deaths + 1 >= MAX_DEATHS
    if poisonous or delivery.attempt >= MAX_ATTEMPTS:
        return Decision(kind=Kind.DEAD, state=S.DEAD, reason=POISON if poisonous else TIRED)
    return Decision(kind=Kind.REQUEUE, state=S.QUEUED, reason=NOT_STARTED)


def _adopt(found: FoundMessage) -> Decision:
    state = OF_TURN.get(found.status)
    if not found.same_text:
        return _unknown(OTHER_TEXT)
    if state is None:
        return _unknown(f"turn {found.turn_id} has it and stands at {found.status.value}")
    return Decision(kind=Kind.ADOPT, state=state, reason=found.error, found=found)


def _doubt(
    delivery: DeliveryRecord, evidence: Evidence, *, boot_id: str, gone: bool | None, proven: bool
) -> str | None:
    """Return why it does not follow from a history without the message that it did not run; None when it does."""
    if delivery.epoch is None or delivery.epoch.boot_id != boot_id:
        return REBOOTED
    if gone is None:
        return STILL_THERE
    if evidence.incomplete is not None:
        return f"Codex's history cannot be read completely: {evidence.incomplete}"
    return None if proven else UNPROVEN


def _unknown(reason: str) -> Decision:
    return Decision(kind=Kind.UNKNOWN, state=S.UNKNOWN, reason=reason)
