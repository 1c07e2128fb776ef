"""An MCP client of the official SDK, over real stdio, drives a real thread, in both protocol eras."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dispatch_core.testing.daemon import Dispatch

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

DEADLINE = 60


@asynccontextmanager
async def client_of(dispatch: Dispatch, *words: str, **options: Any) -> AsyncIterator[Any]:
    """A client connected to ``dispatch mcp`` as a child process."""
    # The SDK is imported here, because it takes longer than most test modules.
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    argv = dispatch.argv("mcp", *words)
    server = StdioServerParameters(
        command=sys.executable, args=argv[1:], env=dispatch.environment, cwd=dispatch.home
    )
    with anyio.fail_after(DEADLINE):
        async with Client(stdio_client(server), **options) as client:
            yield client


@pytest.mark.parametrize("options", [{}, {"mode": "legacy"}], ids=["modern", "legacy"])
async def test_a_client_sends_a_message_and_waits_for_the_answer(
    dispatch: Dispatch, options: dict[str, Any]
) -> None:
    async with client_of(dispatch, **options) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        made = await client.call_tool(
            "dispatch_thread_write",
            {"op": "new", "name": "from-mcp", "cwd": str(dispatch.home), "send": False},
        )
        ref = made.structured_content["thread"]["ref"]
        sent = await client.call_tool(
            "dispatch_thread_write", {"op": "send", "thread": ref, "text": "Hello from MCP"}
        )
        done = await client.call_tool(
            "dispatch_thread_read", {"op": "wait", "thread": ref, "timeout": 30}
        )

    assert {"dispatch_thread_read", "dispatch_thread_write", "dispatch_daemon_read"} <= set(tools)
    assert sent.structured_content["receipt"]["state"] == "submitted"
    [result] = done.structured_content["results"]
    assert (result["outcome"], result["text"]) == ("done", "Offline reply: Hello from MCP")
    assert dispatch.json("get", ref)["thread"]["handle"] == "@from-mcp"


async def test_errors_carry_code_and_hint(dispatch: Dispatch) -> None:
    async with client_of(dispatch) as client:
        reply = await client.call_tool(
            "dispatch_thread_write", {"op": "send", "thread": "@nobody", "text": "hi"}
        )

    assert reply.is_error
    assert reply.structured_content["code"] == "not_found"
    assert reply.structured_content["hint"]


async def test_the_caller_is_the_agent_whose_thread_it_runs_in(dispatch: Dispatch) -> None:
    inside = type(dispatch)(dispatch.home, {**dispatch.env, "CODEX_THREAD_ID": "01a2-thread"})
    async with client_of(inside) as client:
        await client.call_tool(
            "dispatch_thread_write",
            {"op": "new", "name": "child", "cwd": str(dispatch.home), "send": False},
        )

    assert dispatch.json("daemon", "log")["actions"][0]["principal"] == "agent:01a2-thread"


async def test_a_session_keeps_the_daemon_from_being_replaced(dispatch: Dispatch) -> None:
    async with client_of(dispatch) as client:
        await client.list_tools()
        before = dispatch.pid()
        (dispatch.home / "config.toml").write_text("[daemon]\ngrace = 1\n")

        during = dispatch.run("list")

        assert during.returncode == 0
        assert dispatch.pid() == before
    assert dispatch.json("list")["threads"] == []
