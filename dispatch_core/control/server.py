"""The control socket's server: an accept loop that a failing client, or too many of them, cannot end."""

from __future__ import annotations

import errno
import logging
import os
import resource
import sys
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from dispatch_core.control import wire
from dispatch_core.control.connection import Connection
from dispatch_core.control.host import Limits
from dispatch_core.control.peer import peer_uid
from dispatch_core.control.stream import PeerStream
from dispatch_core.errors import DaemonUnreachable

if TYPE_CHECKING:
    import socket

    from anyio.abc import TaskGroup, TaskStatus

    from dispatch_core.control.host import Host

log = logging.getLogger(__name__)

# The process or the machine has no descriptor or no memory left; both pass.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
ABORTED = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO})
BACK_OFF = 0.1
# Descriptors that connections leave to the rest of the process: the registry, Codex, the logs, what ops open.
SPARE = 64


class ControlServer:
    """Serves the host to every process of our own user that connects."""

    def __init__(self, host: Host, *, limits: Limits | None = None) -> None:
        self._host = host
        self._limits = limits or Limits()
        self._most = self._limits.connections
        self._reserve: int | None = None
        self._connections: dict[Connection, None] = {}
        self._accepting = anyio.CancelScope()
        self._left = anyio.Event()

    @property
    def connections(self) -> int:
        """How many connections are open, or still finish a request."""
        return len(self._connections)

    async def serve(
        self, listener: socket.socket, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Accept and serve until cancelled or retired; the listener stays the caller's.

        Raises OSError when the listener itself is broken. Nothing that a client does, and no failure of a request, ends it.
        """
        listener.settimeout(0)
        self._most = min(self._limits.connections, _affordable())
        self._hold_reserve()
        try:
            async with anyio.create_task_group() as connections:
                task_status.started()
                with self._accepting:
                    while True:
                        await self._accept(listener, connections)
        finally:
            self._drop_reserve()

    async def retire(self) -> None:
        """Accept nobody more, and return once every client has had the answers to what it asked, and is gone."""
        self._accepting.cancel()
        for connection in self._connections:
            connection.retire()
        while self._connections:
            await self._left.wait()

    async def _accept(self, listener: socket.socket, connections: TaskGroup) -> None:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            await anyio.wait_readable(listener)
            return
        except OSError as error:
            if error.errno in ABORTED:
                return
            if error.errno not in EXHAUSTED:
                raise
            await self._back_off(listener, error)
            return
        self._admit(sock, connections)
        await checkpoint()

    def _admit(self, sock: socket.socket, connections: TaskGroup) -> None:
        try:
            uid = peer_uid(sock)
        except OSError:
            sock.close()
            return
        if uid != os.geteuid():
            log.warning("refused a connection of user %s", uid)
            sock.close()
            return
        if self.connections >= self._most:
            _refuse(sock, f"the daemon serves {self._most} connections already")
            return
        if self._reserve is None:
            self._hold_reserve()
        stream = PeerStream(sock)
        connection = Connection(self._host, stream, self._limits)
        self._connections[connection] = None
        connections.start_soon(self._serve_one, connection, stream)

    async def _serve_one(self, connection: Connection, stream: PeerStream) -> None:
        try:
            await connection.run()
        except (Exception, SystemExit):
            # SystemExit too: a plugin's session that calls sys.exit() ends itself alone.
            log.exception("a control connection failed")
        finally:
            del self._connections[connection]
            stream.close()
            self._left.set()
            self._left = anyio.Event()

    async def _back_off(self, listener: socket.socket, error: OSError) -> None:
        """Refuse one client with the descriptor kept for that, and wait until others may have closed theirs."""
        log.warning("cannot accept a connection: %s", error.strerror)
        self._drop_reserve()
        try:
            sock, _ = listener.accept()
        except OSError:  # the client left, or somebody else took the descriptor
            pass
        else:
            _refuse(sock, f"the daemon cannot open another file: {error.strerror}")
        self._hold_reserve()
        await anyio.sleep(BACK_OFF)

    def _hold_reserve(self) -> None:
        try:
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._reserve = None

    def _drop_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None


def _affordable() -> int:
    """Return how many connections this process can have open and still open files for their requests."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else max(1, most - SPARE)


def _refuse(sock: socket.socket, reason: str) -> None:
    """Close a new connection after one reply; its buffer is empty, so nothing waits."""
    with sock:
        sock.settimeout(0)
        try:
            sock.send(
                wire.error_frame(
                    None, DaemonUnreachable(reason, hint="close other clients, then try again")
                )
            )
        except OSError:
            log.debug("a refused client had left")
