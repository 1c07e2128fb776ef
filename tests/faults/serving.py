"""A control server in a process of its own, as the tests of the control socket start it and ask after it."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

from dispatch_core.control.sync_client import Connection
from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HELLO = {"protocol": 1, "client": "test", "version": "1"}
PATIENCE = 30.0  # seconds for anything that must happen


class Server:
    """A control server in a process of its own. limits: of its Limits; descriptors: how many it may have."""

    def __init__(self, directory: Path, *, descriptors: int | None = None, **limits: Any) -> None:
        self.path = str(directory / "control.sock")
        script = Path(__file__).with_name("control_server.py")
        command = [sys.executable, str(script), self.path, json.dumps(limits)]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._answer()

    def tell(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self.process.stdin.flush()
        return self._answer()

    def state(self) -> dict[str, int]:
        return self.tell("state")

    def connect(self) -> Connection:
        return Connection.connect(self.path, timeout=PATIENCE)

    def greeted(self) -> Connection:
        connection = self.connect()
        connection.hello(HELLO, timeout=PATIENCE)
        return connection

    def raw(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(self.path)
        return client

    def memory(self, what: str = "VmRSS") -> int:
        """Return KiB of the process's memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1])
        raise AssertionError(what)

    def idle(self) -> dict[str, int]:
        """Return the state once no client is left in it."""
        eventually(lambda: self.state()["connections"] == 0, "the server is alone")
        return self.state()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if readable else b""
        assert line, "the server does not answer"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def serving() -> Iterator[Callable[..., Server]]:
    """Yield a function that starts a server with the options of Server, and end them all afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    started: list[Server] = []

    def start(**options: Any) -> Server:
        started.append(Server(directory, **options))
        return started[-1]

    try:
        yield start
    finally:
        for server in started:
            server.stop()
        rmtree(directory)


def ping(connection: Connection) -> None:
    assert connection.request("$ping", {}, timeout=PATIENCE).result == {}
