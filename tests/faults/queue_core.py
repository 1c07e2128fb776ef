"""The queue core under every fault at once, in one process: the real store and the product's own decisions, and beside them a
courier, a Codex and a person that are simulated, a clock that is set, and a checker that knows what each of them did.

What is simulated of Codex is what was measured of it: it answers before it has stored a message, and it has stored a message
before it asks the model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dispatch_core.api import (
    DeliveryFilter,
    DeliveryRecord,
    DeliveryState,
    Epoch,
    Message,
    TurnStatus,
    Verdict,
    When,
)
from dispatch_core.engine.deliveries import machine
from dispatch_core.engine.deliveries.verdicts import (
    Decision,
    Evidence,
    FoundMessage,
    Kind,
    decide,
)
from dispatch_core.testing.storage import a_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dispatch_core.api import Storage

T = TypeVar("T")
S = DeliveryState
LANES = (0, 1, 2)
NEVER_RAN = {S.QUEUED, S.SENDING, S.REJECTED, S.DEAD, S.CANCELLED, S.EXPIRED}
OUTCOMES = (TurnStatus.COMPLETED, TurnStatus.FAILED, TurnStatus.INTERRUPTED)
A_MINUTE = timedelta(minutes=1)

lanes = st.sampled_from(LANES)
places = st.integers(min_value=0, max_value=7)


class Broken(AssertionError):
    """A promise was not kept."""


def require(kept: object, promise: str) -> None:
    if not kept:
        raise Broken(promise)


@dataclass(slots=True)
class Turn:
    """A message in Codex's history."""

    client_id: str
    id: str
    digest: str
    process: int
    status: TurnStatus = TurnStatus.STARTED


@dataclass(slots=True)
class Work:
    """What a Codex process does in one thread. turn: None until it is stored. called: the model was asked for it."""

    client_id: str
    digest: str
    turn_id: str
    turn: Turn | None = None
    called: bool = False


class SimulatedCodex:
    """Any number of Codex processes over one history. asked: how often the model was, by message; it forgets nothing."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self.current = 0
        self.work: dict[tuple[int, str], Work] = {}
        self.history: dict[str, list[Turn]] = defaultdict(list)
        self.stored: dict[str, list[str]] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        self._turns = count(1)

    def start(self) -> None:
        self.current += 1
        self.alive.add(self.current)

    def end(self, *processes: int) -> None:
        """End processes; what they had not stored is gone, and what they had not finished is cut off."""
        for process in processes:
            self.alive.discard(process)
        for key in [key for key in self.work if key[0] not in self.alive]:
            turn = self.work.pop(key).turn
            if turn is not None and turn.status is TurnStatus.STARTED:
                turn.status = TurnStatus.INTERRUPTED

    def receive(self, thread: str, client_id: str, digest: str) -> None:
        require(not self.busy(thread), "a message was sent to a thread in which a turn runs")
        turn_id = f"turn-{next(self._turns)}"
        self.work[self.current, thread] = Work(client_id, digest, turn_id)

    def busy(self, thread: str) -> set[int]:
        """Return the processes that work in a thread."""
        return {process for process, busy in self.work if busy == thread}

    def step(self, process: int, thread: str) -> None:
        """Store the message, or ask the model once it is stored."""
        work = self.work[process, thread]
        if work.turn is None:
            work.turn = Turn(work.client_id, work.turn_id, work.digest, process)
            self.history[thread].append(work.turn)
            self.stored[thread].append(work.client_id)
        elif not work.called:
            work.called = True
            self.asked[work.client_id] += 1

    def finish(self, process: int, thread: str, outcome: TurnStatus) -> Work:
        work = self.work.pop((process, thread))
        if work.turn is not None:
            work.turn.status = outcome
        return work

    def called(self) -> list[tuple[int, str]]:
        """Return where the model was asked and the turn has not ended."""
        return [key for key, work in self.work.items() if work.called]

    def uncalled(self) -> list[tuple[int, str]]:
        return [key for key, work in self.work.items() if not work.called]


@dataclass(slots=True)
class Flight:
    """What the daemon knows of the delivery that a thread has in flight; it dies with the daemon."""

    record: DeliveryRecord
    handed: bool = False
    doubt: bool = False
    witnessed: bool = False


@dataclass(slots=True)
class Expected:
    """What must be true of one thread. queue: ids in the order in which they are to be sent."""

    queue: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the store says. records: of all threads. queues: ids in order, and heads: by thread. keyed: by key."""

    records: list[DeliveryRecord]
    queues: dict[str, list[str]]
    heads: dict[str, DeliveryRecord | None]
    keyed: dict[str, DeliveryRecord | None]


