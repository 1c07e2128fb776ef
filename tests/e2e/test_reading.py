"""Read a history backwards, and follow it while it grows; on the real Codex."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e

COMMAND = {"name": "exec_command", "arguments": {"cmd": "echo one; sleep 0.5; exit 3"}}
PATCH = {
    "name": "apply_patch",
    "input": "*** Begin Patch\n*** Add File: made.txt\n+hi\n*** End Patch\n",
}
STEPS = [
    {"reasoning": "let me think", "text": "Looking", "call": COMMAND},
    {"custom": PATCH},
    {"text": "All done"},
]
WORK = "offline:" + json.dumps({"steps": STEPS})
KINDS = [
    "userMessage",
    "reasoning",
    "agentMessage",
    "commandExecution",
    "fileChange",
    "agentMessage",
]


def make(dispatch: Dispatch, name: str, *texts: str) -> None:
    (dispatch.home / name).mkdir()
    dispatch.json("new", name, "--cwd", str(dispatch.home / name))
    for text in texts:
        dispatch.json("send", f"@{name}", text)
        dispatch.json("wait", f"@{name}", "--timeout", "60")


def kinds(items: list[dict[str, Any]]) -> list[str]:
    return [item["type"] for item in items]


def test_a_history_is_read_backwards_page_by_page(shared: Dispatch) -> None:
    make(shared, "pages", *"abc")

    whole = shared.json("tail", "@pages")
    last = shared.json("tail", "@pages", "--limit", "4")
    first = shared.json("tail", "@pages", "--limit", "4", "--before", last["older"])
    asked = shared.json("tail", "@pages", "--role", "user", "--limit", "2")

    assert first["items"] + last["items"] == whole["items"]
    assert (whole["older"], first["older"], first["cursor"]) == (None, None, None)
    assert [item["text"] for item in asked["items"]] == ["b", "c"]
    assert {item["turn_status"] for item in whole["items"]} == {"completed"}
    assert all(item["at"] for item in whole["items"])


def test_who_follows_sees_every_item_once_while_the_turn_runs(shared: Dispatch) -> None:
    make(shared, "followed", "hello")
    cursor = shared.json("tail", "@followed")["cursor"]
    shared.json("send", "@followed", WORK)

    seen: list[dict[str, Any]] = []
    batches = 0
    while "All done" not in [item["text"] for item in seen]:
        batch = shared.json("tail", "@followed", "--after", cursor, "--timeout", "30")
        assert batch["items"], "nothing came"
        seen += batch["items"]
        cursor = batch["cursor"]
        batches += 1

    nothing = shared.json("tail", "@followed", "--after", cursor, "--timeout", "0")
    assert kinds(seen) == KINDS
    assert batches > 1
    assert (nothing["items"], nothing["gap"]) == ([], False)
    whole = shared.json("tail", "@followed")["items"][2:]
    assert [(item["item_id"], item["text"]) for item in seen] == [
        (item["item_id"], item["text"]) for item in whole
    ]


def test_the_command_line_follows(shared: Dispatch) -> None:
    make(shared, "line", "hello")
    with shared.start(
        "tail",
        "@line",
        "--follow",
        "--limit",
        "1",
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        rows = [json.loads(process.stdout.readline())]
        shared.json("send", "@line", "again")
        rows += [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()

    assert [row["text"] for row in rows] == [
        "Offline reply: hello",
        "again",
        "Offline reply: again",
    ]


def test_who_follows_is_told_why_a_turn_failed(shared: Dispatch) -> None:
    make(shared, "failing", "hello")
    cursor = shared.json("tail", "@failing")["cursor"]
    shared.json(
        "send", "@failing", 'offline:{"failed": {"code": "invalid_prompt", "message": "no"}}'
    )

    seen: list[dict[str, Any]] = []
    while "turnFailed" not in kinds(seen):
        batch = shared.json("tail", "@failing", "--after", cursor, "--timeout", "30")
        assert batch["items"], "nothing came"
        seen += batch["items"]
        cursor = batch["cursor"]

    assert kinds(seen) == ["userMessage", "turnFailed"]
    assert seen[-1]["text"]
    assert shared.json("tail", "@failing", "--after", cursor, "--timeout", "0")["items"] == []


def test_everything_that_is_known_of_a_thread_is_shown(shared: Dispatch) -> None:
    make(shared, "known", "hello")

    shown = shared.json("get", "@known", "--items", "2")

    assert (shown["writable"], shown["materialized"], shown["ephemeral"]) == (True, True, False)
    assert shown["path"].endswith(f"{shown['thread']['id']}.jsonl")
    assert [item["text"] for item in shown["items"]] == ["hello", "Offline reply: hello"]
    assert (shown["error"], shown["next"]) == (None, None)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("tail", "@nobody"), "not_found"),
        (("tail", "@pages", "--before", "x"), "validation"),
        (("tail", "@pages", "--after", "x"), "validation"),
        (("tail", "@pages", "--after", "x", "--before", "y"), "validation"),
        (("tail", "@pages", "--role", "nobody"), "validation"),
        (("tail", "@pages", "--limit", "501"), "validation"),
        (("get", "@pages", "--items", "-1"), "validation"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_next_step(
    shared: Dispatch, words: tuple[str, ...], code: str
) -> None:
    error = shared.error(*words)

    assert error["code"] == code
    assert error["hint"]
