"""``dispatch upgrade``: the daemon that runs drains, and the build that is installed goes on with its work.

Before anything is stopped, the installed build shows in a process of its own that it can start (``dispatchd check``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.control.sync_client import Connection
from dispatch_core.daemon import handover, launch
from dispatch_core.daemon.departure import hold_process
from dispatch_core.errors import (
    DaemonUnreachable,
    DispatchError,
    OutcomeUnknown,
    ProtocolViolation,
    RemoteError,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dispatch_core.daemon.departure import Process
    from dispatch_core.daemon.paths import Paths

CHECK_TIMEOUT = 120.0  # seconds for the installed build to show that it can start
START_TIMEOUT = 300.0  # seconds for the new daemon, which may have much to migrate
ASK_TIMEOUT = 5.0
PAGE = 500  # deliveries, the most that one call lists
BUSY = ("busy", "waiting_approval")
ENDINGS = ("turn.completed", "turn.failed", "turn.interrupted", "turn.unknown")
INTERRUPTED = "turn.interrupted"


def upgrade(
    paths: Paths, identity: str, *, grace: float, note: Callable[[str], None]
) -> dict[str, Any]:
    """Put a daemon of the installed build in the place of the one that runs, and return what was done.

    identity: of the installed build, as in a greeting. grace: seconds for running turns, which are interrupted after that. note:
    told what is waited for. Returns {status: "upgraded" | "current" | "not_running", from, to: {version, build, pid}, offline,
    state, seconds, turns: how many ran, interrupted: whose were cut short, sessions: how many ended, queued: how many messages
    wait}; what does not apply is None. Raises DispatchError, with the running daemon untouched, when the installed build cannot
    start, and DaemonUnreachable when it could and yet did not.
    """
    with handover.handing_over(paths, grace + launch.STOP_TIMEOUT):
        began = time.monotonic()
        found = launch.starting(paths)
        if found is None or _is_current(found, identity):
            return _answer("not_running" if found is None else "current", found, found)
        check(paths, offline=found["offline"])
        drained = _drain(paths, grace, note)
        new = _start(paths, found)
    return {
        **_answer("upgraded", found, new),
        "state": launch.settled_state(paths),
        "seconds": round(time.monotonic() - began, 3),
        "turns": drained.turns,
        "interrupted": drained.interrupted,
        "sessions": found["sessions"],
        "queued": drained.queued,
    }


def begin(paths: Paths, identity: str, *, grace: float) -> dict[str, Any]:
    """Have the upgrade done by a process of its own, once the installed build is known to be able to start.

    Arguments, answer and errors as for ``upgrade``, with the status "upgrading" when there is something to do.
    """
    found = launch.starting(paths)
    if found is None or _is_current(found, identity):
        return _answer("not_running" if found is None else "current", found, found)
    check(paths, offline=found["offline"])
    command = [sys.executable, "-P", "-m", "dispatch_core.boot", "upgrade", "--grace", f"{grace:g}"]
    with open(paths.out, "ab") as out:  # noqa: PTH123 -- as for the daemon, whose output it is
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=paths.home,
            env=launch.environment(paths),
            start_new_session=True,
        )
    process.returncode = 0  # it outlives us; Popen is not to warn that it was not waited for
    return _answer("upgrading", found, None)


def check(paths: Paths, *, offline: bool) -> None:
    """Return if a daemon of the installed build can start here: its code, plugins, configuration and the registry's schema.

    Raises DispatchError, which says that the daemon that runs goes on.
    """
    command = [sys.executable, "-P", "-m", "dispatch_core.daemon.main", "check"]
    try:
        done = subprocess.run(
            [*command, "--offline"] if offline else command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            cwd=paths.home,
            env=launch.environment(paths),
            timeout=CHECK_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOut(
            f"the installed build did not show within {CHECK_TIMEOUT:g} s that it can start; the daemon that runs goes on",
            hint="try again; dispatch doctor checks the installation",
        ) from error
    if done.returncode:
        raise _cannot_start(done.stdout, done.stderr)


def _cannot_start(out: str, err: str) -> DispatchError:
    lines = err.strip().splitlines() or ["it gives no reason"]
    reason: dict[str, Any] = {"code": DispatchError.code, "message": lines[-1]}
    with suppress(ValueError, TypeError, KeyError):
        reason.update(json.loads(out)["error"])
    said, hint = reason["message"], reason.get("hint")
    return RemoteError(
        {
            "code": reason["code"],
            "message": f"the installed build cannot start: {said}; nothing was done, and the daemon that runs goes on",
            "hint": hint or "dispatch doctor looks at the installation; then dispatch upgrade",
            "details": {
                **(reason.get("details") or {}),
                "output": "\n".join(lines[-launch.TAIL_LINES :]),
            },
        }
    )


@dataclass(frozen=True, slots=True)
class _Drained:
    """What went on in the daemon that stopped: how many turns, whose were interrupted, how many messages wait. None: unknown."""

    turns: int | None = None
    interrupted: list[str] | None = None
    queued: int | None = None


def _drain(paths: Paths, grace: float, note: Callable[[str], None]) -> _Drained:
    """Ask the daemon to stop and return when it has ended, what went on in it."""
    deadline = time.monotonic() + grace + launch.STOP_TIMEOUT
    try:
        connection = Connection.connect(paths.socket, timeout=ASK_TIMEOUT)
    except DaemonUnreachable:  # it has ended by itself
        launch.gone(paths, None, None, deadline)
        return _Drained()
    with connection:
        greeting = connection.hello(launch.greeting(), timeout=ASK_TIMEOUT)
        pid, running = int(greeting["pid"]), int(greeting["active_turns"])
        process: Process | None = hold_process(pid)
        names = _names(connection)
        _subscribe(connection)
        queued = None
        with suppress(DaemonUnreachable):  # it may close the connection before its answer is read
            connection.request("$shutdown", {"grace": grace}, timeout=ASK_TIMEOUT)
            handover.announce(paths, grace)
            if running:
                note(f"waiting up to {grace:g} s for {_count(running, 'running turn')}")
            queued = _queued(connection)
        interrupted = _interrupted(connection, deadline)
    launch.gone(paths, pid, process, deadline)
    return _Drained(running, [names.get(key, key) for key in interrupted], queued)


def _queued(connection: Connection) -> int | None:
    """Return how many messages wait in the registry, which the draining daemon adds none to and takes none from.

    None when the daemon of another build does not say.
    """
    count, after = 0, None
    try:
        while True:
            asked = {"state": ["queued"], "limit": PAGE, "after": after}
            reply = connection.request("delivery.list", asked, timeout=ASK_TIMEOUT, read=True)
            count, after = count + len(reply.result["deliveries"]), reply.result["next"]
            if after is None:
                return count
    except (RemoteError, TimedOut, KeyError, TypeError):
        return None


def _names(connection: Connection) -> dict[str, str]:
    """Return what the threads in which turns run are called, by key; empty when another build's daemon does not say."""
    try:
        reply = connection.request("list", {"status": list(BUSY)}, timeout=ASK_TIMEOUT, read=True)
        threads = [row["thread"] for row in reply.result["threads"]]
        return {thread["key"]: thread["handle"] or thread["ref"] for thread in threads}
    except (RemoteError, KeyError, TypeError):
        return {}


