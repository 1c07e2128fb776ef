"""What a service manager hears, over a real datagram socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

from dispatch_core.daemon.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dispatch_core.testing.daemon import Dispatch

LIMIT = 30


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Return the socket of a service manager, and the name it gives in NOTIFY_SOCKET."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    name = str(tmp_path / "n") if request.param == "path" else f"@dispatch-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.settimeout(LIMIT)
        yield receiver, name


@pytest.mark.anyio
async def test_the_manager_hears_that_we_are_ready_alive_and_stopping(manager):
    receiver, name = manager
    env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "20000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(env)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(notifier.run)
            heard = [await to_thread.run_sync(receiver.recv, 100) for _ in range(3)]
            tasks.cancel_scope.cancel()
    notifier.stopping()

    assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    while (last := receiver.recv(100)) == b"WATCHDOG=1":
        pass
    assert last == b"STOPPING=1"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "env", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)  # fmt: skip
async def test_without_a_watchdog_for_us_ready_is_all(manager, env):
    receiver, name = manager

    with anyio.fail_after(LIMIT):
        await Notifier({"NOTIFY_SOCKET": name, **env}).run()

    assert receiver.recv(100) == b"READY=1"
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(100)


@pytest.mark.anyio
@pytest.mark.parametrize("env", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/n"}])
async def test_without_a_manager_nothing_fails(env):
    notifier = Notifier({**env, "WATCHDOG_USEC": "0"})

    with anyio.fail_after(LIMIT):
        await notifier.run()
    notifier.stopping()


@pytest.mark.e2e
def test_a_daemon_in_the_foreground_tells_its_manager(dispatch: Dispatch, manager) -> None:
    receiver, name = manager
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dispatch_core.daemon.main", "run", "--offline"],
        env={**dispatch.environment, "NOTIFY_SOCKET": name},
    )

    ready = receiver.recv(100)
    answered = dispatch.json("list", "--no-start")
    process.terminate()
    stopping = receiver.recv(100)

    assert (ready, stopping) == (b"READY=1", b"STOPPING=1")
    assert answered["threads"] == []
    assert process.wait(LIMIT) == 0


@pytest.mark.e2e
def test_a_daemon_that_a_service_happens_to_start_does_not_speak_for_it(
    dispatch: Dispatch, manager
) -> None:
    receiver, name = manager

    subprocess.run(
        dispatch.argv("up"),
        env={**dispatch.environment, "NOTIFY_SOCKET": name},
        check=True,
        capture_output=True,
    )

    dispatch.json("down")
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(100)
