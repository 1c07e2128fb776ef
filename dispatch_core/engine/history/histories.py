"""The histories on disk, kept in the storage backend's index."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
from anyio import CapacityLimiter, from_thread, get_cancelled_exc_class, to_thread

from dispatch_core.appserver import rollout
from dispatch_core.appserver.lines import LineSplitter
from dispatch_core.contracts.search_text import search_terms, snippet
from dispatch_core.engine.history import sync_process
from dispatch_core.engine.history.sync_pass import SyncPass, Wish
from dispatch_core.errors import CapabilityUnavailable, DispatchError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anyio.abc import Process

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.history import (
        HistoryIndex,
        HistorySource,
        IndexAddress,
        SearchHit,
        SearchPage,
        SearchQuery,
        SyncReport,
    )
    from dispatch_core.contracts.search_text import SearchTerm
    from dispatch_core.engine.history.sync_pass import Plan

HERE: Final = 1024 * 1024  # bytes read in this process; a pass over more gets one of its own
FRESH: Final = 1.0  # seconds for which a search does not look for news again
PATIENCE: Final = 1.5  # seconds that a search spends on news
ENDING: Final = 20.0  # seconds for a process to write down what it has, before it is killed

log = logging.getLogger(__name__)


class Histories:
    """The sources below Codex's home and the index over them. index: None when the backend has none.

    here: bytes up to which a pass runs in this process.

    A search looks for news first, and a ``sync`` is a pass on request; nothing else reads the sources.
    """

    def __init__(
        self,
        index: HistoryIndex | None,
        codex_home: Path,
        clock: Clock,
        *,
        here: int = HERE,
    ) -> None:
        self._index = index
        self._here = here
        self._codex_home = codex_home
        self._pass = SyncPass(index, codex_home, clock) if index is not None else None
        self._limiter = CapacityLimiter(2)  # a pass and a search
        self._turn = anyio.Lock()
        self._looked_at: float | None = None
        self._behind = 0

    async def sync(
        self,
        *,
        native_ids: Sequence[str] | None = None,
        full: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> SyncReport:
        """Read what is new in the sources; a pass that is cancelled keeps what it has read.

        Raises CapabilityUnavailable without an index, and StorageError when it cannot be written.
        """
        wish = Wish(None if native_ids is None else tuple(native_ids), full=full)
        watch = _Watch(self, progress, whole=native_ids is None)
        async with self._turn:
            stopped = partial(_is_cancelled, get_cancelled_exc_class())
            done = await to_thread.run_sync(
                self._begin, wish, watch, stopped, limiter=self._limiter
            )
            await anyio.lowlevel.checkpoint()
            report = done if done is not None else await self._elsewhere(wish, watch)
            watch.finished()
            return report

    async def search(self, query: SearchQuery) -> SearchPage:
        """Search the index, after a look for news, and read the text of the hits from their sources."""
        if self._index is None:
            raise _no_index()
        terms = search_terms(query.text)
        await self._look_for_news()
        page = await self._index.search(query, partial(_completed, terms=terms))
        return page if not self._behind else replace(page, behind=self._behind)

    def sources(self, native_ids: Sequence[str]) -> Mapping[str, HistorySource]:
        """Return what is known of these threads, by native id."""
        try:
            return {} if self._index is None else self._index.sources(native_ids)
        except StorageError as error:
            log.warning("the index cannot be read: %s", error)
            return {}

    def note(self, behind: int, *, looked: bool = False) -> None:
        """Remember how many sources have something new in them that is not in the index."""
        self._behind = behind
        if looked:
            self._looked_at = anyio.current_time()

    async def _look_for_news(self) -> None:
        fresh = self._looked_at is not None and anyio.current_time() - self._looked_at < FRESH
        if fresh or self._turn.locked():
            return
        try:
            with anyio.move_on_after(PATIENCE):
                await self.sync()
        except DispatchError as error:
            log.warning("the index was not brought up to date: %s", error)

    def _begin(self, wish: Wish, watch: _Watch, stopped: Callable[[], bool]) -> SyncReport | None:
        """Look for what is to be done, and do it unless it is much. In a worker thread."""
        if self._pass is None:
            raise _no_index()
        plan = self._pass.plan(wish)
        watch.planned(plan)
        if plan.size > self._here and self._address() is not None:
            return None
        return self._pass.run(plan, progress=watch.from_thread, stopped=stopped)

    def _address(self) -> IndexAddress | None:
        return None if self._index is None else self._index.address()

    async def _elsewhere(self, wish: Wish, watch: _Watch) -> SyncReport:
        """Run the pass in a process of its own."""
        address = self._address()
        if address is None:
            raise _no_index()
        command = [sys.executable, "-P", "-m", "dispatch_core.engine.history.sync_process"]
        async with await anyio.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
        ) as process:
            try:
                report = await _converse(
                    process, sync_process.order(address, self._codex_home, wish), watch.on_loop
                )
            finally:
                await _end(process)
        if report is None:
            raise StorageError(
                f"the process that reads histories ended with status {process.returncode}",
                hint="dispatch daemon log shows why; dispatch sync tries again",
            )
        return report


class _Watch:
    """Follows one pass. whole: it looks at all sources, so what it leaves undone is all that there is to do."""

    def __init__(
        self, owner: Histories, progress: Callable[[int, int], None] | None, *, whole: bool
    ) -> None:
        self._owner = owner
        self._progress = progress
        self._whole = whole

    def planned(self, plan: Plan) -> None:
        """Note, in a worker thread, what is to be done."""
        if self._whole:
            self._owner.note(len(plan.jobs))

    def on_loop(self, done: int, total: int) -> None:
        """Note how far the pass is, and tell whoever asked for it."""
        if self._whole:
            self._owner.note(total - done)
        if self._progress is not None:
            self._progress(done, total)

    def from_thread(self, done: int, total: int) -> None:
        """Do the same from a worker thread."""
        if self._progress is not None:
            from_thread.run_sync(self.on_loop, done, total)
        elif self._whole:
            self._owner.note(total - done)

    def finished(self) -> None:
        """Note that nothing is left to do."""
        if self._whole:
            self._owner.note(0, looked=True)


async def _converse(
    process: Process, order: bytes, progress: Callable[[int, int], None]
) -> SyncReport | None:
    """Give a process its order and return its report, None when it ends without one."""
    if process.stdin is None or process.stdout is None:
        return None
    lines = LineSplitter()
    try:
        await process.stdin.send(order)
        async for chunk in process.stdout:
            for line in lines.feed(chunk):
                if (report := sync_process.parse(line, progress)) is not None:
                    return report
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return None
    return None


async def _end(process: Process) -> None:
    """Close the process's stdin, which makes it write down what it has and end, and wait for that."""
    with anyio.CancelScope(shield=True):
        if process.stdin is not None:
            await process.stdin.aclose()
        with anyio.move_on_after(ENDING):
            if process.stdout is not None:
                async for _ in process.stdout:  # it must not wait for a reader
                    pass
            await process.wait()
            return
        log.warning("the process that reads histories (%d) does not end: it is killed", process.pid)
        process.kill()
        await process.wait()


def _completed(hit: SearchHit, *, terms: tuple[SearchTerm, ...]) -> SearchHit:
    """Return the hit with what its source says now; as it is when it does not say it any more."""
    try:
        document = rollout.read_document(hit.path, hit.offset)
    except OSError:
        return hit
    if document is None:
        return hit
    return replace(
        hit,
        at=document.at,
        turn_id=document.turn_id,
        role=document.role,
        snippet=snippet(document.text, terms),
    )


def _is_cancelled(cancelled: type[BaseException]) -> bool:
    """Say, in a worker thread, whether the caller does not want the pass to go on."""
    try:
        from_thread.check_cancelled()
    except cancelled:
        return True
    return False


def _no_index() -> CapabilityUnavailable:
    return CapabilityUnavailable(
        "the storage backend keeps no search index",
        hint="the built-in backend has one: remove storage from [plugins] in the configuration",
    )
