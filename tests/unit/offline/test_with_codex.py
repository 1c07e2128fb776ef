"""The real Codex, with the offline model behind it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from dispatch_core.offline.model import OfflineModel

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import SocketStream

    from tests.unit.offline.conftest import Codex, StartCodex

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

DEADLINE = 20


def completed(frames: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    items = [frame["params"]["item"] for frame in frames if frame["method"] == "item/completed"]
    return [item for item in items if item["type"] == kind]


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def methods(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["method"] for frame in frames]


async def test_a_turn_completes_with_the_unscripted_reply(
    codex: Codex, model: OfflineModel, log: Path
) -> None:
    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        turn, before = await codex.run_turn(thread, "Say hello")

    assert (turn["status"], turn["error"]) == ("completed", None)
    assert [item["text"] for item in turn["items"]] == ["Offline reply: Say hello"]
    assert "warning" not in methods(before)
    seen = lines(log)
    assert [(line["path"], line["text"], line["thread_id"]) for line in seen] == [
        ("/v1/responses", "Say hello", thread)
    ]
    assert (seen[0]["turn_id"], seen[0]["model"]) == (turn["id"], "offline-model")
    assert (model.requests, model.aborted) == (1, 0)


async def test_the_two_models_are_listed_with_one_default(codex: Codex) -> None:
    with anyio.fail_after(DEADLINE):
        listed = await codex.request("model/list")

    assert [(entry["model"], entry["isDefault"]) for entry in listed["data"]] == [
        ("offline-model", True),
        ("offline-mini", False),
    ]


async def test_scripted_tool_calls_run(codex: Codex) -> None:
    patch = "*** Begin Patch\n*** Add File: made.txt\n+by a patch\n*** End Patch\n"
    steps = [
        {
            "text": "First.",
            "call": {"name": "exec_command", "arguments": {"cmd": "echo o-$((6*7))"}},
        },
        {"custom": {"name": "apply_patch", "input": patch}},
        {"text": "Done."},
    ]

    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        turn, before = await codex.run_turn(thread, f"Work offline:{json.dumps({'steps': steps})}")

    (command,) = completed(before, "commandExecution")
    assert (command["exitCode"], command["aggregatedOutput"].strip()) == (0, "o-42")
    assert len(completed(before, "fileChange")) == 1
    assert (codex.directory / "made.txt").read_text() == "by a patch\n"
    assert [item["text"] for item in completed(before, "agentMessage")] == ["First.", "Done."]
    assert turn["status"] == "completed"


async def test_an_approval_asked_for_by_the_script_reaches_the_client(codex: Codex) -> None:
    arguments = {
        "cmd": "echo x > y",
        "sandbox_permissions": "require_escalated",
        "justification": "j",
    }
    steps = [{"call": {"name": "exec_command", "arguments": arguments}}, {"text": "Over."}]

    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        await codex.start_turn(thread, f"offline:{json.dumps({'steps': steps})}")
        asked = await codex.expect("item/commandExecution/requestApproval")
        await codex.respond(asked, {"decision": "decline"})
        ended = await codex.expect("turn/completed")

    assert asked["params"]["reason"] == "j"
    assert ended["params"]["turn"]["status"] == "completed"
    assert not (codex.directory / "y").exists()


@pytest.mark.parametrize(
    ("directive", "info"),
    [
        ('{"http": 500}', "internalServerError"),
        ('{"failed": {"code": "context_length_exceeded"}}', "contextWindowExceeded"),
        (
            '{"http": {"status": 429, "body": {"error": {"type": "usage_limit_reached"}}}}',
            "usageLimitExceeded",
        ),
        ('{"incomplete": "max_output_tokens"}', "other"),
    ],
)
async def test_a_scripted_fault_fails_the_turn_and_the_next_one_works(
    codex: Codex, directive: str, info: str
) -> None:
    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        failed, _ = await codex.run_turn(thread, f"Try offline:{directive}")
        after, _ = await codex.run_turn(thread, "Again offline:{}")

    assert (failed["status"], failed["error"]["codexErrorInfo"]) == ("failed", info)
    assert (after["status"], after["items"][-1]["text"]) == ("completed", "Offline reply: Again")


@pytest.mark.parametrize("fault", ['"cut": true', '"http": 503'])
async def test_codex_tries_again_after_a_fault_that_hits_once(
    codex: Codex, model: OfflineModel, fault: str
) -> None:
    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        turn, _ = await codex.run_turn(thread, f'offline:{{{fault}, "times": 1, "text": "whole"}}')

    assert (turn["status"], turn["items"][-1]["text"]) == ("completed", "whole")
    assert model.requests == 2


async def test_a_reply_streams_in_the_chunks_of_its_script(codex: Codex) -> None:
    step = {"text": "abcdef", "chunks": 3, "chunk_delay": 0.02, "delay": 0.02, "first_delay": 0.02}

    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        turn, before = await codex.run_turn(thread, f"offline:{json.dumps(step)}")

    deltas = [f["params"]["delta"] for f in before if f["method"] == "item/agentMessage/delta"]
    assert deltas == ["ab", "cd", "ef"]
    assert turn["items"][-1]["text"] == "abcdef"


async def test_an_interrupted_turn_aborts_its_reply(codex: Codex, model: OfflineModel) -> None:
    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        turn = await codex.start_turn(thread, 'offline:{"text": "part", "hang": true}')
        await codex.expect("item/agentMessage/delta")
        await codex.request("turn/interrupt", threadId=thread, turnId=turn)
        ended = await codex.expect("turn/completed")
        while model.inflight:
            await codex.request("thread/loaded/list")

    assert ended["params"]["turn"]["status"] == "interrupted"
    assert (model.requests, model.aborted) == (1, 1)


async def test_a_compaction_does_not_run_the_script_again(codex: Codex) -> None:
    call = {"name": "exec_command", "arguments": {"cmd": "echo ran >> runs.txt; sleep 0.3"}}
    steps = [{"call": call}, {"text": "done"}]

    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        await codex.run_turn(thread, f"offline:{json.dumps({'steps': steps})}")
        await codex.request("thread/compact/start", threadId=thread)
        compacted = await codex.expect("turn/completed")
        turn, _ = await codex.run_turn(thread, "Go on")

    assert compacted["params"]["turn"]["status"] == "completed"
    assert turn["items"][-1]["text"] == "done"
    assert (codex.directory / "runs.txt").read_text() == "ran\n"


async def test_usage_and_rate_limits_are_those_of_the_script(codex: Codex) -> None:
    step = {
        "usage": {"input_tokens": 70, "output_tokens": 7},
        "headers": {"x-codex-primary-used-percent": "42"},
    }

    with anyio.fail_after(DEADLINE):
        thread = await codex.start_thread()
        _, before = await codex.run_turn(thread, f"offline:{json.dumps(step)}")

    params = {frame["method"]: frame["params"] for frame in before}
    assert params["thread/tokenUsage/updated"]["tokenUsage"]["total"]["totalTokens"] == 77
    assert params["account/rateLimits/updated"]["rateLimits"]["primary"]["usedPercent"] == 42


async def test_a_thread_goes_on_after_the_model_moved_to_another_port(
    model: OfflineModel, start_codex: StartCodex
) -> None:
    other = OfflineModel()
    async with anyio.create_task_group() as group:
        await group.start(other.serve)
        with anyio.fail_after(DEADLINE):
            async with start_codex(other.base_url) as first:
                thread = await first.start_thread()
                await first.run_turn(thread, "one")
        group.cancel_scope.cancel()

    with anyio.fail_after(DEADLINE):
        async with start_codex(model.base_url) as second:
            await second.request("thread/resume", threadId=thread)
            turn, _ = await second.run_turn(thread, "two")

    assert turn["items"][-1]["text"] == "Offline reply: two"
    assert (other.requests, model.requests) == (1, 1)


async def test_nothing_but_loopback_is_contacted(
    model: OfflineModel, start_codex: StartCodex
) -> None:
    contacted: list[bytes] = []

    async def refuse(stream: SocketStream) -> None:
        async with stream:
            contacted.append(await stream.receive())

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as proxy,
        anyio.create_task_group() as group,
    ):
        group.start_soon(proxy.serve, refuse)
        address = f"http://127.0.0.1:{proxy.extra_attributes[SocketAttribute.local_port]()}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        env = {key: address for name in names for key in (name, name.lower())}

        with anyio.fail_after(DEADLINE):
            async with start_codex(model.base_url, env=env) as codex:
                thread = await codex.start_thread()
                turn, _ = await codex.run_turn(thread, "Say hello")
                await codex.request("model/list")
                await codex.request("account/read")
        group.cancel_scope.cancel()

    assert turn["status"] == "completed"
    assert contacted == []
