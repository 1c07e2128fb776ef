"""Running SQL through Peewee, with the types its own stubs leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    import peewee

Row = tuple[Any, ...]


def execute(
    database: peewee.SqliteDatabase, sql: str, parameters: Sequence[object] = ()
) -> sqlite3.Cursor:
    """Run one statement and return its cursor. Raises Peewee's errors."""
    run: Callable[[str, Sequence[object]], sqlite3.Cursor] = database.execute_sql
    return run(sql, parameters)


def fetch(
    database: peewee.SqliteDatabase, sql: str, parameters: Sequence[object] = ()
) -> list[Row]:
    """Run one query and return all its rows: no cursor stays open, and with it no snapshot."""
    return execute(database, sql, parameters).fetchall()


def driver(database: peewee.SqliteDatabase) -> sqlite3.Connection:
    """Return the connection under a connected database."""
    connection: Callable[[], sqlite3.Connection] = database.connection
    return connection()
