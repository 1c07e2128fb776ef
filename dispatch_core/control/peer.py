"""Who is at the other end of a Unix socket. Standard library only: the fast path of the CLI imports it."""

from __future__ import annotations

import _socket
import os
import stat
import struct
import sys

from dispatch_core.errors import AuthorityDenied, DaemonUnreachable

UP = "dispatch up starts the daemon"
# struct xucred of macOS and the BSDs: version, uid, number of groups, sixteen groups.
XUCRED = struct.Struct("IIh2x16I")
SOL_LOCAL = 0
LOCAL_PEERCRED = 1


def peer_uid(sock: _socket.socket) -> int:
    """Return the user id that the process at the other end had when it connected or listened. Raises OSError."""
    if sys.platform == "linux":
        ucred = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, struct.calcsize("iII"))
        return int(struct.unpack("iII", ucred)[1])
    xucred = sock.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, XUCRED.size)
    return int(XUCRED.unpack(xucred)[1])


def check_socket_file(path: str) -> None:
    """Return if a client may connect to path: it is a socket of our own user.

    Raises DaemonUnreachable if there is none, and AuthorityDenied if it is somebody else's.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise DaemonUnreachable(
            f"no daemon listens on {path}: {error.strerror}", hint=UP
        ) from error
    if not stat.S_ISSOCK(status.st_mode):
        raise DaemonUnreachable(f"{path} is not a socket", hint="remove it, then dispatch up")
    if status.st_uid != os.geteuid():
        raise foreign(path, status.st_uid)


def check_peer(sock: _socket.socket, path: str) -> None:
    """Return if the process behind a connected socket is our own user's. Raises AuthorityDenied."""
    uid = peer_uid(sock)
    if uid != os.geteuid():
        raise foreign(path, uid)


def foreign(path: str, uid: int) -> AuthorityDenied:
    """Return the error for a daemon of another user; nothing was sent to it."""
    return AuthorityDenied(
        f"the daemon on {path} belongs to user {uid}, and you are user {os.geteuid()}; nothing was sent",
        hint="set DISPATCH_HOME to a directory of your own",
        details={"path": path, "uid": uid},
    )
