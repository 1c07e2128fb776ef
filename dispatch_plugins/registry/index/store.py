"""The index as a store of the registry's backend. Light to import: nothing is opened, or loaded, until it is used."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from anyio import CancelScope, CapacityLimiter, to_thread

from dispatch_core.api import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AsyncExitStack

    from dispatch_core.api import (
        Checkpoint,
        HistorySource,
        IndexAddress,
        SearchHit,
        SearchPage,
        SearchQuery,
        SourceChange,
    )
    from dispatch_plugins.registry.index.file import IndexFile


class SqliteIndex:
    """A HistoryIndex in one SQLite file. registry: the database that says which threads are managed.

    It can be used from ``open`` or ``connect`` on. A file that is damaged, of another build or not ours at all is built anew.
    """

    def __init__(self, path: Path, registry: Path) -> None:
        self._path = path
        self._registry = registry
        self._limiter: CapacityLimiter | None = None
        self._opening = Lock()
        self._usable = False
        self._opened: IndexFile | None = None

    async def open(self, stack: AsyncExitStack) -> None:
        """Let it be used, and push the cleanup on the caller's stack; the file is opened when it is first used."""
        self.connect()
        stack.push_async_callback(self._close)

    def connect(self) -> None:
        """Let it be used until ``disconnect``."""
        self._usable = True

    def disconnect(self) -> None:
        """Close the file, if it was opened, and let nothing open it again. Blocking."""
        with self._opening:
            self._usable = False
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """Return how far every source was read, by path."""
        return self._file.checkpoints()

    def source(self, path: str) -> HistorySource | None:
        """Return what is known of one source."""
        return self._file.source(path)

    def expect(self, paths: Sequence[str]) -> None:
        """Give new sources their places, in the order of age."""
        self._file.expect(paths)

    def apply(self, changes: Iterable[SourceChange]) -> int:
        """Store what was read."""
        return self._file.apply(changes)

    def forget(self, paths: Sequence[str]) -> None:
        """Drop sources that are gone."""
        self._file.forget(paths)

    def moved(self, before: str, after: str, *, archived: bool) -> None:
        """Give a source its new path."""
        self._file.moved(before, after, archived=archived)

    def name(self, titles: Mapping[str, str]) -> None:
        """Give threads their titles."""
        self._file.name(titles)

    def sources(self, native_ids: Sequence[str]) -> Mapping[str, HistorySource]:
        """Return what is known of these threads; of one whose turns were reverted, with the path of its newest source."""
        return self._file.sources(native_ids)

    async def search(
        self, query: SearchQuery, read: Callable[[SearchHit], SearchHit] | None = None
    ) -> SearchPage:
        """Return the threads that match, with the text that read finds."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(1)
        return await to_thread.run_sync(self._search, query, read, limiter=self._limiter)

    def address(self) -> IndexAddress:
        """Return how another process opens the same file."""
        # Imported here for start-up cost, as below.
        from dispatch_core.api import IndexAddress  # noqa: PLC0415

        return IndexAddress(
            module=__name__,
            function=opened.__name__,
            arguments=(str(self._path), str(self._registry)),
        )

    @property
    def _file(self) -> IndexFile:
        from dispatch_plugins.registry.index.file import IndexFile  # noqa: PLC0415

        with self._opening:
            if not self._usable:
                raise StorageError(
                    f"the index {self._path} is not open", hint="dispatch up starts the daemon"
                )
            if self._opened is None:
                self._opened = IndexFile(self._path, self._registry)
            return self._opened

    def _search(
        self, query: SearchQuery, read: Callable[[SearchHit], SearchHit] | None
    ) -> SearchPage:
        page = self._file.search(query)
        if read is None or not page.hits:
            return page
        return replace(page, hits=tuple(map(read, page.hits)))

    async def _close(self) -> None:
        with CancelScope(shield=True):
            await to_thread.run_sync(self.disconnect)


@contextmanager
def opened(path: str, registry: str) -> Iterator[SqliteIndex]:
    """Yield the index at path, for this process alone, until the block ends."""
    index = SqliteIndex(Path(path), Path(registry))
    index.connect()
    try:
        yield index
    finally:
        index.disconnect()
