"""Reach the daemon from another process: it is started when it does not run, and replaced when it is out of date and idle.

Standard library only: the fast path of the command line imports it, and what starts a daemon is imported when one is started.
"""

from __future__ import annotations

from dispatch_core.control.sync_client import Connection
from dispatch_core.errors import DaemonStale, DaemonUnreachable, RemoteError

TYPE_CHECKING = False  # typing costs too much
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from dispatch_core.daemon.paths import Paths

    T = TypeVar("T")

MENDED = (DaemonUnreachable.code, DaemonStale.code)
CONNECT_TIMEOUT = 5.0  # seconds; a daemon that runs accepts at once


def reach(
    paths: Paths, use: Callable[[Connection], T], *, start: bool, note: Callable[[str], None]
) -> T:
    """Return what ``use`` makes of a connection to the daemon; the connection is its own unless it raises.

    use: greets and asks; called once more when nothing was done, because the daemon is stale and could be replaced, or went
    away and another one answers. start: whether a daemon may be started or replaced. note: told what is being done. Raises what
    connect and use raise, DaemonStale while something goes on in a daemon that should be replaced, and DaemonUnreachable while
    one is being replaced for longer than a command may be held back.
    """
    connection = connect(paths, start=start)
    try:
        return use(connection)
    except (RemoteError, DaemonUnreachable) as error:
        connection.close()
        if error.code not in MENDED:
            raise
        from dispatch_core.daemon import handover  # noqa: PLC0415 -- for start-up

        handover.mend(paths, error, start=start, note=note)
    except BaseException:
        connection.close()
        raise
    connection = connect(paths, start=start)
    try:
        return use(connection)
    except BaseException:
        connection.close()
        raise


def connect(paths: Paths, *, start: bool) -> Connection:
    """Return a connection to the daemon, to which nothing was sent yet. Raises DaemonUnreachable.

    start: whether it is started when it does not run.
    """
    try:
        return Connection.connect(paths.socket, timeout=CONNECT_TIMEOUT)
    except DaemonUnreachable as error:
        if not start:
            raise DaemonUnreachable(
                f"the daemon cannot be reached, and --no-start was given: {error.message}",
                hint=error.hint,
                details={"socket": paths.socket},
            ) from error
    from dispatch_core.daemon import handover, launch  # noqa: PLC0415 -- for start-up

    handover.wait(paths)
    launch.up(paths, offline=False)
    return Connection.connect(paths.socket, timeout=CONNECT_TIMEOUT)
