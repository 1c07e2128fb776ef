"""The registry's connections: one that writes, on one thread, and one that reads, on the event loop."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, TypeVar

import peewee
from anyio import CancelScope, CapacityLimiter, to_thread

from dispatch_core.api import StorageError
from dispatch_plugins.registry import files, schema
from dispatch_plugins.registry.faults import DATABASE_ERRORS, is_fatal, storage_error
from dispatch_plugins.registry.queries import Queries, compile_queries
from dispatch_plugins.registry.sql import driver, execute, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dispatch_plugins.registry.sql import Row

BUSY_TIMEOUT: Final = 5.0
# A reader waits for nobody in WAL mode, except for an instant while another process recovers or
# closes the file; it runs on the event loop, which must not stand still for longer than this.
READ_TIMEOUT: Final = 0.25

T = TypeVar("T")

log = logging.getLogger(__name__)


class Transaction:
    """What the work of one write may do: run compiled statements inside the open transaction."""

    __slots__ = ("_database",)

    def __init__(self, database: peewee.SqliteDatabase) -> None:
        self._database = database

    def run(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Execute a statement and return how many rows it changed."""
        return execute(self._database, sql, parameters).rowcount

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Execute a query and return all its rows."""
        return fetch(self._database, sql, parameters)


class Connection:
    """One registry file, opened once. Every database error leaves as a StorageError."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self._path = path
        self._writer = connect_to(path, busy_timeout)
        self._reader = connect_to(path, READ_TIMEOUT)
        self._queries: Queries | None = None
        self._limiter: CapacityLimiter | None = None
        # The limiter orders the writers; the lock holds even if a cancelled event loop leaves a
        # write behind in its thread.
        self._lock = threading.Lock()
        self._failed: StorageError | None = None
        self._file_id: tuple[int, int] | None = None

    @property
    def queries(self) -> Queries:
        """Return the compiled statements. Raises StorageError while the registry is not open."""
        if self._queries is None:
            raise StorageError(
                f"the registry {self._path} is not open", hint="dispatch up starts the daemon"
            )
        return self._queries

    async def open(self) -> None:
        """Open both connections, with the schema of this build. Raises StorageError."""
        self._limiter = CapacityLimiter(1)
        await to_thread.run_sync(self._open, limiter=self._limiter)

    async def close(self) -> None:
        """Fold the write-ahead log into the file and close it; a failure loses nothing and is logged."""
        with CancelScope(shield=True):
            await to_thread.run_sync(self._close, limiter=self._limiter)

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return all rows of a query, as of the last completed write. A point read takes microseconds."""
        try:
            return fetch(self._reader, sql, parameters)
        except DATABASE_ERRORS as error:
            raise storage_error(error, self._path) from error

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run work in one transaction on the writer thread and return its result once it is durable.

        A caller cancelled while it waits for its turn has changed nothing; once work has begun, it
        runs to its end.
        """
        return await to_thread.run_sync(self._write, work, limiter=self._limiter)

    def _write(self, work: Callable[[Transaction], T]) -> T:
        with self._lock:
            if self._failed is not None:
                raise self._failed.with_traceback(None)
            files.require_same_file(self._path, self._file_id)
            try:
                with self._writer.atomic("IMMEDIATE"):
                    return work(Transaction(self._writer))
            except DATABASE_ERRORS as error:
                self._abandon_transaction()
                failure = storage_error(error, self._path)
                if is_fatal(error):
                    self._failed = failure
                raise failure from error

    def _abandon_transaction(self) -> None:
        """Leave no transaction open when rolling back failed as well."""
        if not self._writer.is_closed() and driver(self._writer).in_transaction:
            try:
                self._writer.rollback()
            except peewee.PeeweeException:
                log.exception("the registry could not roll back")

    def _open(self) -> None:
        try:
            self._prepare()
        except (*DATABASE_ERRORS, OSError) as error:
            self._disconnect()
            if isinstance(error, OSError):
                raise files.not_accessible(self._path, error) from error
            raise storage_error(error, self._path) from error
        except StorageError:
            self._disconnect()
            raise

    def _prepare(self) -> None:
        new = files.claim(self._path)
        # Whoever closes the file last folds the log into it: a log that is still there was left by
        # a crash.
        unclean = files.log_left(self._path)
        self._writer.connect()
        schema.prepare(self._writer, self._path, new=new)
        if unclean:
            schema.check(self._writer, self._path)
        self._reader.connect()
        self._reader.pragma("query_only", 1)
        self._queries = compile_queries(self._writer)
        self._file_id = files.file_id(self._path)
        self._failed = None

    def _close(self) -> None:
        with self._lock:
            self._queries = None
            try:
                self._reader.close()
                self._writer.pragma("optimize")
                fetch(self._writer, "PRAGMA wal_checkpoint(TRUNCATE)")
            except DATABASE_ERRORS:
                log.warning(
                    "the registry's log could not be folded in; the next start does it",
                    exc_info=True,
                )
            finally:
                self._disconnect()

    def _disconnect(self) -> None:
        self._queries = None
        for database in (self._reader, self._writer):
            try:
                database.close()
            except DATABASE_ERRORS:
                log.warning("the registry did not close cleanly", exc_info=True)


def connect_to(path: Path, timeout: float) -> peewee.SqliteDatabase:
    """Return an unconnected database that any one thread at a time may use.

    No pragmas here: they would be set on connecting, before it is known whose file it is.
    """
    return peewee.SqliteDatabase(
        str(path),
        timeout=timeout,
        thread_safe=False,
        check_same_thread=False,
        autoconnect=False,
    )