class QueueCore(RuleBasedStateMachine):
    """One machine with three threads. ``bind`` says on which store.

    counted: what happened in all examples.
    """

    storage: ClassVar[Storage]
    call: ClassVar[Callable[..., Any]]
    counted: ClassVar[Counter[str]]
    examples: ClassVar[count[int]] = count()

    def __init__(self) -> None:
        super().__init__()
        self.number = next(self.examples)
        self.counted["examples"] += 1
        self.store = self.storage.deliveries
        self.threads = [f"example-{self.number:06}-{lane}" for lane in LANES]
        self.now = datetime(2026, 1, 2, tzinfo=UTC)
        self.boots = 1
        self.codex = SimulatedCodex()
        self.up = False
        self.flights: dict[str, Flight] = {}
        self.expected = {thread: Expected() for thread in self.threads}
        self.texts: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.ended: dict[str, DeliveryRecord] = {}
        self.doubtful: set[str] = set()
        self.operated: set[str] = set()
        self.moved: set[str] = set()
        self.stale: list[DeliveryRecord] = []
        self.in_doubt: list[DeliveryRecord] = []
        self.proven = True

    # The world begins.

    @initialize(proven=st.sampled_from((True, True, True, False)))
    def begin(self, proven: bool) -> None:
        async def add_threads() -> None:
            for lane, thread in enumerate(self.threads):
                number = self.number * len(LANES) + lane
                await self.storage.threads.add(
                    a_thread(number, key=thread, native_id=thread), [f"{number:06}"]
                )

        self.call(add_threads)
        self.proven = proven
        self._start_daemon()

    # What people do.

    @rule(
        lane=lanes,
        key=st.sampled_from((None, None, "a", "b")),
        minutes=st.sampled_from((None, None, None, 2)),
    )
    @precondition(lambda self: self.up)
    def accept(self, lane: int, key: str | None, minutes: int | None) -> None:
        delivery = self._draft(self.threads[lane], key=key)
        if minutes is not None:
            delivery = replace(delivery, expires_at=self.now + minutes * A_MINUTE)
        self._accept(delivery)

    @rule(change=st.sampled_from(("cancel", "edit", "reorder", "wait")), which=places, place=places)
    @precondition(lambda self: self.up and self._waiting())
    def the_queue_is_changed(self, change: str, which: int, place: int) -> None:
        if change == "wait":
            self.now += (1 + place % 3) * A_MINUTE
        elif change == "reorder":
            self._reorder(_pick(self._waiting(), which), place)
        else:
            record = self._queued(which, place)
            if change == "edit":
                text = f"{self.texts[record.id]}!"
                self._move(record, S.QUEUED, message=Message(text=text), digest=_digest(text))
                self.texts[record.id] = text
            else:
                self._move(record, S.CANCELLED, evidence="operator", ended_at=self.now)
                self.expected[record.thread].queue.remove(record.id)

    def _reorder(self, thread: str, place: int) -> None:
        order = list(self.expected[thread].queue)
        order.insert(0, order.pop(place % len(order)))
        require(self.call(self.store.reorder, thread, order), "a queue could not be reordered")
        self.moved.update(order)
        self.expected[thread].queue = order

    @rule(which=places, verdict=st.sampled_from(Verdict))
    @precondition(lambda self: self.up and self.in_doubt)
    def resolve(self, which: int, verdict: Verdict) -> None:
        record = _pick(self.in_doubt, which)
        self.operated.add(record.id)
        if verdict is Verdict.SENT:
            self._move(record, S.DONE, evidence="operator", ended_at=self.now)
        elif verdict is Verdict.DROP:
            self._move(record, S.CANCELLED, evidence="operator", ended_at=self.now)
        else:
            self._send_again(record)

    @rule(which=places)
    @precondition(lambda self: self.up and self.ended)
    def requeue(self, which: int) -> None:
        record = _pick(list(self.ended.values()), which)
        self._accept(replace(self._draft(record.thread), retry_of=record.id))

    # What the daemon does.

    @rule(which=places)
    @precondition(lambda self: self._codex_serves() and self._free())
    def claim(self, which: int) -> None:
        thread = _pick(self._free(), which)
        head = self.call(self.store.head, thread)
        first = self.expected[thread].queue.pop(0)
        require(head.id == first, "a message was sent before one that came first")
        if head.expires_at is not None and head.expires_at <= self.now:
            self._move(head, S.EXPIRED, evidence="daemon", ended_at=self.now)
            return
        self.stale.append(head)
        claimed = self._move(
            head, S.SENDING, epoch=self._epoch(), attempt=head.attempt + 1, claimed_at=self.now
        )
        self.flights[thread] = Flight(claimed)

    @rule(which=places, steps=st.integers(min_value=1, max_value=5))
    @precondition(lambda self: self._codex_serves() and self._free())
    def send(self, which: int, steps: int) -> None:
        """The next message of a thread gets some way at once, heard of or not."""
        thread = _pick(self._free(), which)
        self.claim(self._free().index(thread))
        flight = self.flights.get(thread)
        if flight is None:
            return  # its time was over
        self.hand_over(self._flights(handed=False, doubt=False).index(flight), answer="taken")
        for _ in range(min(steps, 2)):
            self.codex.step(self.codex.current, thread)
        if steps == 4:
            self.hear_the_answer([f for f, _ in self._audible(S.SENDING)].index(flight))
        if steps == 5:
            self.hear_that_it_runs([f for f, _ in self._audible(S.SENDING)].index(flight))

    @rule(which=places, answer=st.sampled_from(("taken",) * 6 + ("refused", "overloaded")))
    @precondition(lambda self: self._flights(handed=False, doubt=False))
    def hand_over(self, which: int, answer: str) -> None:
        flight = _pick(self._flights(handed=False, doubt=False), which)
        record, flight.handed = flight.record, True
        if answer == "taken":
            self.codex.receive(record.thread, record.id, record.digest)
            return
        del self.flights[record.thread]
        if answer == "refused":
            self._move(record, S.REJECTED, key=None, evidence="answer", ended_at=self.now)
        else:
            self._move(record, S.QUEUED, epoch=None)
            self.expected[record.thread].queue.insert(0, record.id)

    @rule(which=places)
    @precondition(lambda self: self._audible(S.SENDING))
    def hear_the_answer(self, which: int) -> None:
        flight, work = _pick(self._audible(S.SENDING), which)
        flight.record = self._move(
            flight.record, S.SUBMITTED, turn_id=work.turn_id, evidence="answer"
        )

    @rule(which=places)
    @precondition(lambda self: self._audible(S.SENDING, S.SUBMITTED))
    def hear_that_it_runs(self, which: int) -> None:
        flight, work = _pick(self._audible(S.SENDING, S.SUBMITTED), which)
        flight.doubt = False
        flight.record = self._move(flight.record, S.RUNNING, turn_id=work.turn_id, evidence="event")

    @rule(
        which=places, outcome=st.sampled_from(OUTCOMES), heard=st.sampled_from((True, True, False))
    )
    @precondition(lambda self: self.codex.called())
    def finish(self, which: int, outcome: TurnStatus, heard: bool) -> None:
        """The turn comes to its end; only the process that the daemon holds is heard, and not always."""
        process, thread = _pick(self.codex.called(), which)
        work = self.codex.finish(process, thread, outcome)
        flight = self.flights.get(thread)
        if heard and flight and process == self.codex.current:
            require(flight.record.id == work.client_id, "two messages in one thread")
            self._move(
                flight.record,
                machine.OF_TURN[outcome],
                turn_id=work.turn_id,
                evidence="event",
                ended_at=self.now,
            )
            del self.flights[thread]

    @rule(which=places)
    @precondition(lambda self: self._flights(handed=True, doubt=False))
    def give_up_waiting(self, which: int) -> None:
        _pick(self._flights(handed=True, doubt=False), which).doubt = True

    @rule(which=places, readable=st.booleans())
    @precondition(lambda self: self._codex_serves() and self._flights(doubt=True))
    def reconcile(self, which: int, readable: bool) -> None:
        flight = _pick(self._flights(doubt=True), which)
        record = flight.record
        if self.codex.busy(record.thread) - {self.codex.current}:
            return  # a former Codex process holds the thread, and nobody else may read it
        evidence = self._evidence(record) if readable else Evidence(incomplete="it is damaged")
        decision = self.decide(flight, evidence)
        if decision.state is None:
            return
        before_reboot = record.epoch is None or record.epoch.boot_id != self._boot()
        self.counted["unreadable"] += not readable
        if not readable or not self.proven or before_reboot:
            self.doubtful.add(record.id)
        if before_reboot and not evidence.found:
            self.counted["absent after a reboot"] += 1
            self.counted["of these parked"] += decision.state is S.UNKNOWN
        self._carry_out(flight, decision)

    def decide(self, flight: Flight, evidence: Evidence) -> Decision:
        """Return what the product decides."""
        epoch = flight.record.epoch
        gone = epoch is None or epoch.generation not in self.codex.alive
        return decide(
            flight.record,
            evidence,
            boot_id=self._boot(),
            gone=gone,
            proven=self.proven,
            died=flight.witnessed,
        )

    @rule(place=places)
    @precondition(lambda self: self.up and self.stale)
    def a_late_courier_tries_again(self, place: int) -> None:
        """Somebody who has read a message long ago wants to send it now."""
        record = self.stale[place % len(self.stale)]
        now = self.call(self.store.get, record.id)
        if (now.state, now.epoch) == (record.state, record.epoch):
            return
        moved = self.call(self._stale_move, record)
        require(moved is None, "a message was claimed by somebody who did not know where it stood")

    async def _stale_move(self, record: DeliveryRecord) -> DeliveryRecord | None:
        return await self.store.move(record, S.SENDING, epoch=self._epoch())

    # What Codex does.

    @rule(which=places)
    @precondition(lambda self: self.codex.uncalled())
    def codex_works(self, which: int) -> None:
        self.codex.step(*_pick(self.codex.uncalled(), which))

    # What goes wrong.

    @rule(
        what=st.sampled_from(("codex", "daemon", "daemon, Codex lingers", "machine")),
        then=st.sampled_from(("nothing", "start", "recover", "recover")),
        readable=st.sets(lanes),
        lost=st.sets(lanes),
    )
    @precondition(lambda self: self.up and self.flights)
    def something_dies(self, what: str, then: str, readable: set[int], lost: set[int]) -> None:
        """readable: of which threads history can be read. lost: whose history does not survive the end of the machine."""
        self.counted["crashes"] += 1
        if what == "codex":
            self._codex_dies()
        elif what == "machine":
            self._machine_dies(lost)
        else:
            self._daemon_dies(linger=what != "daemon")
        if then != "nothing":
            self._start()
        if then == "recover":
            for lane in LANES:
                doubts = self._flights(doubt=True)
                mine = [n for n, f in enumerate(doubts) if f.record.thread == self.threads[lane]]
                if mine:
                    self.reconcile(mine[0], readable=lane in readable)

    @rule()
    @precondition(lambda self: not self._codex_serves() or self.codex.alive - {self.codex.current})
    def what_is_gone_comes_back(self) -> None:
        """And a Codex process that has outlived its daemon ends."""
        self.codex.end(*self.codex.alive - {self.codex.current})
        self._start()

    def _codex_dies(self) -> None:
        self.codex.end(self.codex.current)
        for flight in self.flights.values():
            flight.doubt, flight.witnessed = True, True

    def _daemon_dies(self, *, linger: bool) -> None:
        self.up = False
        self.flights.clear()
        if not linger:
            self.codex.end(*self.codex.alive)

    def _machine_dies(self, lost: set[int]) -> None:
        """The history of some threads is lost with what was not yet on the disk."""
        self.counted["reboots"] += 1
        self.counted["in flight at a reboot"] += len(self.flights)
        self._daemon_dies(linger=False)
        self.boots += 1
        for lane in lost:
            self.codex.history[self.threads[lane]].clear()

    def _start(self) -> None:
        if not self.up:
            self._start_daemon()
        elif self.codex.current not in self.codex.alive:
            self.codex.start()

    # What must hold.

    @invariant()
    def every_promise_is_kept(self) -> None:
        self.counted["steps"] += 1
        seen: Seen = self.call(self._look)
        self.in_doubt = [record for record in seen.records if record.state is S.UNKNOWN]
        self._nothing_is_lost(seen)
        self._nothing_runs_twice(seen.records)
        for thread in self.threads:
            self._a_thread_is_in_order(seen, thread)

    def teardown(self) -> None:
        """Let everything come to its end: what was accepted has ended, or a person has to decide."""
        if self.threads and self.expected and self.codex.current:
            self._come_to_rest()
        self.counted["model calls"] += self.codex.asked.total()
        self.counted["duplicated"] += sum(asked > 1 for asked in self.codex.asked.values())
        self.counted["messages"] += len(self.texts)

    def _come_to_rest(self) -> None:
        self.codex.end(*self.codex.alive)
        self.up = False
        self.flights.clear()
        self._start_daemon()
        while self._flights(doubt=True):
            self.reconcile(0, readable=True)
        self.every_promise_is_kept()
        while self._free():
            self.claim(0)
            while self._flights(handed=False, doubt=False):
                self.hand_over(0, answer="taken")
            while self.codex.uncalled():
                self.codex_works(0)
            while self.codex.called():
                self.finish(0, outcome=TurnStatus.COMPLETED, heard=True)
        self.every_promise_is_kept()
        seen: Seen = self.call(self._look)
        for head in seen.heads.values():
            require(head is None or head.state is S.UNKNOWN, "a thread is held by nobody's doubt")
        self.counted["lost"] += len(self.texts) - len(seen.records)
        self.counted["unknown"] += len(self.in_doubt)

    # The checker.

    def _nothing_is_lost(self, seen: Seen) -> None:
        require(
            sorted(record.id for record in seen.records) == sorted(self.texts),
            "what was accepted is not what is there",
        )
        for record in seen.records:
            text = record.message.text if record.message else None
            require(text == self.texts[record.id], "a message is not the one that was accepted")
            require(record.digest == _digest(text or ""), "a digest is of another text")
            require(
                record.state is not S.UNKNOWN or record.id in self.doubtful,
                "a message is in doubt without a reason",
            )
            if record.id in self.ended:
                require(self.ended[record.id] == record, "what had ended went on")
            elif record.state.ended:
                self.ended[record.id] = record
            if record.state is S.REJECTED:
                require(record.key is None, "a message that was refused kept its key")
        for key, holder in self.keys.items():
            found = seen.keyed[key]
            rejected = holder in self.ended and self.ended[holder].state is S.REJECTED
            require(
                found is None if rejected else found is not None and found.id == holder,
                "a key stands for another message",
            )

    def _nothing_runs_twice(self, records: list[DeliveryRecord]) -> None:
        for record in records:
            asked = self.codex.asked[record.id]
            require(asked <= 1, "a message ran twice")
            turns = sum(stored == record.id for stored in self.codex.stored[record.thread])
            require(turns <= 1, "a message is in two turns")
            if record.id in self.operated:
                continue
            if record.state in NEVER_RAN - {S.SENDING}:
                require(not asked, f"a message is {record.state.value}, and it ran")
            if record.state in (S.DONE, S.FAILED, S.INTERRUPTED):
                require(turns, f"a message is {record.state.value}, and it never ran")

    def _a_thread_is_in_order(self, seen: Seen, thread: str) -> None:
        records = [record for record in seen.records if record.thread == thread]
        in_flight = [record for record in records if record.state.in_flight]
        unknown = [record for record in records if record.state is S.UNKNOWN]
        require(len(in_flight) <= 1, "two messages of a thread are in flight")
        if self.up:
            known = [flight.record.id for key, flight in self.flights.items() if key == thread]
            require(
                known == [record.id for record in in_flight],
                "the daemon does not know what is in flight",
            )
        queue = seen.queues[thread]
        require(queue == self.expected[thread].queue, "a queue is in another order")
        first_queued = [record for record in records if record.id in queue[:1]]
        due = next(iter([*in_flight, *unknown, *first_queued]), None)
        require(seen.heads[thread] == due, "a thread does not begin with what comes first")
        first = dict.fromkeys(self.codex.stored[thread])
        order = [each for each in first if each not in self.moved]
        require(order == sorted(order), "messages ran in another order than they were accepted in")

    # Steps.

    def _draft(self, thread: str, *, key: str | None = None) -> DeliveryRecord:
        number = len(self.texts)
        text = f"message {number}"
        return DeliveryRecord(
            id=f"{self.number:06}-{number:04}",
            thread=thread,
            state=S.QUEUED,
            when=When.IDLE,
            digest=_digest(text),
            # The examples share a store, and senders do not share keys.
            principal=self.threads[0],
            created_at=self.now,
            message=Message(text=text),
            key=key,
        )

    def _accept(self, delivery: DeliveryRecord) -> None:
        record = self.call(self.store.add, delivery)
        holder = self.keys.get(delivery.key) if delivery.key else None
        if holder in self.ended and self.ended[holder].state is S.REJECTED:
            holder = None
        require(record.id == (holder or delivery.id), "a key was taken for another message")
        if record.id == delivery.id:
            self.texts[record.id] = delivery.message.text if delivery.message else ""
            self.expected[record.thread].queue.append(record.id)
            if delivery.key:
                self.keys[delivery.key] = record.id

    def _send_again(self, record: DeliveryRecord) -> None:
        again = replace(self._draft(record.thread), retry_of=record.id)
        self._accept(again)
        queue = self.expected[record.thread].queue
        queue.insert(0, queue.pop())
        require(self.call(self.store.reorder, record.thread, queue), "a queue was not reordered")
        self.moved.add(again.id)
        self._move(record, S.CANCELLED, evidence="operator", ended_at=self.now)

    def _carry_out(self, flight: Flight, decision: Decision) -> None:
        record = flight.record
        changes: dict[str, Any] = {"evidence": "history", "reason": decision.reason}
        state = decision.state
        if state is None:
            return
        self.counted[decision.kind.value] += 1
        if decision.found is not None:
            changes["turn_id"] = decision.found.turn_id
        if state.ended:
            changes["ended_at"] = self.now
        if state is S.QUEUED:
            deaths = record.deaths + (1 if flight.witnessed else 0)
            changes |= {"epoch": None, "turn_id": None, "deaths": deaths}
            self.expected[record.thread].queue.insert(0, record.id)
        moved = self._move(record, state, **changes)
        if state.in_flight:
            flight.record, flight.doubt = moved, False
        else:
            del self.flights[record.thread]

    def _evidence(self, record: DeliveryRecord) -> Evidence:
        return Evidence(
            found=tuple(
                FoundMessage(
                    turn_id=turn.id, status=turn.status, same_text=turn.digest == record.digest
                )
                for turn in self.codex.history[record.thread]
                if turn.client_id == record.id
            )
        )

    def _codex_serves(self) -> bool:
        return self.up and self.codex.current in self.codex.alive

    def _waiting(self) -> list[str]:
        """Return the threads in which something waits."""
        return [thread for thread in self.threads if self.expected[thread].queue]

    def _free(self) -> list[str]:
        """Return the threads in which something waits and nothing holds it up."""
        held = {record.thread for record in self.in_doubt}
        return [t for t in self._waiting() if t not in self.flights and t not in held]

    def _flights(self, *, doubt: bool, handed: bool | None = None) -> list[Flight]:
        return [
            flight
            for flight in self.flights.values()
            if flight.doubt is doubt and handed in (None, flight.handed)
        ]

    def _audible(self, *states: S) -> list[tuple[Flight, Work]]:
        """Return what is in flight in these states and at work in the Codex process that the daemon holds."""
        current = self.codex.current
        return [
            (flight, self.codex.work[current, thread])
            for thread, flight in self.flights.items()
            if flight.record.state in states and (current, thread) in self.codex.work
        ]

    def _start_daemon(self) -> None:
        self.codex.start()
        self.up = True
        for record in self.call(self.store.in_flight):
            if record.thread in self.expected:
                self.flights[record.thread] = Flight(record, handed=True, doubt=True)

    def _move(self, record: DeliveryRecord, state: S, **changes: Any) -> DeliveryRecord:
        machine.check(record.state, state)
        moved: DeliveryRecord | None = self.call(_move, self.store, record, state, changes)
        if moved is None:
            raise Broken(f"a message that was {record.state.value} is not any more")
        return moved

    def _queued(self, which: int, place: int) -> DeliveryRecord:
        thread = _pick(self._waiting(), which)
        queue: Sequence[DeliveryRecord] = self.call(self.store.queue, thread, 1000)
        return _pick(queue, place)

    async def _look(self) -> Seen:
        records: list[DeliveryRecord] = []
        for thread in self.threads:
            records += await self.store.list(DeliveryFilter(thread=thread), 1000)
        return Seen(
            records=records,
            queues={t: [r.id for r in await self.store.queue(t, 1000)] for t in self.threads},
            heads={t: await self.store.head(t) for t in self.threads},
            keyed={key: await self.store.keyed(self.threads[0], key) for key in self.keys},
        )

    def _boot(self) -> str:
        return f"boot-{self.boots}"

    def _epoch(self) -> Epoch:
        current = self.codex.current
        return Epoch(boot_id=self._boot(), pid=1000 + current, start_time=None, generation=current)


class NaiveQueueCore(QueueCore):
    """What was being sent when Codex went away is sent again, whatever history says: at least once."""

    def decide(self, flight: Flight, evidence: Evidence) -> Decision:
        """Return what the product decides, except for what was being sent."""
        if flight.record.state is S.SENDING:
            return Decision(kind=Kind.REQUEUE, state=S.QUEUED)
        return super().decide(flight, evidence)


def bind(
    core: type[QueueCore], storage: Storage, call: Callable[..., Awaitable[Any]]
) -> type[QueueCore]:
    """Return the machine over this store. call: runs a coroutine function and returns its result."""
    return type(
        core.__name__,
        (core,),
        {"storage": storage, "call": staticmethod(call), "counted": Counter()},
    )


def _pick(among: Sequence[T], which: int) -> T:
    return among[which % len(among)]


async def _move(store: Any, record: DeliveryRecord, state: S, changes: dict[str, Any]) -> Any:
    return await store.move(record, state, **changes)


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
