"""One MCP session, through the SDK's own client, in both protocol eras."""

from __future__ import annotations

import json

import anyio
import pytest
from mcp import Client

from dispatch_plugins.mcp.server import build_server

pytestmark = pytest.mark.anyio
EVERY_TOOL = [
    "dispatch_daemon_read",
    "dispatch_thread_read",
    "dispatch_thread_write",
    "dispatch_thread_destroy",
    "dispatch_trigger_write",
]


@pytest.fixture(params=["auto", "legacy"])
def era(request):
    return request.param


def failure(result):
    assert result.is_error
    assert json.loads(result.content[0].text) == result.structured_content
    assert set(result.structured_content) == {"code", "message", "hint", "retryable"}
    return result.structured_content


async def test_the_server_says_who_it_is(open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            info = client.server_info

    assert (info.name, info.version) == ("dispatch", "9.8.7")


async def test_tools_are_listed_with_hints(open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            listed = (await client.list_tools()).tools

    assert [tool.name for tool in listed] == EVERY_TOOL
    hints = {tool.name: tool.annotations for tool in listed}
    assert hints["dispatch_thread_read"].read_only_hint is True
    assert hints["dispatch_thread_write"].idempotent_hint is False
    assert hints["dispatch_thread_destroy"].destructive_hint is True


async def test_a_call_returns_the_output_twice_and_runs_as_the_sessions_caller(
    ops, open_session, era
):
    session = open_session()
    with anyio.fail_after(10):
        async with Client(build_server(session), mode=era) as client:
            result = await client.call_tool(
                "dispatch_thread_write", {"op": "send", "thread": "@x", "text": "hé"}
            )

    assert not result.is_error
    assert result.structured_content == {"said": "hé"}
    assert result.content[0].text == '{"said":"hé"}'
    assert ops.calls == [("send", {"thread": "@x", "text": "hé"}, session.caller)]


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "retryable", "hint"),
    [
        (
            "dispatch_thread_read",
            {"op": "get", "thread": "@nobody"},
            "not_found",
            False,
            "dispatch list",
        ),
        (
            "dispatch_thread_write",
            {"op": "send", "thread": "@busy", "text": "x"},
            "lane_busy",
            True,
            "--queue",
        ),
        (
            "dispatch_thread_write",
            {"op": "send", "thread": "@x"},
            "validation",
            False,
            '"of":"send"',
        ),
        ("dispatch_daemon_read", {"op": "daemon.crash"}, "internal", False, "daemon log"),
    ],
)
async def test_an_error_of_the_op_is_an_error_of_the_tool(
    open_session, era, tool, arguments, code, retryable, hint
):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            result = await client.call_tool(tool, arguments)

    error = failure(result)
    assert (error["code"], error["retryable"]) == (code, retryable)
    assert hint in error["hint"]
    assert "secret" not in error["message"]


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "hint"),
    [
        (
            "dispatch_thread_read",
            {"op": "gett"},
            "unknown_op",
            "did you mean get? use one of: get, wait",
        ),
        ("dispatch_thread_read", {"op": "archive"}, "unknown_op", "dispatch_thread_destroy"),
        ("dispatch_thread_read", {}, "validation", "use one of: get, wait"),
        ("dispatch_thread_read", {"op": 3}, "validation", "use one of: get, wait"),
        ("dispatch_thread_reed", {"op": "get"}, "unknown_op", "did you mean dispatch_thread_read"),
        ("dispatch_thread_read", {"op": "schema"}, "validation", "use one of: get, wait"),
        (
            "dispatch_thread_read",
            {"op": "schema", "of": "x"},
            "unknown_op",
            "use one of: get, wait",
        ),
    ],
)
async def test_a_call_that_names_no_op_says_which_there_are(
    ops, open_session, era, tool, arguments, code, hint
):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            result = await client.call_tool(tool, arguments)

    error = failure(result)
    assert error["code"] == code
    assert hint in error["hint"]
    assert ops.calls == []


@pytest.mark.parametrize("confirm", [{}, {"confirm": False}, {"confirm": "true"}, {"confirm": 1}])
async def test_a_destroying_op_needs_confirmation(ops, open_session, era, confirm):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            result = await client.call_tool(
                "dispatch_thread_destroy", {"op": "archive", "thread": "@x", **confirm}
            )

    error = failure(result)
    assert error["code"] == "validation"
    assert '"confirm": true' in error["hint"]
    assert ops.calls == []


