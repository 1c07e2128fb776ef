"""One world to break: a daemon that is our child, the real Codex below it, and the witness beside them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core import __version__
from dispatch_core.appserver.binary import find_codex
from dispatch_core.appserver.process import start_time_of
from dispatch_core.control.sync_client import Connection
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.daemon.paths import READY_FD
from dispatch_core.errors import DaemonUnreachable, DispatchError, OutcomeUnknown, RemoteError
from dispatch_core.offline.codex_home import offline_environ, write_codex_home
from dispatch_core.testing.daemon import Dispatch

from .witness import Witness, witness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Ask = Callable[[str, object], None]

PATIENCE = 90.0  # seconds for a condition; never a figure, only the end of a hang
STEP = 0.005
TRANSIENT = {"draining", "codex_unavailable", "codex_overloaded", "storage", "timed_out"}


def until(condition: Callable[[], bool], what: str, *, patience: float = PATIENCE) -> None:
    """Return once a condition holds that other processes make true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience:g} s: {what}")
        time.sleep(STEP)


class World:
    """One home. codex_home: of the Codex below. witness: the model that it asks."""

    def __init__(self, root: Path, seen: Witness, env: Mapping[str, str]) -> None:
        self.root = root
        self.home = root / "home"
        self.codex_home = root / "codex"
        self.failpoints_log = root / "failpoints.log"
        self.witness = seen
        self.cli = Dispatch(
            self.home, {**offline_environ(self.codex_home, {}), "DISPATCH_OFFLINE": "0", **env}
        )
        self.daemon: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def registry(self) -> Path:
        """The file in which what was accepted is kept."""
        return self.home / "registry.db"

    # -- the daemon -------------------------------------------------------------------------

    def start(self, failpoints: str = "", **env: str) -> None:
        """Start a daemon and return once it answers, or has died of a failpoint on the way."""
        assert self.daemon is None or self.daemon.poll() is not None
        armed = {
            "DISPATCH_TEST": "1",
            "DISPATCH_FAILPOINTS": failpoints,
            "DISPATCH_FAILPOINTS_LOG": str(self.failpoints_log),
        }
        receiver, sender = os.pipe()
        with (self.root / "daemon.out").open("ab") as out:
            self.daemon = subprocess.Popen(
                [sys.executable, "-P", "-m", "dispatch_core.daemon.main", "run"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.home,
                env={**self.cli.environment, **armed, **env, READY_FD: str(sender)},
                pass_fds=(sender,),
                start_new_session=True,
            )
        os.close(sender)
        self.starts += 1
        try:
            readable, _, _ = select.select([receiver], [], [], PATIENCE)
            assert readable, "the daemon did not start"
            line = os.read(receiver, 65536)
        finally:
            os.close(receiver)
        assert line or failpoints, f"the daemon ended at its start:\n{self.said()}"
        assert not line or json.loads(line).get("ready"), line.decode()

    def alive(self) -> bool:
        """Whether the daemon runs."""
        return self.daemon is not None and self.daemon.poll() is None

    def kill_daemon(self) -> None:
        """Kill the daemon and return once it is gone."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait(PATIENCE)

    def stop(self, grace: float = 0.0) -> None:
        """End the daemon in good order."""
        if self.alive():
            assert self.daemon is not None
            self.cli.run("down", "--grace", f"{grace:g}")
            self.daemon.wait(PATIENCE)

    def said(self) -> str:
        """Return what the daemon wrote, for a failure."""
        files = (self.root / "daemon.out", self.home / "dispatchd.log")
        return "".join(f.read_text(errors="replace")[-4000:] for f in files if f.exists())

    def memory(self, name: str) -> float:
        """Return a figure of the daemon's memory in MiB; name: as the system calls it, such as VmHWM for the peak."""
        assert self.daemon is not None
        status = Path(f"/proc/{self.daemon.pid}/status").read_text(encoding="utf-8")
        [line] = [line for line in status.splitlines() if line.startswith(f"{name}:")]
        return round(int(line.split()[1]) / 1024, 1)

    # -- the app-server ---------------------------------------------------------------------

    def codex_pid(self) -> int | None:
        """Return the process id of the app-server that runs, None while none does."""
        try:
            content = json.loads((self.home / "codex.pid").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        pid, started = int(content["pid"]), content["start_time"]
        return pid if start_time_of(pid) == started and not _is_zombie(pid) else None

    def use_codex(self, binary: Path) -> None:
        """Have the next daemon run another Codex."""
        self.cli = Dispatch(self.home, {**self.cli.env, "DISPATCH_CODEX_BIN": str(binary)})

    def kill_codex(self) -> bool:
        """Kill the app-server; False when none ran."""
        pid = self.codex_pid()
        if pid is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def codex_runs(self) -> None:
        """Return once an app-server runs."""
        until(lambda: self.codex_pid() is not None, "an app-server runs")

    # -- calls ------------------------------------------------------------------------------

    def client(self) -> Client:
        """Return a client that goes on over restarts of the daemon."""
        return Client(self)

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """Return what the registry says, read beside the daemon."""
        connection = sqlite3.connect(f"file:{self.registry}?mode=ro", uri=True, timeout=10.0)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]
        finally:
            connection.close()


class Client:
    """A client as a careful script would be: a call whose reply was lost is made again, with the same idempotency key."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._connection: Connection | None = None
        self.repeated = 0

    def once(self, op: str, params: Mapping[str, Any], *, timeout: float = 30.0) -> dict[str, Any]:
        """Make one call. Raises what the client of the control socket raises."""
        connection = self._connection
        if connection is None:
            connection = Connection.connect(self._world.cli.socket, timeout=5.0)
            greeting = {
                "protocol": PROTOCOL,
                "client": "faults",
                "version": __version__,
                "manifest": None,
            }
            try:
                connection.hello(greeting, timeout=timeout)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        try:
            return connection.request(op, params, timeout=timeout).result
        except RemoteError:
            raise
        except BaseException:
            self.close()
            raise

    def call(self, op: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Make a call that may be repeated, until it is answered."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.once(op, params)
            except (DaemonUnreachable, OutcomeUnknown, RemoteError) as error:
                if isinstance(error, RemoteError) and not _may_be_repeated(error):
                    raise
                if time.monotonic() > deadline:
                    raise AssertionError(f"{op} {params}: not within {PATIENCE:g} s") from error
                self.repeated += 1
            time.sleep(STEP * 4)

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def world(**env: str) -> Iterator[World]:
    """Make a world, and end and remove everything of it afterwards. env: for the daemon, besides what is needed."""
    root = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    try:
        with witness(root / "model.jsonl") as seen:
            made = World(root, seen, env)
            made.home.mkdir(mode=0o700)
            (made.home / "user").mkdir(mode=0o700)
            write_codex_home(made.codex_home, seen.base_url)
            try:
                yield made
            finally:
                pid = made.codex_pid()
                made.kill_daemon()
                if pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _may_be_repeated(error: DispatchError) -> bool:
    return error.code in TRANSIENT or bool(error.projection.retryable)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@contextmanager
def another_codex(world: World, thread_id: str, **choices: str) -> Iterator[Ask]:
    """Let an app-server that is not the daemon's hold a thread, as it is or otherwise, while the context lasts."""
    process = subprocess.Popen(
        [str(find_codex(None, os.environ).path), "app-server"],
        env=world.cli.environment,
        cwd=world.home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = {"name": "another", "title": "Another", "version": "1"}
        _ask(process, 1, "initialize", {"clientInfo": client})
        _ask(process, 2, "thread/resume", {"threadId": thread_id, **choices})
        yield partial(_ask, process, 3)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def _ask(process: subprocess.Popen[bytes], number: int, method: str, params: object) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    request = {"id": number, "method": method, "params": params}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    for line in process.stdout:
        answer = json.loads(line)
        if answer.get("id") == number and "method" not in answer:
            assert "error" not in answer, answer
            return
    raise AssertionError(f"{method}: the other app-server ended")
