"""``dispatch mcp``: bytes from stdin to a session in the daemon, and back to stdout.

Standard library only, for it starts once per agent. stdout carries the protocol and nothing else.
"""

from __future__ import annotations

import os
import select
import sys

from dispatch_core.errors import DaemonUnreachable, DispatchError, ValidationFailed
from dispatch_core.plugin.manifest import identity
from dispatch_core.switches import safe_mode
from dispatch_plugins.mcp.options import USAGE, WORKER, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from dispatch_core.control.sync_client import Connection
    from dispatch_plugins.mcp.options import Options

PROTOCOL = 1
OPEN_TIMEOUT = 30.0  # seconds until the daemon has opened the session
CHUNK = 65536
UNREACHABLE = 8
INTERRUPTED = 130


def main(argv: list[str], manifest: dict[str, Any]) -> int:
    """Carry one MCP session and return the exit status.

    0: the client ended the session. 2: wrong usage. 8: there is no daemon, or it went away during
    the session. Otherwise the exit status of the error that the daemon answered.
    """
    try:
        _carry(argv, manifest)
    except DispatchError as error:
        _complain(error.message, error.hint)
        return error.projection.exit_code
    except BrokenPipeError:
        return 0  # the client no longer reads
    except OSError as error:
        _complain(f"the daemon cannot be reached: {error}", "dispatch up shows what is wrong")
        return UNREACHABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


class Copy:
    """Bytes on their way in both directions, in bounded memory.

    Neither side is asked for more until what it gave has been passed on.
    """

    def __init__(self, server: socket.socket, early: bytes, *, stdin: int, stdout: int) -> None:
        """Take over a connected socket; early is what was already received from it."""
        server.settimeout(0)
        self._server = server
        self._stdin = stdin
        self._stdout = stdout
        self._up = memoryview(b"")
        self._down = memoryview(early)
        self._stdin_open = True
        self._server_open = True
        self._half_closed = False

    def run(self) -> bool:
        """Copy until the server ends the connection; True if it did so before stdin ended.

        The end of stdin is passed on, and the last answers are awaited. Raises BrokenPipeError when
        stdout is closed.
        """
        server = self._server.fileno()
        while self._server_open or self._down:
            # Not epoll: stdin may be a regular file. Descriptors are low in a small process.
            readable, writable, _ = select.select(*self._wanted(server), [])
            if self._stdin in readable:
                self._read_stdin()
            if server in readable:
                self._read_server()
            if server in writable:
                self._write_server()
            if self._stdout in writable:
                # A pipe that is writable takes this much without blocking.
                written = os.write(self._stdout, self._down[: select.PIPE_BUF])
                self._down = self._down[written:]
        return not self._half_closed

    def _wanted(self, server: int) -> tuple[list[int], list[int]]:
        readers, writers = [], []
        if self._stdin_open and not self._up:
            readers.append(self._stdin)
        if self._server_open and not self._down:
            readers.append(server)
        if self._up:
            writers.append(server)
        if self._down:
            writers.append(self._stdout)
        return readers, writers

    def _read_stdin(self) -> None:
        self._up = memoryview(os.read(self._stdin, CHUNK))
        if not self._up:
            self._stdin_open = False
            try:
                self._server.shutdown(1)  # SHUT_WR; importing socket for the name is not free
                self._half_closed = True
            except OSError:
                return  # the server has gone; reading from it says so

    def _read_server(self) -> None:
        try:
            self._down = memoryview(self._server.recv(CHUNK))
        except BlockingIOError:
            return
        except ConnectionError:
            self._down = memoryview(b"")
        if not self._down:
            self._server_open = False
            self._up = memoryview(b"")

    def _write_server(self) -> None:
        try:
            self._up = self._up[self._server.send(self._up) :]
        except BlockingIOError:
            return
        except ConnectionError:
            # Reading takes what the server still said, and then says that it ended.
            self._up = memoryview(b"")
            self._stdin_open = False


def _carry(argv: list[str], manifest: dict[str, Any]) -> None:
    options = parse(argv)
    if options.help:
        sys.stdout.write(USAGE)
        return
    server, early = _open(options, manifest)
    with server:
        lost = Copy(server, early, stdin=0, stdout=1).run()
    if lost:
        raise DaemonUnreachable(
            "the daemon ended the session",
            hint="dispatch daemon log --daemon shows why; then start dispatch mcp again",
        )


def _open(options: Options, manifest: dict[str, Any]) -> tuple[socket.socket, bytes]:
    """Return the socket of an open session, and what came after the answer that opened it."""
    thread_id = os.environ.get("CODEX_THREAD_ID") or None
    if options.profile == WORKER and thread_id is None:
        raise ValidationFailed(
            "the worker profile needs the thread it belongs to: CODEX_THREAD_ID is not set",
            hint="start dispatch mcp inside a Codex thread, or use another profile",
        )
    # Recovery mode talks to whatever daemon runs, whose plugins are then others than ours.
    greeting = {
        "protocol": PROTOCOL,
        "client": "mcp",
        "version": manifest["version"],
        "manifest": None if safe_mode(os.environ) else identity(manifest),
        "thread_id": thread_id,
    }
    session = {
        "surface": "mcp",
        "options": {"profile": options.profile, "thread_id": thread_id},
    }

    # Not at the top: --help and a wrong option need none of it.
    from dispatch_core.daemon.paths import Paths
    from dispatch_core.daemon.reach import reach

    greetings = [greeting]

    def open_session(connection: Connection) -> tuple[socket.socket, bytes]:
        # After the daemon was replaced, the one that answers is the one to take.
        mine = greetings.pop() if greetings else {**greeting, "manifest": None}
        answer, _ = connection.first_call(mine, "$open", session, timeout=OPEN_TIMEOUT)
        if answer.get("stale"):
            _complain("the daemon runs another build or other plugins", "dispatch upgrade")
        return connection.detach()

    # An agent's server must not fail until a person runs a command: the daemon is started, and replaced when it is idle.
    paths = Paths.from_env(os.environ)
    return reach(paths, open_session, start=options.start, note=lambda text: _complain(text, None))


def _complain(message: str, hint: str | None) -> None:
    sys.stderr.write(f"dispatch mcp: {message}\n" + (f"hint: {hint}\n" if hint else ""))
