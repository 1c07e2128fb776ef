"""Threads and the latest turn of each, in the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import StorageError, ThreadNotFound, ThreadRecord, ThreadStatus
from dispatch_plugins.registry import queries
from dispatch_plugins.registry.rows import column_value, thread_of, turn_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatch_core.api import LookupField, TurnRecord
    from dispatch_plugins.registry.connection import Connection, Transaction
    from dispatch_plugins.registry.queries import ThreadQueries

_CHANGEABLE: Final = frozenset(queries.THREAD) - {"key", "ref", "created_at"}


class PeeweeThreads:
    """The ThreadStore of the registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _queries(self) -> ThreadQueries:
        return self._connection.queries.threads

    async def add(self, thread: ThreadRecord, refs: Sequence[str]) -> ThreadRecord:
        """Store a new thread under the first free ref, or return the one that has its native id already."""
        sql = self._queries
        values = {name: column_value(name, getattr(thread, name)) for name in queries.THREAD}
        turn = None if thread.turn is None else turn_values(thread.turn)

        def work(transaction: Transaction) -> ThreadRecord:
            known = transaction.rows(sql.native, (thread.provider, thread.native_id))
            if known:
                return thread_of(known[0])
            values["ref"] = _first_free(transaction, sql, refs)
            transaction.run(sql.insert, tuple(values.values()))
            if turn is not None:
                transaction.run(sql.put_turn, (thread.key, *turn))
            return thread_of(transaction.rows(sql.get, (thread.key,))[0])

        return await self._connection.write(work)

    async def get(self, key: str) -> ThreadRecord | None:
        """Return the thread with this key, or None."""
        rows = self._connection.read(self._queries.get, (key,))
        return thread_of(rows[0]) if rows else None

    async def find(self, by: LookupField, value: str) -> tuple[ThreadRecord, ...]:
        """Return the threads that match, oldest first."""
        values = {"title": (value, value, f"@{value}"), "title_like": (value, value)}.get(
            by, (value,)
        )
        rows = self._connection.read(self._queries.by_field[by], values)
        return tuple(map(thread_of, rows))

    async def list(
        self, *, archived: bool = False, limit: int = 1000, after: str | None = None
    ) -> tuple[ThreadRecord, ...]:
        """Return a page of threads in order of key."""
        # A negative LIMIT is none at all; an empty text sorts before every key.
        start, count = after or "", max(limit, 0)
        if archived:
            rows = self._connection.read(self._queries.page_with_archived, (start, count))
        else:
            status = ThreadStatus.ARCHIVED.value
            rows = self._connection.read(self._queries.page, (start, status, count))
        return tuple(map(thread_of, rows))

    async def update(self, key: str, **changes: Any) -> ThreadRecord:
        """Change the named fields and return the new record."""
        return await self._change(key, None, changes)

    async def set_turn(self, key: str, turn: TurnRecord | None, **changes: Any) -> ThreadRecord:
        """Replace the latest turn, or forget it, and change the named fields, in one transaction."""
        sql = self._queries
        if turn is None:
            return await self._change(key, (sql.drop_turn, (key,)), changes)
        return await self._change(key, (sql.put_turn, (key, *turn_values(turn))), changes)

    async def _change(
        self, key: str, besides: tuple[str, tuple[Any, ...]] | None, changes: Mapping[str, Any]
    ) -> ThreadRecord:
        """Change the named fields and, in the same transaction, run a statement besides."""
        sql = self._queries
        columns = _checked(changes)
        update = sql.update(columns)
        values = (*(column_value(name, changes[name]) for name in columns), key)

        def work(transaction: Transaction) -> ThreadRecord:
            if transaction.run(update, values) == 0:
                raise ThreadNotFound(key)
            if besides is not None:
                transaction.run(*besides)
            return thread_of(transaction.rows(sql.get, (key,))[0])

        return await self._connection.write(work)


def _first_free(transaction: Transaction, sql: ThreadQueries, refs: Sequence[str]) -> str:
    for ref in refs:
        if not transaction.rows(sql.refs, (ref,)):
            return ref
    raise StorageError(
        f"all {len(refs)} refs for this thread are taken",
        hint="use the thread's full id instead of a ref",
    )


def _checked(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns to change, in a stable order. Raises TypeError for a field that cannot be changed."""
    wrong = sorted(changes.keys() - _CHANGEABLE)
    if wrong:
        raise TypeError(f"these fields of a thread cannot be changed: {', '.join(wrong)}")
    if "updated_at" not in changes:
        raise TypeError("updated_at must be among the changes")
    return tuple(name for name in queries.THREAD if name in changes)
