"""The control socket as a file: made where nobody else can reach it, and removed only while it is ours."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from pathlib import Path

# 107 bytes on Linux and 103 on macOS are the limits of the kernel.
MAX_PATH = 100
BACKLOG = 512


def open_listener(path: Path) -> socket.socket:
    """Return a listening Unix socket at path, mode 0600, that appeared there in one step.

    A socket of our own that is in place is replaced: the caller holds the lock that says nobody listens on it. Raises
    ValidationFailed, having changed nothing at path, when the directory or what is at path is not safe.
    """
    _check_length(path)
    directory = _open_directory(path)
    try:
        _check_place(path, directory)
        return _bind(path, directory)
    except BaseException:
        os.close(directory)
        raise


def close_listener(sock: socket.socket, path: Path) -> None:
    """Close the listener and remove its file, unless what is there now is not this listener."""
    sock.close()
    if not isinstance(sock, Listener) or sock.directory is None:
        return
    directory, sock.directory = sock.directory, None
    try:
        if _inode(path.name, directory) == sock.inode:
            os.unlink(path.name, dir_fd=directory)
    except FileNotFoundError:
        return
    finally:
        os.close(directory)


class Listener(socket.socket):
    """A listening socket that remembers the file it made and an open descriptor of the directory it is in.

    The kernel names only the path it was bound to, and by the time of closing that may lead elsewhere.
    """

    inode: tuple[int, int] | None = None
    directory: int | None = None


def _check_length(path: Path) -> None:
    longest = len(os.fsencode(path))
    if longest > MAX_PATH:
        raise ValidationFailed(
            f"the path of the control socket is too long: {path} needs {longest} bytes, and {MAX_PATH} is the most",
            hint="set DISPATCH_HOME to a shorter path",
            details={"path": str(path), "bytes": longest},
        )


def _open_directory(path: Path) -> int:
    """Return an open descriptor of the parent, checked after it was opened so that it cannot be exchanged in between."""
    parent = path.parent
    try:
        if parent.is_symlink():
            raise _refused(
                path,
                f"{parent} is a symbolic link",
                f"name the directory itself: {parent.resolve()}",
            )
        directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        fix = f"mkdir -p -m 700 {parent}"
        raise _refused(path, f"{parent} cannot be opened: {error.strerror}", fix) from error
    status = os.fstat(directory)
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        os.close(directory)
        raise _refused(
            path,
            f"{parent} belongs to user {status.st_uid}",
            "set DISPATCH_HOME to a directory of your own",
        )
    if mode & 0o077:
        os.close(directory)
        raise _refused(path, f"{parent} is open to others (mode {mode:04o})", f"chmod 700 {parent}")
    return directory


def _check_place(path: Path, directory: int) -> None:
    try:
        status = os.lstat(path.name, dir_fd=directory)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise _refused(
            path, f"{path} exists and is not a socket", f"look at {path} and move it away"
        )
    if status.st_uid != os.geteuid():
        raise _refused(
            path, f"{path} belongs to user {status.st_uid}", f"look at {path} and move it away"
        )


def _bind(path: Path, directory: int) -> socket.socket:
    temporary = f".{os.getpid()}.sock"
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(temporary, directory)
        _bind_in(directory, listener, temporary)
        listener.inode = _inode(temporary, directory)
        listener.listen(BACKLOG)
        os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        if not _is_at(path, listener.inode):
            _remove_stale(path.name, directory)
            raise _refused(
                path,
                f"{path.parent} was exchanged while the socket was made",
                "find out who exchanges it, then dispatch up",
            )
    except OSError as error:
        listener.close()
        _remove_stale(temporary, directory)
        raise _refused(
            path,
            f"{path} cannot be made: {error.strerror or error}",
            "set DISPATCH_SOCKET to another path",
        ) from error
    except ValidationFailed:
        listener.close()
        raise
    listener.directory = directory
    return listener


def _bind_in(directory: int, listener: socket.socket, name: str) -> None:
    """Bind the socket to a name in the directory that was checked, with mode 0600.

    A path could lead to another directory by now, and bind() takes no descriptor; a name alone is of the working directory. That
    is the whole process's, like the umask: no other task runs meanwhile, and threads use absolute paths.
    """
    here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
    before = os.umask(0o177)
    try:
        os.fchdir(directory)
        listener.bind(name)
    finally:
        os.fchdir(here)
        os.umask(before)
        os.close(here)


def _is_at(path: Path, inode: tuple[int, int]) -> bool:
    try:
        return _inode(path) == inode
    except OSError:
        return False


def _inode(path: str | Path, directory: int | None = None) -> tuple[int, int]:
    status = os.lstat(path, dir_fd=directory)
    return status.st_dev, status.st_ino


def _remove_stale(name: str, directory: int) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(name, dir_fd=directory).st_mode):
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def _refused(path: Path, reason: str, fix: str) -> ValidationFailed:
    return ValidationFailed(
        f"the control socket is not opened: {reason}",
        hint=fix,
        details={"path": str(path), "reason": reason},
    )
