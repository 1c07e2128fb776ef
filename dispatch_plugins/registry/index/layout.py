"""The tables of the index, and how the file becomes one of this build: whatever else is there is dropped.

A document is a row of ``docs`` and a row of the full-text table with the same id; the text itself is not kept. The upper bits of
the id are the source, and sources are numbered by age as far as possible: the newest documents have the highest ids, those of a
source are one range, in the order of the file, and numbers lie close together, which makes the index small.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION_ID: Final = 0x64737069
# Counted up with every change of what is stored, also of how text is cut into words.
LAYOUT: Final = 1

SOURCE_SHIFT: Final = 20  # bits of a document within its source
TAIL: Final = 1 << 19  # where documents are counted from behind a gap
# Bytes of terms that are kept in memory before they are written. Measured from 2 to 64 MiB: more than this is not faster.
HASH_SIZE: Final = 16 * 1024 * 1024
BUSY_TIMEOUT: Final = 10.0

_STATEMENTS: Final = (
    """CREATE TABLE threads (
        number INTEGER PRIMARY KEY,
        native_id TEXT NOT NULL UNIQUE,
        cwd TEXT,
        created_at INTEGER NOT NULL DEFAULT 0,
        updated_at INTEGER NOT NULL DEFAULT 0,
        archived INTEGER NOT NULL,
        title TEXT,
        facts TEXT NOT NULL)""",
    "CREATE INDEX thread_updated_at ON threads (updated_at, number)",
    "CREATE INDEX thread_created_at ON threads (created_at, number)",
    """CREATE TABLE sources (
        id INTEGER PRIMARY KEY,
        thread INTEGER,
        path TEXT UNIQUE,
        device INTEGER, inode INTEGER, size INTEGER, mtime_ns INTEGER, offset INTEGER,
        gap_start INTEGER, gap_end INTEGER, lines INTEGER, malformed INTEGER,
        state TEXT, error TEXT, synced_at TEXT, facts TEXT,
        split INTEGER,
        next_head INTEGER NOT NULL,
        next_tail INTEGER NOT NULL,
        last_id INTEGER NOT NULL)""",
    "CREATE INDEX source_thread ON sources (thread)",
    "CREATE TABLE docs (id INTEGER PRIMARY KEY, offset INTEGER NOT NULL)",
    "CREATE TABLE counts (live INTEGER NOT NULL, dead INTEGER NOT NULL)",
    "INSERT INTO counts VALUES (0, 0)",
    """CREATE VIRTUAL TABLE words USING fts5(
        text, content='', tokenize="unicode61 remove_diacritics 2")""",
)

_TABLES: Final = frozenset({"threads", "sources", "docs", "counts", "words"})

log = logging.getLogger(__name__)


def open_index(path: Path) -> sqlite3.Connection:
    """Return a connection that writes to the index at path; an empty one if there was none of this build.

    Raises sqlite3.Error or OSError if there can be none.
    """
    if not path.exists():
        return rebuild(path)
    try:
        connection = _connect(path)
        if _is_ours(connection):
            return connection
        connection.close()
        log.warning("%s is not an index of this build: it is built anew", path)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        log.warning("%s is damaged (%s): it is built anew", path, error)
    return rebuild(path)


def rebuild(path: Path) -> sqlite3.Connection:
    """Return a connection to a new, empty index in place of whatever was at path."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = _connect(path)
    connection.execute("BEGIN IMMEDIATE")
    for statement in _STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO words (words, rank) VALUES ('hashsize', ?)", (HASH_SIZE,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {LAYOUT}")
    connection.execute("COMMIT")
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        timeout=BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
    )


def attach_registry(connection: sqlite3.Connection, registry: Path) -> None:
    """Let a reader read the registry as well, under this name."""
    names = [row[1] for row in connection.execute("PRAGMA database_list")]
    if "registry" not in names:
        uri = f"{registry.absolute().as_uri()}?mode=ro"
        connection.execute("ATTACH DATABASE ? AS registry", (uri,))


def is_damage(error: sqlite3.Error) -> bool:
    """Say whether an error means that the file must be built anew."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        # It can be built again: neither synced with every change nor wiped where rows are deleted.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = OFF").fetchall()
        connection.execute("PRAGMA journal_size_limit = 16777216").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def _is_ours(connection: sqlite3.Connection) -> bool:
    try:
        with closing(connection.execute("PRAGMA application_id")) as cursor:
            application = cursor.fetchone()[0]
        with closing(connection.execute("PRAGMA user_version")) as cursor:
            layout = cursor.fetchone()[0]
        if (application, layout) != (APPLICATION_ID, LAYOUT):
            return False
        connection.execute("SELECT rowid FROM words LIMIT 0").fetchall()
        names = connection.execute("SELECT name FROM sqlite_master").fetchall()
        return {name for (name,) in names} >= _TABLES
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
            connection.close()
            raise
        return False  # a table is not there
