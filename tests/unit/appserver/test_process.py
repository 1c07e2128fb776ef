from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import anyio
import pytest

from dispatch_core.appserver.process import (
    Predecessor,
    is_gone,
    kill_predecessor,
    spawn,
    start_time_of,
    state_of,
)

from .conftest import until

pytestmark = pytest.mark.anyio

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="Linux tells start times and parents' deaths"
)
PARENT = """
import os, pathlib, sys
import anyio
from dispatch_core.appserver.process import spawn

async def main():
    async with spawn(sys.argv[1:], env=dict(os.environ), cwd=pathlib.Path("/")) as process:
        print(process.pid, process.start_time, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def start(command: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(command, **options)


def reaped(pid: int) -> bool:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


@pytest.fixture
def stubborn(fake_binary):
    """A program that ignores the end of its stdin and SIGTERM."""
    return [str(fake_binary), "app-server"], {"PATH": os.defpath, "FAKE_CODEX": "stubborn"}


async def test_the_child_gets_its_environment_signals_and_directory_as_told(fake_binary, tmp_path):
    env = {"PATH": os.defpath, "FAKE_CODEX": "environment", "PYTHONPATH": "/x", "LANG": "C"}

    with anyio.fail_after(10):
        async with spawn([str(fake_binary)], env=env, cwd=tmp_path) as process:
            text = b"".join([chunk async for chunk in process.stdout])
            status = await process.wait()

    told = json.loads(text)
    # What the fake's own shell and interpreter add.
    for name in ("PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"):
        told["env"].pop(name, None)
    assert told["env"] == env
    assert Path(told["cwd"]) == tmp_path.resolve()
    assert status == 0


async def test_the_wrapper_leaves_no_trace_in_the_environment(tmp_path):
    env = {"PATH": os.defpath}

    with anyio.fail_after(10):
        async with spawn(["/usr/bin/env"], env=env, cwd=tmp_path) as process:
            text = b"".join([chunk async for chunk in process.stdout])

    assert text.decode().split() == [f"PATH={os.defpath}"]


@LINUX
async def test_the_wrapper_leaves_no_signal_ignored(tmp_path):
    command = ["/bin/grep", "SigIgn", "/proc/self/status"]

    with anyio.fail_after(10):
        async with spawn(command, env={}, cwd=tmp_path) as process:
            text = b"".join([chunk async for chunk in process.stdout])

    ignored = int(text.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


async def test_a_program_that_is_missing_says_so_on_stderr_or_raises(tmp_path):
    said = ""

    try:
        with anyio.fail_after(10):
            async with spawn([str(tmp_path / "missing")], env={}, cwd=tmp_path) as process:
                assert await process.wait() != 0
            said = " ".join(process.stderr_tail)
    except FileNotFoundError as error:
        said = str(error)

    assert "No such file" in said
    assert "missing" in said


async def test_a_directory_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        async with spawn(["/bin/true"], env={}, cwd=tmp_path / "missing"):
            pass


async def test_the_end_of_stdin_ends_it_and_it_is_reaped(fake_binary, short_tmp):
    env = {"PATH": os.defpath}

    with anyio.fail_after(10):
        async with spawn([str(fake_binary)], env=env, cwd=short_tmp) as process:
            assert os.getpgid(process.pid) == process.pid
        status = process.returncode

    assert status == 0
    assert reaped(process.pid)


async def test_one_that_ignores_stdin_and_sigterm_is_killed(stubborn, short_tmp):
    command, env = stubborn

    with anyio.fail_after(15):
        async with spawn(command, env=env, cwd=short_tmp) as process:
            await process.stdout.receive()
            await process.terminate(0.2)
            await process.terminate(0.2)

    assert process.returncode == -signal.SIGKILL


async def test_leaving_by_cancellation_ends_it_too(fake_binary, short_tmp):
    env = {"PATH": os.defpath}

    with anyio.move_on_after(0.3) as scope:
        async with spawn([str(fake_binary)], env=env, cwd=short_tmp) as process:
            await anyio.sleep_forever()

    assert scope.cancelled_caught
    assert process.returncode is not None


async def test_an_error_in_the_body_leaves_as_itself(short_tmp):
    with pytest.raises(LookupError, match="mine"):
        async with spawn(["/bin/cat"], env={}, cwd=short_tmp):
            raise LookupError("mine")


async def test_the_last_lines_of_stderr_are_kept_without_colours(short_tmp):
    program = "import sys\nfor n in range(5000): sys.stderr.write(f'\\x1b[31mline {n}\\x1b[0m\\n')"

    with anyio.fail_after(10):
        async with spawn([sys.executable, "-c", program], env={}, cwd=short_tmp) as process:
            await process.wait()

    assert process.stderr_tail == tuple(f"line {n}" for n in range(4950, 5000))


@LINUX
async def test_kill_9_of_the_parent_kills_the_child(stubborn):
    command, env = stubborn
    parent = start(
        [sys.executable, "-c", PARENT, *command], env={**os.environ, **env}, stdout=subprocess.PIPE
    )
    with parent:
        pid, start_time = map(int, parent.stdout.readline().split())
        assert alive(pid)

        parent.kill()

    await until(lambda: start_time_of(pid) != start_time or not alive(pid))


@LINUX
async def test_a_predecessor_that_does_not_end_is_killed_with_its_group():
    script = textwrap.dedent("""
        import os, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
        time.sleep(60)
    """)
    left = start([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    with left:
        member = int(left.stdout.readline())
        start_time = start_time_of(left.pid)

        with anyio.fail_after(10):
            outcome = await kill_predecessor(left.pid, start_time, patience=0.1)

    assert outcome is Predecessor.KILLED
    assert left.returncode == -signal.SIGKILL
    await until(lambda: not alive(member))


@LINUX
async def test_a_predecessor_that_ends_by_itself_is_waited_for():
    with start(["cat"], stdin=subprocess.PIPE, start_new_session=True) as left:
        start_time = start_time_of(left.pid)
        outcome = None

        async def wait() -> None:
            nonlocal outcome
            outcome = await kill_predecessor(left.pid, start_time)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                left.stdin.close()

    assert outcome is Predecessor.ENDED
    assert left.returncode == 0


@LINUX
async def test_another_process_with_the_same_pid_is_never_touched():
    with start(["cat"], stdin=subprocess.PIPE, start_new_session=True) as other:
        outcome = await kill_predecessor(other.pid, start_time_of(other.pid) - 1, patience=0)

        assert outcome is Predecessor.GONE
        assert alive(other.pid)


@LINUX
async def test_a_predecessor_that_is_gone_is_gone():
    with start(["true"]) as gone:
        pass

    assert await kill_predecessor(gone.pid, 1) is Predecessor.GONE


async def test_a_predecessor_without_a_start_time_is_waited_for_and_left_alone():
    outcome = await kill_predecessor(os.getpid(), None, patience=0.1)

    assert outcome is Predecessor.UNIDENTIFIED


async def test_a_predecessor_without_a_start_time_that_goes_away_is_gone():
    with start(["sleep", "0.2"]) as left:
        reaper = threading.Thread(target=left.wait)
        reaper.start()

        with anyio.fail_after(10):
            outcome = await kill_predecessor(left.pid, None)
        reaper.join()

    assert outcome is Predecessor.GONE


@LINUX
def test_a_process_is_gone_once_it_is_proven():
    with start(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        start_time = start_time_of(process.pid)
        running = is_gone(process.pid, start_time)
        another = is_gone(process.pid, start_time - 1)
        untold = is_gone(process.pid, None)
        process.stdin.close()
        process.stdout.read()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        unreaped = is_gone(process.pid, start_time)

    assert (running, another, untold, unreaped) == (False, True, None, True)
    assert is_gone(process.pid, start_time) is True
    assert is_gone(process.pid, None) is True


@LINUX
def test_a_process_whose_first_thread_has_ended_is_not_gone():
    program = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print(1, flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with start([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        start_time = start_time_of(process.pid)
        deadline = time.monotonic() + 10
        while state_of(process.pid) != "Z" and time.monotonic() < deadline:
            time.sleep(0.01)
        looks = state_of(process.pid)
        gone = is_gone(process.pid, start_time)
        process.kill()

    assert (looks, gone) == ("Z", False)


async def test_one_that_hangs_is_told_to_end_at_once(stubborn, short_tmp):
    command, env = stubborn

    with anyio.fail_after(15):
        async with spawn(command, env=env, cwd=short_tmp) as process:
            await process.stdout.receive()
            os.kill(process.pid, signal.SIGSTOP)
            await process.terminate(0.2, hung=True)

    assert process.returncode == -signal.SIGKILL
