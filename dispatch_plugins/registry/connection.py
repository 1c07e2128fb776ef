"""The registry's connections: one that writes, one batch at a time, and one that reads, on the event loop."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, TypeVar

import peewee
from anyio import CancelScope, CapacityLimiter, to_thread

from dispatch_core.api import StorageError
from dispatch_plugins.registry import fence, files, leftovers, mounts, schema
from dispatch_plugins.registry.ballast import Ballast
from dispatch_plugins.registry.faults import DATABASE_ERRORS, is_fatal, is_full, storage_error
from dispatch_plugins.registry.group import GroupCommit
from dispatch_plugins.registry.queries import Queries, compile_queries
from dispatch_plugins.registry.sql import driver, execute, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dispatch_plugins.registry.files import Opened
    from dispatch_plugins.registry.group import Entry
    from dispatch_plugins.registry.sql import Row

BUSY_TIMEOUT: Final = 5.0
# A reader waits for nobody in WAL mode, except for an instant while another process recovers or
# closes the file; it runs on the event loop, which must not stand still for longer than this.
READ_TIMEOUT: Final = 0.25

T = TypeVar("T")

log = logging.getLogger(__name__)


class Transaction:
    """What the work of one write may do: run compiled statements inside the open transaction.

    Work may be run a second time after its first run was undone, so it has no other effect than this and what it returns.
    """

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
        self._busy_timeout = busy_timeout
        self._ballast = Ballast(path)
        self._queries: Queries | None = None
        self._limiter: CapacityLimiter | None = None
        self._group: GroupCommit[Transaction] | None = None
        # The group orders the writers; the lock holds even if a cancelled event loop leaves a write
        # behind in its thread.
        self._lock = threading.Lock()
        self._failed: StorageError | None = None
        self._opened: Opened | None = None
        self._generation = 0
        self._log_is_stuck = False

    @property
    def queries(self) -> Queries:
        """Return the compiled statements. Raises StorageError while the registry is not open."""
        if self._queries is None:
            raise self._not_open()
        return self._queries

    @property
    def full(self) -> bool:
        """Whether the disk has no room for anything new; the space in reserve is for what was accepted."""
        return self._ballast.full

    @property
    def fault(self) -> StorageError | None:
        """Why this process writes nothing more; None while it may."""
        return self._failed

    async def open(self) -> None:
        """Open both connections, with the schema of this build. Raises StorageError."""
        self._limiter = CapacityLimiter(1)
        await to_thread.run_sync(self._open, limiter=self._limiter)
        self._group = GroupCommit(self._commit)

    async def close(self) -> None:
        """Fold the write-ahead log into the file and close it; a failure loses nothing and is logged."""
        group, self._group = self._group, None
        with CancelScope(shield=True):
            if group is not None:
                await to_thread.run_sync(group.close, limiter=self._limiter)
            await to_thread.run_sync(self._close, limiter=self._limiter)

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return all rows of a query, as of the last completed write. A point read takes microseconds."""
        try:
            return fetch(self._reader, sql, parameters)
        except DATABASE_ERRORS as error:
            raise storage_error(error, self._path) from error

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run work in a transaction on the writer thread and return its result once it is durable.

        What is asked for while another write is on its way is committed together, in order, each piece undone alone if it
        raises. A caller cancelled while it waits for its turn has changed nothing; once work has begun, it runs to its end.
        """
        if self._group is None:
            raise self._not_open()
        return await self._group.run(work)

    def _commit(self, batch: Sequence[Entry[Transaction]]) -> None:
        """Commit a batch; leave a result or an error in each entry."""
        with self._lock:
            try:
                self._require_writable()
                self._ballast.hold()
                try:
                    self._transact(batch)
                except DATABASE_ERRORS as error:
                    if not (is_full(error) and self._ballast.release()):
                        raise
                    self._transact(batch)
            except DATABASE_ERRORS as error:
                if is_fatal(error):
                    self._failed = storage_error(error, self._path)
                for entry in batch:
                    entry.error = storage_error(error, self._path)
                    entry.error.__cause__ = error
            except StorageError as error:
                for entry in batch:
                    entry.error = _again(error)

    def _require_writable(self) -> None:
        """Raise StorageError if a write could be lost, or if the log has failed to take one."""
        if self._failed is not None:
            raise self._failed
        if self._opened is None:
            raise self._not_open()
        if files.require_same_files(self._path, self._opened) > schema.LOG_LIMIT:
            self._fold_log()

    def _transact(self, batch: Sequence[Entry[Transaction]]) -> None:
        """Run a batch in one transaction. Raises what concerns all of it; nothing was changed then."""
        self._run("BEGIN IMMEDIATE")
        try:
            try:
                fence.check(self._writer, self._path, self._generation)
            except StorageError as error:
                self._failed = error
                raise
            transaction, alone = Transaction(self._writer), len(batch) == 1
            for entry in batch:
                entry.error = None
                self._attempt(entry, transaction, alone=alone)
            if driver(self._writer).in_transaction:
                self._run("COMMIT")
        finally:
            self._abandon_transaction()

    def _attempt(self, entry: Entry[Transaction], transaction: Transaction, *, alone: bool) -> None:
        """Run one piece of work; undo it, and it alone, if it raises."""
        if not alone:
            self._run("SAVEPOINT work")
        try:
            entry.result = entry.work(transaction)
        except BaseException as error:
            if self._concerns_all(error):
                raise
            entry.error = error
            if isinstance(error, DATABASE_ERRORS):
                entry.error = storage_error(error, self._path)
                entry.error.__cause__ = error
            self._run("ROLLBACK" if alone else "ROLLBACK TO work")
        if not alone:
            self._run("RELEASE work")

    def _concerns_all(self, error: BaseException) -> bool:
        """Say whether an error of one piece of work is none of its own doing, or has undone the others as well."""
        if not driver(self._writer).in_transaction:
            return True
        return isinstance(error, DATABASE_ERRORS) and (is_full(error) or is_fatal(error))

    def _run(self, sql: str) -> None:
        driver(self._writer).execute(sql)

    def _abandon_transaction(self) -> None:
        """Leave no transaction open, whatever has happened."""
        if not self._writer.is_closed() and driver(self._writer).in_transaction:
            try:
                self._writer.rollback()
            except peewee.PeeweeException:
                log.exception("the registry could not roll back")

    def _fold_log(self) -> None:
        """Empty the log, unless somebody reads what is in it: that is said, and tried again."""
        self._writer.pragma("busy_timeout", 0)
        try:
            ((busy, _, _),) = fetch(self._writer, "PRAGMA wal_checkpoint(TRUNCATE)")
        except DATABASE_ERRORS as error:
            if not is_full(error):
                raise
            return  # there is no room in the file for what the log holds; the write will tell
        finally:
            self._writer.pragma("busy_timeout", round(self._busy_timeout * 1000))
        if busy and not self._log_is_stuck:
            log.warning(
                "the log of the registry %s grows: another process has been reading it for long",
                self._path,
            )
        self._log_is_stuck = bool(busy)

    def _open(self) -> None:
        try:
            try:
                self._prepare()
            except (*DATABASE_ERRORS, OSError) as error:
                if not (is_full(error) and self._ballast.release()):
                    raise
                self._disconnect()
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
        mounts.require_local(self._path)
        new = files.claim(self._path)
        # Whoever closes the file last folds the log into it: a log that is still there was left by
        # a crash.
        leftovers.require_whole(self._path)
        if files.log_left(self._path):
            _check_after_crash(self._path)
        self._writer.connect()
        schema.prepare(self._writer, self._path, new=new)
        self._generation = fence.raise_generation(self._writer)
        self._reader.connect()
        self._reader.pragma("query_only", 1)
        # It opens the log now: later that could be gone, and reads are to go on even then.
        fetch(self._reader, 'SELECT count(*) FROM "registry"')
        self._queries = compile_queries(self._writer)
        self._opened = files.opened(self._path)
        self._failed = None
        self._ballast.hold()

    def _close(self) -> None:
        with self._lock:
            self._queries, self._opened = None, None
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

    def _not_open(self) -> StorageError:
        return StorageError(
            f"the registry {self._path} is not open", hint="dispatch up starts the daemon"
        )


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


def _check_after_crash(path: Path) -> None:
    """Raise StorageError if the pages contradict each other."""
    from dispatch_plugins.registry.inspection import read_only  # noqa: PLC0415 -- a start without a crash needs none of it

    # Read only: closed after a refusal, it does not fold the log into pages that are damaged.
    with read_only(path) as database:
        schema.check(database, path)


def _again(error: StorageError) -> StorageError:
    """Return the error anew: each caller raises one of its own."""
    copy = type(error)(error.message, hint=error.hint, details=error.details)
    copy.__cause__ = error.__cause__
    return copy
