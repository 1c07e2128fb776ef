"""One daemon after another: the old one drains and the build that is installed takes over.

Whoever replaces a daemon holds the hand-over lock meanwhile, so two do not replace each other's, and whoever finds no daemon
knows that one is on its way: it waits a moment instead of starting one of its own, which might not be in offline mode.
Standard library only: the command line and the MCP bridge import it when something stands in their way.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from pathlib import Path

from dispatch_core.daemon import launch
from dispatch_core.daemon.departure import acquire
from dispatch_core.errors import DaemonStale, DaemonUnreachable, DispatchError, TimedOut

TYPE_CHECKING = False  # typing costs too much
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from dispatch_core.daemon.paths import Paths
    from dispatch_core.errors import RemoteError

HOLD = 10.0  # seconds for which a command is held back while a daemon is replaced


@contextmanager
def handing_over(paths: Paths, timeout: float) -> Iterator[None]:
    """Be the only one who replaces the daemon of this home, while the context lasts. Raises TimedOut.

    timeout: seconds for which somebody else may go on with it.
    """
    descriptor = acquire(_lock(paths), timeout)
    if descriptor is None:
        raise TimedOut(
            f"process {_holder(paths).get('pid')} still replaces the daemon; nothing was done",
            hint=f"try again; dispatch daemon status shows the daemon, and {paths.log} what it waits for",
        )
    try:
        _write(descriptor, {"pid": os.getpid()})
        yield
    finally:
        os.close(descriptor)


def announce(paths: Paths, seconds: float) -> None:
    """Say for how long the running turns may go on; for the commands that have to wait meanwhile."""
    descriptor = os.open(_lock(paths), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _write(descriptor, {"pid": os.getpid(), "until": time.time() + seconds})
    finally:
        os.close(descriptor)


def wait(paths: Paths, timeout: float = HOLD) -> bool:
    """Wait while somebody replaces the daemon; say whether somebody did.

    Raises DaemonUnreachable, which is to be tried again, when it takes longer than timeout seconds.
    """
    if not Path(_lock(paths)).exists():
        return False
    descriptor = acquire(_lock(paths), 0.0)
    waited = descriptor is None
    if descriptor is None:
        descriptor = acquire(_lock(paths), timeout)
    if descriptor is None:
        raise _upgrading(paths)
    os.close(descriptor)
    return waited


def mend(
    paths: Paths,
    error: RemoteError | DaemonUnreachable,
    *,
    start: bool,
    note: Callable[[str], None],
) -> None:
    """Return when what failed can be asked again, because nothing was done and another daemon answers. Raises otherwise.

    error: why it failed. start: whether a daemon may be replaced. note: told what is being done.
    """
    if error.code == DaemonStale.code and start:
        replace(paths, error, note)
    elif error.code != DaemonUnreachable.code or not (wait(paths) or _serves(paths)):
        raise error


def replace(paths: Paths, error: DispatchError, note: Callable[[str], None]) -> None:
    """Restart a daemon that refused a client because it runs another build or other plugins.

    error: its ``daemon_stale``. note: told what is being done. Raises DaemonStale, having done nothing, while turns run in it or
    sessions are open, and when it cannot be told whether they do.
    """
    if error.details.get("active_turns") != 0 or error.details.get("sessions"):
        raise _stale(error)
    with handing_over(paths, HOLD):
        found = launch.starting(paths)
        if found is not None:
            if found["instance"] != error.details.get("instance"):
                return  # somebody else was faster
            if found["active_turns"] or found["sessions"]:
                raise _stale(error)
            note("the daemon runs another build or other plugins and is idle: restarting it")
            launch.down(paths)
        launch.up(paths, offline=bool(error.details.get("offline")))


def _serves(paths: Paths) -> bool:
    """Return whether a daemon answers that is not about to stop."""
    try:
        return bool(launch.probe(paths)["state"] != "draining")
    except DispatchError:
        return False


def _stale(error: DispatchError) -> DaemonStale:
    return DaemonStale(
        error.message,
        hint=error.hint or "dispatch upgrade replaces the daemon; turns get time to end first",
        details=error.details,
    )


def _upgrading(paths: Paths) -> DaemonUnreachable:
    left = max(1.0, _holder(paths).get("until", 0.0) - time.time())
    return DaemonUnreachable(
        "the daemon is being upgraded and waits for turns to end; nothing was done",
        hint=f"try again in {left:.0f} s, or sooner: the turns may end before that",
        details={"seconds": round(left, 1)},
    )


def _lock(paths: Paths) -> str:
    return f"{paths.home}/handover.lock"


def _holder(paths: Paths) -> dict[str, Any]:
    """Return what the holder of the lock wrote: pid, and until when turns may run. For people."""
    try:
        found = json.loads(Path(_lock(paths)).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(descriptor: int, content: dict[str, Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(content).encode() + b"\n", 0)
