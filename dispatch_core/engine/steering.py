"""What is done to a turn that runs: it is steered, interrupted or replaced; and what is put beside it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.records import Source, StoppedTurn, TurnRecord, TurnStatus
from dispatch_core.engine.ids import uuid7
from dispatch_core.engine.submission import nothing_sent
from dispatch_core.errors import (
    CapabilityUnavailable,
    CodexError,
    CodexTimeout,
    DispatchError,
    NoActiveTurn,
    OutcomeUnknown,
    PartialSuccess,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import DeliveryRecord
    from dispatch_core.contracts.records import Message, ThreadRecord
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.recovery import Recovery
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster
    from dispatch_core.engine.submission import Submission

log = logging.getLogger(__name__)

CHASES = 8  # turns that may end under a message before it is given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds that something may take.

    interrupt: until an interrupted turn has ended. hearing: until a turn that has begun has the message it began with. news:
    until we have heard of the turn that Codex speaks of. placing: until a message that Codex took is part of the turn; a command
    that runs, or a model that has not begun to answer, makes it longer. finding_out: until it is known what became of a message
    whose Codex went away.
    """

    interrupt: float = 10.0
    hearing: float = 1.0
    news: float = 5.0
    placing: float = 2.0
    finding_out: float = 30.0


PATIENCE = Patience()


