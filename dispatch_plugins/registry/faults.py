"""What SQLite says went wrong, in the words of a StorageError with a way out."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING, Final

import peewee

from dispatch_core.api import DiskFull, StorageError

if TYPE_CHECKING:
    from pathlib import Path

# OverflowError: an integer beyond 64 bits; UnicodeError: a lone surrogate. Both are raised while a
# value is bound.
DATABASE_ERRORS: Final = (peewee.PeeweeException, sqlite3.Error, UnicodeError, OverflowError)

_RESTORE = "dispatch down, then dispatch registry restore puts the newest good backup, or a file of your own, in its place"
_CAUSES: Final[dict[int, tuple[str, str]]] = {
    sqlite3.SQLITE_BUSY: (
        "another process holds its lock",
        "repeat the command once that process has let go of the file",
    ),
    sqlite3.SQLITE_LOCKED: (
        "another process holds its lock",
        "repeat the command once that process has let go of the file",
    ),
    sqlite3.SQLITE_READONLY: (
        "it is read-only",
        "make the file and its folder writable for your user",
    ),
    sqlite3.SQLITE_PERM: (
        "access is denied",
        "make the file and its folder writable for your user",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "it cannot be opened",
        "check that it is a file and that your user may write to its folder",
    ),
    sqlite3.SQLITE_CORRUPT: ("it is damaged", _RESTORE),
    sqlite3.SQLITE_NOTADB: ("it is not a database", _RESTORE),
    sqlite3.SQLITE_IOERR: (
        "the disk reported an error",
        "check the disk, then dispatch down, dispatch registry check, and dispatch up",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        "the change contradicts what is stored",
        "dispatch list shows what is stored",
    ),
}
# After one of these the state on disk is not known, so no later write may be acknowledged by this
# process.
_FATAL_IO: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
    }
)
_PRIMARY: Final = 0xFF
# The second is what SQLite says when there is no room for the memory that its connections share.
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def storage_error(error: BaseException, path: Path) -> StorageError:
    """Return the StorageError that says what a database error means for the registry at path."""
    if isinstance(error, UnicodeError | OverflowError):
        return StorageError(
            f"the registry cannot keep this value: {error}",
            hint="use valid Unicode text",
            details={"path": str(path)},
        )
    cause = _first_cause(error)
    if is_full(error):
        return disk_full(path, cause)
    code = getattr(cause, "sqlite_errorcode", None)
    reason, hint = _CAUSES.get(
        (code or 0) & _PRIMARY, (str(cause), "dispatch daemon log shows what happened before")
    )
    details = {
        "path": str(path),
        "sqlite": getattr(cause, "sqlite_errorname", None),
        "cause": str(cause),
    }
    return StorageError(f"the registry {path} failed: {reason}", hint=hint, details=details)


def disk_full(path: Path, cause: BaseException) -> DiskFull:
    """Return the StorageError for a disk without room. cause: what said so."""
    return DiskFull(
        f"the registry {path} failed: the disk is full",
        hint="free some space and repeat the command; the daemon notices by itself",
        details={
            "path": str(path),
            "sqlite": getattr(cause, "sqlite_errorname", None),
            "cause": str(cause),
        },
    )


def is_full(error: BaseException) -> bool:
    """Say whether there was no room on the disk, so that nothing was written."""
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM
    return getattr(_first_cause(error), "sqlite_errorcode", None) in _FULL


def is_explained(error: BaseException) -> bool:
    """Say whether SQLite's error is one of those that have a cause outside of dispatch, such as a full disk."""
    return (
        is_full(error) or getattr(_first_cause(error), "sqlite_errorcode", 0) & _PRIMARY in _CAUSES
    )


def is_fatal(error: BaseException) -> bool:
    """Say whether the registry must not be written again by this process."""
    code = getattr(_first_cause(error), "sqlite_errorcode", 0)
    return code in _FATAL_IO or code & _PRIMARY in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _first_cause(error: BaseException) -> BaseException:
    """Return the earliest SQLite error of the chain: a rollback that fails as well says less."""
    first: BaseException = error
    link: BaseException | None = error
    # A StorageError in the chain is an earlier failure, in whose handler this one happened.
    while link is not None and not isinstance(link, StorageError):
        if isinstance(link, sqlite3.Error):
            first = link
        link = link.__context__
    return first
