"""Putting a backup in the place of the registry, with what was there kept aside. No daemon may run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import DeliveryState, StorageError
from dispatch_plugins.registry import files, schema
from dispatch_plugins.registry.connection import BUSY_TIMEOUT, connect_to
from dispatch_plugins.registry.faults import DATABASE_ERRORS, storage_error
from dispatch_plugins.registry.inspection import read_only
from dispatch_plugins.registry.models import tables
from dispatch_plugins.registry.sql import driver, fetch

if TYPE_CHECKING:
    from collections.abc import Mapping

    import peewee

RESTORED: Final = (
    "the registry was restored from a backup in which it had not ended: it may have been sent since"
)
OPEN: Final = [
    state.value for state in DeliveryState if state is DeliveryState.QUEUED or state.in_flight
]
SIDE_FILES: Final = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """What a restore does, found out without changing anything.

    path: of the registry. backup: what is put there, of this schema and with these rows by noun. made: when the backup was last
    changed. aside: the new names of the files that are there now, by their names. skipped: newer backups that are no good, with
    the reason.
    """

    path: str
    backup: str
    schema: int
    made: datetime
    counts: Mapping[str, int]
    aside: Mapping[str, str]
    skipped: Mapping[str, str]


def plan(path: Path, source: Path | None) -> RestorePlan:
    """Return what a restore from source would do; without a source it is the newest good backup beside the registry.

    Raises StorageError if the backup is damaged, of a newer schema, or of another registry, and if there is none.
    """
    skipped: dict[str, str] = {}
    for candidate in _candidates(path, source):
        try:
            version, counts = _examined(path, candidate)
        except StorageError as error:
            if source is not None:
                raise
            skipped[str(candidate)] = error.message
            continue
        return RestorePlan(
            path=str(path),
            backup=str(candidate),
            schema=version,
            made=datetime.fromtimestamp(candidate.stat().st_mtime, UTC),
            counts=counts,
            aside=_aside(path),
            skipped=skipped,
        )
    raise StorageError(
        f"there is no good backup of the registry beside {path}",
        hint="dispatch registry restore FILE takes one from elsewhere; to start anew, delete "
        f"{path.name}, {path.name}-wal, {path.name}-shm and {path.with_suffix('.id').name}",
        details={"path": str(path), "skipped": skipped},
    )


def restore(path: Path, chosen: RestorePlan) -> None:
    """Do what the plan says: all of it, or the registry is as it was or missing, which no daemon takes for a first start.

    Raises StorageError. The backup itself stays where it is.
    """
    draft = path.with_name(f"{path.name}.restored")
    try:
        draft.unlink(missing_ok=True)
        with read_only(Path(chosen.backup)) as database:
            files.copy_to(driver(database), draft)
        _examined(path, draft)
        _doubt_what_waits(draft)
        # The database first: were its log the first to go, what is in that would be forgotten after a crash.
        for old, new in chosen.aside.items():
            path.with_name(old).rename(path.with_name(new))
        files.put_in_place(draft, path)
    except OSError as error:
        raise files.not_accessible(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def _doubt_what_waits(draft: Path) -> None:
    """Leave it to a person what became since of a message that had not ended when the backup was made."""
    database = connect_to(draft, BUSY_TIMEOUT)
    database.connect()
    try:
        if "deliveries" in database.get_tables():
            delivery: Any = tables(database).delivery
            (
                delivery.update(state=DeliveryState.UNKNOWN.value, reason=RESTORED)
                .where(delivery.state.in_(OPEN))
                .execute()
            )
    except DATABASE_ERRORS as error:
        raise storage_error(error, draft) from error
    finally:
        database.close()


def _candidates(path: Path, source: Path | None) -> list[Path]:
    """Return the files to choose from, the newest first."""
    if source is None:
        found = (file for file in path.parent.glob(f"{path.name}.bak-*-*") if file.suffix != ".new")
        return sorted(found, key=lambda file: file.name.rpartition("-")[2], reverse=True)
    if not files.size_of(source):
        raise StorageError(
            f"the backup {source} {'is empty' if source.exists() else 'is not there'}",
            hint=f"ls {path.name}.bak-* in {path.parent} shows the backups there are",
            details={"path": str(source)},
        )
    if source.exists() and path.exists() and source.samefile(path):
        raise StorageError(
            f"{source} is the registry itself, not a backup of it",
            hint="dispatch registry restore without a file takes the newest good backup",
            details={"path": str(source)},
        )
    return [source]


def _examined(path: Path, backup: Path) -> tuple[int, dict[str, int]]:
    """Return the schema of a backup and its rows by noun. Raises StorageError unless it can take the registry's place."""
    with read_only(backup) as database:
        version = schema.stored_version(database, backup, schema.SCHEMA_VERSION)
        if not version:
            raise schema.not_ours(backup, "it has no tables")
        schema.check(database, backup)
        dangling = fetch(database, "PRAGMA foreign_key_check")
        if dangling:
            raise schema.damaged(backup, [f"{len(dangling)} rows refer to rows that are not there"])
        identity = files.read_identity(path)
        stored = schema.registry_id(database)
        if identity is not None and identity.id not in (None, stored):
            raise StorageError(
                f"{backup} is a backup of another registry than the one that {path.with_suffix('.id').name} names",
                hint=f"take a backup of this one; if this one is meant, delete {path.with_suffix('.id')}",
                details={"path": str(backup), "id": stored, "expected": identity.id},
            )
        return version, _counts(database)


def _counts(database: peewee.SqliteDatabase) -> dict[str, int]:
    there = set(database.get_tables()) - {"registry"}
    models = {model._meta.table_name: model for model in tables(database)}
    return {name: model.select().count() for name, model in models.items() if name in there}


def _aside(path: Path) -> dict[str, str]:
    """Return new names for the files that are there; together they remain a database that can be opened."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    kept = f"{path.name}.aside-{stamp}"
    names = {path.name: kept, **{path.name + side: kept + side for side in SIDE_FILES}}
    return {old: new for old, new in names.items() if os.path.lexists(path.with_name(old))}
