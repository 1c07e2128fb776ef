"""Wait until a daemon is gone: its lock is free and its process has ended, each known from the kernel and without polling."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
import threading
import time

TYPE_CHECKING = False  # typing costs too much
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dispatch_core.daemon.paths import Paths

    Process = Any  # a pidfd, or a kqueue where there are none


def once_unlocked(paths: Paths, timeout: float, then: Callable[[], None]) -> bool:
    """Run ``then`` while holding the daemon's lock, as soon as it is free; False if it is not within timeout seconds.

    The daemon holds the lock for its whole life and the kernel releases it, so having it proves that no daemon uses the home,
    which neither a missing socket nor a pid (it may be somebody else's by now) does.
    """
    try:
        descriptor = acquire(paths.lock, timeout)
    except FileNotFoundError:
        return True  # no home, so no daemon in it
    if descriptor is None:
        return False
    try:
        then()
    finally:
        os.close(descriptor)
    return True


def acquire(path: str, timeout: float) -> int | None:
    """Return a descriptor that holds the lock at path until it is closed; None if others have it for timeout seconds.

    The file is made if need be; FileNotFoundError says that there is no directory for it. flock has no deadline, hence the
    thread.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        descriptor = os.open(path, os.O_RDONLY | flags)  # it can be locked all the same
    if _try_lock(descriptor):
        return descriptor
    if timeout <= 0:
        os.close(descriptor)
        return None
    return descriptor if _LockWaiter(descriptor).wait(timeout) else None


class _LockWaiter:
    """A thread that waits for a lock; whoever comes too late, it or its caller, knows that the other has decided."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._decided = threading.Lock()
        self._acquired = threading.Event()
        self._abandoned = False
        threading.Thread(target=self._run, name="daemon lock", daemon=True).start()

    def wait(self, timeout: float) -> bool:
        """Return True once the lock is held; after False the thread gives the lock up by itself."""
        self._acquired.wait(timeout)
        with self._decided:
            self._abandoned = not self._acquired.is_set()
        return not self._abandoned

    def _run(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._decided:
            if self._abandoned:
                os.close(self._descriptor)
            else:
                self._acquired.set()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def hold_process(pid: int) -> Process | None:
    """Return something to select on that is readable once the process has ended; None where there is no such thing."""
    try:
        if sys.platform == "linux":
            return os.pidfd_open(pid)
        queue = select.kqueue()
        wanted = select.kevent(
            pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, fflags=select.KQ_NOTE_EXIT
        )
        queue.control([wanted], 0)
    except (OSError, AttributeError):
        return None
    return queue


def ended(process: Process | None, deadline: float) -> bool:
    """Wait until a process has ended: the lock is free a little earlier, when the interpreter has not been torn down yet."""
    if process is None:
        return True
    ready, _, _ = select.select([process], [], [], max(0.0, deadline - time.monotonic()))
    if isinstance(process, int):
        os.close(process)
    return bool(ready)
