"""A session on a byte stream: the framing, and how it ends."""

from __future__ import annotations

import json
import socket
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from mcp import Client
from mcp.server.stdio import stdio_server

from dispatch_core.api import ValidationFailed
from dispatch_plugins.mcp.framing import LineFile
from dispatch_plugins.mcp.server import serve_stream
from dispatch_plugins.mcp.session import serve

pytestmark = pytest.mark.anyio
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
GET = {"name": "dispatch_thread_read", "arguments": {"op": "get", "thread": "@x"}}
WAIT = {"name": "dispatch_thread_read", "arguments": {"op": "wait", "thread": "@x"}}


class RawClient:
    """Speaks lines, well-formed or not."""

    def __init__(self, stream):
        self._stream = stream
        self._buffer = BufferedByteReceiveStream(stream)

    async def write(self, line):
        await self._stream.send(line + b"\n")

    async def send(self, message):
        await self.write(json.dumps(message).encode())

    async def call(self, request_id, params):
        await self.send(
            {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}
        )

    async def answer(self):
        return json.loads(await self._buffer.receive_until(b"\n", 2**24))

    async def initialize(self):
        await self.send(INITIALIZE)
        assert (await self.answer())["result"]["serverInfo"]["name"] == "dispatch"
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})


@pytest.fixture
async def ends():
    ours, theirs = socket.socketpair()
    client = await UNIXSocketStream.from_socket(ours)
    server = await UNIXSocketStream.from_socket(theirs)
    async with client, server:
        yield client, server


@asynccontextmanager
async def sdk_transport(stream):
    """The SDK's own framing, from the client's side."""
    file = LineFile(stream)
    async with stdio_server(stdin=file, stdout=file) as streams:
        try:
            yield streams
        finally:
            await stream.aclose()


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_the_sdks_client_is_served_over_a_byte_stream(ends, open_session, era, capsys):
    client_end, server_end = ends
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, server_end, open_session())
            async with Client(sdk_transport(client_end), mode=era) as client:
                listed = (await client.list_tools()).tools
                printed = await client.call_tool("dispatch_daemon_read", {"op": "daemon.status"})
                result = await client.call_tool("dispatch_thread_read", GET["arguments"])

    assert len(listed) == 5
    assert printed.structured_content["state"] == "ready"
    assert capsys.readouterr().out == "a stray line\n"
    assert result.structured_content == {"thread": "@x"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[]",
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"\\ud800"}}',
        b"[" * 100_000,
        b'{"jsonrpc":"2.0","method":"unknown/notification"}',
        b"x" * (9 * 1024 * 1024),
    ],
    ids=["empty", "text", "array", "not utf-8", "lone surrogate", "deep", "unknown", "too long"],
)
async def test_a_malformed_line_costs_that_line(ends, open_session, line):
    client_end, server_end = ends
    client = RawClient(client_end)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, server_end, open_session())
            await client.initialize()

            await client.write(line)
            await client.call(2, GET)

            answer = await client.answer()
            await client_end.aclose()

    assert answer["id"] == 2
    assert answer["result"]["structuredContent"] == {"thread": "@x"}


async def test_calls_run_at_the_same_time(ends, ops, open_session):
    client_end, server_end = ends
    client = RawClient(client_end)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, server_end, open_session())
            await client.initialize()
            await client.call(2, WAIT)
            await ops.waiting.wait()

            await client.call(3, GET)

            first = await client.answer()
            ops.release.set()
            second = await client.answer()
            await client_end.aclose()

    assert (first["id"], second["id"]) == (3, 2)


@pytest.mark.parametrize("half", [True, False], ids=["half-closed", "closed"])
async def test_the_end_of_the_client_cancels_its_calls_and_ends_the_session(
    ends, ops, open_session, half
):
    client_end, server_end = ends
    client = RawClient(client_end)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, server_end, open_session())
            await client.initialize()
            await client.call(2, WAIT)
            await ops.waiting.wait()

            await (client_end.send_eof() if half else client_end.aclose())

            await ops.cancelled.wait()

    assert ops.calls[0][0] == "wait"


async def test_a_notification_of_the_client_cancels_a_call(ends, ops, open_session):
    client_end, server_end = ends
    client = RawClient(client_end)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, server_end, open_session())
            await client.initialize()
            await client.call(2, WAIT)
            await ops.waiting.wait()

            await client.send(
                {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}}
            )

            await ops.cancelled.wait()
            await client_end.aclose()


async def test_a_client_that_takes_no_answers_does_not_hold_a_cancelled_session(
    ends, ops, open_session
):
    client_end, server_end = ends
    client = RawClient(client_end)
    text = "x" * 4_000_000
    arguments = {"op": "send", "thread": "@x", "text": text}
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, server_end, open_session())
            await client.initialize()
            await client.call(2, {"name": "dispatch_thread_write", "arguments": arguments})
            # The beginning of the answer: the rest does not fit between the two.
            await client_end.receive(1)

            tasks.cancel_scope.cancel()

    assert len(ops.calls) == 1


async def test_a_client_that_ends_and_takes_no_answers_does_not_hold_the_session(
    ends, ops, open_session
):
    client_end, server_end = ends
    client = RawClient(client_end)
    arguments = {"op": "send", "thread": "@x", "text": "x" * 4_000_000}
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            serve_briefly = partial(serve_stream, last_words=0.01)
            tasks.start_soon(serve_briefly, server_end, open_session())
            await client.initialize()
            await client.call(2, {"name": "dispatch_thread_write", "arguments": arguments})
            await client_end.receive(1)

            await client_end.send_eof()

    assert len(ops.calls) == 1


async def test_a_session_that_cannot_be_served_is_refused(ends, open_session):
    _, server_end = ends

    with anyio.fail_after(20), pytest.raises(ValidationFailed, match="no MCP profile"):
        await serve(server_end, open_session(profile="everything"))


async def test_lines_are_put_together_from_pieces_and_bounded(ends):
    client_end, server_end = ends
    lines = LineFile(server_end, max_line=8)
    for piece in (b"on", b"e\ntwo\n123456789", b"0\nfour\r", b"\n12345678\nlast"):
        await client_end.send(piece)
    await client_end.aclose()

    with anyio.fail_after(5):
        got = [line async for line in lines]

    assert got == ["one", "two", "", "four\r", "12345678", "last"]
