"""Commands that meet on one thread, or meet a daemon that stops, on the real Codex: one of them wins, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.control.sync_client import Connection
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.testing.daemon import COMMAND_DEADLINE

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e

SLOW = 'offline:{"delay": 0.3}'  # the turns that a goal starts answer as the last message says


def at_once(dispatch: Dispatch, *lines: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    """Run commands at the same time; return the exit status and the result, or the error, of each."""
    started = [
        dispatch.start(
            *line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=dispatch.home,
        )
        for line in lines
    ]
    answers = []
    for process in started:
        out, err = process.communicate(timeout=COMMAND_DEADLINE)
        assert "Traceback" not in err, err
        status = process.returncode
        answers.append((status, json.loads(err)["error"] if status else json.loads(out)))
    return answers


def log_is_clean(dispatch: Dispatch) -> bool:
    log = (dispatch.home / "dispatchd.log").read_text(encoding="utf-8")
    return "Traceback" not in log and " ERROR " not in log


def made(dispatch: Dispatch, name: str, text: str = "Say hello") -> str:
    ref: str = dispatch.json("new", name, text, "--cwd", "/")["thread"]["ref"]
    dispatch.wait(ref)
    return ref


def test_of_several_names_at_once_the_last_one_counts_everywhere(shared: Dispatch) -> None:
    ref = made(shared, "many")

    answers = at_once(shared, *[("rename", ref, f"many-{n}") for n in range(5)])
    thread = shared.json("get", ref)["thread"]
    names = {row["title"] for row in [thread]} | {thread["handle"].removeprefix("@")}

    assert [status for status, _ in answers] == [0] * 5
    assert len(names) == 1
    shared.json("rename", ref, "many-again")
    shared.json("rename", ref, names.pop())  # free again, as every other name of it
    assert log_is_clean(shared)


def test_a_message_and_an_archive_at_once_leave_a_thread_that_can_be_restored(
    shared: Dispatch,
) -> None:
    for number in range(3):
        ref = made(shared, f"leaving-{number}")

        (sent, said), (archived, _) = at_once(
            shared, ("send", ref, SLOW), ("archive", ref, "--yes")
        )
        status = shared.json("get", ref)["thread"]["status"]
        shared.json("restore", ref)
        shared.json("send", ref, "offline:{} Again")

        assert (archived, status) == (0, "archived")
        assert sent == 0 or said["code"] == "authority", said
        assert shared.wait(ref)["text"] == "Offline reply: Again"
    assert log_is_clean(shared)


def test_one_of_a_restore_and_a_new_thread_gets_the_name(shared: Dispatch) -> None:
    ref = made(shared, "coveted")
    shared.json("archive", ref, "--yes")

    answers = at_once(shared, ("restore", ref), ("new", "coveted", "--no-send", "--cwd", "/"))
    holders = [
        row for row in shared.json("list")["threads"] if row["thread"]["handle"] == "@coveted"
    ]

    assert sorted(status for status, _ in answers) == [0, 2]
    assert [error["code"] for status, error in answers if status] == ["validation"]
    assert len(holders) == 1
    assert log_is_clean(shared)


def test_a_revert_and_a_message_at_once_never_take_back_the_message(shared: Dispatch) -> None:
    ref = made(shared, "undecided")

    (sent, said), (reverted, undone) = at_once(
        shared, ("send", ref, "Second"), ("revert", ref, "--yes")
    )
    found = shared.wait(ref)

    assert sent == 0 or said["code"] == "lane_busy", said
    assert reverted == 0 or undone["code"] == "lane_busy", undone
    assert 0 in (sent, reverted)
    if sent == 0 and reverted:
        assert found["text"] == "Offline reply: Second"
    assert log_is_clean(shared)


def test_a_fork_that_a_stopping_daemon_began_is_registered_or_was_never_made(
    dispatch: Dispatch,
) -> None:
    ref = made(dispatch, "origin")

    answers = at_once(
        dispatch,
        *[("fork", ref, f"copy-{n}", "--no-start") for n in range(6)],
        ("down", "--grace", "0"),
    )
    dispatch.json("up")
    managed = {row["thread"]["handle"] for row in dispatch.json("list")["threads"]}
    unmanaged = dispatch.json("list", "--unmanaged")["threads"]

    made_ones = {f"@copy-{n}" for n in range(6) if answers[n][0] == 0}
    assert made_ones <= managed
    assert unmanaged == []
    assert log_is_clean(dispatch)


def test_a_goal_set_while_the_daemon_stops_is_at_rest_afterwards(dispatch: Dispatch) -> None:
    ref = made(dispatch, "restless", SLOW)

    (was_set, _), (stopped, _) = at_once(
        dispatch,
        ("goal", "set", ref, "Go on for ever", "--unbounded", "--no-start"),
        ("down", "--grace", "1"),
    )
    dispatch.json("up")
    goal = dispatch.json("goal", "status", ref)["goal"]

    assert stopped == 0
    assert goal is None or goal["status"] == "paused"
    assert was_set or goal is not None
    assert log_is_clean(dispatch)


def test_a_daemon_with_an_active_goal_is_not_replaced_even_if_no_turn_runs(
    dispatch: Dispatch,
) -> None:
    ref = made(dispatch, "halted", SLOW)
    dispatch.json("goal", "set", ref, "Go on", "--unbounded")
    dispatch.json("stop", ref)  # the goal stays active
    before = dispatch.pid()
    (dispatch.home / "config.toml").write_text("[daemon]\ngrace = 1\n")

    with Connection.connect(dispatch.socket, timeout=30) as connection:
        greeting = {"protocol": PROTOCOL, "client": "races", "version": "0", "manifest": "other"}
        greeted = connection.hello(greeting, timeout=30)
    listed = dispatch.run("list")

    assert (greeted["stale"], greeted["active_turns"]) == (True, 1)
    assert listed.returncode == 0, listed.stderr
    assert dispatch.pid() == before
    assert dispatch.json("goal", "status", ref)["goal"]["status"] == "active"


@pytest.mark.parametrize("status", ["active", "paused"])
def test_a_thread_that_codex_never_stored_gets_a_goal_after_a_restart(
    dispatch: Dispatch, status: str
) -> None:
    ref = dispatch.json("new", "unheard", "--no-send", "--cwd", "/")["thread"]["ref"]
    dispatch.json("down")
    dispatch.json("up")

    words = ("goal", "set", ref, "Tidy up", "--status", status, "--token-budget", "900000")
    dispatch.json(*words)
    if status == "active":
        dispatch.json("goal", "set", ref, "--status", "paused")
    dispatch.wait(ref)
    dispatch.json("send", ref, "Say hello")

    assert dispatch.wait(ref)["text"] == "Offline reply: Say hello"
    assert dispatch.json("goal", "status", ref)["goal"]["objective"] == "Tidy up"
    assert log_is_clean(dispatch)


def test_a_thread_of_which_all_was_taken_back_has_no_turn(dispatch: Dispatch) -> None:
    ref = made(dispatch, "clean")

    reverted = dispatch.json("revert", ref, "--yes")
    empty = dispatch.wait(ref)
    dispatch.json("down")
    dispatch.json("up")
    shown = dispatch.json("get", ref)
    forked = dispatch.json("fork", ref, "clean-copy")
    refused = dispatch.error("revert", ref, "--yes")

    assert reverted["turn"] is empty["turn"] is shown["turn"] is forked["turn"] is None
    assert (empty["outcome"], shown["thread"]["status"]) == ("nothing", "idle")
    assert refused["code"] == "validation"
    for thread in (ref, "@clean-copy"):
        dispatch.json("send", thread, "Begin anew")
        assert dispatch.wait(thread)["text"] == "Offline reply: Begin anew"


def test_an_ephemeral_thread_that_works_is_interrupted_when_it_is_archived(
    shared: Dispatch,
) -> None:
    text = 'offline:{"delay": 60}'
    ref = shared.json("new", "spark", text, "--ephemeral", "--cwd", "/")["thread"]["ref"]

    shared.json("archive", ref, "--yes")
    shown = shared.json("get", ref)

    assert (shown["thread"]["status"], shown["turn"]["status"]) == ("archived", "interrupted")
    assert log_is_clean(shared)
