"""What Codex asks is listed, shown and answered on the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e


def directive(*steps: dict[str, Any]) -> str:
    return "offline:" + json.dumps({"steps": [*steps, {"text": "Over."}]})


def command(cmd: str) -> dict[str, Any]:
    return {"call": {"name": "exec_command", "arguments": {"cmd": cmd}}}


def ask(
    dispatch: Dispatch, name: str, step: dict[str, Any], sandbox: str = "workspace-write"
) -> str:
    """Start a thread in which Codex asks, and return the id of its request."""
    words = ("--approval-policy", "untrusted", "--sandbox", sandbox)
    dispatch.json("new", name, directive(step), *words)
    found: list[Any] = []

    def asked() -> bool:
        found[:] = dispatch.json("request", "list", "--thread", f"@{name}")["requests"]
        return bool(found)

    eventually(asked, f"{name} asks")
    [row] = found
    return str(row["id"])


def test_a_command_runs_once_a_person_has_accepted_it(shared: Dispatch) -> None:
    request = ask(shared, "asks", command("touch accepted"))
    waiting = shared.wait("@asks")
    shown = shared.json("request", "show", request[-8:])
    offered = [choice["command"] for choice in shown["choices"]]
    planned = shared.json("request", "respond", request, "--accept", "--dry-run")
    before = (shared.home / "accepted").exists()

    done = shared.json(*offered[0].split()[1:])

    assert waiting["outcome"] == "needs_attention"
    assert shown["body"]["command"] == "/bin/bash -lc 'touch accepted'"
    assert (planned["answer"], planned["request"]["state"]) == ({"decision": "accept"}, "open")
    assert (done["request"]["state"], done["request"]["answered_by"]) == ("answered", "human")
    assert shared.wait("@asks")["outcome"] == "done"
    assert (before, (shared.home / "accepted").exists()) == (False, True)
    late = shared.error("request", "respond", request, "--decline")
    assert (late["details"]["answered_by"], late["details"]["decision"]) == ("human", "accept")


def test_a_declined_command_does_not_run_and_a_cancelled_one_ends_the_turn(
    shared: Dispatch,
) -> None:
    declined, cancelled = (ask(shared, name, command(f"touch {name}")) for name in ("no", "never"))

    first = shared.json("request", "respond", declined, "--decline")
    second = shared.json("request", "respond", cancelled, "--cancel")

    assert [done["request"]["state"] for done in (first, second)] == ["declined", "declined"]
    assert shared.wait("@no")["outcome"] == "done"
    assert shared.wait("@never")["outcome"] == "interrupted"
    assert not (shared.home / "no").exists()
    assert not (shared.home / "never").exists()


def test_a_diff_is_shown_whole_before_it_is_made(shared: Dispatch) -> None:
    hidden = "\x1b[2Kplain\u202etxt"
    lines = "".join(f"+line {number}\n" for number in range(300))
    patch = f"*** Begin Patch\n*** Add File: made.txt\n+{hidden}\n{lines}*** End Patch\n"
    request = ask(
        shared, "patches", {"custom": {"name": "apply_patch", "input": patch}}, sandbox="read-only"
    )

    data = shared.json("request", "show", request)

    [change] = data["body"]["changes"]
    assert hidden in change["diff"]
    assert (change["change"], "line 299" in change["diff"]) == ("add", True)
    shared.json("request", "respond", request, "--accept")
    assert shared.wait("@patches")["outcome"] == "done"
    assert (shared.home / "made.txt").read_text().startswith(hidden)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no answer was given"),
        (("--accept", "--decline"), "exclude each other"),
        (("--answer", "q1=Yes"), "takes accept or decline or cancel"),
        (("--accept", "--content", "{}"), "exclude each other"),
        (("--answer", "what"), "QUESTION=VALUE"),
    ],
)
def test_an_answer_that_is_none_leaves_the_question_open(
    shared: Dispatch, words: tuple[str, ...], said: str
) -> None:
    found = shared.json("request", "list", "--thread", "@stays") if _has(shared, "@stays") else None
    request = found["requests"][0]["id"] if found else ask(shared, "stays", command("touch x"))

    error = shared.error("request", "respond", request, *words)

    assert error["code"] == "validation"
    assert said in error["message"]
    assert shared.json("request", "show", request)["request"]["state"] == "open"


def test_an_agent_does_not_answer_for_a_person(shared: Dispatch) -> None:
    request = ask(shared, "agents", command("touch by-an-agent"))
    thread = shared.json("get", "@agents")["thread"]["id"]
    agent = type(shared)(shared.home, {"CODEX_THREAD_ID": thread})

    listed = agent.json("request", "list")["requests"]
    refused = agent.error("request", "respond", request, "--accept")

    assert [row["id"] for row in listed] == [request]
    assert refused["code"] == "authority"
    assert not (shared.home / "by-an-agent").exists()
    log = shared.json("daemon", "log", "--limit", "5")["actions"]
    assert {(a["op"], a["outcome"], a["principal"]) for a in log} >= {
        ("request.respond", "authority", f"agent:{thread}")
    }
    shared.json("request", "respond", request, "--decline")


def test_the_list_is_paged(shared: Dispatch) -> None:
    shared.json("request", "list", "--all")
    ids, after = [], None
    while True:
        more = ("--after", after) if after else ()
        page = shared.json("request", "list", "--all", "--limit", "2", *more)
        ids += [row["id"] for row in page["requests"]]
        after = page["next"]
        if after is None:
            break

    every = shared.json("request", "list", "--all")["requests"]
    assert ids == [row["id"] for row in every]


def test_a_question_is_gone_with_its_daemon_and_nothing_is_done(dispatch: Dispatch) -> None:
    request = ask(dispatch, "left", command("touch left-behind"))
    dispatch.json("request", "defer", request, "--for", "3600")

    dispatch.json("down", "--grace", "0")
    dispatch.json("up")

    found = dispatch.json("request", "show", request)
    assert found["request"]["state"] in ("orphaned", "cancelled")
    assert (found["body"], found["choices"]) == (None, [])
    assert dispatch.error("request", "respond", request, "--accept")["code"] == "request_closed"
    assert not (dispatch.home / "left-behind").exists()


def test_the_configuration_can_decline_everything(dispatch: Dispatch) -> None:
    (dispatch.home / "config.toml").write_text('[policy]\nrequests = "deny"\n')
    words = ("--approval-policy", "untrusted")
    dispatch.json("new", "denied", directive(command("touch denied")), *words)

    assert dispatch.wait("@denied")["outcome"] == "done"
    [row] = dispatch.json("request", "list", "--all")["requests"]
    assert (row["state"], row["answered_by"]) == ("declined", "policy")
    assert not (dispatch.home / "denied").exists()


def _has(dispatch: Dispatch, thread: str) -> bool:
    return dispatch.run("get", thread).returncode == 0
