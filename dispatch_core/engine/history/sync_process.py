"""A pass in a process of its own, so that a long one does not slow the daemon: ``python -m`` this module.

It reads what to do from a line on stdin, writes its progress and its report as lines on stdout, and ends early, with what it has,
when stdin is closed; so it never outlives the daemon.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.contracts.history import SyncReport
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.history.sync_pass import SyncPass, Wish
from dispatch_core.errors import DispatchError, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatch_core.contracts.history import IndexAddress

NICENESS: Final = 10
PROGRESS_EVERY: Final = 0.1  # seconds


def order(address: IndexAddress, codex_home: Path, wish: Wish) -> bytes:
    """Return the line that says what to do."""
    message = {"address": asdict(address), "codex_home": str(codex_home), "wish": asdict(wish)}
    return json.dumps(message).encode() + b"\n"


def parse(line: bytes, progress: Callable[[int, int], None]) -> SyncReport | None:
    """Return the report when a line is one, and hand progress on. Raises RemoteError when it is the error that ended the pass."""
    message: dict[str, Any] = json.loads(line)
    if "error" in message:
        raise RemoteError(message["error"])
    if "report" in message:
        report = message["report"]
        return SyncReport(**{**report, "problems": tuple(report["problems"])})
    progress(*message["progress"])
    return None


def main() -> int:
    """Do what stdin says. Returns 0 also when the pass failed: the error is on stdout."""
    # Whoever interrupts the daemon's terminal interrupts the daemon, which closes stdin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    with os.fdopen(os.dup(0), "rb", buffering=0) as orders:
        message = json.loads(orders.readline())
    stop = threading.Event()
    threading.Thread(target=_until_closed, args=(stop,), daemon=True).start()
    try:
        answer: dict[str, Any] = {"report": asdict(_run(message, stop))}
    except DispatchError as error:
        answer = {"error": error.to_dict()}
    try:
        _say(answer)
    except OSError:  # nobody listens any more; what was read is in the index
        os._exit(0)  # and what could not be said must not be tried again at exit
    return 0


def _run(message: dict[str, Any], stop: threading.Event) -> SyncReport:
    address, wish = message["address"], message["wish"]
    native_ids = wish["native_ids"]
    asked = Wish(None if native_ids is None else tuple(native_ids), full=wish["full"])
    opened = getattr(import_module(address["module"]), address["function"])
    with opened(*address["arguments"]) as index:
        work = SyncPass(index, Path(message["codex_home"]), SystemClock())
        return work.run(work.plan(asked), progress=_Progress(stop), stopped=stop.is_set)


def _until_closed(stop: threading.Event) -> None:
    """Wait until nobody holds the other end of stdin any more."""
    while os.read(0, 1):
        pass
    stop.set()


class _Progress:
    """Says how far the pass is, not too often."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._due = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now >= self._due:
            self._due = now + PROGRESS_EVERY
            try:
                _say({"progress": [done, total]})
            except OSError:  # nobody listens any more
                self._stop.set()


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
