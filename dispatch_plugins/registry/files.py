"""The registry's files: the database, its identity beside it and its backups, all of them private.

``registry.id`` says which registry belongs here. Without it an emptied or deleted database would
look like a first start.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from dispatch_core.api import StorageError

PRIVATE: Final = 0o600


class Identity(NamedTuple):
    """Which registry belongs here: its id, None if the file makes no sense, and its schema version."""

    id: str | None
    schema: int


def claim(path: Path) -> bool:
    """Make sure of a private file at path and say whether it has to be filled.

    Raises StorageError if there is no data in it although there has been a registry, and OSError if
    it cannot be made.
    """
    try:
        found = path.stat()
        size = found.st_size
        if not stat.S_ISREG(found.st_mode):
            raise StorageError(
                f"{path} is not dispatch's registry: it is not a file",
                hint="dispatch down, then dispatch registry restore keeps it aside and puts the newest good backup in its place",
                details={"path": str(path)},
            )
    except FileNotFoundError:
        size = 0
    if size == 0:
        refuse_to_forget(path)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, PRIVATE))
    path.chmod(PRIVATE)
    return size == 0


def refuse_to_forget(path: Path) -> None:
    """Raise StorageError if there is no data at path although there has been a registry."""
    if read_identity(path) is None:
        return
    state = "is empty" if path.exists() else "is missing"
    identity = _identity_path(path)
    raise StorageError(
        f"the registry {path} {state}, but {identity.name} says that there has been one",
        hint="dispatch down, then dispatch registry restore puts the newest good backup, or a file of your own, in its place; "
        f"to start anew, delete {identity}",
        details={"path": str(path), "identity": str(identity)},
    )


def log_of(path: Path) -> Path:
    """Return the path of the write-ahead log of the database at path."""
    return path.with_name(f"{path.name}-wal")


def log_left(path: Path) -> bool:
    """Say whether a write-ahead log is there: the file was not closed in good order, or is in use."""
    return bool(size_of(log_of(path)))


def in_use(path: Path) -> bool:
    """Say whether somebody may have the database open: its log holds something, or the memory its users share is there."""
    return log_left(path) or path.with_name(f"{path.name}-shm").exists()


def size_of(path: Path) -> int | None:
    """Return how many bytes are in the file, None if there is no file. Raises OSError if that cannot be said."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def read_identity(path: Path) -> Identity | None:
    """Return the identity kept beside the database at path, or None if there is none."""
    try:
        text = _identity_path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return Identity(None, 0)
    try:
        content = json.loads(text)
        return Identity(str(content["id"]), int(content["schema"]))
    except (ValueError, TypeError, KeyError):
        return Identity(None, 0)


def write_identity(path: Path, identity: Identity) -> None:
    """Keep the identity beside the database at path: whole or not at all, also across a power cut."""
    target = _identity_path(path)
    draft = target.with_name(f"{target.name}.new")
    draft.unlink(missing_ok=True)
    content = json.dumps({"id": identity.id, "schema": identity.schema}) + "\n"
    handle = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    _sync_folder(target.parent)


def back_up(source: sqlite3.Connection, path: Path, version: int) -> Path:
    """Return the path of a complete, synced copy of the database beside it, named after version and time."""
    target = backup_path(path, version)
    copy_to(source, target)
    return target


def backup_path(path: Path, version: int) -> Path:
    """Return the name of a backup of the database that is made now."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return path.with_name(f"{path.name}.bak-{version}-{stamp}")


def copy_to(source: sqlite3.Connection, target: Path) -> None:
    """Make a complete, synced, private copy of a database under a name that is free: all of it or nothing.

    It is one snapshot, whoever writes meanwhile. Raises FileExistsError if there is a file, other OSErrors, and SQLite's.
    """
    draft = target.with_name(f"{target.name}.{os.getpid()}.new")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
    try:
        with closing(sqlite3.connect(draft, isolation_level=None)) as copy:
            source.backup(copy)
            # A copy of a database in WAL mode would need side files of its own when it is read.
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        handle = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        put_in_place(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def put_in_place(draft: Path, target: Path) -> None:
    """Give the draft its name, also across a power cut. Raises FileExistsError if there is such a file: it is not replaced."""
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: hold the name with an empty file of ours
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE))
        draft.replace(target)
    _sync_folder(target.parent)


def file_id(path: Path) -> tuple[int, int]:
    """Return what tells this file from another one of the same name."""
    found = path.stat()
    return found.st_dev, found.st_ino


class Opened(NamedTuple):
    """The database and its log as they were when they were opened."""

    database: tuple[int, int]
    log: tuple[int, int]


def opened(path: Path) -> Opened:
    """Return what tells the open database at path and its log from other files of these names. Raises OSError."""
    return Opened(file_id(path), file_id(log_of(path)))


def require_same_files(path: Path, expected: Opened) -> int:
    """Return the size of the log. Raises StorageError unless both files are those that were opened: writes would vanish."""
    try:
        if file_id(path) == expected.database:
            log = log_of(path).stat()
            if (log.st_dev, log.st_ino) == expected.log:
                return log.st_size
            gone = log_of(path)
        else:
            gone = path
    except FileNotFoundError as error:
        gone = Path(error.filename)
    except OSError:
        gone = path
    raise StorageError(
        f"the registry {gone} was moved or replaced while it was in use",
        hint="put the file back; or dispatch down, which folds what was acknowledged into the registry that is open, "
        "then dispatch registry check, and dispatch registry restore if that finds something wrong",
        details={"path": str(gone)},
    )


def not_accessible(path: Path, error: OSError) -> StorageError:
    """Return the StorageError for a file that the system does not let us use."""
    return StorageError(
        f"the registry {path} cannot be used: {error.strerror or error}",
        hint="check that its folder exists, has space left and may be written by your user",
        details={"path": str(path)},
    )


def _identity_path(path: Path) -> Path:
    return path.with_suffix(".id")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
