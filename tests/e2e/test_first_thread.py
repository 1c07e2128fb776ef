"""Create a thread, send it work, read the answer: the main path, on the real Codex."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e


def test_a_new_thread_answers_its_first_message(shared: Dispatch) -> None:
    made = shared.json("new", "first", "Say hello")

    done = shared.wait(made["thread"]["ref"])

    assert re.fullmatch(r"0[1-9A-HJ-NP-Za-km-z]{5}", made["thread"]["ref"])
    assert made["message_accepted"] is True
    assert done["outcome"] == "done"
    assert done["text"] == "Offline reply: Say hello"
    assert done["turn"]["id"] == made["turn"]["id"]
    assert done["turn"]["message_id"] == made["turn"]["message_id"]


def test_a_second_message_continues_the_same_thread(shared: Dispatch) -> None:
    shared.json("new", "second", "one")
    shared.wait("@second")

    receipt = shared.json("send", "@second", "two")["receipt"]
    shared.wait("@second")

    items = shared.json("tail", "@second")["items"]
    assert receipt["state"] == "submitted"
    assert [(i["type"], i["text"]) for i in items] == [
        ("userMessage", "one"),
        ("agentMessage", "Offline reply: one"),
        ("userMessage", "two"),
        ("agentMessage", "Offline reply: two"),
    ]
    assert items[-1]["turn_id"] == receipt["turn_id"]


def test_text_is_read_from_standard_input(shared: Dispatch) -> None:
    shared.json("new", "stdin", "--no-send")

    shared.json("send", "@stdin", "-", stdin="über\nzwei Zeilen\n")
    done = shared.wait("@stdin")

    assert done["text"] == "Offline reply: über"


def test_nothing_is_sent_with_no_send(shared: Dispatch) -> None:
    made = shared.json("new", "quiet", "hello", "--no-send")

    assert made["message_accepted"] is False
    assert shared.wait("@quiet")["outcome"] == "nothing"
    assert shared.json("tail", "@quiet")["items"] == []


def test_a_busy_thread_is_refused_and_nothing_is_merged(shared: Dispatch) -> None:
    shared.json("new", "busy", 'offline:{"delay": 30}')

    error = shared.error("send", "@busy", "more")

    stopped = shared.json("stop", "@busy")
    users = [i for i in shared.json("tail", "@busy")["items"] if i["type"] == "userMessage"]
    assert error["code"] == "lane_busy"
    assert "--queue" in error["hint"]
    assert stopped["turn"]["status"] == "interrupted"
    assert len(users) == 1


def test_stop_right_after_send_stops_the_turn(shared: Dispatch) -> None:
    shared.json("new", "stopper", "--no-send")

    for _ in range(3):
        shared.json("send", "@stopper", 'offline:{"delay": 30}')
        stopped = shared.json("stop", "@stopper")
        assert stopped["turn"]["status"] == "interrupted"
        assert stopped["thread"]["status"] == "idle"


def test_wait_gives_up_after_its_timeout_and_the_turn_goes_on(shared: Dispatch) -> None:
    shared.json("new", "slow", 'offline:{"delay": 30}')

    error = shared.error("wait", "@slow", "--timeout", "0.2")

    assert error["code"] == "timeout"
    assert shared.json("get", "@slow")["thread"]["status"] == "busy"
    shared.json("stop", "@slow")


def test_a_failed_turn_is_reported_and_the_next_one_works(shared: Dispatch) -> None:
    shared.json("new", "failing", 'offline:{"failed": {"code": "invalid_prompt", "message": "no"}}')

    failed = shared.wait("@failing")
    state = shared.json("get", "@failing")["thread"]["status"]
    shared.json("send", "@failing", 'offline:{"text": "fine again"}')
    done = shared.wait("@failing")

    assert (failed["outcome"], state) == ("failed", "error")
    assert failed["turn"]["error"]
    assert (done["outcome"], done["text"]) == ("done", "fine again")


def test_settings_of_the_thread_reach_every_turn(shared: Dispatch) -> None:
    shared.json(
        "new",
        "set",
        "--model",
        "offline-mini",
        "--sandbox",
        "read-only",
        "--approval-policy",
        "never",
        "--no-send",
    )

    call = {"name": "exec_command", "arguments": {"cmd": "sleep 0.4; touch made-by-a-turn"}}
    shared.json(
        "send", "@set", "offline:" + json.dumps({"steps": [{"call": call}, {"text": "done"}]})
    )
    shared.wait("@set")

    found = shared.json("get", "@set")
    assert (found["model"], found["sandbox"], found["approval_policy"]) == (
        "offline-mini",
        "read-only",
        "never",
    )
    assert not (shared.home / "made-by-a-turn").exists()


def test_an_approval_stops_a_wait_until_a_person_answers(shared: Dispatch) -> None:
    call = {"name": "exec_command", "arguments": {"cmd": "touch not-allowed"}}
    text = "offline:" + json.dumps({"steps": [{"call": call}, {"text": "I was not allowed to"}]})
    shared.json("new", "asks", text, "--approval-policy", "untrusted")

    asked = shared.wait("@asks")
    [request] = shared.json("request", "list", "--thread", "@asks")["requests"]
    shared.json("request", "respond", request["id"], "--decline")
    done = shared.wait("@asks")

    assert (asked["outcome"], done["outcome"]) == ("needs_attention", "done")
    assert done["text"] == "I was not allowed to"
    assert not (shared.home / "not-allowed").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("send", "@first-nobody", "hi"), "not_found"),
        (("send", "@first", "  "), "validation"),
        (("send", "@first", "/goal win"), "validation"),
        (("get", "@nobody"), "not_found"),
        (("get", ""), "validation"),
        (("new", "x", "--cwd", "/no/such"), "validation"),
        (("new", "first", "--no-send"), "validation"),
        (("new", "  @ ", "--no-send"), "validation"),
        (("stop", "@first"), "no_active_turn"),
        (("tail", "@first", "--limit", "0"), "validation"),
    ],
)
def test_bad_input_is_refused_with_the_next_step(
    shared: Dispatch, words: tuple[str, ...], code: str
) -> None:
    if not any(t["thread"]["handle"] == "@first" for t in shared.json("list")["threads"]):
        shared.json("new", "first", "--no-send")

    error = shared.error(*words)

    assert error["code"] == code
    assert error["hint"]


def test_text_that_codex_would_swallow_is_refused(shared: Dispatch, tmp_path: Path) -> None:
    shared.json("new", "limits", "--no-send")

    error = shared.error("send", "@limits", "-", stdin="x" * 1_048_577)

    assert error["code"] == "validation"
    assert "1,048,577" in error["message"]
    assert shared.json("get", "@limits")["turn"] is None


def test_selectors_resolve_in_the_documented_order(shared: Dispatch) -> None:
    made = shared.json("new", "selector target", "--no-send")["thread"]

    for selector in (made["ref"], made["id"], "@selector target", "selector target"):
        assert shared.json("get", selector)["thread"]["ref"] == made["ref"]
    assert shared.json("get", "ector targ")["thread"]["ref"] == made["ref"]
    assert shared.error("send", "ector targ", "hi")["code"] == "not_found"
    assert shared.error("get", "@ector targ")["code"] == "not_found"


def test_every_write_is_in_the_audit_log(shared: Dispatch) -> None:
    shared.json("new", "audited", "--no-send")
    shared.error("send", "@audited", " ")

    newest, before = shared.json("daemon", "log", "--limit", "2")["actions"]

    assert (newest["op"], newest["outcome"], newest["principal"]) == ("send", "validation", "human")
    assert (before["op"], before["outcome"], before["detail"]) == ("new", "ok", "audited")
