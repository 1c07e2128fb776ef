"""Threads come into being, change their name, and go: here and in Codex."""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import (
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnStatus,
)
from dispatch_core.contracts.view import printable
from dispatch_core.engine.ids import ref_candidates, uuid7
from dispatch_core.engine.refusals import NAME_LIMIT, checked_name
from dispatch_core.engine.registrar import KEEP_DEADLINE, News
from dispatch_core.engine.selectors import FULL_ID, ID_PREFIX
from dispatch_core.errors import (
    ActiveWriter,
    CodexError,
    CodexTimeout,
    NotFound,
    OutcomeUnknown,
    StorageError,
    ThreadNotFound,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.appserver.thread_messages import ThreadFacts
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.storage import ThreadStore
    from dispatch_core.engine.lane import Lane
    from dispatch_core.engine.link import CodexLink
    from dispatch_core.engine.recovery import Recovery
    from dispatch_core.engine.registrar import Registrar
    from dispatch_core.engine.roster import Roster

log = logging.getLogger(__name__)

READ_DEADLINE = 10.0  # seconds for Codex to describe a thread
SETTLE_DEADLINE = 10.0  # seconds for Codex to say that the turn of an archived thread has ended
ARCHIVED_MEANWHILE = "the thread was archived while it ran"


class Lifecycle:
    """Makes, registers, names, archives and restores threads."""

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
    ) -> None:
        self._threads = threads
        self._events = events
        self._clock = clock
        self._link = link
        self._roster = roster
        self._registrar = registrar
        self._recovery = recovery
        self._reserved: set[str] = set()

    async def create(
        self, *, name: str, cwd: str, settings: ThreadSettings, ephemeral: bool = False
    ) -> ThreadRecord:
        """Start a thread in Codex and register it as our own. Raises ValidationFailed when the name is taken."""
        handle = f"@{name}"
        with self.reserve(handle):
            await self.check_free(handle)
            generation = self._link.generation
            started = await appserver.threads.start(
                self._link.codex, cwd=cwd, settings=settings, ephemeral=ephemeral
            )
            record = await self.register(
                self.draft(
                    native_id=started.id,
                    handle=handle,
                    title=name,
                    source=Source.OWN,
                    cwd=cwd,
                    settings=settings,
                    ephemeral=ephemeral,
                    in_use=started.in_use,
                ),
                generation,
            )
        self._events.publish(EventKind.THREAD_CREATED, thread=record.key, data={"ref": record.ref})
        if not ephemeral:  # Codex keeps no name of a thread that it does not store
            await appserver.threads.set_name(self._link.codex, started.id, name)
        return record

    async def attach(self, native_id: str) -> ThreadRecord:
        """Register a thread that somebody else made, from its metadata; never resumes it.

        One that is managed is returned unchanged. Raises ThreadNotFound, or ValidationFailed for what is no id.
        """
        native_id = native_id.strip().lower()
        if not FULL_ID.fullmatch(native_id):
            raise ValidationFailed(
                f"{printable(native_id)[:NAME_LIMIT]!r} is not the full id of a Codex thread",
                hint="dispatch list --unmanaged shows the ids",
            )
        if known := await self._threads.find("native_id", native_id):
            return known[0]
        try:
            facts = await self._facts(native_id)
        except appserver.calls.ThreadUnknown as error:
            raise ThreadNotFound(native_id) from error
        name = " ".join(printable(facts.name or "").split())[:NAME_LIMIT].removeprefix("@")
        draft = self.draft(
            native_id=facts.id,
            handle=f"@{name or facts.id[:ID_PREFIX]}",
            title=facts.name,
            source=Source.ATTACHED,
            status=facts.status,
            cwd=facts.cwd,
            settings=ThreadSettings(),
            materialized=facts.stored,
            ephemeral=facts.ephemeral,
            in_use=facts.in_use,
        )
        record = await self._threads.add(draft, ref_candidates(facts.id))
        if record.key == draft.key:
            self._events.publish(
                EventKind.THREAD_CHANGED, thread=record.key, data={"change": "attached"}
            )
        return record

    async def rename(self, thread: ThreadRecord, name: str) -> ThreadRecord:
        """Give a thread another name, here and in Codex. One that is archived gets it in Codex when it is restored.

        Raises ValidationFailed for a name that is no name or is taken. If Codex refuses, nothing has changed.
        """
        name = checked_name(name)
        handle, lane = f"@{name}", self._roster.lane(thread)
        async with lane.lock:
            known = await self._known(thread)
            if (known.handle, lane.title) == (handle, name):
                return known
            with self.reserve(handle):
                if thread.source is Source.OWN and not lane.archived:
                    await self.check_free(handle, but=thread.key)
                before, lane.title = lane.title, name  # so that Codex's own word of it is no news
                try:
                    await self._rename_in_codex(thread, lane, name)
                    record = await self._threads.update(
                        thread.key, handle=handle, title=name, updated_at=self._clock.now()
                    )
                except BaseException:
                    lane.title = before
                    raise
        self._tell(lane, "renamed")
        return record

    async def archive(self, thread: ThreadRecord) -> ThreadRecord:
        """Archive a thread, here and in Codex; a turn that runs is interrupted. One that is archived is returned unchanged.

        A thread that Codex does not have, or has archived already, is archived here. Raises ActiveWriter, and OutcomeUnknown
        when it cannot be told; then it may be repeated.
        """
        lane = self._roster.lane(thread)
        async with lane.lock:
            known = await self._known(thread)
            if not lane.archived:
                if thread.ephemeral:
                    await self._interrupt(lane)
                else:
                    with suppress(CodexError, OutcomeUnknown):
                        await self._recovery.look_back(thread, lane)
                    await self._archive_in_codex(thread, lane)
                await self._let_end(lane)
            elif known.status is ThreadStatus.ARCHIVED:
                return known
            news = lane.put_away(archived=True)
            record = await self._registrar.keep(lane)
        if news:
            self._tell(lane, "archived")
        return record

    async def restore(self, thread: ThreadRecord) -> ThreadRecord:
        """Bring an archived thread back, without loading it. One that is not archived is returned unchanged.

        Raises ValidationFailed when its name was taken meanwhile, NotFound when Codex has deleted it or it was ephemeral.
        """
        lane = self._roster.lane(thread)
        async with lane.lock:
            known = await self._known(thread)
            archived = lane.archived or known.status is ThreadStatus.ARCHIVED
            if not archived and not await self._archived_elsewhere(thread):
                return known
            if thread.ephemeral:
                raise NotFound(
                    f"{thread.handle} ({thread.ref}) was ephemeral: Codex has not stored it",
                    hint="dispatch new NAME TEXT starts another one",
                )
            with self.reserve(known.handle):
                if thread.source is Source.OWN:
                    await self.check_free(known.handle, but=thread.key, restoring=thread.ref)
                facts = await self._restore_in_codex(thread, lane)
                news = lane.put_away(archived=False)
                lane.broken = False
                record = await self._registrar.keep(lane)
        if news:
            self._tell(lane, "restored")
        if facts is not None and record.title and facts.name != record.title:
            await appserver.threads.set_name(self._link.codex, lane.native_id, record.title)
        return record

    # What making and forking share

    @contextmanager
    def reserve(self, handle: str) -> Iterator[None]:
        """Keep a name for a thread that is about to get it. Raises ValidationFailed when another one is."""
        if handle in self._reserved:
            raise ValidationFailed(
                f"another thread is about to become {handle}", hint="choose another name"
            )
        self._reserved.add(handle)
        try:
            yield
        finally:
            self._reserved.discard(handle)

    async def check_free(
        self, handle: str, *, but: str | None = None, restoring: str | None = None
    ) -> None:
        """Raise ValidationFailed when a thread of our own, not archived and other than ``but`` (a key), has the handle.

        restoring: ref of the thread that wants to have it again.
        """
        for rival in await self._threads.find("handle", handle):
            lane = self._roster.lanes.get(rival.key)
            archived = lane.archived if lane else rival.status is ThreadStatus.ARCHIVED
            if rival.key == but or archived or rival.source is not Source.OWN:
                continue
            way_out = (
                f"dispatch rename {restoring} NAME, then restore it"
                if restoring
                else f"choose another name, or dispatch send {rival.ref} TEXT"
            )
            raise ValidationFailed(f"there is a thread {handle} already: {rival.ref}", hint=way_out)

    async def register(self, draft: ThreadRecord, generation: int) -> ThreadRecord:
        """Store a thread that Codex has just made, whether the caller is cancelled or not. Raises StorageError.

        generation: of the Codex process that was there when it was asked for the thread.
        """
        with anyio.move_on_after(KEEP_DEADLINE, shield=True):
            record = await self._threads.add(draft, ref_candidates(draft.native_id))
            self._roster.lane(record).generation = generation or self._link.generation
            return record
        raise StorageError(
            f"Codex made thread {draft.native_id}, and the registry took nothing for {KEEP_DEADLINE:g} s",
            hint="dispatch registry check",
        )

    def draft(self, *, status: ThreadStatus = ThreadStatus.IDLE, **fields: Any) -> ThreadRecord:
        """Return the record of a new thread, without a ref."""
        now = self._clock.now()
        return ThreadRecord(
            key=uuid7(),
            provider="codex",
            ref="",
            status=status,
            created_at=now,
            updated_at=now,
            **fields,
        )

    # Private

    async def _known(self, thread: ThreadRecord) -> ThreadRecord:
        """Return the thread as it is now: itself, unless somebody has changed it since it was looked up."""
        known = await self._threads.get(thread.key)
        return thread if known is None or known == thread else known

    async def _facts(self, native_id: str) -> ThreadFacts:
        with anyio.move_on_after(READ_DEADLINE):
            return await appserver.threads.read(self._link.codex, native_id)
        raise CodexTimeout(
            f"Codex did not describe thread {native_id} within {READ_DEADLINE:g} s; nothing was done",
            hint="dispatch daemon status shows how Codex is doing",
        )

    async def _rename_in_codex(self, thread: ThreadRecord, lane: Lane, name: str) -> None:
        if thread.ephemeral or lane.archived:
            return  # Codex takes no name for either
        try:
            await appserver.threads.rename(self._link.codex, lane.native_id, name)
        except appserver.calls.ThreadUnknown:
            if not lane.materialized:
                return  # it gets its name when it is started anew
            if not await self._archived_elsewhere(thread):
                raise
            self._registrar.mark(lane, *_changed(lane.put_away(archived=True), "archived"))

    async def _archive_in_codex(self, thread: ThreadRecord, lane: Lane) -> None:
        try:
            await appserver.threads.archive(self._link.codex, lane.native_id)
            lane.materialized = True  # archiving stores also a thread without a turn
        except appserver.calls.ThreadUnknown:
            log.info("thread %s: Codex has nothing to archive", thread.ref)
        except ActiveWriter as error:
            raise ActiveWriter(thread.ref) from error
        except CodexTimeout as error:
            raise _unknown("archived", thread) from error
        except OutcomeUnknown as error:
            raise _unknown("archived", thread) from error

    async def _interrupt(self, lane: Lane) -> None:
        """Interrupt the turn of a thread that Codex has not stored, and so cannot archive."""
        turn_id = lane.active
        if turn_id is None:
            return
        with anyio.move_on_after(SETTLE_DEADLINE), suppress(CodexError, OutcomeUnknown):
            # Codex refuses to interrupt a turn that it has accepted and not started yet.
            while lane.active == turn_id and not lane.started(turn_id):
                await lane.change()
            if lane.active == turn_id:
                await appserver.turns.interrupt(self._link.codex, lane.native_id, turn_id)

    async def _let_end(self, lane: Lane) -> None:
        """Wait until Codex has said that the turn of a thread that it archived has ended."""
        with anyio.move_on_after(SETTLE_DEADLINE):
            while lane.active is not None:
                await lane.change()
        if lane.active is not None:
            lane.conclude(TurnStatus.INTERRUPTED, ARCHIVED_MEANWHILE, self._clock.now())
        elif lane.turn is not None and not lane.turn.status.finished:
            # Nobody can ask an archived thread's history what became of it without restoring it.
            lane.turn = replace(lane.turn, error=lane.turn.error or ARCHIVED_MEANWHILE)

    async def _archived_elsewhere(self, thread: ThreadRecord) -> bool:
        """Whether Codex has archived a thread of which we do not know it."""
        if thread.ephemeral:
            return False
        try:
            return (await self._facts(thread.native_id)).archived
        except appserver.calls.ThreadUnknown:
            return False

    async def _restore_in_codex(self, thread: ThreadRecord, lane: Lane) -> ThreadFacts | None:
        """Return what Codex says of the thread it brought back; None if there was nothing to bring back."""
        try:
            return await appserver.threads.unarchive(self._link.codex, lane.native_id)
        except appserver.calls.NotArchived as error:
            if not lane.materialized:
                return None  # Codex never stored it; it is started anew at its first message
            try:
                return await self._facts(lane.native_id)
            except appserver.calls.ThreadUnknown:
                raise NotFound(
                    f"Codex has no thread {lane.native_id} any more, which {thread.handle} ({thread.ref}) was",
                    hint="its history was deleted, or CODEX_HOME is another one: dispatch daemon status",
                    details={"thread": thread.ref, "id": lane.native_id},
                ) from error
        except (CodexTimeout, OutcomeUnknown) as error:
            raise _unknown("restored", thread) from error

    def _tell(self, lane: Lane, change: str) -> None:
        self._registrar.tell(lane, *_changed(True, change))


def _changed(news: bool, change: str) -> list[News]:
    return [News(EventKind.THREAD_CHANGED, None, {"change": change})] if news else []


def _unknown(done: str, thread: ThreadRecord) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"it is not known whether Codex has {done} {thread.handle} ({thread.ref})",
        hint="the same command again is safe",
        details={"thread": thread.ref},
    )
