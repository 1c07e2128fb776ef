"""Deliveries: a message from its acceptance to its end. What was accepted is a row here before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.records import Message, ThreadRecord


class DeliveryState(StrEnum):
    """Where a delivery stands.

    QUEUED: accepted, nothing was sent. SENDING: recorded as about to be handed to Codex; it may have been. SUBMITTED: Codex
    answered with a turn. RUNNING: the turn runs. DONE, FAILED, INTERRUPTED: how that turn ended. REJECTED: Codex or we refused
    it; nothing ran. DEAD: given up after Codex died with it again and again, or had it many times and never ran it. CANCELLED:
    withdrawn before it was sent, or given up by a person when it was UNKNOWN. EXPIRED: its time was over before it was sent.
    UNKNOWN: it cannot be told whether it ran; a person decides.
    """

    QUEUED = "queued"
    SENDING = "sending"
    SUBMITTED = "submitted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    REJECTED = "rejected"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def in_flight(self) -> bool:
        """Whether it was, or may have been, given to Codex and has not ended. At most one in each thread."""
        return self in IN_FLIGHT

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it. UNKNOWN is not an end: it waits for a person."""
        return self in ENDED


IN_FLIGHT = frozenset({DeliveryState.SENDING, DeliveryState.SUBMITTED, DeliveryState.RUNNING})
ENDED = frozenset(
    {
        DeliveryState.DONE,
        DeliveryState.FAILED,
        DeliveryState.INTERRUPTED,
        DeliveryState.REJECTED,
        DeliveryState.DEAD,
        DeliveryState.CANCELLED,
        DeliveryState.EXPIRED,
    }
)


class When(StrEnum):
    """When a message is to be sent.

    NOW: at once, or it is refused. IDLE: when no turn runs in the thread and what was accepted before it has been sent.
    INTERJECT: at once, in place of the turn that runs.
    """

    NOW = "now"
    IDLE = "idle"
    INTERJECT = "interject"


