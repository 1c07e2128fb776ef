"""The accept loop: too many clients, too few descriptors, and clients that fail."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

PING = {"id": "ping", "method": "$ping"}
PONG = {"id": "ping", "result": {}}


async def test_a_client_beyond_the_limit_is_refused_with_a_reason_until_another_leaves(
    serving: Callable[..., Any],
) -> None:
    hello = {"id": 0, "method": "$hello", "params": {"protocol": 1, "client": "t", "version": "1"}}
    async with serving(connections=40) as server:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(server.raw()) for _ in range(40)]
            assert "result" in await clients[-1].ask(hello)
            async with server.raw() as refused:
                reply = await refused.read()
                assert await refused.ended()
            assert await clients[-1].ask(PING) == PONG

        assert reply["id"] is None
        assert reply["error"]["data"]["code"] == "daemon_unreachable"
        assert reply["error"]["data"]["retryable"] is True
        while server.server.connections:
            await anyio.lowlevel.checkpoint()
        async with server.greeted() as client:
            assert await client.ask(PING) == PONG


async def test_a_client_that_fails_ends_neither_the_others_nor_the_loop(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as other:
        for _ in range(20):
            async with server.raw() as client:
                await client.write(b"\xff\n")
            async with server.raw():
                pass

        assert await other.ask(PING) == PONG
        async with server.greeted() as client:
            assert await client.ask(PING) == PONG


async def test_a_server_that_retires_leaves_no_client_in_doubt_about_a_request(
    serving: Callable[..., Any],
) -> None:
    async with (
        serving() as server,
        server.greeted() as writer,
        server.greeted() as reader,
        server.greeted() as late,
    ):
        await writer.write({"id": "write", "method": "slow.write"})
        await reader.write({"id": "read", "method": "slow.read"})
        await server.host.until("slow.write begun")
        await server.host.until("slow.read begun")
        await late.write(*({"id": number, "method": "echo"} for number in range(20)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.server.retire)
            unfinished = await reader.read()
            answers = [await late.read() for _ in range(20)]
            with pytest.raises(anyio.BrokenResourceError):
                await late.write(PING)
            server.host.release.set()

        finished = await writer.read()

        assert finished == {"id": "write", "result": {"slow": True}}
        assert unfinished["id"] == "read"
        assert unfinished["error"]["data"]["code"] == "daemon_unreachable"
        assert sorted(answer["id"] for answer in answers) == list(range(20))
        assert all([await client.ended() for client in (writer, reader, late)])


async def test_a_server_that_has_retired_greets_nobody(serving: Callable[..., Any]) -> None:
    async with serving() as server:
        await server.server.retire()
        async with server.raw() as client:
            await client.write(PING)
            server.stop()

        assert server.server.connections == 0
        assert server.host.callers == []


CROWDED = textwrap.dedent("""
    import os, resource, sys
    import anyio
    from pathlib import Path
    from dispatch_core.control.listener import open_listener
    from dispatch_core.control.server import ControlServer

    class Host:
        instance, events = "i", None
        def hello(self, params): return {}
        def cancellable(self, name): return True

    async def main(path):
        listener = open_listener(path)
        async with anyio.create_task_group() as tasks:
            await tasks.start(ControlServer(Host()).serve, listener)
            print("ready", flush=True)
            files = []
            while True:
                command = (await anyio.to_thread.run_sync(sys.stdin.readline)).strip()
                if command == "fill":
                    try:
                        while True: files.append(os.open(os.devnull, os.O_RDONLY))
                    except OSError as error: print(error.errno, flush=True)
                elif command == "free":
                    while files: os.close(files.pop())
                    print("freed", flush=True)
                else:
                    tasks.cancel_scope.cancel(); return

    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    anyio.run(main, Path(sys.argv[1]))
""")


async def test_without_descriptors_clients_stay_and_new_ones_are_told_and_later_served(
    serving: Callable[..., Any], socket_path: Path
) -> None:
    other = socket_path.with_name("crowded.sock")
    command = [sys.executable, "-c", CROWDED, str(other)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    async with serving() as server:
        crowded = type(server)(server.host, server.server, other)
        with subprocess.Popen(command, **pipes, stderr=subprocess.DEVNULL) as process:  # noqa: ASYNC220
            assert process.stdin is not None
            assert process.stdout is not None

            async def tell(word: str) -> str:
                process.stdin.write(word + "\n")
                process.stdin.flush()
                return await anyio.to_thread.run_sync(process.stdout.readline)

            try:
                assert await anyio.to_thread.run_sync(process.stdout.readline) == "ready\n"
                async with crowded.greeted() as old:
                    assert await tell("fill") == "24\n"
                    async with crowded.raw() as refused:
                        reply = await refused.read()
                        assert reply["error"]["data"]["code"] == "daemon_unreachable"
                    assert await old.ask(PING) == PONG
                    assert await tell("free") == "freed\n"
                    async with crowded.greeted() as new:
                        assert await new.ask(PING) == PONG
                    assert await old.ask(PING) == PONG
                process.stdin.write("end\n")
                process.stdin.flush()
                assert await anyio.to_thread.run_sync(process.wait, 5) == 0
            finally:
                process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to try as")
async def test_a_process_of_another_user_is_not_served_even_if_it_may_open_the_socket(
    serving: Callable[..., Any],
) -> None:
    program = textwrap.dedent("""
        import os, socket, sys
        s = socket.socket(socket.AF_UNIX)
        os.setuid(65534)
        s.connect(sys.argv[1])
        try:
            print(s.recv(100))
        except ConnectionResetError:
            print("reset")
    """)
    async with serving() as server:
        server.path.parent.chmod(0o755)
        server.path.chmod(0o777)
        result = await anyio.run_process([sys.executable, "-c", program, str(server.path)])

        assert result.stdout.decode().strip() in ("b''", "reset")
        server.path.parent.chmod(0o700)
        async with server.greeted() as client:
            assert await client.ask(PING) == PONG
