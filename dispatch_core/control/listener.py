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
    finally:
        os.close(directory)


def close_listener(sock: socket.socket, path: Path) -> None:
    """Close the listener and remove path, unless what is there now is not this listener."""
    ours = _bound_inode(sock)
    sock.close()
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(status.st_mode) and (status.st_dev, status.st_ino) == ours:
        path.unlink(missing_ok=True)


class Listener(socket.socket):
    """A listening socket that remembers the file it made, because the kernel names only the path it was bound to."""

    inode: tuple[int, int] | None = None


def _bound_inode(sock: socket.socket) -> tuple[int, int] | None:
    return sock.inode if isinstance(sock, Listener) else None


def _check_length(path: Path) -> None:
    longest = max(len(os.fsencode(name)) for name in (path, _temporary(path)))
    if longest > MAX_PATH:
        raise ValidationFailed(
            f"the path of the control socket is too long: {path} needs {longest} bytes, and {MAX_PATH} is the most",
            hint="set DISPATCH_HOME to a shorter path",
            details={"path": str(path), "bytes": longest},
        )


def _temporary(path: Path) -> Path:
    telling = path.with_name(f".{path.name}.{os.getpid()}")
    # A path that is allowed must not fail because of the name it has for an instant.
    return telling if len(os.fsencode(telling)) <= MAX_PATH else path.with_name(f".{os.getpid()}")


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
    temporary = _temporary(path)
    listener = Listener(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(temporary.name, directory)
        before = os.umask(0o177)
        try:
            listener.bind(str(temporary))
        finally:
            os.umask(before)
        # bind() goes by path; the descriptor says whether the directory at that path is still the one that was checked.
        try:
            status = os.lstat(temporary.name, dir_fd=directory)
        except FileNotFoundError as error:
            fix = "find out who exchanges it, then dispatch up"
            raise _refused(
                path, f"{path.parent} was exchanged while the socket was made", fix
            ) from error
        listener.inode = (status.st_dev, status.st_ino)
        listener.listen(BACKLOG)
        os.rename(temporary.name, path.name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        listener.close()
        _remove_stale(temporary.name, directory)
        raise _refused(
            path,
            f"{path} cannot be made: {error.strerror or error}",
            "set DISPATCH_SOCKET to another path",
        ) from error
    except ValidationFailed:
        listener.close()
        raise
    return listener


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
