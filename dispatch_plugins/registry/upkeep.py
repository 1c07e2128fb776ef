"""Copying the registry, and bringing it to the schema of this build, without a daemon."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from dispatch_core.api import MigrationReport, StorageError
from dispatch_plugins.registry import files, schema
from dispatch_plugins.registry.connection import connect_to
from dispatch_plugins.registry.faults import DATABASE_ERRORS, storage_error
from dispatch_plugins.registry.inspection import read_only
from dispatch_plugins.registry.sql import driver

if TYPE_CHECKING:
    from pathlib import Path


def back_up(path: Path, target: Path | None) -> Path:
    """Write a complete copy of the registry at path and return the copy's path; target may be a folder.

    Never overwrites a file. Raises StorageError, also for a registry that is damaged: its copy would be no better.
    """
    if not files.size_of(path):
        files.refuse_to_forget(path)
        raise StorageError(
            f"there is no registry at {path} yet, so there is nothing to copy",
            hint="dispatch up makes one",
            details={"path": str(path)},
        )
    with read_only(path, locked=True) as database:
        schema.check(database, path)
        copy = files.backup_path(path, schema.user_version(database))
        if target is not None:
            copy = target / copy.name if target.is_dir() else target
        try:
            files.copy_to(driver(database), copy)
        except OSError as error:
            raise _not_written(copy, error) from error
        return copy


def migrate(path: Path, *, backup: bool, busy_timeout: float) -> MigrationReport:
    """Bring the registry at path to the schema of this build, in one transaction. Raises StorageError.

    A registry of this schema, and one that has no tables yet, is left as it is.
    """
    known = schema.SCHEMA_VERSION
    if not files.size_of(path):
        files.refuse_to_forget(path)
        return MigrationReport(path=str(path), before=0, after=0, backup=None)
    with read_only(path) as database:
        before = schema.stored_version(database, path, known)
    if before in (0, known):
        return MigrationReport(path=str(path), before=before, after=before, backup=None)
    copy = _prepare(path, backup=backup, busy_timeout=busy_timeout)
    kept = None if copy is None else str(copy)
    return MigrationReport(path=str(path), before=before, after=known, backup=kept)


def _prepare(path: Path, *, backup: bool, busy_timeout: float) -> Path | None:
    database = connect_to(path, busy_timeout)
    try:
        with closing(database):
            database.connect()
            return schema.prepare(database, path, new=False, backup=backup)
    except DATABASE_ERRORS as error:
        raise storage_error(error, path) from error
    except OSError as error:
        raise files.not_accessible(path, error) from error


def _not_written(copy: Path, error: OSError) -> StorageError:
    if isinstance(error, FileExistsError):
        reason, hint = (
            "a backup overwrites nothing, and it exists",
            "give another name, or a folder",
        )
    else:
        reason = error.strerror or str(error)
        hint = "check that its folder exists, has space left and may be written by your user"
    return StorageError(
        f"the backup {copy} cannot be written: {reason}", hint=hint, details={"path": str(copy)}
    )
