"""Start and stop the daemon from another process, each exactly once however many ask at the same time.

Standard library only: the command line and the MCP bridge import it when there is no daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time

from dispatch_core import __version__
from dispatch_core.control.sync_client import Connection
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.daemon.departure import ended, hold_process, once_unlocked
from dispatch_core.daemon.paths import READY_FD
from dispatch_core.daemon.startup import SERVICE_VARIABLES
from dispatch_core.errors import (
    AlreadyRunning,
    DaemonUnreachable,
    RemoteError,
    TimedOut,
    ValidationFailed,
)

TYPE_CHECKING = False  # typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dispatch_core.daemon.departure import Process
    from dispatch_core.daemon.paths import Paths

PROBE_TIMEOUT = 5.0
START_TIMEOUT = 15.0
SETTLE_TIMEOUT = 5.0  # seconds Codex gets to answer its first request
STOP_TIMEOUT = 60.0  # seconds on top of the grace; only a stuck daemon takes it
KILL_AFTER = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1
TAIL_LINES = 12
TAIL_BYTES = 8192
READY_LIMIT = 65536
PATH_VARIABLES = ("DISPATCH_SOCKET", "DISPATCH_CONFIG", "DISPATCH_CODEX_BIN", "CODEX_HOME")


def up(paths: Paths, *, offline: bool, timeout: float = START_TIMEOUT) -> dict[str, Any]:
    """Make sure that a daemon answers on the socket and say whether this call started it.

    Returns {status: "started" | "already_running", started, pid, socket, home, offline, state, identity}. timeout: seconds
    for everything.
    Raises DaemonUnreachable with the last lines of its output when it cannot start, or the error that it reported.
    """
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(DaemonUnreachable):
            found = probe(paths)
            if found.get("state") != "draining":
                return _answer(paths, AlreadyRunning.code, found)
            if not once_unlocked(paths, max(0.0, deadline - time.monotonic()), lambda: None):
                raise _not_stopped(paths, found.get("pid"))
        if _spawn(paths, offline=offline, deadline=deadline):
            return _answer(paths, "started", probe(paths))
        # Somebody else's daemon holds the lock: it will answer, or give the lock up and leave the start to us.
        winner = _wait_for_winner(paths, deadline)
        if winner is not None and winner.get("state") != "draining":
            return _answer(paths, AlreadyRunning.code, winner)


def settled_state(paths: Paths, *, timeout: float = SETTLE_TIMEOUT) -> str:
    """Return the daemon's state once Codex has started or failed to: ready, degraded, or starting after the timeout."""
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    retry = threading.Event()  # never set: its wait is the step
    while True:
        state = str(probe(paths).get("state"))
        if state != "starting" or time.monotonic() >= deadline:
            return state
        retry.wait(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def down(
    paths: Paths, *, grace: float | None = None, timeout: float = STOP_TIMEOUT
) -> dict[str, Any]:
    """Stop the daemon and return when its process is gone, together with its socket.

    Returns {status: "stopped" | "not_running", stopped, pid}. grace: seconds for running turns, None: as configured.
    timeout: seconds to wait beyond the grace. Raises TimedOut when the process is still there then; it is never killed.
    """
    deadline = time.monotonic() + timeout + (grace or 0.0)
    pid, process = _ask_to_stop(paths, grace, timeout)
    if pid is None and starting(paths, timeout) is not None:
        pid, process = _ask_to_stop(paths, grace, timeout)  # it was just starting
    if pid is None and not os.path.exists(paths.lock) and not os.path.lexists(paths.socket):
        return {"status": "not_running", "stopped": False, "pid": None}
    gone(paths, pid, process, deadline)
    return {
        "status": "stopped" if pid is not None else "not_running",
        "stopped": pid is not None,
        "pid": pid,
    }


def gone(paths: Paths, pid: int | None, process: Process | None, deadline: float) -> None:
    """Return when the daemon that was asked to stop has ended and its socket is gone. Raises TimedOut at the deadline."""
    unlocked = once_unlocked(
        paths, max(0.0, deadline - time.monotonic()), lambda: _remove_socket(paths)
    )
    if not unlocked or not ended(process, deadline):
        raise _not_stopped(paths, pid)


def starting(paths: Paths, timeout: float = START_TIMEOUT) -> dict[str, Any] | None:
    """Return the greeting of the daemon of this home, waiting for one that only just starts; None when there is none."""
    return _wait_for_winner(paths, time.monotonic() + timeout)


def probe(paths: Paths) -> dict[str, Any]:
    """Return what the daemon says of itself in its greeting. Raises DaemonUnreachable when none answers."""
    with Connection.connect(paths.socket, timeout=PROBE_TIMEOUT) as connection:
        return connection.hello(greeting(), timeout=PROBE_TIMEOUT)


def identity(found: Mapping[str, Any]) -> str:
    """Return which plugins and which build a daemon runs, of its greeting, in the form in which a manifest says it."""
    return f"{found.get('manifest')}/{found.get('build')}"


def greeting() -> dict[str, Any]:
    """Return the greeting of a client that only looks after the daemon, whatever plugins it runs."""
    return {"protocol": PROTOCOL, "client": "cli", "version": __version__, "manifest": None}


def _answer(paths: Paths, status: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": status,
        "started": status == "started",
        "pid": found.get("pid"),
        "socket": paths.socket,
        "home": paths.home,
        "offline": bool(found.get("offline")),
        "state": found.get("state"),
        "identity": identity(found),
    }


def _not_stopped(paths: Paths, pid: int | None) -> TimedOut:
    holder = pid or _lock_holder(paths)
    return TimedOut(
        f"the daemon (pid {holder}) has not stopped yet",
        hint=f"look into {paths.log}; dispatch down --grace 0 does not wait for turns; kill {holder} is the last resort",
        details={"pid": holder, "log": paths.log},
    )


def _spawn(paths: Paths, *, offline: bool, deadline: float) -> bool:
    """Start a daemon process and wait until it is ready. False when another daemon holds the lock."""
    command = [sys.executable, "-P", "-m", "dispatch_core.daemon.main", "run"]
    out = _open_output(paths)
    receiver, sender = os.pipe()
    try:
        start = os.fstat(out).st_size
        try:
            process = subprocess.Popen(
                [*command, "--offline"] if offline else command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=paths.home,  # not the caller's: the daemon must not keep that busy
                env={**environment(paths), READY_FD: str(sender)},
                pass_fds=(sender,),
                start_new_session=True,
            )
        finally:
            os.close(out)
            os.close(sender)
        try:
            line = _read_line(receiver, deadline)
        except BaseException:
            _end(process)
            raise
    finally:
        os.close(receiver)
    return _started(paths, process, line, start)


def environment(paths: Paths) -> dict[str, str]:
    """Return our environment for a daemon of this home.

    It is in another directory, so relative paths are made absolute; and it is no part of the service that we may belong to.
    """
    env = {**os.environ, "DISPATCH_HOME": paths.home}
    for name in SERVICE_VARIABLES:
        env.pop(name, None)
    for name in PATH_VARIABLES:
        value = env.get(name)
        # A program's name without a slash is looked up on PATH.
        if value and (os.sep in value or name != "DISPATCH_CODEX_BIN"):
            env[name] = os.path.abspath(value)
    return env


def _open_output(paths: Paths) -> int:
    """Return a descriptor of the file for what the daemon writes before its log is open; the home is made if need be."""
    try:
        os.makedirs(paths.home, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(paths.out, flags, 0o600)
    except OSError as error:
        raise ValidationFailed(
            f"the dispatch home {paths.home} cannot be used: {error.strerror} ({error.filename})",
            hint="set DISPATCH_HOME to a directory of your own",
            details={"home": paths.home},
        ) from error


def _started(
    paths: Paths, process: subprocess.Popen[bytes], line: bytes | None, start: int
) -> bool:
    """Judge what a starting daemon said: a line, nothing until it ended (b"") or nothing in time (None)."""
    message = _parse(line)
    if message.get("ready"):
        process.returncode = 0  # it outlives us; Popen is not to warn that it was not waited for
        return True
    _end(process)
    error = message.get("error")
    if isinstance(error, dict) and error.get("code") == AlreadyRunning.code:
        return False
    if isinstance(error, dict):
        raise RemoteError(error)
    output = _tail(paths.out, start)
    what = (
        "was not ready in time"
        if line is None
        else f"ended at its start (status {process.returncode})"
    )
    raise DaemonUnreachable(
        f"the daemon {what}{': ' + output if output else ''}",
        hint=f"dispatchd run shows the start in the foreground; the log is {paths.log}",
        details={"output": output, "status": process.returncode},
    )


def _read_line(descriptor: int, deadline: float) -> bytes | None:
    """Return the line, what came before the end of the stream, or None at the deadline."""
    data = b""
    while not data.endswith(b"\n") and len(data) < READY_LIMIT:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return None
        chunk = os.read(descriptor, READY_LIMIT)
        if not chunk:
            break
        data += chunk
    return data


def _parse(line: bytes | None) -> dict[str, Any]:
    try:
        message = json.loads(line or b"{}")
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no process behind that did not become the daemon."""
    try:
        process.wait(0 if process.poll() is not None else KILL_AFTER / 5)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(KILL_AFTER)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_winner(paths: Paths, deadline: float) -> dict[str, Any] | None:
    """Return the greeting of the daemon that holds the lock, or None once nobody holds it.

    A socket that comes into being has no portable event to wait for, so the connection is tried again in growing steps.
    """
    pause = FIRST_PAUSE
    retry = threading.Event()  # never set: its wait is the step
    while True:
        with contextlib.suppress(DaemonUnreachable):
            return probe(paths)
        if time.monotonic() >= deadline:
            raise DaemonUnreachable(
                f"a daemon (pid {_lock_holder(paths)}) holds the lock of this home and does not answer",
                hint=f"try again; look into {paths.log}",
            )
        if once_unlocked(paths, 0.0, lambda: None):
            return None
        retry.wait(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _ask_to_stop(
    paths: Paths, grace: float | None, timeout: float
) -> tuple[int | None, Process | None]:
    """Ask the daemon to shut down; return its pid, None when no daemon answers, and a hold on its process."""
    try:
        with Connection.connect(paths.socket, timeout=PROBE_TIMEOUT) as connection:
            pid = int(connection.hello(greeting(), timeout=PROBE_TIMEOUT).get("pid") or 0)
            process = hold_process(pid)  # while it certainly is the daemon's pid
            # A daemon that stops may close the connection before its answer is read; the lock tells.
            with contextlib.suppress(DaemonUnreachable):
                params = {} if grace is None else {"grace": grace}
                connection.request("$shutdown", params, timeout=timeout, read=True)
            return pid, process
    except DaemonUnreachable:
        return None, None


def _remove_socket(paths: Paths) -> None:
    with contextlib.suppress(OSError):  # a stale one harms nobody: the next daemon replaces it
        os.unlink(paths.socket)


def _lock_holder(paths: Paths) -> int | None:
    """Return the pid that the holder wrote into the lock file; for people, never for a signal."""
    try:
        with open(paths.lock, "rb") as file:
            return int(json.loads(file.read())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tail(path: str, start: int) -> str:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-TAIL_LINES:])
