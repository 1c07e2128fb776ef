"""Goals on the real Codex: their loop is bounded, can be ended, and does not keep the daemon from stopping."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from anyio import fail_after

from dispatch_core.control.client import ControlClient
from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

SLOW = 'offline:{"delay": 0.3}'  # the turns that a goal starts answer as the last message says
NOBODY = "01a2020b-6b06-7f70-bca4-0c72be18c69f"


def make(dispatch: Dispatch, name: str, text: str | None = None) -> str:
    words = [text] if text else ["--no-send"]
    ref: str = dispatch.json("new", name, *words, "--cwd", "/")["thread"]["ref"]
    if text:
        dispatch.json("wait", ref, "--timeout", "60")
    return ref


def goal(dispatch: Dispatch, ref: str) -> dict[str, Any]:
    found: dict[str, Any] = dispatch.json("goal", "status", ref)["goal"]
    return found


def latest(dispatch: Dispatch, ref: str) -> dict[str, Any]:
    (row,) = [r for r in dispatch.json("list")["threads"] if r["thread"]["ref"] == ref]
    turn: dict[str, Any] = row["turn"]
    return turn


def test_an_active_goal_without_a_budget_is_refused_and_nothing_starts(shared: Dispatch) -> None:
    ref = make(shared, "unlimited")

    error = shared.error("goal", "set", ref, "Go on for ever")

    assert error["code"] == "validation"
    assert "--token-budget" in error["hint"]
    assert "--unbounded" in error["hint"]
    assert shared.json("goal", "status", ref)["goal"] is None


def test_a_goal_with_a_budget_stops_by_itself_and_its_turns_are_nobodys(shared: Dispatch) -> None:
    ref = make(shared, "bounded")

    first = shared.json("goal", "set", ref, "Count to ten", "--token-budget", "30000")
    eventually(lambda: goal(shared, ref)["status"] == "budgetLimited", "the budget is used up")
    shared.json("wait", ref, "--timeout", "60")

    found = goal(shared, ref)
    turn = latest(shared, ref)
    assert first["goal"]["status"] == "active"
    assert found["tokens_used"] >= found["token_budget"] == 30000
    assert found["tokens_remaining"] == 0
    assert turn["id"] is not None
    assert turn["message_id"] is None


def test_a_goal_that_has_used_its_budget_needs_more_to_go_on(shared: Dispatch) -> None:
    ref = make(shared, "spent")
    shared.json("goal", "set", ref, "Count to ten", "--token-budget", "10")
    eventually(lambda: goal(shared, ref)["status"] == "budgetLimited", "the budget is used up")

    error = shared.error("goal", "set", ref, "--status", "active")
    more = shared.json("goal", "set", ref, "--status", "active", "--token-budget", "40000")

    assert error["code"] == "validation"
    assert error["details"]["token_budget"] == 10
    assert more["goal"]["status"] == "active"
    eventually(lambda: goal(shared, ref)["status"] == "budgetLimited", "the new one as well")


def test_stop_and_pause_end_a_goal_that_goes_on(shared: Dispatch) -> None:
    ref = make(shared, "endless", SLOW)
    shared.json("goal", "set", ref, "Go on for ever", "--unbounded")
    eventually(lambda: latest(shared, ref)["message_id"] is None, "the goal has started a turn")

    paused = shared.json("goal", "set", ref, "--status", "paused")
    shared.json("wait", ref, "--timeout", "60")
    sent = shared.json("send", ref, "hello")
    shared.json("wait", ref, "--timeout", "60")

    assert paused["goal"]["status"] == "paused"
    assert latest(shared, ref)["message_id"] == sent["receipt"]["id"]
    assert goal(shared, ref)["status"] == "paused"


def test_a_stopped_goal_stays_active_and_is_paused_without_starting_anything(
    shared: Dispatch,
) -> None:
    ref = make(shared, "halted", SLOW)
    shared.json("goal", "set", ref, "Go on", "--token-budget", "900000")
    eventually(lambda: latest(shared, ref)["status"] == "started", "the goal has started a turn")

    stopped = shared.json("stop", ref)
    before = goal(shared, ref)
    shared.json("goal", "set", ref, "--status", "paused")

    assert stopped["turn"]["status"] == "interrupted"
    assert before["status"] == "active"
    assert latest(shared, ref)["id"] == stopped["turn"]["id"]


def test_a_goal_is_changed_field_by_field_and_cleared(shared: Dispatch) -> None:
    ref = make(shared, "edited")
    shared.json("goal", "set", ref, "-", "--status", "paused", stdin="First\n")

    budget = shared.json("goal", "set", ref, "--token-budget", "5000")["goal"]
    objective = shared.json("goal", "set", ref, "Second")["goal"]
    unlimited = shared.json("goal", "set", ref, "--unbounded")["goal"]
    cleared = [shared.json("goal", "clear", ref, "--yes")["cleared"] for _ in range(2)]

    assert (budget["objective"].strip(), budget["token_budget"]) == ("First", 5000)
    assert (objective["objective"], objective["token_budget"]) == ("Second", 5000)
    assert (unlimited["status"], unlimited["token_budget"]) == ("paused", None)
    assert cleared == [True, False]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "nothing is to change"),
        (("--status", "paused"), "no goal to change"),
        (("x", "--token-budget", "5", "--unbounded"), "not both"),
        (("  ", "--status", "paused"), "empty"),
        (("x" * 4001, "--status", "paused"), "4000"),
        (("x", "--token-budget", "0"), "token"),
    ],
)
def test_what_makes_no_sense_is_refused(
    shared: Dispatch, words: tuple[str, ...], text: str
) -> None:
    if not any(r["thread"]["handle"] == "@odd" for r in shared.json("list")["threads"]):
        make(shared, "odd")

    error = shared.error("goal", "set", "@odd", *words)

    assert error["code"] == "validation"
    assert text in error["message"]
    assert shared.json("goal", "status", "@odd")["goal"] is None


def test_a_thread_that_nobody_manages_can_be_asked_and_not_written(shared: Dispatch) -> None:
    native_id = shared.json("new", "ours", "--no-send", "--cwd", "/")["thread"]["id"]

    ours = shared.json("goal", "status", native_id)
    unknown = shared.error("goal", "status", NOBODY)
    written = shared.error("goal", "set", NOBODY, "x", "--status", "paused")

    assert ours["id"] == native_id
    assert unknown["code"] == "not_found"
    assert written["code"] == "not_found"


def test_an_archived_thread_is_refused_before_codex_is_asked(shared: Dispatch) -> None:
    ref = make(shared, "shelved", "hello")
    shared.json("goal", "set", ref, "Later", "--status", "paused")
    shared.json("archive", ref, "--yes")

    errors = [
        shared.error("goal", "status", ref),
        shared.error("goal", "set", ref, "--status", "active", "--unbounded"),
        shared.error("goal", "clear", ref, "--yes"),
    ]

    assert [error["code"] for error in errors] == ["authority"] * 3
    assert "dispatch restore" in errors[0]["hint"]


def test_an_ephemeral_thread_has_no_goal(shared: Dispatch) -> None:
    thread = shared.json("new", "fleeting", "--ephemeral", "--no-send", "--cwd", "/")["thread"]

    shown = shared.error("goal", "status", thread["ref"])
    written = shared.error("goal", "set", thread["ref"], "x", "--status", "paused")

    assert shown["code"] == written["code"] == "unsupported"
    assert "ephemeral" in written["message"]


async def test_a_changed_goal_is_an_event_of_its_thread(shared: Dispatch) -> None:
    made = shared.json("new", "heard", "--no-send", "--cwd", "/")["thread"]
    words = {"thread": made["ref"], "objective": "x", "status": "paused", "token_budget": 7}
    async with (
        ControlClient.connect(shared.socket, client="test", version="0") as client,
        client.subscribe(kinds=["goal.changed"], thread=made["key"]) as events,
    ):
        with fail_after(20):
            await client.call("goal.set", words)
            await client.call("goal.clear", {"thread": made["ref"]})
            heard = [(await anext(events)).event for _ in range(2)]

    assert [event["data"]["status"] for event in heard] == ["paused", "cleared"]
    assert heard[0]["data"]["token_budget"] == 7


def test_down_pauses_a_goal_that_would_go_on_for_ever_and_says_so(dispatch: Dispatch) -> None:
    ref = make(dispatch, "busy", SLOW)
    dispatch.json("goal", "set", ref, "Go on for ever", "--unbounded")
    eventually(lambda: latest(dispatch, ref)["message_id"] is None, "the goal has started a turn")

    stopped = dispatch.json("down")
    dispatch.json("up")

    found = goal(dispatch, ref)
    actions = dispatch.json("daemon", "log", "--limit", "50")["actions"]
    assert stopped["status"] == "stopped"
    assert found["status"] == "paused"
    assert latest(dispatch, ref)["status"] == "completed"  # not cut off: it had time to end
    assert [a["thread"] for a in actions if a["principal"] == "daemon"] == [ref]
    again = dispatch.json("goal", "set", ref, "--status", "active", "--token-budget", "40000")
    assert again["goal"]["status"] in ("active", "budgetLimited")
    eventually(lambda: goal(dispatch, ref)["status"] == "budgetLimited", "it went on")


def test_a_goal_whose_turn_was_cut_off_goes_on_after_a_killed_daemon(dispatch: Dispatch) -> None:
    ref = make(dispatch, "survivor", SLOW)
    dispatch.json("goal", "set", ref, "Go on", "--token-budget", "2000000")
    eventually(lambda: latest(dispatch, ref)["message_id"] is None, "the goal has started a turn")
    before = goal(dispatch, ref)["tokens_used"]

    os.kill(dispatch.pid(), signal.SIGKILL)
    dispatch.json("up")

    eventually(lambda: goal(dispatch, ref)["tokens_used"] > before, "it goes on")
    assert dispatch.json("goal", "set", ref, "--status", "paused")["goal"]["status"] == "paused"


def test_a_goal_that_was_set_to_active_loads_its_thread_and_goes_on(dispatch: Dispatch) -> None:
    ref = make(dispatch, "resting", "hello")
    dispatch.json("goal", "set", ref, "Later", "--status", "paused")
    dispatch.json("down")
    dispatch.json("up")

    dispatch.json("goal", "set", ref, "--status", "active", "--token-budget", "20000")

    eventually(lambda: goal(dispatch, ref)["status"] == "budgetLimited", "it has gone on")
    eventually(lambda: latest(dispatch, ref)["message_id"] is None, "its turns are heard of")
