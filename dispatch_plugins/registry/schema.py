"""Whose database a file is, and how it becomes the schema of this build.

``application_id`` marks the file as ours; ``user_version`` counts the migrations it has had. Both
are set last, in the same transaction as the migrations, so that a crash leaves the old schema or
the new one and nothing between.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from dispatch_core.api import StorageError
from dispatch_plugins.registry import files
from dispatch_plugins.registry.faults import DATABASE_ERRORS, is_explained, storage_error
from dispatch_plugins.registry.files import Identity
from dispatch_plugins.registry.sql import driver, fetch

if TYPE_CHECKING:
    import peewee

APPLICATION_ID: Final = 0x64737063
SCHEMA_VERSION: Final = 4
MIGRATIONS: Final = Path(__file__).parent / "migrations"
HISTORY_TABLE: Final = "migrations"
LOG_LIMIT: Final = 64 << 20  # bytes of the write-ahead log

# FULL: an acknowledged write survives a power cut; NORMAL loses some in WAL mode.
_PRAGMAS: Final = {
    "synchronous": "FULL",
    "foreign_keys": 1,
    # What a log that grew behind a long read keeps on the disk afterwards.
    "journal_size_limit": LOG_LIMIT,
}


class Schema(NamedTuple):
    """A folder of numbered migrations, and the number of the last one."""

    migrations: Path
    version: int


CURRENT: Final = Schema(MIGRATIONS, SCHEMA_VERSION)


def prepare(
    database: peewee.SqliteDatabase,
    path: Path,
    *,
    new: bool,
    target: Schema = CURRENT,
    backup: bool = True,
) -> Path | None:
    """Bring the connected database to the schema of this build and set what every write relies on.

    Returns the copy that was made before an older schema was changed, None if none was. Nothing is written to a file that is not
    ours. new: the file was empty. backup: whether to make a copy. Raises StorageError.
    """
    version = stored_version(database, path, target.version)
    identity = files.read_identity(path)
    if version == 0 and not new and identity is not None:
        raise not_ours(path, "it has no tables any more")
    _configure(database, path)
    copy = None
    if version < target.version:
        if version:
            # A copy of damaged pages is no way back, and a migration reads them all.
            check(database, path)
            copy = files.back_up(driver(database), path, version) if backup else None
        upgrade(database, path, target)
    _agree_on_identity(database, path, identity, target.version)
    return copy


def stored_version(database: peewee.SqliteDatabase, path: Path, known: int) -> int:
    """Return the schema version of the file, 0 for an empty one.

    Raises StorageError if it is newer than known or not ours.
    """
    application = _pragma(database, "application_id")
    version = _pragma(database, "user_version")
    if application == APPLICATION_ID:
        if version < 0:
            raise not_ours(path, f"no dispatch has ever made a schema {version}")
        if version > known:
            raise StorageError(
                f"the registry {path} has schema {version}, made by a newer dispatch; "
                f"this one knows schema {known}",
                hint="pip install --upgrade codex-dispatch; "
                f"or dispatch registry restore {path}.bak-{known}-*",
                details={"path": str(path), "schema": version, "known": known},
            )
        return version
    if application or version or database.get_tables():
        raise not_ours(path, "it belongs to another application")
    return 0


def upgrade(
    database: peewee.SqliteDatabase,
    path: Path,
    target: Schema = CURRENT,
) -> None:
    """Apply the migrations of target that are missing, all in one transaction. Raises StorageError."""
    # Imported here for start-up cost: a registry that is up to date needs no migrations.
    from playhouse.migrations import MigrationError, Runner  # noqa: PLC0415

    # Rebuilding a table would cascade its deletes, and this pragma does nothing inside a
    # transaction.
    database.pragma("foreign_keys", 0)
    try:
        with database.atomic("IMMEDIATE"):
            runner: Any = Runner
            runner(database, str(target.migrations), table_name=HISTORY_TABLE).up()
            if fetch(database, "PRAGMA foreign_key_check"):
                raise MigrationError("rows would refer to rows that are not there")
            database.pragma("application_id", APPLICATION_ID)
            database.pragma("user_version", target.version)
    except (MigrationError, *DATABASE_ERRORS) as error:
        if is_explained(error):
            raise storage_error(error, path) from error
        raise StorageError(
            f"the registry {path} could not be brought to schema {target.version}: {error}",
            hint=f"it is unchanged; reinstall codex-dispatch, and keep {path.name}.bak-* until that works",
            details={"path": str(path)},
        ) from error
    finally:
        database.pragma("foreign_keys", 1)


def check(database: peewee.SqliteDatabase, path: Path) -> None:
    """Raise StorageError if the pages of the database contradict each other."""
    findings = [str(row[0]) for row in fetch(database, "PRAGMA quick_check(1)")]
    if findings != ["ok"]:
        raise damaged(path, findings)


def user_version(database: peewee.SqliteDatabase) -> int:
    """Return the number that counts the migrations of the file, whosever it is."""
    return _pragma(database, "user_version")


def registry_id(database: peewee.SqliteDatabase) -> str | None:
    """Return the id that the registry was given when it was made."""
    rows = fetch(database, 'SELECT "id" FROM "registry"')
    return str(rows[0][0]) if rows else None


def damaged(path: Path, findings: list[str]) -> StorageError:
    """Return the StorageError for pages that contradict each other. findings: what quick_check says."""
    error = sqlite3.DatabaseError(findings[0] if findings else "quick_check said nothing")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return storage_error(error, path)


def wrong_registry(path: Path, stored: str | None, expected: str) -> StorageError:
    """Return the StorageError for a registry that is not the one that belongs here."""
    identity = path.with_suffix(".id")
    return StorageError(
        f"the registry {path} is not the one that {identity.name} names",
        hint=f"put the right {path.name} back, or dispatch registry restore; if this one is meant, delete {identity}",
        details={"path": str(path), "id": stored, "expected": expected},
    )


def not_ours(path: Path, reason: str) -> StorageError:
    """Return the StorageError for a file that is not a registry."""
    return StorageError(
        f"{path} is not dispatch's registry: {reason}",
        hint="if there has been a registry: dispatch down, then dispatch registry restore; else move the file away",
        details={"path": str(path)},
    )


def _configure(database: peewee.SqliteDatabase, path: Path) -> None:
    mode = database.pragma("journal_mode", "WAL")
    if mode != "wal":
        raise StorageError(
            f"the registry {path} cannot keep a write-ahead log (journal mode {mode})",
            hint="put DISPATCH_HOME on a local disk; network file systems cannot hold a registry",
            details={"path": str(path)},
        )
    for name, value in _PRAGMAS.items():
        database.pragma(name, value)


def _agree_on_identity(
    database: peewee.SqliteDatabase, path: Path, identity: Identity | None, version: int
) -> None:
    """Keep the identity of the registry beside it. Raises StorageError if another one belongs here."""
    stored = Identity(registry_id(database), version)
    if identity is not None and identity.id is not None and identity.id != stored.id:
        raise wrong_registry(path, stored.id, identity.id)
    if identity != stored:
        files.write_identity(path, stored)


def _pragma(database: peewee.SqliteDatabase, name: str) -> int:
    value: Any = database.pragma(name)
    return int(value)
