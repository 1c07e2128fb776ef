"""The daemon: whether one answers, is the one that is installed, or left something behind."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from dispatch_core.control.sync_client import Connection
from dispatch_core.daemon import launch
from dispatch_core.daemon.departure import once_unlocked
from dispatch_core.errors import DaemonUnreachable, DispatchError
from dispatch_core.plugin import manifest as manifests
from dispatch_plugins.cli.doctor.report import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatch_plugins.cli.doctor.report import Subject

# What Codex says on most machines, and gets along with.
HARMLESS = ("could not find bubblewrap on PATH",)
READY = frozenset({"ready", "starting"})


def answers(subject: Subject) -> Check:
    """Whether a daemon answers, and how it is; that none runs is no fault, for commands start it."""
    try:
        greeting, status = _ask(subject)
    except DaemonUnreachable as error:
        return _unreachable(subject, error)
    except DispatchError as error:
        return Check(name="daemon", status="fail", summary=error.message, recovery=error.hint)
    data = {"socket": subject.paths.socket, "reachable": True, **greeting, "status": status}
    known = manifests.identity(subject.manifest)
    codex = status.get("codex") or {}
    said = [str(note) for note in codex.get("notes") or ()]
    notes = "\n".join(note for note in said if not any(text in note for text in HARMLESS))
    pid, state = greeting.get("pid"), str(status.get("state") or greeting.get("state"))
    if state not in READY:
        return Check(
            name="daemon",
            status="fail" if state == "degraded" else "warn",
            summary=f"process {pid} is {state}: {status.get('reason') or 'it is about to stop'}",
            detail=notes or None,
            recovery=status.get("fix") or "dispatch daemon status",
            data=data,
        )
    if launch.identity(greeting) != known and not subject.unlisted:
        return Check(
            name="daemon",
            status="warn",
            summary=f"process {pid} runs another build, other plugins or another configuration",
            recovery="dispatch upgrade",
            data=data,
        )
    mode = ", offline" if greeting.get("offline") else ""
    return Check(
        name="daemon",
        status="warn" if notes else "ok",
        summary=f"process {pid} is {state}{mode}"
        + ("; Codex warned of something" if notes else ""),
        detail=notes or None,
        recovery="mend what Codex warns of in its config.toml" if notes else None,
        data=data,
    )


def remove_stale_socket(subject: Subject) -> Sequence[str]:
    """Remove the socket of a daemon that is gone; never one whose lock is held, where somebody listens, or that is no socket."""
    place = subject.paths.socket
    done: list[str] = []

    def remove() -> None:
        if _is_stale(place):
            os.unlink(place)
            done.append(f"removed the stale socket {place}")

    if os.path.isdir(subject.paths.home):
        once_unlocked(subject.paths, 0.0, remove)
    return done


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_stale(path: str) -> bool:
    """Return whether a socket is there and nobody listens: DISPATCH_SOCKET may name that of another home, or any file."""
    if not _is_socket(path):
        return False
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        return client.connect_ex(path) == errno.ECONNREFUSED


def _ask(subject: Subject) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the greeting and ``daemon status``; the latter is empty of a daemon that does not get to it in time."""
    timeout = subject.timeout
    with Connection.connect(subject.paths.socket, timeout=timeout) as connection:
        greeting = connection.hello(launch.greeting(), timeout=timeout)
        try:
            reply = connection.request("daemon.status", {}, timeout=timeout, read=True)
        except DispatchError as error:
            return greeting, {"reason": error.message, "state": greeting.get("state")}
    return greeting, dict(reply.result)


def _unreachable(subject: Subject, error: DaemonUnreachable) -> Check:
    paths = subject.paths
    there = os.path.lexists(paths.socket)
    data = {"socket": paths.socket, "socket_exists": there, "lock": paths.lock, "reachable": False}
    if os.path.exists(paths.lock) and not once_unlocked(paths, 0.0, lambda: None):
        return Check(
            name="daemon",
            status="fail",
            summary=f"a process holds {paths.lock}, and does not answer: {error.message}",
            recovery=f"dispatch down; look into {paths.log}",
            data=data,
        )
    if there and not _is_socket(paths.socket):
        return Check(
            name="daemon",
            status="fail",
            summary=f"{paths.socket} is in the place of the socket, and is none",
            recovery="move it away, or give DISPATCH_SOCKET another value",
            data=data,
        )
    if there and not _is_stale(paths.socket):
        return Check(
            name="daemon",
            status="fail",
            summary=f"a process that is not of this home listens on {paths.socket}, and does not answer",
            recovery="give each home a DISPATCH_SOCKET of its own",
            data=data,
        )
    if there:
        return Check(
            name="daemon",
            status="warn",
            summary=f"{paths.socket} is left of a daemon that is gone",
            recovery="dispatch doctor --fix removes it, and dispatch up replaces it",
            data=data,
        )
    return Check(
        name="daemon", status="ok", summary="none runs; the next command starts it", data=data
    )
