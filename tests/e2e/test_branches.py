"""Histories are forked, taken back and summarised, and a foreign thread is attached, on the real Codex."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e


def made(dispatch: Dispatch, name: str, *texts: str, words: tuple[str, ...] = ()) -> dict[str, Any]:
    """Make a thread and run its turns to their ends."""
    thread: dict[str, Any] = dispatch.json("new", name, "--no-send", "--cwd", "/", *words)["thread"]
    for text in texts:
        dispatch.json("send", thread["ref"], text)
        dispatch.json("wait", thread["ref"], "--timeout", "60")
    return thread


def said(dispatch: Dispatch, thread: str) -> list[str]:
    """Return the texts of the messages in a history."""
    items = dispatch.json("tail", thread, "--limit", "100")["items"]
    return [item["text"] for item in items if item["role"] == "user"]


def turn_ids(dispatch: Dispatch, thread: str) -> list[str]:
    items = dispatch.json("tail", thread, "--limit", "100")["items"]
    return list(dict.fromkeys(item["turn_id"] for item in items))


def kill_codex(dispatch: Dispatch) -> None:
    """End Codex and return once another one is ready."""
    pid = int(dispatch.json("daemon", "status")["codex"]["pid"])
    os.kill(pid, signal.SIGKILL)

    def ready() -> bool:
        found = dispatch.json("daemon", "status")["codex"]
        return found["state"] == "ready" and found["pid"] not in (None, pid)

    eventually(ready, "another Codex is ready")


def test_a_fork_goes_its_own_way_and_survives_codex(dispatch: Dispatch) -> None:
    source = made(dispatch, "trunk", "one", "two")

    forked = dispatch.json("fork", "@trunk", "twig")
    kill_codex(dispatch)
    dispatch.json("send", "@twig", "three")
    dispatch.json("wait", "@twig", "--timeout", "60")

    assert forked["source"]["ref"] == source["ref"]
    assert forked["thread"]["handle"] == "@twig"
    assert forked["turn"]["id"] == turn_ids(dispatch, "@trunk")[-1]
    assert said(dispatch, "@twig") == ["one", "two", "three"]
    assert said(dispatch, "@trunk") == ["one", "two"]


def test_a_fork_inherits_settings_unless_it_is_given_others(shared: Dispatch) -> None:
    made(shared, "strict", "one", words=("--sandbox", "read-only", "--model", "offline-mini"))

    same = shared.json("fork", "@strict", "same")["thread"]
    other = shared.json("fork", "@strict", "other", "--sandbox", "workspace-write", "--cwd", "/tmp")

    kept = shared.json("get", same["ref"])
    assert ("read-only" in str(kept), "offline-mini" in str(kept)) == (True, True)
    assert "workspace-write" in str(shared.json("get", other["thread"]["ref"]))
    assert (same["cwd"], other["thread"]["cwd"]) == ("/", "/tmp")


def test_a_fork_ends_where_it_is_told_to(shared: Dispatch) -> None:
    made(shared, "long", "one", "two", "three")
    ids = turn_ids(shared, "@long")

    forked = shared.json("fork", "@long", "short", "--last-turn", ids[1])

    assert said(shared, "@short") == ["one", "two"]
    assert forked["turn"]["id"] == ids[1]
    refused = shared.error("fork", "@long", "nowhere", "--last-turn", "no-such-turn")
    assert refused["code"] == "validation"
    assert shared.error("get", "@nowhere")["code"] == "not_found"


def test_a_thread_is_forked_while_its_turn_runs(shared: Dispatch) -> None:
    made(shared, "running", "one")
    shared.json("send", "@running", 'offline:{"delay": 60}')

    forked = shared.json("fork", "@running", "aside")

    shared.json("stop", "@running")
    assert forked["turn"]["status"] in ("interrupted", "completed")
    assert said(shared, "@aside")[0] == "one"


def test_what_cannot_be_forked_says_why(shared: Dispatch) -> None:
    made(shared, "fresh")
    away = made(shared, "away", "one")
    shared.json("archive", "@away", "--yes")

    assert shared.error("fork", "@fresh", "copy")["code"] == "validation"
    assert shared.error("fork", away["ref"], "copy")["code"] == "authority"
    assert shared.error("fork", "@fresh", "copy", "--cwd", "/no/such")["code"] == "validation"
    assert shared.error("fork", "@fresh", "fresh")["code"] == "validation"
    both = ("--sandbox", "read-only", "--permissions", ":read-only")
    assert shared.error("fork", "@fresh", "copy", *both)["code"] == "validation"
    assert shared.error("get", "@copy")["code"] == "not_found"


def test_turns_are_taken_back_and_the_thread_goes_on_from_what_is_left(shared: Dispatch) -> None:
    made(shared, "undo", "one", "two", "three")
    ids = turn_ids(shared, "@undo")

    output = shared.json("revert", "@undo", "--turns", "2", "--yes")
    left = shared.json("wait", "@undo", "--timeout", "60")
    shared.json("send", "@undo", "four")
    shared.json("wait", "@undo", "--timeout", "60")

    assert (output["before_turn"], output["turn"]["id"]) == (ids[1], ids[0])
    assert "Offline reply: one" in str(left)
    assert said(shared, "@undo") == ["one", "four"]


def test_turns_are_taken_back_from_a_turn_on(shared: Dispatch) -> None:
    made(shared, "undo-id", "one", "two", "three")
    ids = turn_ids(shared, "@undo-id")

    output = shared.json("revert", "@undo-id", "--before-turn", ids[1], "--yes")

    assert output["turn"]["id"] == ids[0]
    assert said(shared, "@undo-id") == ["one"]
    unknown = shared.error("revert", "@undo-id", "--before-turn", ids[2], "--yes")
    assert unknown["code"] == "validation"
    assert said(shared, "@undo-id") == ["one"]


def test_a_thread_of_which_all_was_taken_back_begins_anew(dispatch: Dispatch) -> None:
    thread = made(dispatch, "clean", "one", "two")

    dispatch.json("revert", "@clean", "--turns", "2", "--yes")
    empty = dispatch.json("tail", "@clean")["items"]
    refused = dispatch.error("revert", "@clean", "--yes")["code"]
    kill_codex(dispatch)
    dispatch.json("send", "@clean", "three")
    dispatch.json("wait", "@clean", "--timeout", "60")

    assert empty == []
    assert refused == "validation"
    assert said(dispatch, "@clean") == ["three"]
    assert dispatch.json("get", "@clean")["thread"]["id"] == thread["id"]


def test_nothing_is_taken_back_or_summarised_while_a_turn_runs(shared: Dispatch) -> None:
    made(shared, "engaged", "one")
    shared.json("send", "@engaged", 'offline:{"delay": 60}')

    assert shared.error("revert", "@engaged", "--yes")["code"] == "lane_busy"
    assert shared.error("compact", "@engaged")["code"] == "lane_busy"

    assert shared.json("stop", "@engaged")["turn"]["status"] == "interrupted"
    assert said(shared, "@engaged")[0] == "one"


def test_more_turns_than_there_are_cannot_be_taken_back(shared: Dispatch) -> None:
    made(shared, "two-turns", "one", "two")

    refused = shared.error("revert", "@two-turns", "--turns", "3", "--yes")

    assert (refused["code"], "2 turns" in refused["message"]) == ("validation", True)
    both = shared.error("revert", "@two-turns", "--turns", "1", "--before-turn", "x", "--yes")
    assert both["code"] == "validation"
    assert said(shared, "@two-turns") == ["one", "two"]


def test_a_context_is_summarised_in_a_turn_that_wait_waits_for(shared: Dispatch) -> None:
    made(shared, "wordy", "one", "two")

    begun = shared.json("compact", "@wordy")
    shared.json("wait", "@wordy", "--timeout", "60")
    turn = shared.json("get", "@wordy")["turn"]
    shared.json("send", "@wordy", "three")
    done = shared.json("wait", "@wordy", "--timeout", "60")

    assert (turn["id"], turn["status"]) == (begun["turn"]["id"], "completed")
    assert "Offline reply: three" in str(done)
    assert "contextCompaction" in [
        item["type"] for item in shared.json("tail", "@wordy", "--limit", "100")["items"]
    ]


def test_a_compaction_can_be_taken_back(shared: Dispatch) -> None:
    made(shared, "regret", "one")
    shared.json("compact", "@regret")
    shared.json("wait", "@regret", "--timeout", "60")

    output = shared.json("revert", "@regret", "--yes")

    assert output["turn"]["id"] == turn_ids(shared, "@regret")[-1]
    assert said(shared, "@regret") == ["one"]


def test_a_daemon_killed_in_a_revert_knows_the_newest_turn_when_it_is_back(
    dispatch: Dispatch,
) -> None:
    made(dispatch, "torn", "one", "two", "three")
    ids = turn_ids(dispatch, "@torn")
    for moment in (0.0, 0.02, 0.05):
        words = ("revert", "@torn", "--before-turn", ids[-1], "--yes")
        pid = dispatch.pid()
        process = dispatch.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1 + moment)  # the moment of death, which is what is varied
        os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)

        dispatch.json("wait", "@torn", "--timeout", "60")
        turn = dispatch.json("get", "@torn")["turn"]
        ids = turn_ids(dispatch, "@torn")

        assert (turn["id"], turn["status"]) == (ids[-1], "completed")
        dispatch.json("send", "@torn", "again")
        dispatch.json("wait", "@torn", "--timeout", "60")
        ids = turn_ids(dispatch, "@torn")
