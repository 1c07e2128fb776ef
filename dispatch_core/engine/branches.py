"""What is done to a thread's history as a whole: it is forked, reverted, compacted."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import Source, ThreadRecord, ThreadSettings, TurnRecord
from dispatch_core.engine.refusals import (
    check_directory,
    checked_name,
    in_doubt,
    refuse_ephemeral,
    vanished,
)
from dispatch_core.engine.registrar import News
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CodexError,
    CodexTimeout,
    CodexUnavailable,
    DispatchError,
    LaneBusy,
    OutcomeUnknown,
    PartialSuccess,
    StorageError,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from dispatch_core.appserver.thread_messages import Started
    from dispatch_core.contracts.context import Clock, Codex
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.lifecycle import Lifecycle
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.recovery import Recovery
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster
    from dispatch_core.engine.submission import Submission

log = logging.getLogger(__name__)

START_DEADLINE = 10.0  # seconds for Codex to say that the turn of a compaction has started


class Branches:
    """Forks, reverts and compacts threads."""

    def __init__(  # noqa: PLR0913 -- collaborators, all by keyword
        self,
        *,
        threads: ThreadStore,
        events: Events,
        clock: Clock,
        link: CodexLink,
        roster: Roster,
        registrar: Registrar,
        recovery: Recovery,
        submission: Submission,
        lifecycle: Lifecycle,
    ) -> None:
        self._threads = threads
        self._events = events
        self._clock = clock
        self._link = link
        self._roster = roster
        self._registrar = registrar
        self._recovery = recovery
        self._submission = submission
        self._lifecycle = lifecycle

    async def fork(
        self,
        thread: ThreadRecord,
        *,
        name: str,
        settings: ThreadSettings,
        cwd: str | None,
        last_turn: str | None,
    ) -> ThreadRecord:
        """Start a thread of our own that begins with the history of this one, up to and with last_turn.

        A turn that runs is part of it as far as it has come, as interrupted, unless last_turn leaves it out. Raises as
        ``Lanes.fork``; AuthorityDenied for an archived thread.
        """
        name = checked_name(name)
        handle, lane = f"@{name}", self._roster.lane(thread)
        self._refuse_without_history(thread, lane, "be forked")
        inherited = thread.settings if thread.source is Source.OWN else ThreadSettings()
        settings = overlaid(inherited, settings)
        with self._lifecycle.reserve(handle):
            await self._lifecycle.check_free(handle)
            if cwd is None:
                await check_directory(thread)
            generation = self._link.generation
            started = await self._fork(thread, lane, settings, cwd, last_turn)
            draft = self._lifecycle.draft(
                native_id=started.id,
                handle=handle,
                title=name,
                source=Source.OWN,
                cwd=cwd or started.cwd or thread.cwd,
                settings=settings,
                materialized=True,
                in_use=started.in_use,
            )
            try:
                record = await self._lifecycle.register(draft, generation)
            except StorageError as error:
                raise _unregistered(thread, started.id, error) from error
        record = await self._with_newest_turn(record)
        self._events.publish(EventKind.THREAD_CREATED, thread=record.key, data={"ref": record.ref})
        self._events.publish(
            EventKind.THREAD_CHANGED,
            thread=record.key,
            data={"change": "forked", "from": thread.key},
        )
        await appserver.threads.set_name(self._link.codex, started.id, name)
        return record

    async def revert(self, thread: ThreadRecord, *, before_turn: str) -> ThreadRecord:
        """Forget a turn and all later ones; files are not touched.

        Raises LaneBusy, ValidationFailed for a turn that the history does not have, CapabilityUnavailable for a history in the
        older format or a Codex that cannot do it, and OutcomeUnknown; what became of it is then found out at the next use.
        """
        async with self._idle(thread, "be taken back") as lane:
            before = lane.turn
            # Recorded first: if we are gone before Codex answers, history is asked for the newest turn.
            lane.take_back()
            try:
                await self._registrar.store(lane)
            except BaseException:
                lane.turn = before
                self._registrar.mark(lane)
                raise
            lane.reverts += 1
            try:
                await self._again(
                    thread, lane, partial(appserver.threads.revert, before_turn=before_turn)
                )
            except (OutcomeUnknown, CodexTimeout) as error:
                self._registrar.mark(lane)
                raise OutcomeUnknown(
                    f"it is not known whether turns of {thread.ref} were taken back: {error.message}",
                    hint=f"dispatch tail {thread.ref} shows what is left",
                    details={"thread": thread.ref},
                ) from error
            except DispatchError as error:
                lane.reverts, lane.turn = max(0, lane.reverts - 1), before
                self._registrar.mark(lane)
                if isinstance(error, appserver.calls.TurnUnknown):
                    raise _no_such_turn(thread, before_turn) from error
                raise
            await self._look_up_newest(thread, lane)
            try:
                record = await self._registrar.keep(lane)
            except StorageError as error:
                raise _unrecorded(thread, error) from error
            self._registrar.tell(lane, News(EventKind.THREAD_CHANGED, None, {"change": "reverted"}))
            lane.touch()
        return record

    async def compact(self, thread: ThreadRecord) -> TurnRecord | None:
        """Start to replace the thread's context by a summary, and return the turn in which Codex does it.

        Raises LaneBusy, ValidationFailed when there is no history, and OutcomeUnknown if Codex does not begin.
        """
        async with self._idle(thread, "be summarised", stored=False) as lane:
            before, generation = lane.turn, self._link.generation
            lane.handed = generation
            try:
                await self._again(thread, lane, appserver.threads.compact)
            except (OutcomeUnknown, CodexTimeout) as error:
                raise _not_begun(thread) from error
            with anyio.move_on_after(START_DEADLINE):
                # Only the notification names the turn.
                while _same(lane.turn, before) and lane.generation is not None:
                    await lane.change()
            if _same(lane.turn, before):
                raise _not_begun(thread)
            await self._registrar.store(lane)
            return lane.turn

    # Private

    @asynccontextmanager
    async def _idle(
        self, thread: ThreadRecord, what: str, *, stored: bool = True
    ) -> AsyncIterator[Lane]:
        """Hold the lane of a loaded thread with a history, in which nothing runs. stored: an ephemeral one will not do."""
        lane = self._roster.lane(thread)
        if stored:
            refuse_ephemeral(thread, what)
        if lane.active is not None or lane.submitting:
            raise LaneBusy(thread.ref, lane.active)
        self._refuse_without_history(thread, lane, what, stored=stored)
        with self._submission.claim(thread, lane):
            async with lane.lock:
                with nothing_done(thread):
                    await self._recovery.look_back(thread, lane)
                    if lane.active is None:
                        await self._submission.ensure_loaded(thread, lane)
                # While a message is in doubt, history is the evidence of what became of it.
                if lane.active is not None or lane.flight is not None:
                    raise LaneBusy(thread.ref, lane.active)
                if lane.held is not None:
                    raise in_doubt(thread, lane.held)
                yield lane

    def _refuse_without_history(
        self, thread: ThreadRecord, lane: Lane, what: str, *, stored: bool = True
    ) -> None:
        if stored:
            refuse_ephemeral(thread, what)
        if lane.turn is None and not lane.materialized:
            raise _without_history(thread, what)

    async def _again(
        self, thread: ThreadRecord, lane: Lane, ask: Callable[[Codex, str], Awaitable[None]]
    ) -> None:
        """Ask Codex for something, once more if it has unloaded the thread, or was replaced, since we had looked."""
        try:
            await ask(self._link.codex, lane.native_id)
        except appserver.calls.ThreadUnknown:
            lane.generation = None
            with nothing_done(thread):
                await self._submission.ensure_loaded(thread, lane)
            await ask(self._link.codex, lane.native_id)

    async def _look_up_newest(self, thread: ThreadRecord, lane: Lane) -> None:
        """Learn which turn is the newest after some were taken back; if Codex does not say it now, the next use asks again.

        That is no failure of the revert: told so, its caller would take back more.
        """
        try:
            lane.turn = await self._newest(lane.native_id)
        except (CodexError, OutcomeUnknown) as error:
            log.warning("thread %s: its newest turn is looked up later: %s", thread.ref, error)

    async def _with_newest_turn(self, record: ThreadRecord) -> ThreadRecord:
        """Return a fork with the newest turn that it took over; without it if Codex does not say."""
        lane = self._roster.lane(record)
        async with lane.lock:
            try:
                turn = await self._newest(record.native_id)
            except (CodexError, OutcomeUnknown) as error:
                log.warning("thread %s: its newest turn is not known: %s", record.ref, error)
                return record
            if turn is None or lane.turn is not None:
                return record
            lane.turn = turn
            return await self._registrar.keep(lane)

    async def _fork(
        self,
        thread: ThreadRecord,
        lane: Lane,
        settings: ThreadSettings,
        cwd: str | None,
        last_turn: str | None,
    ) -> Started:
        try:
            return await appserver.threads.fork(
                self._link.codex,
                lane.native_id,
                settings=settings,
                cwd=cwd,
                last_turn=last_turn,
            )
        except appserver.calls.TurnUnknown as error:
            raise _no_such_turn(thread, str(last_turn)) from error
        except appserver.calls.ThreadUnknown as error:
            if lane.materialized or thread.source is not Source.OWN:
                raise vanished(thread) from error
            raise _without_history(thread, "be forked") from error
        except appserver.calls.ThreadArchived as error:
            raise AuthorityDenied(
                f"{thread.handle} ({thread.ref}) is archived: Codex forks only what is not",
                hint=f"dispatch restore {thread.ref}",
            ) from error
        except ActiveWriter as error:
            raise ActiveWriter(thread.ref) from error
        except (OutcomeUnknown, CodexTimeout) as error:
            raise OutcomeUnknown(
                f"it is not known whether {thread.ref} was forked; nothing was registered",
                hint="dispatch list --unmanaged shows the fork if there is one, and dispatch attach takes it in",
                details={"thread": thread.ref},
            ) from error

    async def _newest(self, native_id: str) -> TurnRecord | None:
        return await appserver.threads.newest_turn(
            self._link.codex, native_id, now=self._clock.now()
        )


def overlaid(inherited: ThreadSettings, given: ThreadSettings) -> ThreadSettings:
    """Return the settings of a fork: what is given, and for the rest what is inherited.

    A permission profile and a sandbox mode replace each other; the effort and tier of a model are not those of another one.
    """
    changes = {
        field.name: value
        for field in fields(given)
        if (value := getattr(given, field.name)) is not None
    }
    if "sandbox" in changes:
        inherited = replace(inherited, permissions=None)
    if "permissions" in changes:
        inherited = replace(inherited, sandbox=None)
    if changes.get("model", inherited.model) != inherited.model:
        inherited = replace(inherited, effort=None, service_tier=None)
    return replace(inherited, **changes)


def _same(turn: TurnRecord | None, before: TurnRecord | None) -> bool:
    return (turn and turn.id) == (before and before.id)


@contextmanager
def nothing_done(thread: ThreadRecord) -> Iterator[None]:
    """Say that nothing was done when it is only a preparation whose outcome is unknown."""
    try:
        yield
    except (OutcomeUnknown, CodexTimeout) as error:
        raise CodexUnavailable(
            f"nothing was done to {thread.ref}: {error.message}", hint="dispatch daemon status"
        ) from error


def _without_history(thread: ThreadRecord, what: str) -> ValidationFailed:
    return ValidationFailed(
        f"{thread.handle} ({thread.ref}) has no history that could {what}",
        hint=f"dispatch send {thread.ref} TEXT begins one",
    )


def _unregistered(thread: ThreadRecord, native_id: str, error: StorageError) -> PartialSuccess:
    return PartialSuccess(
        f"{thread.ref} was forked as {native_id} in Codex, which could not be registered: {error.message}",
        hint=f"dispatch attach {native_id}, once the registry can be written: dispatch registry check",
        details={"thread": thread.ref, "id": native_id, "error": error.to_dict()},
    )


def _unrecorded(thread: ThreadRecord, error: StorageError) -> PartialSuccess:
    return PartialSuccess(
        f"turns of {thread.ref} were taken back in Codex, which could not be recorded yet: {error.message}",
        hint=f"dispatch tail {thread.ref} shows what is left; do not repeat it before",
        details={"thread": thread.ref, "error": error.to_dict()},
    )


def _no_such_turn(thread: ThreadRecord, turn_id: str) -> ValidationFailed:
    return ValidationFailed(
        f"the history of {thread.handle} ({thread.ref}) has no turn {turn_id!r} that has ended",
        hint=f"dispatch tail {thread.ref} shows the turns",
        details={"thread": thread.ref, "turn_id": turn_id},
    )


def _not_begun(thread: ThreadRecord) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"it is not known whether Codex began to summarise {thread.ref}",
        hint=f"dispatch wait {thread.ref}, then look: dispatch get {thread.ref}",
        details={"thread": thread.ref},
    )
