"""Named points in a delivery's life at which a test can make something die. Off unless the environment says otherwise twice.

``DISPATCH_TEST=1`` and ``DISPATCH_FAILPOINTS``, a list separated by commas: ``NAME:ACTION``, ``NAME:ACTION@3`` (the third time
this process reaches the point) or ``NAME:ACTION@1-3`` (those times). Without ``@`` it is the first time. Actions:

- ``kill``: SIGKILL for this process; ``kill-codex``: for the app-server; ``both``: for the app-server, then this process
- ``pause=S``: go on after S seconds
- ``error``: raise FailpointError

``DISPATCH_FAILPOINTS_LOG`` names a file that gets a line, NAME:ACTION, before the action: the proof that the fault happened.

The points, in the order in which a delivery comes by; each is awaited as ``await failpoints.reach(NAME)``:

- accept.before_commit, accept.after_commit: its row is stored; nobody was answered yet
- claim.before_commit, claim.after_commit: it becomes ``sending``
- load.before_resume, load.after_resume: Codex is asked for its thread, if it does not hold it
- send.before_write, send.after_write, send.after_answer: ``turn/start`` is written to Codex, and answered
- submitted.before_commit, submitted.after_commit; started.before_commit, started.after_commit (``turn/started``);
  ended.before_commit, ended.after_commit (``turn/completed``)
- lost.heard: Codex is gone
- reconcile.before_history, reconcile.after_history, reconcile.before_commit, reconcile.after_commit: what became of it is
  found out
- cancel.before_commit, cancel.after_commit: a person withdraws it
- drain.begun, drain.before_stop: the daemon is asked to end; Codex is about to be stopped
"""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

TEST, POINTS, LOG = "DISPATCH_TEST", "DISPATCH_FAILPOINTS", "DISPATCH_FAILPOINTS_LOG"
NAMES = (
    "accept.before_commit",
    "accept.after_commit",
    "claim.before_commit",
    "claim.after_commit",
    "load.before_resume",
    "load.after_resume",
    "send.before_write",
    "send.after_write",
    "send.after_answer",
    "submitted.before_commit",
    "submitted.after_commit",
    "started.before_commit",
    "started.after_commit",
    "ended.before_commit",
    "ended.after_commit",
    "lost.heard",
    "reconcile.before_history",
    "reconcile.after_history",
    "reconcile.before_commit",
    "reconcile.after_commit",
    "cancel.before_commit",
    "cancel.after_commit",
    "drain.begun",
    "drain.before_stop",
)
_FORM = re.compile(
    r"(?P<name>[a-z_.]+):(?P<action>kill|kill-codex|both|error|pause=(?P<seconds>\d+(\.\d+)?))"
    r"(@(?P<first>[1-9]\d*)(-(?P<last>[1-9]\d*))?)?"
)


class FailpointError(Exception):
    """What a failpoint raises that was told to."""


@dataclass(slots=True)
class _Armed:
    """What one point does. first, last: at which times it is reached; reached: how often it was."""

    name: str
    action: str
    seconds: float
    first: int
    last: int
    reached: int = 0


_armed: dict[str, _Armed] = {}
_log: str | None = None
codex_pid: int | None = None  # of the app-server that runs; the supervisor sets it


def arm(env: Mapping[str, str]) -> None:
    """Switch on what the environment of a test asks for. Raises ValidationFailed for what is misspelt: it would test nothing."""
    global _log  # noqa: PLW0603 -- one process, one set of failpoints
    _armed.clear()
    if env.get(TEST) != "1":
        return
    _log = env.get(LOG)
    for text in filter(None, env.get(POINTS, "").split(",")):
        found = _FORM.fullmatch(text.strip())
        if found is None or found["name"] not in NAMES:
            raise ValidationFailed(
                f"{POINTS}: {text!r} is not NAME:ACTION@TIMES of a failpoint",
                hint=f"unset {POINTS}, or use one of {', '.join(NAMES)}",
            )
        first = int(found["first"] or 1)
        _armed[found["name"]] = _Armed(
            name=found["name"],
            action=found["action"].partition("=")[0],
            seconds=float(found["seconds"] or 0),
            first=first,
            last=int(found["last"] or first),
        )


async def reach(name: str) -> None:
    """Return at once, unless a test armed this point."""
    if _armed and (armed := _due(name)) is not None:
        if armed.action == "pause":
            import anyio  # noqa: PLC0415 -- costs nothing to whom no test arms

            await anyio.sleep(armed.seconds)
        _act(armed)


def armed(name: str) -> bool:
    """Return whether a test armed this point."""
    return name in _armed


def reach_sync(name: str) -> None:
    """Return at once, unless a test armed this point; where nothing can be awaited."""
    if _armed and (armed := _due(name)) is not None:
        if armed.action == "pause":
            time.sleep(armed.seconds)
        _act(armed)


def _due(name: str) -> _Armed | None:
    """Count that a point was reached, and return it when it is to act now."""
    armed = _armed.get(name)
    if armed is None:
        return None
    armed.reached += 1
    if not armed.first <= armed.reached <= armed.last:
        return None
    if _log is not None:
        with open(_log, "a", encoding="utf-8") as file:  # noqa: PTH123 -- pathlib costs start-up
            file.write(f"{name}:{armed.action}\n")
    return armed


def _act(armed: _Armed) -> None:
    if armed.action in ("kill-codex", "both") and codex_pid is not None:
        os.kill(codex_pid, signal.SIGKILL)
    if armed.action in ("kill", "both"):
        os.kill(os.getpid(), signal.SIGKILL)
    if armed.action == "error":
        raise FailpointError(armed.name)
