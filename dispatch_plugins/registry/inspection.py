"""A look at the registry's files that changes none of them, whatever state they are in."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import peewee

from dispatch_core.api import RegistryReport, StorageError
from dispatch_plugins.registry import files, leftovers, schema
from dispatch_plugins.registry.faults import DATABASE_ERRORS, storage_error
from dispatch_plugins.registry.models import tables
from dispatch_plugins.registry.queries import compile_queries
from dispatch_plugins.registry.rows import thread_of, trigger_of
from dispatch_plugins.registry.sql import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT: Final = 5.0  # seconds for a lock that another process holds
FINDINGS: Final = 10  # of quick_check: the first ones say most
NO_LIMIT: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileReport(RegistryReport):
    """A RegistryReport of a registry in files.

    id: of the registry. file_bytes, log_bytes, index_bytes: sizes of the database, of its write-ahead log and of the search
    index, None when there is none. notes: what is worth knowing and not wrong.
    """

    id: str | None
    file_bytes: int | None
    log_bytes: int | None
    index_bytes: int | None
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Look:
    """What has been seen so far."""

    schema: int | None = None
    id: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def inspect(path: Path, index: Path) -> FileReport:
    """Return what is known of the registry at path and of the search index beside it. Raises nothing for bad data."""
    idle = not files.in_use(path)
    look = _look(path)
    if idle and look.problems and files.in_use(path):
        # Somebody began to write while it was read as a file that nobody writes.
        look = _look(path)
    _look_at_index(index, look)
    size = files.size_of(path)
    return FileReport(
        path=str(path),
        exists=size is not None,
        schema=look.schema,
        supported=schema.SCHEMA_VERSION,
        problems=tuple(look.problems),
        counts=look.counts,
        id=look.id,
        file_bytes=size,
        log_bytes=files.size_of(files.log_of(path)),
        index_bytes=files.size_of(index),
        notes=tuple(look.notes),
    )


@contextmanager
def read_only(path: Path, *, locked: bool = False) -> Iterator[peewee.SqliteDatabase]:
    """Yield the database at path, connected so that it cannot be written. Raises StorageError for what SQLite finds wrong.

    locked: what is read is one state of it, also if somebody begins to write meanwhile.
    """
    uri = f"{path.absolute().as_uri()}?{_mode(path, locked=locked)}"
    database = peewee.SqliteDatabase(uri, uri=True, timeout=TIMEOUT, thread_safe=False)
    try:
        with closing(database):
            database.connect()
            database.pragma("query_only", 1)
            yield database
    except DATABASE_ERRORS as error:
        raise storage_error(error, path) from error
    except OSError as error:
        raise files.not_accessible(path, error) from error


def _mode(path: Path, *, locked: bool) -> str:
    if files.in_use(path):
        return "mode=ro"
    if locked and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return "mode=rw"  # locks need side files, which SQLite makes, and removes, only so
    # As an immutable file: SQLite makes its side files then neither in a folder that may be read only,
    # nor for us to leave behind.
    return "immutable=1"


def _look(path: Path) -> _Look:
    look = _Look()
    try:
        if not files.size_of(path):
            _look_at_nothing(path, look)
            return look
        leftovers.require_whole(path)
        with read_only(path) as database:
            _look_at_schema(database, path, look)
            _look_at_rows(database, path, look)
    except StorageError as error:
        look.problems.append(_sentence(error))
    except OSError as error:
        look.problems.append(_sentence(files.not_accessible(path, error)))
    return look


def _look_at_nothing(path: Path, look: _Look) -> None:
    files.refuse_to_forget(path)
    if path.exists():
        look.notes.append(
            "the file is empty; the next start of the daemon makes a new registry in it"
        )


def _look_at_schema(database: peewee.SqliteDatabase, path: Path, look: _Look) -> None:
    look.schema = schema.user_version(database)
    schema.stored_version(database, path, schema.SCHEMA_VERSION)
    if not look.schema:
        if files.read_identity(path) is not None:
            raise schema.not_ours(path, "it has no tables any more")
        look.schema = None
        look.notes.append("it has no tables; the next start of the daemon makes them")
    elif look.schema < schema.SCHEMA_VERSION:
        look.notes.append(
            f"schema {look.schema} is older than this build's {schema.SCHEMA_VERSION}: dispatch registry migrate, "
            "or the next start of the daemon, brings it up to date"
        )


def _look_at_rows(database: peewee.SqliteDatabase, path: Path, look: _Look) -> None:
    found = fetch(database, f"PRAGMA quick_check({FINDINGS})")
    damage = [str(row[0]) for row in found if row[0] != "ok"]
    if damage:
        look.problems.append(_sentence(schema.damaged(path, damage)))
    dangling = fetch(database, "PRAGMA foreign_key_check")
    if dangling:
        named = ", ".join(sorted({str(row[0]) for row in dangling}))
        look.problems.append(f"{len(dangling)} rows in {named} refer to rows that are not there")
    there = set(database.get_tables())
    for table in tables(database):
        name: str = table._meta.table_name
        if name in there and name != "registry":
            look.counts[name] = table.select().count()
    if "registry" in there:
        _look_at_identity(database, path, look)
    if look.schema == schema.SCHEMA_VERSION:
        _look_at_records(database, look)


def _look_at_identity(database: peewee.SqliteDatabase, path: Path, look: _Look) -> None:
    identity = files.read_identity(path)
    stored = schema.registry_id(database)
    look.id = stored
    name = path.with_suffix(".id").name
    if identity is None or identity.id is None:
        missing = "is missing" if identity is None else "cannot be read"
        look.notes.append(f"{name} {missing}; the next start of the daemon writes it again")
    elif identity.id != stored:
        look.problems.append(_sentence(schema.wrong_registry(path, stored, identity.id)))


def _look_at_records(database: peewee.SqliteDatabase, look: _Look) -> None:
    """Decode what the stores would decode: pages can be whole and rows still make no sense."""
    queries = compile_queries(database)
    readers = (
        (thread_of, queries.threads.page_with_archived, ("", NO_LIMIT)),
        (trigger_of, queries.triggers.all, ()),
    )
    for decode, sql, values in readers:
        for row in fetch(database, sql, values):
            try:
                decode(row)
            except StorageError as error:
                look.problems.append(error.message)


def _look_at_index(index: Path, look: _Look) -> None:
    """The index can be built again from the histories, so nothing about it is a problem."""
    if not files.size_of(index):
        return
    try:
        with read_only(index) as database:
            whole = fetch(database, "PRAGMA quick_check(1)")[0][0] == "ok"
    except StorageError:
        whole = False
    if not whole:
        look.notes.append(f"the search index {index.name} is damaged; it is built anew")


def _sentence(error: StorageError) -> str:
    return f"{error.message}; {error.hint}" if error.hint else error.message
