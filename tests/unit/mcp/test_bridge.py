"""The bridge as a real child process, on the real control socket."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.control.server import ControlServer
from dispatch_core.errors import ThreadNotFound
from dispatch_plugins.mcp.bridge import Copy
from dispatch_plugins.mcp.session import serve

pytestmark = pytest.mark.anyio
MANIFEST = {"version": "9.8.7", "key": "k1"}
CODE = (
    "import sys; from dispatch_plugins.mcp.bridge import main; "
    f"sys.exit(main(sys.argv[1:], {MANIFEST!r}))"
)
PROGRAM = ["-c", CODE]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


class Daemon:
    """A host of the real control server that serves MCP sessions and nothing else."""

    instance = "one"
    events = None

    def __init__(self, open_session):
        self._open_session = open_session
        self.greetings = []
        self.options = []
        self.hang_up_after_a_line = False
        self.refuse = False

    def hello(self, params):
        self.greetings.append(dict(params))
        return {"protocol": 1}

    def cancellable(self, name):
        return False

    async def call(self, name, args, caller, *, schema, view):
        raise NotImplementedError

    def shutdown(self, grace):
        raise NotImplementedError

    async def open_session(self, surface, stream, caller, options, started):
        assert surface == "mcp"
        if self.refuse:
            raise ThreadNotFound("@gone")
        self.options.append(options)
        await started()
        if self.hang_up_after_a_line:
            await stream.receive()
            return
        await serve(stream, self._open_session(**options))


@pytest.fixture
def home():
    path = tempfile.mkdtemp(prefix="d-", dir="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def env(home):
    names = ("PATH", "HOME", "PYTHONPATH")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "DISPATCH_HOME": home}


@pytest.fixture
async def daemon(home, open_session):
    host = Daemon(open_session)
    path = Path(home, "dispatchd.sock")
    listener = open_listener(path)
    async with anyio.create_task_group() as tasks:
        await tasks.start(ControlServer(host).serve, listener)
        yield host
        tasks.cancel_scope.cancel()
    close_listener(listener, path)


async def run(env, *args, stdin=b""):
    command = [sys.executable, *PROGRAM, *args]
    with anyio.fail_after(20):
        return await anyio.run_process(command, input=stdin, env=env, check=False)


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_the_sdks_client_reaches_the_ops_through_the_bridge(daemon, ops, env, era):
    server = StdioServerParameters(
        command=sys.executable,
        args=[*PROGRAM, "--profile", "flat"],
        env={**env, "CODEX_THREAD_ID": "0199-own"},
    )
    text = "é" * 1_000_000
    with anyio.fail_after(30):
        async with Client(server, mode=era) as client:
            listed = (await client.list_tools()).tools
            said = await client.call_tool("dispatch_send", {"thread": "@x", "text": text})
            printed = await client.call_tool("dispatch_daemon_status", {})
            missing = await client.call_tool("dispatch_get", {"thread": "@nobody"})

    assert len(listed) == 8
    assert said.structured_content == {"said": text}
    assert printed.structured_content["state"] == "ready"
    assert missing.structured_content["code"] == "not_found"
    assert daemon.options == [{"profile": "flat", "thread_id": "0199-own"}]
    assert daemon.greetings == [
        {
            "protocol": 1,
            "client": "mcp",
            "version": "9.8.7",
            "manifest": "k1",
            "thread_id": "0199-own",
        }
    ]


async def test_the_client_that_leaves_during_a_call_ends_the_op(daemon, ops, env):
    server = StdioServerParameters(command=sys.executable, args=PROGRAM, env=env)
    arguments = {"op": "wait", "thread": "@x"}
    with anyio.fail_after(30):
        async with Client(server) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "dispatch_thread_read", arguments)
            await ops.waiting.wait()
            tasks.cancel_scope.cancel()

        await ops.cancelled.wait()


async def test_the_end_of_stdin_ends_the_session_after_the_last_answer(daemon, env):
    done = await run(env, stdin=json.dumps(INITIALIZE).encode() + b"\n")

    assert done.returncode == 0
    assert json.loads(done.stdout)["result"]["serverInfo"] == {
        "name": "dispatch",
        "title": "dispatch",
        "version": "9.8.7",
    }
    assert done.stderr == b""


async def test_without_a_daemon_it_fails_with_a_reason_and_a_clean_stdout(env):
    done = await run(env, "--no-start", stdin=json.dumps(INITIALIZE).encode() + b"\n")

    assert done.returncode == 8
    assert done.stdout == b""
    assert b"dispatch mcp: the daemon cannot be reached, and --no-start was given" in done.stderr
    assert b"hint: dispatch up" in done.stderr


async def test_a_daemon_that_goes_away_during_the_session_is_reported(daemon, env):
    daemon.hang_up_after_a_line = True
    command = [sys.executable, *PROGRAM]
    with anyio.fail_after(20):
        async with await anyio.open_process(command, env=env) as bridge:
            await bridge.stdin.send(json.dumps(INITIALIZE).encode() + b"\n")
            error = b"".join([chunk async for chunk in bridge.stderr])
            status = await bridge.wait()

    assert status == 8
    assert b"the daemon ended the session" in error


async def test_a_session_that_the_daemon_refuses_exits_with_its_error(daemon, env):
    daemon.refuse = True

    done = await run(env)

    assert done.returncode == 4
    assert done.stdout == b""
    assert b"no thread answers to '@gone'" in done.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--profile", "everything"], b"there is no MCP profile 'everything'"),
        (["--profile"], b"there is no MCP profile ''"),
        (["--verbose"], b"does not know '--verbose'"),
        (["--profile=worker"], b"CODEX_THREAD_ID is not set"),
    ],
)
async def test_wrong_usage_says_what_is_right(env, args, message):
    done = await run(env, *args)

    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr
    assert b"hint: " in done.stderr


async def test_help_shows_the_profiles(env):
    done = await run(env, "--help")

    assert done.returncode == 0
    assert all(word in done.stdout for word in (b"readonly", b"flat", b"worker", b"--no-start"))


async def test_the_bridge_imports_the_standard_library_alone(daemon, env):
    heavy = {"asyncio", "anyio", "pydantic", "click", "pluggy", "stevedore", "mcp", "peewee"}
    report = (
        "import sys; from dispatch_plugins.mcp.bridge import main; "
        f"main(['--no-start'], {MANIFEST!r}); "
        f"sys.stderr.write(repr(sorted({heavy!r} & set(sys.modules))))"
    )

    with anyio.fail_after(20):
        done = await anyio.run_process([sys.executable, "-c", report], input=b"", env=env)

    assert done.stderr == b"[]"


def copying(early=b""):
    """Start a Copy between a socket pair and two pipes; return its far ends and what run() says."""
    near, far = socket.socketpair()
    stdin, into = os.pipe()
    out, stdout = os.pipe()
    said = []

    def work():
        with near:
            said.append(Copy(near, early, stdin=stdin, stdout=stdout).run())
        os.close(stdin)
        os.close(stdout)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def finish():
        thread.join(10)
        assert not thread.is_alive()
        far.close()
        os.close(out)
        return said[0]

    return far, into, out, finish


def test_what_came_before_the_copy_began_comes_first():
    far, into, out, finish = copying(b"early ")

    far.sendall(b"late")
    os.close(into)
    assert far.recv(9) == b""
    far.close()

    assert read_all(out) == b"early late"
    assert finish() is False


def test_a_server_that_ends_first_is_told_from_a_client_that_does():
    far, into, out, finish = copying()

    far.close()

    assert read_all(out) == b""
    os.close(into)
    assert finish() is True


def test_neither_direction_waits_for_the_other():
    far, into, out, finish = copying()
    piece = b"x" * 500_000
    # Nobody reads what goes to the client, and the other way is open all the same.
    sender = threading.Thread(target=far.sendall, args=(piece,), daemon=True)
    sender.start()

    writer = threading.Thread(target=write_all, args=(into, piece), daemon=True)
    writer.start()
    received = b""
    while len(received) < len(piece):
        received += far.recv(65536)
    writer.join(10)

    assert received == piece
    assert far.recv(1) == b""
    reader = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))"],
        stdin=out,
        stdout=subprocess.PIPE,
    )
    sender.join(10)
    far.close()
    assert finish() is False
    assert reader.communicate(timeout=10)[0] == b"500000\n"


def write_all(descriptor, data):
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.close(descriptor)


def read_all(descriptor):
    data = b""
    while chunk := os.read(descriptor, 65536):
        data += chunk
    return data
