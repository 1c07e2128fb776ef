"""The app-server as a child process that cannot outlive us: started, drained, ended and reaped."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections import deque
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

import anyio

from dispatch_core.appserver.lines import LineSplitter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from anyio.abc import ByteReceiveStream, ByteSendStream, Process, TaskGroup

log = logging.getLogger(__name__)

STDERR_LINES = 50
STDERR_LINE_LIMIT = 16 * 1024
EXIT_GRACE = 3.0
REAP_PATIENCE = 5.0
DRAIN_PATIENCE = 1.0
PREDECESSOR_PATIENCE = 10.0
OUTWAIT_STEP = 0.05
# Fields of /proc/PID/stat, counted from the state, which is the third.
STATE, THREADS, START_TIME, RESIDENT = 0, 17, 19, 21
ENDED_STATES = ("Z", "X")
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

# Run by a bare interpreter between us and the program; it keeps the pid. The parent-death signal is
# set after the fork and survives exec; the parent may have died in between, hence the second check.
# Python's own changes (ignored SIGPIPE, a coerced LC_CTYPE) are undone. preexec_fn would do the
# same, unsafely, in a process with threads.
TETHER = """\
import ctypes, os, signal, sys
parent, lc_ctype, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
if ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0):
    sys.exit("cannot set the parent-death signal")
if os.getppid() != parent:
    sys.exit("the parent is gone")
for name in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(name, signal.SIG_DFL)
os.environ["LC_CTYPE"] = lc_ctype
if not lc_ctype:
    del os.environ["LC_CTYPE"]
try:
    os.execv(program[0], program)
except OSError as error:
    sys.exit(f"cannot run {program[0]}: {error.strerror}")
