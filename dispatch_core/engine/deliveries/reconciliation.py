"""What became of a delivery whose Codex went away: evidence from its history, a decision, and the decision carried out."""

from __future__ import annotations

import logging
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from dispatch_core import appserver, failpoints
from dispatch_core.appserver import rollout_check
from dispatch_core.contracts.deliveries import DeliveryState
from dispatch_core.contracts.records import TurnStatus
from dispatch_core.engine.deliveries.machine import OF_TURN
from dispatch_core.engine.deliveries.verdicts import (
    Decision,
    Evidence,
    FoundMessage,
    Kind,
    decide,
)
from dispatch_core.engine.refusals import differs
from dispatch_core.engine.registrar import News
from dispatch_core.engine.roster import ENDINGS
from dispatch_core.errors import (
    ActiveWriter,
    CodexError,
    CodexOverloaded,
    CodexTimeout,
    CodexUnavailable,
)

if TYPE_CHECKING:
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.engine.deliveries.flight import Flight
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.registrar import Registrar

log = logging.getLogger(__name__)

WRITER_PATIENCE = 10.0  # seconds for a former Codex process to let go of a thread
WRITER_STEP = 0.25
LATE = (
    120.0  # seconds after which nobody waits any longer for a Codex that runs and does not answer
)
VANISHED = "the model was heard to work on the message, and the history has lost it"
CUT_OFF = "Codex ended while the turn ran; what it had done until then is done"


class Reconciliation:
    """Finds out what became of deliveries in doubt. boot_id: names this start of the machine."""

    def __init__(self, clock: Clock, link: CodexLink, registrar: Registrar, boot_id: str) -> None:
        self._clock = clock
        self._link = link
        self._registrar = registrar
        self._boot_id = boot_id

    async def reconcile(self, thread: ThreadRecord, lane: Lane, flight: Flight) -> None:
        """Settle a delivery in doubt from history; the caller holds the lane's lock. On return it may still be in doubt.

        Raises as ``Codex.request`` when Codex cannot be asked now; nothing is decided then.
        """
        if not flight.doubt:
            return
        await failpoints.reach("reconcile.before_history")
        epoch = flight.record.epoch
        # Before history is read: a process that lives then may still store the message behind our back, and end after that.
        gone = None if epoch is None else self._link.gone(epoch)
        evidence = await self._evidence(thread, lane, flight)
        await failpoints.reach("reconcile.after_history")
        if lane.flight is not flight or not flight.doubt:
            return  # Codex has said it meanwhile
        decision = decide(
            flight.record,
            evidence,
            boot_id=self._boot_id,
            gone=gone,
            proven=epoch is not None and self._link.proven(epoch),
            died=flight.witnessed,
            late=self._late(flight),
            silent=lane.silent,
        )
        if decision.state is None:
            return
        log.info("delivery %s: %s (%s)", flight.id, decision.kind.value, decision.reason)
        found = decision.found
        self._carry_out(lane, flight, decision)
        await failpoints.reach("reconcile.before_commit")
        await self._registrar.settle(lane)
        await failpoints.reach("reconcile.after_commit")
        if found is not None:
            self._registrar.mark(lane, News(ENDINGS[found.status], found.turn_id))

    def _late(self, flight: Flight) -> bool:
        given = flight.record.claimed_at
        return given is not None and (self._clock.now() - given).total_seconds() > LATE

    def _carry_out(self, lane: Lane, flight: Flight, decision: Decision) -> None:
        now = self._clock.now()
        flight.evidence, flight.reason = "history", decision.reason
        if decision.found is not None:
            self._adopt(lane, flight, decision.found)
            return
        lane.withdraw()
        flight.turn_id = None
        match decision.kind:
            case Kind.REQUEUE:
                flight.state, flight.doubt = DeliveryState.QUEUED, False
                flight.deaths += 1 if flight.witnessed else 0
            case Kind.DEAD:
                flight.end(DeliveryState.DEAD, "history", now, reason=decision.reason)
            case Kind.UNKNOWN:
                flight.state, flight.doubt = DeliveryState.UNKNOWN, False

    def _adopt(self, lane: Lane, flight: Flight, found: FoundMessage) -> None:
        """The message is in a turn: that is what became of it."""
        now, carries = self._clock.now(), lane.carries
        flight.turn_id = found.turn_id
        lane.materialized = True
        if lane.turn is not None and carries:
            lane.turn = replace(lane.turn, id=found.turn_id)
        if found.status is TurnStatus.STARTED:
            flight.state, flight.doubt = DeliveryState.RUNNING, False
            if carries:
                lane.found_running(found.turn_id)
            return
        cut_off = CUT_OFF if found.status is TurnStatus.INTERRUPTED else None
        if carries:  # else somebody else's turn has begun since, and is the newest
            lane.conclude(found.status, found.error or cut_off, now)
        flight.end(OF_TURN[found.status], "history", now, reason=found.error or cut_off)

    async def _evidence(self, thread: ThreadRecord, lane: Lane, flight: Flight) -> Evidence:
        """Return what history says; a history that Codex refuses to give is an incomplete one."""
        try:
            if why := await self._load(thread, lane):
                return Evidence(incomplete=why)
            search = await appserver.evidence.find_message(
                self._link.codex, lane.native_id, flight.id, since=flight.since
            )
            if not search.found and flight.ran:
                return Evidence(incomplete=VANISHED)
            if not search.found and search.incomplete is None:
                search = replace(search, incomplete=await self._damage(lane))
        except appserver.calls.ThreadUnknown as error:
            # A thread that had a turn and is no longer there was lost; one that never had any was never written.
            return Evidence(incomplete=error.message if lane.materialized else None)
        except (CodexUnavailable, CodexOverloaded, CodexTimeout):
            raise
        except CodexError as error:
            return Evidence(incomplete=error.message)
        found = tuple(
            FoundMessage(
                turn_id=message.turn_id,
                status=message.status,
                error=message.error,
                same_text=digest(message.text) == flight.record.digest,
            )
            for message in search.found
        )
        return Evidence(found=found, incomplete=search.incomplete)

    async def _damage(self, lane: Lane) -> str | None:
        """Return why a history without the message is not to be trusted: Codex skips what it cannot read."""
        facts = await appserver.threads.read(self._link.codex, lane.native_id)
        if facts.path is None:
            return None  # nothing was ever written
        return await to_thread.run_sync(rollout_check.damage, Path(facts.path))

    async def _load(self, thread: ThreadRecord, lane: Lane) -> str | None:
        """Make this Codex hold the thread, so that its history is what is on the disk; return why it cannot."""
        generation = self._link.generation
        if lane.generation == generation and generation:
            return None
        with anyio.move_on_after(WRITER_PATIENCE):
            while True:
                try:
                    loaded = await appserver.threads.resume(
                        self._link.codex, lane.native_id, thread.settings
                    )
                except ActiveWriter:
                    await anyio.sleep(WRITER_STEP)  # nobody tells when the other process lets go
                    continue
                if not differs(
                    thread, loaded
                ):  # else it is loaded, and refused, when it is used next
                    lane.generation = generation or self._link.generation
                return None
        return "another process holds the thread"


def digest(text: str) -> str:
    """Return by what the text of a delivery is recognised: its SHA-256, in hex."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
