"""One daemon per home: an exclusive lock held for life, taken before anything else is touched."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core.errors import AlreadyRunning, ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE = 0o700
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_directory(path: str | Path) -> Path:
    """Create the directory, or check that it is ours alone, and return it.

    A directory of ours that others may read is made private; one that is a link, belongs to somebody else or can be written by
    others is refused with ValidationFailed, and so is one that others can exchange because of where it is.
    """
    directory = Path(path)
    _check_parents(directory)
    try:
        directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        info = directory.lstat()
    except FileExistsError:
        info = directory.lstat()
    except OSError as error:
        raise ValidationFailed(
            f"{directory} cannot be used: {error.strerror}", hint="set DISPATCH_HOME"
        ) from error
    if not stat.S_ISDIR(info.st_mode):
        raise ValidationFailed(
            f"{directory} is a link or a file, not a directory", hint="set DISPATCH_HOME"
        )
    if info.st_uid != os.geteuid():
        raise ValidationFailed(f"{directory} belongs to another user", hint="set DISPATCH_HOME")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ValidationFailed(
            f"{directory} can be written by other users",
            hint=f"look what is in it, then chmod 700 {directory}",
        )
    if info.st_mode & OTHERS:
        directory.chmod(PRIVATE)
    return directory


def _check_parents(directory: Path) -> None:
    for parent in Path(os.path.realpath(directory)).parents:
        try:
            mode = parent.stat().st_mode
        except OSError:
            # It is yet to be made, or whoever opens the directory learns why that is impossible.
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ValidationFailed(
                f"{directory} is not safe: every user can write to {parent} and put another directory in its place",
                hint=f"set DISPATCH_HOME to a directory elsewhere, or chmod o-w {parent}",
            )


@contextmanager
def hold(path: str) -> Iterator[None]:
    """Hold the lock while the context lasts.

    Raises AlreadyRunning at once when another process has it, and ValidationFailed when it is no file of ours.

    What is written into the file (pid and start) is information for people; the lock itself is the kernel's.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ValidationFailed(
            f"the lock {path} cannot be opened: {error.strerror}", hint=f"look what {path} is"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(path) from error
        with suppress(
            OSError
        ):  # a full disk: the registry says so better than a note that is only for people
            _note(descriptor, {"pid": os.getpid()})
        yield
    finally:
        os.close(descriptor)


def _note(descriptor: int, content: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode() + b"\n", 0)
