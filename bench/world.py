"""What the benchmarks share: the install, the offline model in a process of its own, Codex homes, daemons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.install import installed
from bench.measure import ProcessCost, end, short_directory, until_line
from dispatch_core.appserver.binary import find_codex
from dispatch_core.control.sync_client import Connection
from dispatch_core.daemon.launch import greeting
from dispatch_core.offline.codex_home import offline_environ, write_codex_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR")
PATIENCE = 60.0  # seconds for anything that a benchmark waits for
READY_FD = "DISPATCHD_READY_FD"


@dataclass(frozen=True, slots=True)
class Home:
    """A dispatch home with a Codex home of its own in it. env: the whole environment of a process in it."""

    path: Path
    env: dict[str, str]

    @property
    def socket(self) -> str:
        """Path of the control socket."""
        return str(self.path / "dispatchd.sock")

    def connect(self) -> Connection:
        """Return a connection that has been greeted."""
        connection = Connection.connect(self.socket, timeout=PATIENCE)
        connection.hello(greeting(), timeout=PATIENCE)
        return connection


class World:
    """Made once for a run. bin: of the regular install. cost: how processes are measured. corpus: MB of rollouts to search in."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.quick = False
        self.corpus = 50
        self.cost = ProcessCost()
        self.bin = installed()
        self.python = str(self.bin / "python")
        self.codex = str(find_codex(None, os.environ).path)
        self._model_url = self._start_model()

    @classmethod
    @contextmanager
    def open(cls, *, quick: bool) -> Iterator[Self]:
        """Yield a world, and end and remove everything that was made in it."""
        with ExitStack() as stack:
            world = cls(stack)
            world.quick = quick
            yield world

    def rounds(self, full: int) -> int:
        """Return how many rounds to take."""
        return max(3, full // 5) if self.quick else full

    def home(self) -> Home:
        """Return a new home; Codex in it talks to the offline model."""
        path = short_directory()
        self._stack.callback(shutil.rmtree, path, ignore_errors=True)
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        env = {
            **offline_environ(path / "codex", kept),
            "HOME": str(path),
            "DISPATCH_HOME": str(path),
            "DISPATCH_CODEX_BIN": self.codex,
        }
        write_codex_home(path / "codex", self._model_url)
        return Home(path, env)

    def daemon_argv(self) -> list[str]:
        """Return the command that runs a daemon in the foreground, as ``dispatch up`` starts it."""
        return [self.python, "-P", "-m", "dispatch_core.daemon.main", "run"]

    @contextmanager
    def daemon(self, home: Home, codex: str = "ready") -> Iterator[subprocess.Popen[bytes]]:
        """Run a daemon, and yield its process once Codex is ready too, or in another state that is given."""
        process, _ = until_line(self.daemon_argv(), home.env, READY_FD)
        try:
            _until_codex(home, codex)
            yield process
        finally:
            end(process)

    def _start_model(self) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "dispatch_core.offline"], stdout=subprocess.PIPE
        )
        self._stack.callback(end, process)
        if process.stdout is None:
            raise RuntimeError("the offline model has no stdout")
        self._stack.callback(process.stdout.close)
        return f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}/v1"


def make_thread(connection: Connection, home: Home, name: str) -> dict[str, Any]:
    """Make a thread without a message and return how it is shown."""
    args = {"name": name, "cwd": str(home.path)}
    thread: dict[str, Any] = connection.request("new", args, timeout=PATIENCE).result["thread"]
    return thread


def _until_codex(home: Home, wanted: str) -> None:
    deadline = time.monotonic() + PATIENCE
    with home.connect() as connection:
        subscription = connection.subscribe(kinds=["codex.state"], timeout=PATIENCE)
        if subscription and _codex(connection) == wanted:
            return
        for _ in connection.events(timeout=PATIENCE):
            state = _codex(connection)
            if state == wanted:
                return
            if time.monotonic() > deadline or state == "degraded":
                raise RuntimeError(f"Codex is {state}; see {home.path}/dispatchd.log")


def _codex(connection: Connection) -> str:
    status = connection.request("daemon.status", {}, timeout=PATIENCE).result
    return str(status["codex"]["state"])
