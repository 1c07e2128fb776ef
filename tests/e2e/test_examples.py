"""Every example of every op, on every surface, in one small world each."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.control.client import ControlClient
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import RemoteError
from dispatch_core.plugin import manifest
from dispatch_core.testing.daemon import Dispatch, temporary_home
from dispatch_core.testing.examples import command_line, in_order, make_world, mismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]


@pytest.fixture
def world() -> Iterator[Dispatch]:
    with temporary_home() as dispatch:
        make_world(dispatch)
        yield dispatch


@pytest.fixture(scope="module")
def ops(tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Any]]:
    home = tmp_path_factory.mktemp("manifest")
    return list(manifest.load(Paths(str(home)))["ops"])


def judge(op: Mapping[str, Any], example: Mapping[str, Any], result: Any, code: str | None) -> None:
    what = f"{op['name']}: {example['title'] or example['input']}"
    if "error" in example:
        assert code == example["error"], what
    else:
        assert code is None, f"{what}: {result}"
        assert mismatch(example["output"], result) is None, what


def test_every_example_holds_on_the_command_line(
    world: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    for op, example in in_order(ops):
        done = world.run(*command_line(op, example["input"]))

        code = json.loads(done.stderr)["error"]["code"] if done.returncode else None
        result = json.loads(done.stdout) if not done.returncode else done.stderr
        judge(op, example, result, code)


async def test_every_example_holds_on_the_control_socket(
    world: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    async with ControlClient.connect(world.socket, client="examples", version="0") as client:
        for op, example in in_order(ops):
            result, code = None, None
            try:
                result = (await client.call(op["name"], example["input"])).result
            except RemoteError as error:
                result, code = error.message, error.code

            judge(op, example, result, code)


async def test_every_example_holds_in_mcp(world: Dispatch, ops: list[Mapping[str, Any]]) -> None:
    # The SDK is imported here, because it takes longer than most test modules.
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    argv = world.argv("mcp", "--profile", "flat")
    server = StdioServerParameters(
        command=sys.executable, args=argv[1:], env=world.environment, cwd=world.home
    )
    async with Client(stdio_client(server)) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        for op, example in in_order([op for op in ops if "mcp" not in op["hidden_from"]]):
            name = "dispatch_" + op["name"].replace(".", "_")
            assert name in names
            confirm = {"confirm": True} if op["intent"] == "destroy" else {}
            reply = await client.call_tool(name, {**example["input"], **confirm})

            content = reply.structured_content or {}
            judge(op, example, content, content.get("code") if reply.is_error else None)


def test_every_op_has_a_summary_an_example_and_described_fields(
    ops: list[Mapping[str, Any]],
) -> None:
    for op in ops:
        assert op["summary"]
        assert op["examples"]
        for name, field in op["schema"].get("properties", {}).items():
            assert field.get("description") or "$ref" in str(field), f"{op['name']}.{name}"