class Verdict(StrEnum):
    """What a person says of a delivery whose outcome is unknown: it ran; send it again; forget it."""

    SENT = "sent"
    RESEND = "resend"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """The Codex process that a message was given to.

    boot_id: of the machine's start. pid and start_time (clock ticks from boot, None where the system does not tell) name one
    process of that boot. generation: counts the Codex processes of one daemon, from 1. version: of Codex, such as 0.169.0,
    None if it is not known.
    """

    boot_id: str
    pid: int
    start_time: int | None
    generation: int
    version: str | None = None

    def __str__(self) -> str:
        started = "" if self.start_time is None else self.start_time
        return f"{self.boot_id}/{self.pid}/{started}/{self.generation}/{self.version or ''}"

    @classmethod
    def parse(cls, text: str) -> Epoch:
        """Return the epoch that ``str`` wrote. Raises ValueError."""
        boot_id, pid, started, generation, version = text.split("/")
        return cls(
            boot_id=boot_id,
            pid=int(pid),
            start_time=int(started) if started else None,
            generation=int(generation),
            version=version or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """One message for one thread.

    id: uuid7, also ``clientUserMessageId`` in Codex, by which its turn is found again. thread: key of the thread. position: its
    place among the messages of its thread; the store gives it. message: None once retention has taken the body. digest: SHA-256
    of the text, hex. principal: who sent it. key: the sender's idempotency key, unique with the principal. attempt: how often it
    was given to Codex. deaths: how many Codex processes ended while they had it and it had not begun. epoch: of the process
    it was given to last. merged: Codex put it into a turn that ran already. evidence: how the state is known: "answer", "event",
    "history", "operator" or "daemon". reason: why it ended, or what is in doubt. retry_of: the delivery that this one repeats.
    """

    id: str
    thread: str
    state: DeliveryState
    when: When
    digest: str
    principal: str
    created_at: datetime
    message: Message | None = None
    position: int = 0
    key: str | None = None
    attempt: int = 0
    deaths: int = 0
    epoch: Epoch | None = None
    turn_id: str | None = None
    merged: bool = False
    evidence: str | None = None
    reason: str | None = None
    retry_of: str | None = None
    expires_at: datetime | None = None
    claimed_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """Which deliveries are meant. Empty: any. before: only those accepted before this id, for the next page."""

    thread: str | None = None
    states: Collection[DeliveryState] = field(default_factory=frozenset)
    before: str | None = None


class DeliveryStore(Protocol):
    """The messages that were accepted. Every change of state is a compare-and-set against a record that was read."""

    async def add(self, delivery: DeliveryRecord) -> DeliveryRecord:
        """Store a new delivery behind all others of its thread and return it with its position.

        When its (principal, key) is taken, nothing is stored and the delivery that has the key is returned: compare the ids.
        Raises StorageError, also when it is in flight as another of its thread is, and LookupError when there is no such thread.
        """
        ...

    async def get(self, delivery_id: str) -> DeliveryRecord | None: ...

    async def find(self, prefix: str, limit: int = 10) -> tuple[DeliveryRecord, ...]:
        """Return the deliveries whose id begins with prefix, newest first."""
        ...

    async def keyed(self, principal: str, key: str) -> DeliveryRecord | None:
        """Return the delivery that a sender's idempotency key stands for."""
        ...

    async def list(self, wanted: DeliveryFilter, limit: int) -> tuple[DeliveryRecord, ...]:
        """Return deliveries newest first (by id), at most limit."""
        ...

    async def queue(
        self, thread: str, limit: int, *, after: int | None = None
    ) -> tuple[DeliveryRecord, ...]:
        """Return the QUEUED deliveries of a thread in the order in which they will be sent, after a position."""
        ...

    async def head(self, thread: str) -> DeliveryRecord | None:
        """Return what a thread has to deal with first: one IN_FLIGHT, else one UNKNOWN, else the first QUEUED."""
        ...

    async def in_flight(self) -> tuple[DeliveryRecord, ...]:
        """Return every delivery that is IN_FLIGHT, oldest first."""
        ...

    async def pending(self) -> Mapping[str, int]:
        """Return how many deliveries are QUEUED, by key of the thread; only threads that have any."""
        ...

    async def counts(self) -> Mapping[DeliveryState, int]:
        """Return how many deliveries there are in each state that has any."""
        ...

    async def move(
        self, current: DeliveryRecord, state: DeliveryState, **changes: Any
    ) -> DeliveryRecord | None:
        """Change the state, and named fields except id, thread and created_at, and return the new record.

        None, and nothing is changed, unless the stored state and epoch are those of current, and when another delivery of the
        thread is in flight and this one would be as well. state may be the present one. Raises TypeError for an unknown field.
        """
        ...

    async def reorder(self, thread: str, ids: Sequence[str]) -> bool:
        """Give the QUEUED deliveries of a thread this order; False, and nothing is changed, unless ids are exactly those."""
        ...

    async def collect(
        self, *, bodies_before: datetime, receipts_before: datetime, limit: int
    ) -> int:
        """Drop the bodies of deliveries that ended before one moment, and the rows of those before the other; at most limit.

        Returns how many were touched. What has not ended is never touched.
        """
        ...


class Deliveries(Protocol):
    """Messages on their way: accepted, sent one at a time in each thread, and followed to their end."""

    async def send(  # noqa: PLR0913 -- what a message can be asked to be
        self,
        thread: ThreadRecord,
        message: Message,
        caller: Caller,
        *,
        when: When = When.NOW,
        key: str | None = None,
        expires_at: datetime | None = None,
        retry_of: str | None = None,
    ) -> DeliveryRecord:
        """Accept a message durably and return it: QUEUED, or as far as Codex got with it.

        With a key that the caller has used for the same text, the first delivery is returned and nothing is sent. Raises
        DeliveryConflict for the key of another text; for NOW LaneBusy, also when an earlier message waits or is in doubt; for
        INTERJECT NoActiveTurn; ValidationFailed; and as Codex.request when a message that must go now cannot be sent, which is
        REJECTED then. OutcomeUnknown: it is UNKNOWN, or is still being found out after a while.
        """
        ...

    def waiting(self, thread: str) -> int:
        """Return how many messages are QUEUED for the thread with this key; asks nobody."""
        ...

    async def cancel(self, delivery: DeliveryRecord, caller: Caller) -> DeliveryRecord:
        """Withdraw a delivery that is QUEUED. Raises DeliveryConflict when it is not any more."""
        ...

    async def edit(
        self, delivery: DeliveryRecord, message: Message, caller: Caller
    ) -> DeliveryRecord:
        """Replace the message of a delivery that is QUEUED. Raises DeliveryConflict, ValidationFailed."""
        ...

    async def reorder(
        self, delivery: DeliveryRecord, *, before: DeliveryRecord | None
    ) -> tuple[DeliveryRecord, ...]:
        """Put a QUEUED delivery before another of its thread, or last, and return the queue. Raises DeliveryConflict."""
        ...

    async def resolve(
        self, delivery: DeliveryRecord, verdict: Verdict, caller: Caller
    ) -> DeliveryRecord:
        """Decide what became of an UNKNOWN delivery: SENT makes it DONE, DROP CANCELLED.

        RESEND makes it CANCELLED and accepts its message once more, before all that waits, as a new delivery with ``retry_of``,
        which is returned. Only a person may. Raises AuthorityDenied, DeliveryConflict when it is not UNKNOWN.
        """
        ...

    async def requeue(self, delivery: DeliveryRecord, caller: Caller) -> DeliveryRecord:
        """Accept the message of a delivery that has ended once more, as a new delivery with ``retry_of``, and return that.

        Raises DeliveryConflict when it has not ended, or its body is no longer kept.
        """
        ...