async def test_a_confirmed_destroying_op_runs_without_the_confirmation(ops, open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            result = await client.call_tool(
                "dispatch_thread_destroy", {"op": "archive", "thread": "@x", "confirm": True}
            )

    assert not result.is_error
    assert ops.calls[0][:2] == ("archive", {"thread": "@x"})


async def test_the_schema_of_an_op_is_one_call_away(open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            result = await client.call_tool("dispatch_thread_write", {"op": "schema", "of": "send"})

    described = result.structured_content
    assert (described["op"], described["summary"]) == ("send", "Do send")
    assert described["input_schema"] == {
        "type": "object",
        "properties": {
            "thread": {"type": "string", "description": "Ref, id, handle or title of the thread."},
            "text": {"type": "string", "description": "What to say."},
        },
        "required": ["thread", "text"],
        "additionalProperties": False,
    }


async def test_a_field_that_is_called_op_is_given_as_op_with_an_underscore(ops, open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            schema = await client.call_tool(
                "dispatch_trigger_write", {"op": "schema", "of": "trigger.add"}
            )
            await client.call_tool("dispatch_trigger_write", {"op": "trigger.add", "op_": "send"})

    assert schema.structured_content["input_schema"]["required"] == ["op_"]
    assert ops.calls[0][:2] == ("trigger.add", {"op": "send"})


@pytest.mark.parametrize("path", ["src", ".", "", "~/src"])
async def test_a_relative_path_is_refused(ops, open_session, era, path):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            refused = await client.call_tool("dispatch_thread_write", {"op": "new", "cwd": path})
            taken = await client.call_tool("dispatch_thread_write", {"op": "new", "cwd": "/src"})

    shown = listed["dispatch_thread_write"].input_schema["properties"]["cwd"]
    assert shown["description"] == "Absolute path. Where it works."
    assert failure(refused)["code"] == "validation"
    assert taken.structured_content == {"cwd": "/src"}
    assert len(ops.calls) == 1


async def test_a_flat_session_has_one_tool_per_op_with_checked_output(ops, open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session(profile="flat")), mode=era) as client:
            listed = {tool.name: tool for tool in (await client.list_tools()).tools}
            good = await client.call_tool("dispatch_get", {"thread": "@x"})
            bad = await client.call_tool("dispatch_get", {"thread": "@nobody"})

    assert len(listed) == 8
    assert listed["dispatch_get"].output_schema["required"] == ["thread"]
    assert good.structured_content == {"thread": "@x"}
    assert failure(bad)["code"] == "not_found"


async def test_a_readonly_session_can_only_read(ops, open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session(profile="readonly")), mode=era) as client:
            listed = (await client.list_tools()).tools
            result = await client.call_tool("dispatch_thread_write", {"op": "send"})

    assert all(tool.annotations.read_only_hint for tool in listed)
    assert failure(result)["code"] == "unknown_op"
    assert ops.calls == []


async def test_a_worker_acts_on_its_own_thread_and_no_other(ops, open_session, era):
    session = open_session(profile="worker", thread_id="0199-own")
    with anyio.fail_after(10):
        async with Client(build_server(session), mode=era) as client:
            mine = await client.call_tool("dispatch_thread_read", {"op": "get"})
            other = await client.call_tool("dispatch_thread_read", {"op": "get", "thread": "@x"})
            listed = [tool.name for tool in (await client.list_tools()).tools]

    assert mine.structured_content == {"thread": "0199-own"}
    assert failure(other)["code"] == "authority"
    assert len(ops.calls) == 1
    assert listed == ["dispatch_thread_read", "dispatch_thread_write", "dispatch_thread_destroy"]


async def test_a_long_call_reports_progress(ops, open_session, era):
    reports = []

    async def on_progress(progress, total, message):
        reports.append((progress, message))
        if len(reports) == 2:
            ops.release.set()

    with anyio.fail_after(10):
        async with Client(build_server(open_session(), progress_every=0.01), mode=era) as client:
            result = await client.call_tool(
                "dispatch_thread_read",
                {"op": "wait", "thread": "@x"},
                progress_callback=on_progress,
            )

    assert result.structured_content["settled"] is True
    assert reports[0][0] < reports[1][0]


async def test_cancelling_the_call_cancels_the_op(ops, open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(
                    client.call_tool, "dispatch_thread_read", {"op": "wait", "thread": "@x"}
                )
                await ops.waiting.wait()
                tasks.cancel_scope.cancel()

            await ops.cancelled.wait()
            after = await client.call_tool("dispatch_thread_read", {"op": "get", "thread": "@x"})

    assert after.structured_content == {"thread": "@x"}


async def test_half_a_surrogate_pair_in_a_result_is_replaced(open_session, era):
    with anyio.fail_after(10):
        async with Client(build_server(open_session()), mode=era) as client:
            result = await client.call_tool("dispatch_daemon_read", {"op": "daemon.status"})

    assert result.structured_content == {"state": "ready", "title": "half a ? pair"}