class Steering:
    """Acts on running turns."""

    def __init__(  # noqa: PLR0913 -- collaborators, all by keyword
        self,
        *,
        clock: Clock,
        link: CodexLink,
        roster: Roster,
        registrar: Registrar,
        recovery: Recovery,
        submission: Submission,
        patience: Patience = PATIENCE,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._link = link
        self._roster = roster
        self._registrar = registrar
        self._recovery = recovery
        self._submission = submission

    async def steer(self, thread: ThreadRecord, message: Message) -> TurnRecord:
        """Add a message to the running turn and return that turn, with the id of this message.

        STARTED: the message is part of the turn. SUBMITTED: Codex holds it until the present step of the turn is over, such as a
        command; it is dropped when the turn is interrupted before. Raises as ``Lanes.steer``.
        """
        lane = self._roster.lane(thread)
        await unclaimed(lane)
        await self._look(thread, lane)
        message_id = uuid7()
        try:
            turn_id = await self._hand_in(thread, lane, message, message_id)
        except (OutcomeUnknown, CodexTimeout) as error:
            raise _unknown(thread, message_id, error.message) from error
        except appserver.calls.NotSteerable as error:
            error.hint = f"dispatch wait {thread.ref}, then send it"
            raise
        status = await self._place(thread, lane, turn_id, message_id)
        return TurnRecord(
            message_id=message_id, id=turn_id, status=status, started_at=self._clock.now()
        )

    async def interject(
        self,
        thread: ThreadRecord,
        deliver: Callable[[], Awaitable[DeliveryRecord]],
        *,
        known: Callable[[], Awaitable[DeliveryRecord | None]],
    ) -> DeliveryRecord:
        """Interrupt the running turn, stop the commands it leaves running, and deliver a message in its place.

        known: asked once nobody else can send; a message that it returns is this one, sent before, and nothing is interrupted.
        Raises PartialSuccess when the turn was interrupted and the message could not be sent; otherwise as ``Deliveries.send``.
        """
        lane = self._roster.lane(thread)
        await unclaimed(lane)
        with self._submission.claim(thread, lane):
            if (sent := await known()) is not None:
                return sent
            await self._look(thread, lane)
            try:
                ended = await self._interrupt(thread, lane)
            except OutcomeUnknown as error:
                raise OutcomeUnknown(
                    f"{error.message}; the message was not sent",
                    hint=error.hint,
                    details=error.details,
                ) from error
            try:
                return await deliver()
            except OutcomeUnknown:
                raise
            except DispatchError as error:
                raise _half_done(thread, ended, error) from error

    async def inject(self, thread: ThreadRecord, text: str) -> None:
        """Put text into the thread's context without starting a turn; a turn that runs sees it with its next step."""
        lane = self._roster.lane(thread)
        async with lane.lock:
            with nothing_sent():
                await self._submission.ensure_loaded(thread, lane)
            try:
                await self._inject(thread, lane, text)
            except (OutcomeUnknown, CodexTimeout) as error:
                raise OutcomeUnknown(
                    f"it is not known whether {thread.ref} has the text in its context: {error.message}",
                    hint=f"dispatch send {thread.ref} TEXT can ask it; to give the text again is safe, "
                    "it is then there twice",
                    details={"thread": thread.ref},
                ) from error
            # Codex writes the thread to disk for this, also before its first turn.
            lane.materialized = lane.materialized or not thread.ephemeral
            self._registrar.mark(lane)

    async def interrupt(self, thread: ThreadRecord) -> StoppedTurn:
        """Interrupt the running turn, stop the commands it leaves running, and return the turn once it has ended."""
        lane = self._roster.lane(thread)
        with anyio.move_on_after(self._patience.interrupt):
            while lane.submitting:
                await lane.change()
        await self._look(thread, lane)
        return await self._interrupt(thread, lane)

    # Private

    async def _look(self, thread: ThreadRecord, lane: Lane) -> None:
        """Find out whether a turn runs where only Codex can tell. Raises ActiveWriter when another process runs the thread."""
        if lane.active is not None:
            return
        with nothing_sent():
            if lane.unresolved:
                async with lane.lock:
                    await self._recovery.look_back(thread, lane)
            elif thread.source is Source.ATTACHED:
                async with lane.lock:
                    await self._submission.ensure_loaded(thread, lane)

    async def _hand_in(
        self, thread: ThreadRecord, lane: Lane, message: Message, message_id: str
    ) -> str:
        """Give the message to whatever turn runs and return that turn. Raises NoActiveTurn; then nothing was said."""
        for _ in range(CHASES):
            turn_id = lane.active
            if turn_id is None:
                break
            begun = lane.started(turn_id)
            try:
                return await appserver.turns.steer(
                    self._link.codex, lane.native_id, message, message_id, turn_id=turn_id
                )
            except (appserver.calls.TurnGone, appserver.calls.ThreadUnknown):
                # Not taken. What Codex knows of the turn, its beginning or its end, is on its way here.
                with anyio.move_on_after(self._patience.news) as patience:
                    while lane.active == turn_id and lane.started(turn_id) == begun:
                        await lane.change()
                if patience.cancelled_caught:
                    break
        raise NoActiveTurn(thread.ref)

    async def _place(
        self, thread: ThreadRecord, lane: Lane, turn_id: str, message_id: str
    ) -> TurnStatus:
        """Return STARTED once the message is part of the turn, SUBMITTED when that takes long.

        Raises NoActiveTurn when the turn ended without it, for Codex drops it then, and OutcomeUnknown when Codex went away.
        """
        generation = self._link.generation
        with anyio.move_on_after(self._patience.placing):
            while not (lane.said(message_id) or lane.ended(turn_id)):
                if self._recovery.lost_generation >= generation:
                    raise _unknown(thread, message_id, "Codex went away while the turn ran")
                await lane.change()
        if lane.said(message_id):
            return TurnStatus.STARTED
        if lane.ended(turn_id):
            raise NoActiveTurn(thread.ref)
        return TurnStatus.SUBMITTED

    async def _inject(self, thread: ThreadRecord, lane: Lane, text: str) -> None:
        try:
            await appserver.turns.inject(self._link.codex, lane.native_id, text)
        except appserver.calls.ThreadUnknown:
            # Nothing has happened: Codex unloaded the thread, or was replaced, after we had looked.
            lane.generation = None
            with nothing_sent():
                await self._submission.ensure_loaded(thread, lane)
            await appserver.turns.inject(self._link.codex, lane.native_id, text)

    async def _interrupt(self, thread: ThreadRecord, lane: Lane) -> StoppedTurn:
        """Interrupt the turn that runs now, and return it once it has ended and its commands are stopped."""
        turn_id = lane.active
        if turn_id is None:
            raise NoActiveTurn(thread.ref)
        kept = lane.commands_besides(turn_id)
        with anyio.move_on_after(self._patience.interrupt) as patience:
            # Codex refuses to interrupt a turn that it has accepted and not started yet.
            while not lane.started(turn_id) and lane.active == turn_id:
                await lane.change()
            await self._heard(lane, turn_id)
            if lane.active == turn_id:
                await appserver.turns.interrupt(self._link.codex, lane.native_id, turn_id)
            while lane.active == turn_id or lane.dirty or lane.saving:
                await lane.change()
        if patience.cancelled_caught or lane.turn is None:
            raise OutcomeUnknown(
                f"the turn in {thread.ref} has not ended {self._patience.interrupt:g} s "
                "after it was interrupted",
                hint=f"dispatch get {thread.ref}",
                details={"thread": thread.ref, "turn_id": turn_id},
            )
        # What waited may have started the next turn already.
        latest = lane.latest_end
        ended = latest if latest is not None and latest.id == turn_id else lane.turn
        stopped: int | None = 0
        if ended.status is TurnStatus.INTERRUPTED:
            kept |= lane.commands_besides(turn_id)  # the next turn may have some already
            stopped = await self._stop_commands(thread, lane, kept)
        return StoppedTurn(
            message_id=ended.message_id,
            id=ended.id,
            status=ended.status,
            started_at=ended.started_at,
            completed_at=ended.completed_at,
            error=ended.error,
            commands_stopped=stopped,
        )

    async def _heard(self, lane: Lane, turn_id: str) -> None:
        """Wait a moment for the message that started the turn to be part of it, for Codex drops it otherwise."""
        message_id = lane.turn.message_id if lane.turn is not None else None
        with anyio.move_on_after(self._patience.hearing):
            while message_id and not lane.said(message_id) and lane.active == turn_id:
                await lane.change()

    async def _stop_commands(self, thread: ThreadRecord, lane: Lane, kept: set[str]) -> int | None:
        """End the commands that the interrupted turn left running and return how many; those of earlier turns stay."""
        try:
            return await appserver.turns.stop_commands(self._link.codex, lane.native_id, keep=kept)
        except CapabilityUnavailable as error:
            log.info("thread %s: commands may go on after the turn: %s", thread.ref, error)
        except (CodexError, OutcomeUnknown) as error:
            log.warning("thread %s: commands may go on after the turn: %s", thread.ref, error)
        return None


async def unclaimed(lane: Lane) -> None:
    """Wait until nobody is in the middle of sending; what is sent then is the turn that runs."""
    while lane.sending:
        await lane.change()


def _half_done(thread: ThreadRecord, ended: TurnRecord, error: DispatchError) -> PartialSuccess:
    return PartialSuccess(
        f"the turn in {thread.ref} was interrupted, and the message was not sent: {error.message}",
        hint=f"dispatch send {thread.ref} TEXT, once this is settled: {error.hint or error.message}",
        details={"thread": thread.ref, "interrupted": ended.id, "error": error.to_dict()},
    )


def _unknown(thread: ThreadRecord, message_id: str, why: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"it is not known whether the turn in {thread.ref} has the message: {why}",
        hint=f"dispatch tail {thread.ref} shows whether it was said; do not send it again before",
        details={"thread": thread.ref, "message_id": message_id},
    )
