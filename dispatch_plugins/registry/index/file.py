"""The file of the index: its connections, one thread at a time for each, and what to do when it is damaged."""

# ruff: noqa: S608 -- what is put into statements is our own constants

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import StorageError
from dispatch_plugins.registry.index import layout
from dispatch_plugins.registry.index.facts import (
    CHECKPOINT_COLUMNS,
    SOURCE_COLUMNS,
    load_checkpoint,
    load_facts,
    load_source,
    worst,
)
from dispatch_plugins.registry.index.searching import search
from dispatch_plugins.registry.index.writing import Writer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from dispatch_core.api import (
        Checkpoint,
        HistorySource,
        SearchPage,
        SearchQuery,
        SourceChange,
    )

WORTH_REBUILDING: Final = 100_000  # documents that nothing finds any more
ERRORS: Final = (sqlite3.Error, UnicodeError, OverflowError)


log = logging.getLogger(__name__)


class IndexFile:
    """The index in one SQLite file. registry: the database that says which threads are managed.

    Writing, searching and looking up have a connection each, so none waits for another. Raises StorageError.
    """

    def __init__(self, path: Path, registry: Path) -> None:
        self._path = path
        self._registry = registry
        self._lock = threading.RLock()  # of the connection that writes
        self._search_lock = threading.Lock()
        self._reader_lock = threading.Lock()  # held for microseconds, also on the event loop
        self._connection: sqlite3.Connection | None = None
        self._searcher: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._known: dict[str, Checkpoint] = {}
        self._version: int | None = None
        self._file_id: tuple[int, int] | None = None
        self._closed = False
        self._damaged = False

    def close(self) -> None:
        """Close all connections; nothing opens them again."""
        self._closed = True
        self._drop_connections()

    def checkpoints(self) -> Mapping[str, Checkpoint]:
        """Return how far every source was read, by path; the mapping of the call before when nothing has changed since.

        An index that is damaged, or holds mostly what nothing finds any more, is built anew: then there are none.
        """
        with self._lock, self._told():
            if self._connection is not None and self._file_id != _file_id(self._path):
                log.warning("%s was deleted or replaced while it was in use", self._path)
                self._drop_connections()
            if self._damaged or self._is_mostly_dead():
                self._rebuild()
            version = self._one("PRAGMA data_version")
            if version != self._version:
                rows = self._db.execute(
                    f"SELECT {CHECKPOINT_COLUMNS} FROM sources WHERE state IS NOT NULL"
                )
                self._known = {row[0]: load_checkpoint(row) for row in rows}
                self._version = version
            return self._known

    def source(self, path: str) -> HistorySource | None:
        """Return what is known of one source."""
        with self._lock, self._told():
            row = self._db.execute(
                f"SELECT {SOURCE_COLUMNS} FROM sources WHERE path = ? AND state IS NOT NULL",
                (path,),
            ).fetchone()
            return None if row is None else load_source(row)

    def apply(self, changes: Iterable[SourceChange]) -> int:
        """Store what was read, in transactions of many documents; what a change says is known at once, or not at all."""
        with self._lock, self._told():
            noted: dict[str, Checkpoint] = {}
            self._version, version = None, self._version
            count = Writer(self._db).apply(_noting(changes, noted))
            self._known = {**self._known, **noted}
            self._version = version
            return count

    def expect(self, paths: Sequence[str]) -> None:
        """Give new sources their places, in the order of age."""
        with self._lock, self._told():
            Writer(self._db).expect(paths)

    def forget(self, paths: Sequence[str]) -> None:
        """Drop sources that are gone."""
        with self._changing():
            Writer(self._db).forget(paths)

    def moved(self, before: str, after: str, *, archived: bool) -> None:
        """Give a source its new path."""
        with self._changing():
            Writer(self._db).moved(before, after, archived=archived)

    def name(self, titles: Mapping[str, str]) -> None:
        """Give threads their titles."""
        with self._lock, self._told():
            Writer(self._db).name(titles.items())

    def sources(self, native_ids: Sequence[str]) -> Mapping[str, HistorySource]:
        """Return what is known of these threads; of one whose turns were reverted, with the path of its newest source."""
        with self._told():
            self._make_sure_of_file()
        with self._reader_lock, self._told():
            if self._reader is None:
                self._reader = layout.open_reader(self._path)
            db = self._reader
            found: dict[str, HistorySource] = {}
            for native_id in dict.fromkeys(native_ids):
                source = _thread_source(db, native_id)
                if source is not None:
                    found[native_id] = source
            return found

    def search(self, query: SearchQuery) -> SearchPage:
        """Return the threads that match, without the text of the hits. Raises ValidationFailed as well."""
        with self._told():
            self._make_sure_of_file()
        with self._search_lock, self._told():
            if self._searcher is None:
                self._searcher = layout.open_reader(self._path)
            if query.managed is not None:
                layout.attach_registry(self._searcher, self._registry)
            return search(self._searcher, query)

    @property
    def _db(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise StorageError(
                    f"the index {self._path} is not open", hint="dispatch up starts the daemon"
                )
            if self._connection is None:
                self._connection = layout.open_index(self._path)
                self._file_id = _file_id(self._path)
                self._version = None
            return self._connection

    def _make_sure_of_file(self) -> None:
        """Open the file if it is not: before the lock of a reader is taken, because a rebuild waits for those."""
        if self._connection is None:
            _ = self._db

    def _is_mostly_dead(self) -> bool:
        live, dead = self._db.execute("SELECT live, dead FROM counts").fetchone()
        return bool(dead > max(WORTH_REBUILDING, live))

    def _drop_connections(self) -> None:
        with self._lock, self._search_lock, self._reader_lock:
            for connection in (self._searcher, self._reader, self._connection):
                if connection is not None:
                    connection.close()
            self._searcher = self._reader = self._connection = None

    def _rebuild(self) -> None:
        self._drop_connections()
        self._connection = layout.rebuild(self._path)
        self._file_id = _file_id(self._path)
        self._damaged, self._version = False, None

    def _one(self, sql: str) -> Any:
        return self._db.execute(sql).fetchone()[0]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock, self._told():
            self._version = None
            yield

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise what SQLite says as StorageError, and remember damage: the next pass builds the index anew."""
        try:
            yield
        except ERRORS as error:
            damaged = isinstance(error, sqlite3.Error) and layout.is_damage(error)
            self._damaged = self._damaged or damaged
            hint = "dispatch sync builds it anew" if damaged else "check the disk, and try again"
            raise self._failure(str(error), hint) from error
        except OSError as error:
            raise self._failure(error.strerror or str(error), "check its folder") from error

    def _failure(self, reason: str, hint: str) -> StorageError:
        return StorageError(
            f"the search index {self._path} failed: {reason}",
            hint=hint,
            details={"path": str(self._path)},
        )


def _file_id(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from another one of the same name; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _noting(
    changes: Iterable[SourceChange], noted: dict[str, Checkpoint]
) -> Iterator[SourceChange]:
    for change in changes:
        noted[change.source.checkpoint.path] = change.source.checkpoint
        yield change


def _thread_source(db: sqlite3.Connection, native_id: str) -> HistorySource | None:
    row = db.execute(
        "SELECT number, facts, title FROM threads WHERE native_id = ?", (native_id,)
    ).fetchone()
    if row is None:
        return None
    number, facts, title = row
    rows = db.execute(
        f"SELECT {SOURCE_COLUMNS} FROM sources WHERE thread = ?", (number,)
    ).fetchall()
    sources = sorted(map(load_source, rows), key=lambda source: source.facts.segment or "")
    newest = sources[-1]
    return replace(
        newest,
        facts=load_facts(facts, title),
        state=worst([source.state for source in sources]),
    )