def _subscribe(connection: Connection) -> None:
    with suppress(RemoteError):
        connection.subscribe(kinds=list(ENDINGS), timeout=ASK_TIMEOUT)


def _interrupted(connection: Connection, deadline: float) -> list[str]:
    """Return the keys of the threads whose turns are interrupted from now on, until the daemon ends the connection."""
    found: list[str] = []
    with suppress(DaemonUnreachable, OutcomeUnknown, TimedOut, ProtocolViolation):
        for heard in connection.events(timeout=max(0.0, deadline - time.monotonic())):
            event: Mapping[str, Any] = heard.event or {}
            if event.get("kind") == INTERRUPTED and event.get("thread"):
                found.append(str(event["thread"]))
    return list(dict.fromkeys(found))


def _start(paths: Paths, old: Mapping[str, Any]) -> dict[str, Any]:
    """Start the daemon of the installed build and return its greeting."""
    again = "dispatch up --offline" if old["offline"] else "dispatch up"
    try:
        launch.up(paths, offline=bool(old["offline"]), timeout=START_TIMEOUT)
        return launch.probe(paths)
    except DispatchError as error:
        raise DaemonUnreachable(
            f"the daemon of {_text(old)} has stopped, and that of the installed build does not start: {_short(error.message)}",
            hint=f"no daemon runs now, and what was accepted is kept: mend that, then {again}",
            details={**error.details, "from": _build(old), "cause": error.code},
        ) from error


def _short(message: str) -> str:
    """Return the first words and the last line of a message that ends with what a process wrote."""
    first, *others = message.splitlines()
    return f"{first.partition(': ')[0]}: {others[-1]}" if others else first


def _is_current(found: Mapping[str, Any], identity: str) -> bool:
    return launch.identity(found) == identity and found["state"] != "draining"


def _answer(
    status: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None
) -> dict[str, Any]:
    shown = new or old or {}
    return {
        "status": status,
        "from": None if old is None else _build(old),
        "to": None if new is None else _build(new),
        "offline": shown.get("offline"),
        "state": shown.get("state"),
        **dict.fromkeys(("seconds", "turns", "interrupted", "sessions", "queued")),
    }


def _build(greeting: Mapping[str, Any]) -> dict[str, Any]:
    return {name: greeting.get(name) for name in ("version", "build", "pid")}


def _text(greeting: Mapping[str, Any]) -> str:
    return f"version {greeting.get('version')}, build {greeting.get('build')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
