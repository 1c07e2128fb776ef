"""Threads are renamed, archived and restored, managed or not, on the real Codex."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import codex_cli_bin
import pytest

from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e

NOBODY = "01a2024d-0000-7000-8000-000000000000"


def made(dispatch: Dispatch, name: str, *texts: str) -> dict[str, Any]:
    """Make a thread and run its turns to their ends."""
    thread: dict[str, Any] = dispatch.json("new", name, "--no-send", "--cwd", "/")["thread"]
    for text in texts:
        dispatch.json("send", thread["ref"], text)
        dispatch.json("wait", thread["ref"], "--timeout", "60")
    return thread


def status(dispatch: Dispatch, thread: str) -> str:
    return str(dispatch.json("get", thread)["thread"]["status"])


def codex(dispatch: Dispatch) -> int:
    return int(dispatch.json("daemon", "status")["codex"]["pid"])


def kill_codex(dispatch: Dispatch) -> None:
    """End Codex and return once another one is ready."""
    pid = codex(dispatch)
    os.kill(pid, signal.SIGKILL)

    def ready() -> bool:
        found = dispatch.json("daemon", "status")["codex"]
        return found["state"] == "ready" and found["pid"] not in (None, pid)

    eventually(ready, "another Codex is ready")


def rollouts(dispatch: Dispatch, kind: str) -> list[Path]:
    return list((dispatch.home / "offline" / "codex" / kind).rglob("*.jsonl"))


@contextmanager
def held_elsewhere(dispatch: Dispatch, thread_id: str) -> Iterator[None]:
    """Let another Codex over the same home load a thread."""
    env = {**dispatch.environment, "CODEX_HOME": str(dispatch.home / "offline" / "codex")}
    process = subprocess.Popen(
        [codex_cli_bin.bundled_codex_path(), "app-server"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        client = {"name": "other", "title": "other", "version": "1"}
        asked: list[tuple[str, dict[str, Any]]] = [
            ("initialize", {"clientInfo": client}),
            ("thread/resume", {"threadId": thread_id, "excludeTurns": True}),
        ]
        assert process.stdin is not None
        assert process.stdout is not None
        for number, (method, params) in enumerate(asked):
            frame = {"id": number, "method": method, "params": params}
            process.stdin.write(json.dumps(frame) + "\n")
            process.stdin.flush()
            answer: dict[str, Any] = {}
            while answer.get("id") != number:
                answer = json.loads(process.stdout.readline())
            assert "result" in answer, answer
        yield
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_thread_that_another_codex_holds_is_renamed_and_forked_but_not_archived(
    dispatch: Dispatch,
) -> None:
    thread = made(dispatch, "shared", "hello")
    kill_codex(dispatch)

    with held_elsewhere(dispatch, thread["id"]):
        refused = [
            dispatch.error("archive", "@shared", "--yes"),
            dispatch.error("send", "@shared", "x"),
            dispatch.error("revert", "@shared", "--yes"),
            dispatch.error("compact", "@shared"),
        ]
        forked = dispatch.json("fork", "@shared", "copy")
        renamed = dispatch.json("rename", "@shared", "other")
    archived = dispatch.json("archive", "@other", "--yes")["threads"][0]

    assert [error["code"] for error in refused] == ["active_writer"] * 4
    assert all(thread["ref"] in error["message"] for error in refused)
    assert forked["turn"]["status"] == "completed"
    assert renamed["thread"]["status"] == "idle"
    assert archived["thread"]["status"] == "archived"


def test_an_ephemeral_thread_ends_with_codex_and_says_so(dispatch: Dispatch) -> None:
    thread = dispatch.json("new", "spark", "hello", "--ephemeral", "--cwd", "/")["thread"]
    dispatch.json("wait", "@spark", "--timeout", "60")
    alive = status(dispatch, "@spark")
    unsupported = [
        dispatch.error(*words)["code"]
        for words in (
            ("fork", "@spark", "copy"),
            ("revert", "@spark", "--yes"),
            ("tail", "@spark"),
        )
    ]

    dispatch.json("send", "@spark", "again")
    dispatch.json("wait", "@spark", "--timeout", "60")
    dispatch.json("down")
    eventually(lambda: status(dispatch, "@spark") == "error", "the thread is known to be gone")
    refused = dispatch.error("send", "@spark", "x")
    archived = dispatch.json("archive", "@spark", "--yes")["threads"][0]

    assert alive == "idle"
    assert unsupported == ["unsupported"] * 3
    assert (refused["code"], "ephemeral" in refused["message"]) == ("not_found", True)
    assert "ephemeral" in archived["note"]
    assert dispatch.error("restore", thread["ref"])["code"] == "not_found"


def test_a_thread_answers_to_its_new_name_and_no_longer_to_the_old_one(shared: Dispatch) -> None:
    made(shared, "otto", "hello")

    output = shared.json("rename", "@otto", "anna")

    assert (output["changed"], output["thread"]["handle"]) == (True, "@anna")
    assert shared.json("send", "@anna", "x")["receipt"]["state"] == "submitted"
    assert shared.error("get", "@otto")["code"] == "not_found"
    assert shared.json("wait", "@anna", "--timeout", "60")


def test_a_name_survives_restarts_of_codex_before_the_first_turn(dispatch: Dispatch) -> None:
    made(dispatch, "first")
    kill_codex(dispatch)

    dispatch.json("rename", "@first", "second")
    dispatch.json("send", "@second", "hello")
    dispatch.json("wait", "@second", "--timeout", "60")

    thread = dispatch.json("get", "@second")["thread"]
    assert (thread["title"], thread["status"]) == ("second", "idle")


def test_names_that_are_taken_or_none_are_refused(shared: Dispatch) -> None:
    made(shared, "taken")
    made(shared, "wanting")

    assert shared.error("rename", "@wanting", "taken")["code"] == "validation"
    assert shared.error("rename", "@wanting", "  ")["code"] == "validation"
    assert shared.error("rename", "@nobody-at-all", "x")["code"] == "not_found"
    assert shared.error("rename", NOBODY, "x")["code"] == "not_found"
    assert shared.json("get", "@wanting")["thread"]["title"] == "wanting"


def test_archiving_a_busy_thread_interrupts_its_turn(shared: Dispatch) -> None:
    thread = made(shared, "busy", "one")
    shared.json("send", "@busy", 'offline:{"delay": 60}')

    output = shared.json("archive", "@busy", "--yes")

    assert output["threads"][0]["thread"]["status"] == "archived"
    assert shared.json("get", thread["ref"])["turn"]["status"] == "interrupted"
    refused = shared.error("send", thread["ref"], "x")
    assert (refused["code"], "dispatch restore" in refused["hint"]) == ("authority", True)
    assert "@busy" not in str(shared.json("list"))


def test_an_archived_thread_is_read_renamed_restored_and_goes_on(shared: Dispatch) -> None:
    thread = made(shared, "nap", "before")
    shared.json("archive", "@nap", "--yes")

    items = shared.json("tail", "@nap")["items"]
    shared.json("rename", "@nap", "awake")
    again = shared.json("archive", "@awake", "--yes")["threads"][0]
    output = shared.json("restore", "@awake")["threads"][0]
    shared.json("send", "@awake", "after")
    done = shared.json("wait", "@awake", "--timeout", "60")

    assert [item["role"] for item in items] == ["user", "agent"]
    assert (again["changed"], again["note"]) == (False, "it was archived already")
    assert (output["changed"], output["thread"]["status"]) == (True, "idle")
    assert "Offline reply: after" in str(done)
    assert shared.json("get", "@awake")["thread"]["id"] == thread["id"]
    assert shared.json("restore", "@awake")["threads"][0]["note"] == "it was not archived"


@pytest.mark.parametrize("lost", [False, True])
def test_a_thread_without_a_turn_is_archived_and_restored(dispatch: Dispatch, lost: bool) -> None:
    made(dispatch, "blank")
    if lost:
        for path in rollouts(dispatch, "sessions"):
            path.unlink()
        kill_codex(dispatch)

    archived = dispatch.json("archive", "@blank", "--yes")["threads"][0]
    restored = dispatch.json("restore", "@blank")["threads"][0]
    dispatch.json("send", "@blank", "hello")
    done = dispatch.json("wait", "@blank", "--timeout", "60")

    assert archived["thread"]["status"] == "archived"
    assert ("archived here only" in (archived["note"] or "")) is lost
    assert restored["thread"]["status"] == "idle"
    assert "Offline reply: hello" in str(done)


def test_the_name_of_an_archived_thread_is_free_and_is_asked_back_by_another_name(
    shared: Dispatch,
) -> None:
    old = made(shared, "heir", "one")
    shared.json("archive", "@heir", "--yes")
    made(shared, "heir")

    refused = shared.error("restore", old["ref"])
    shared.json("rename", old["ref"], "elder")
    restored = shared.json("restore", old["ref"])["threads"][0]

    assert (refused["code"], "dispatch rename" in refused["hint"]) == ("validation", True)
    assert restored["thread"]["handle"] == "@elder"


def test_of_several_threads_each_has_its_own_outcome(shared: Dispatch) -> None:
    made(shared, "one", "x")
    made(shared, "two")

    partial = shared.error("archive", "@one", "@missing", "@two", "--yes")
    restored = shared.json("restore", "@one", "@two")

    assert (partial["code"], partial["exit_code"]) == ("partial", 12)
    assert [t["thread"]["handle"] for t in partial["details"]["threads"]] == ["@one", "@two"]
    assert [f["error"]["code"] for f in partial["details"]["failed"]] == ["not_found"]
    assert [t["changed"] for t in restored["threads"]] == [True, True]
    assert shared.error("archive", "@missing", "--yes")["code"] == "not_found"


def test_archiving_asks_first(shared: Dispatch) -> None:
    made(shared, "kept")

    refused = shared.error("archive", "@kept")

    assert refused["exit_code"] in (2, 3)
    assert "--yes" in f"{refused['message']} {refused['hint']}"
    assert status(shared, "@kept") == "idle"


def test_a_thread_that_is_not_managed_is_acted_on_by_its_full_id(dispatch: Dispatch) -> None:
    thread = made(dispatch, "loose", "hello")
    dispatch.json("down")
    for path in (dispatch.home / "offline").glob("registry*"):
        path.unlink()

    renamed = dispatch.json("rename", thread["id"], "a name")
    archived = dispatch.json("archive", thread["id"], "--yes")["threads"][0]
    refused = dispatch.error("rename", thread["id"], "another")
    again = dispatch.json("archive", thread["id"], "--yes")["threads"][0]
    restored = dispatch.json("restore", thread["id"])["threads"][0]
    once_more = dispatch.json("restore", thread["id"])["threads"][0]

    assert (renamed["managed"], renamed["thread"], renamed["name"]) == (False, None, "a name")
    assert (archived["managed"], archived["changed"]) == (False, True)
    assert (refused["code"], "restore" in refused["hint"]) == ("validation", True)
    assert (again["changed"], again["note"]) == (False, "it was archived already")
    assert (restored["changed"], once_more["changed"]) == (True, False)
    assert dispatch.error("archive", NOBODY, "--yes")["code"] == "not_found"
    assert dispatch.error("restore", NOBODY)["code"] == "not_found"


def test_what_another_codex_archived_while_we_were_down_is_found_on_use(
    dispatch: Dispatch,
) -> None:
    thread = made(dispatch, "moved", "hello")
    dispatch.json("down")
    sessions = rollouts(dispatch, "sessions")
    codex_home = dispatch.home / "offline" / "codex"
    env = {**dispatch.environment, "CODEX_HOME": str(codex_home)}
    subprocess.run(
        [codex_cli_bin.bundled_codex_path(), "archive", thread["id"]],
        env=env,
        check=True,
        capture_output=True,
        timeout=60,
    )

    refused = dispatch.error("send", "@moved", "x")

    assert sessions
    assert not rollouts(dispatch, "sessions")
    assert (refused["code"], "dispatch restore" in refused["hint"]) == ("authority", True)
    assert status(dispatch, thread["ref"]) == "archived"
    assert dispatch.json("restore", thread["ref"])["threads"][0]["thread"]["status"] == "idle"


def test_for_people_every_outcome_is_a_line(shared: Dispatch) -> None:
    thread = made(shared, "shown", "x")
    human = {"DISPATCH_OUTPUT": "human"}
    dispatch = type(shared)(shared.home, {**shared.env, **human})

    renamed = dispatch.run("rename", "@shown", "seen").stdout
    archived = dispatch.run("archive", "@seen", "--yes").stdout
    restored = dispatch.run("restore", "@seen").stdout

    assert renamed == f"{thread['ref']} is called @seen now\n"
    assert archived == (
        f"▫ archived  @seen ({thread['ref']})\n  next: dispatch restore {thread['ref']} brings it back\n"
    )
    assert restored == f"○ idle  @seen ({thread['ref']})\n"