"""


class CodexProcess:
    """A running child with pipes, the leader of its own process group; made by ``spawn``.

    pid: of the program itself. start_time: clock ticks from boot to its start, which with the pid
    names one process of this boot; None where the system does not tell.
    """

    def __init__(self, process: Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("the process has no pipes")
        self._process = process
        self._stderr: ByteReceiveStream = process.stderr
        self._stderr_tail: deque[str] = deque(maxlen=STDERR_LINES)
        self._drained = anyio.Event()
        self.stdin: ByteSendStream = process.stdin
        self.stdout: ByteReceiveStream = process.stdout
        self.pid: int = process.pid
        self.start_time: int | None = start_time_of(process.pid)

    @property
    def returncode(self) -> int | None:
        """The exit status; negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def stderr_tail(self) -> tuple[str, ...]:
        """The last lines it wrote to stderr, oldest first, without colours; at most 50."""
        return tuple(self._stderr_tail)

    async def wait(self) -> int:
        """Return the exit status once it has ended."""
        return await self._process.wait()

    async def terminate(self, grace: float, *, hung: bool = False) -> None:
        """End it and reap it: close its stdin, after grace seconds SIGTERM, after as many SIGKILL.

        hung: it does not look at its stdin any more, so begin with SIGTERM. Signals go to the whole
        group; what is left of the group after it ended is killed. Does nothing twice.
        """
        steps = (signal.SIGTERM, signal.SIGKILL) if hung else (None, signal.SIGTERM, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await self.stdin.aclose()
            for number in steps:
                if number is not None and self.returncode is None:
                    self._signal(number)
                with anyio.move_on_after(REAP_PATIENCE if number == signal.SIGKILL else grace):
                    await self._process.wait()
                if self.returncode is not None:
                    self._signal(signal.SIGKILL)
                    with anyio.move_on_after(DRAIN_PATIENCE):
                        await self._drained.wait()
                    return
            log.error("process %s did not end after SIGKILL", self.pid)

    async def drain_stderr(self) -> None:
        """Read stderr to its end, keeping the last lines; ``spawn`` runs it."""
        splitter = LineSplitter(STDERR_LINE_LIMIT)
        try:
            async for chunk in self._stderr:
                for line in splitter.feed(chunk):
                    text = ESCAPES.sub("", line.decode("utf-8", "replace")).rstrip()
                    self._stderr_tail.append(text)
                    log.debug("codex[%s]: %s", self.pid, text)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            log.debug("codex[%s]: stderr closed", self.pid)
        finally:
            self._drained.set()

    async def discard_stdout(self) -> None:
        """Read what is left of stdout, so that the pipe is closed; ``spawn`` runs it last.

        If another process holds the pipe, it is given up after a second and closed when that ends.
        """
        with (
            anyio.move_on_after(DRAIN_PATIENCE, shield=True),
            suppress(anyio.BrokenResourceError, anyio.ClosedResourceError),
        ):
            async for _ in self.stdout:
                pass

    def _signal(self, number: signal.Signals) -> None:
        # EPERM is what macOS says of a group of which only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


@asynccontextmanager
async def spawn(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path
) -> AsyncIterator[CodexProcess]:
    """Run a program with pipes while the context lasts; on leaving it has ended and is reaped.

    env is its whole environment. On Linux it is killed as soon as this process dies, provided that
    the thread that runs the event loop is the one that lives longest (the kernel watches the thread
    that forked). Raises OSError if it cannot be started.
    """
    argv = list(command)
    if sys.platform == "linux":
        wrapper = [sys.executable, "-I", "-S", "-c", TETHER]
        argv = [*wrapper, str(os.getpid()), env.get("LC_CTYPE", ""), *argv]
    child = await anyio.open_process(
        argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(env), cwd=cwd, start_new_session=True
    )
    process = CodexProcess(child)
    async with background() as tasks:
        tasks.start_soon(process.drain_stderr)
        try:
            yield process
        finally:
            await process.terminate(EXIT_GRACE)
            await process.discard_stdout()


@asynccontextmanager
async def background() -> AsyncIterator[TaskGroup]:
    """Own the tasks that serve a context; on leaving they are cancelled.

    An error of the body leaves as itself, not in a group.
    """
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 -- raised again below, outside the group
            failure = error
        finally:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def output_of(command: Sequence[str]) -> str:
    """Run a program without input to its end and return its stdout. Raises OSError."""
    done = await anyio.run_process(list(command), stdin=DEVNULL, check=False)
    return done.stdout.decode("utf-8", "replace")


class Predecessor(StrEnum):
    """What became of a left-over process.

    UNIDENTIFIED: there is a process of this number, this system cannot tell whether it is the one, and nothing was done to it.
    """

    GONE = "gone"
    ENDED = "ended"
    KILLED = "killed"
    UNIDENTIFIED = "unidentified"


async def kill_predecessor(
    pid: int, start_time: int | None, *, patience: float = PREDECESSOR_PATIENCE
) -> Predecessor:
    """Wait until the child of a former daemon is gone, and kill its group after patience seconds.

    pid and start_time as CodexProcess told them, on this boot; a process with the same pid and
    another start is never touched.
    """
    if start_time is None or sys.platform != "linux":
        return await _outwait(pid, patience)
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return Predecessor.GONE
    try:
        # Checked after the handle was opened: if it matches now, the handle is for that process.
        if start_time_of(pid) != start_time:
            return Predecessor.GONE
        if await _ends_within(handle, patience):
            return Predecessor.ENDED
        log.warning("killing the former app-server, process %s", pid)
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == pid and start_time_of(pid) == start_time:
                os.killpg(pid, signal.SIGKILL)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        await _ends_within(handle, REAP_PATIENCE)
        return Predecessor.KILLED
    finally:
        os.close(handle)


def start_time_of(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it cannot be told."""
    fields = _stat(pid)
    return None if fields is None else int(fields[START_TIME])


def state_of(pid: int) -> str | None:
    """Return the state of a process in the kernel's letter, such as R, S, T (stopped) or Z; None if it cannot be told."""
    fields = _stat(pid)
    return None if fields is None else fields[STATE]


def resident_bytes(pid: int) -> int | None:
    """Return the memory a process holds now, in bytes; None where the system does not tell."""
    fields = _stat(pid)
    return None if fields is None else int(fields[RESIDENT]) * os.sysconf("SC_PAGE_SIZE")


def is_gone(pid: int, start_time: int | None) -> bool | None:
    """Return whether it is proven that a process of this boot does nothing any more.

    pid and start_time as CodexProcess told them. True: there is no process of that number, or it is another one, or it has ended
    and only waits to be reaped. False: it is there. None: there is one, and the system does not tell whether it is the same.
    """
    try:
        if not _exists(pid):
            return True
    except PermissionError:
        return None
    fields = _stat(pid)
    if fields is None and not _exists(pid):
        return True  # it went away between the two questions
    if fields is None or start_time is None:
        return None
    if int(fields[START_TIME]) != start_time:
        return True
    # A program whose first thread has ended looks like a zombie, too, while its other threads run on.
    return fields[STATE] in ENDED_STATES and int(fields[THREADS]) <= 1


def _exists(pid: int) -> bool:
    """Return whether there is a process of this number. Raises PermissionError when it is somebody else's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _stat(pid: int) -> list[str] | None:
    """Return what /proc says of a process, from its state on; None if it says nothing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The field before, the name in parentheses, may hold anything.
    return stat.rpartition(")")[2].split()


async def _outwait(pid: int, patience: float) -> Predecessor:
    """Wait until no process has this number, for at most patience seconds."""
    with anyio.move_on_after(patience):
        while is_gone(pid, None) is not True:  # noqa: ASYNC110 -- the end of another's child is no event here
            await anyio.sleep(OUTWAIT_STEP)
        return Predecessor.GONE
    return Predecessor.UNIDENTIFIED


async def _ends_within(handle: int, patience: float) -> bool:
    """Wait until the process of a pidfd has ended; False if it has not within patience seconds."""
    with anyio.move_on_after(patience):
        await anyio.wait_readable(handle)
        return True
    return False
