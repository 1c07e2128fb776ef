"""Watching live: through pipes, across restarts, with cursors."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e
DEADLINE = 60.0


@contextmanager
def watching(dispatch: Dispatch, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run dispatch watch until the block ends; it prints all that happens in the block, however late it begins."""
    before = dispatch.json("watch", "--timeout", "0")["cursor"]
    process = dispatch.start(
        "watch", *words, "--after", before, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE)


def row(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def until(process: subprocess.Popen[str], kind: str) -> list[dict[str, Any]]:
    rows = [row(process)]
    while rows[-1].get("kind") != kind:
        rows.append(row(process))
    return rows


def test_a_turn_is_seen_while_it_happens(dispatch: Dispatch) -> None:
    ref = dispatch.json("new", "seen")["thread"]["ref"]
    with watching(dispatch, "@seen") as process:
        dispatch.json("send", "@seen", "hello")
        rows = until(process, "turn.completed")

        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130

    assert {row["thread"]["handle"] for row in rows} == {"@seen"}
    assert {row["thread"]["ref"] for row in rows} == {ref}
    assert len({row["cursor"] for row in rows}) == len(rows)
    texts = [row["data"]["text"] for row in rows if row["kind"] == "item.completed"]
    assert texts[-1] == "Offline reply: hello"


def test_a_pipe_gets_each_row_at_once_and_its_end_ends_the_watch(dispatch: Dispatch) -> None:
    dispatch.json("new", "piped")
    watch = shlex.join(dispatch.argv("watch", "--kinds", "turn.completed"))
    pipeline = subprocess.Popen(
        ["bash", "-c", f"{watch} | head -n 1; echo ${{PIPESTATUS[0]}}"],
        env=dispatch.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = 0

    def ended() -> bool:
        # Nobody can see from outside that the watch has begun, so the turn is repeated until one is seen.
        nonlocal said
        said += 1
        dispatch.json("send", "@piped", f"message {said}")
        dispatch.wait("@piped")
        return pipeline.poll() is not None

    eventually(ended, "the pipeline ends")
    output = pipeline.communicate(timeout=DEADLINE)[0].splitlines()

    assert json.loads(output[0])["kind"] == "turn.completed"
    assert output[1] == "141"


def test_a_watch_goes_on_with_the_daemon_that_follows(dispatch: Dispatch) -> None:
    dispatch.json("new", "watched", "hello")
    dispatch.wait("@watched")
    with watching(dispatch, "--kinds", "turn.completed") as process:
        dispatch.json("send", "@watched", "before")
        first = row(process)
        os.kill(dispatch.pid(), signal.SIGKILL)
        dispatch.json("send", "@watched", "after")
        gap = row(process)
        second = row(process)

    assert first["kind"] == second["kind"] == "turn.completed"
    assert gap["gap"] is True
    assert first["cursor"].partition(":")[0] != second["cursor"].partition(":")[0]


def test_a_daemon_that_was_stopped_is_not_started_again_by_a_watch(dispatch: Dispatch) -> None:
    dispatch.json("up")
    with watching(dispatch) as process:
        dispatch.json("new", "seen")
        row(process)
        dispatch.json("down")
        errors = process.communicate(timeout=DEADLINE)[1]

        assert process.returncode == 8
    error = json.loads(errors)["error"]
    assert error["code"] == "daemon_unreachable"
    assert "--after" in error["hint"]
    assert dispatch.error("list", "--no-start")["code"] == "daemon_unreachable"


def test_a_watch_waits_for_a_daemon_that_was_stopped_and_comes_back(dispatch: Dispatch) -> None:
    dispatch.json("up")
    with watching(dispatch, "--kinds", "thread.created") as process:
        dispatch.json("new", "before")
        row(process)
        dispatch.json("down")
        dispatch.json("new", "after")
        rows = [row(process), row(process)]

    assert rows[0]["gap"] is True
    assert rows[1]["thread"]["handle"] == "@after"


def test_cursors_join_calls_without_gap_or_repetition(dispatch: Dispatch) -> None:
    dispatch.json("new", "paged")
    start = dispatch.json("watch", "--timeout", "0")["cursor"]
    for number in range(3):
        dispatch.json("send", "@paged", f"message {number}")
        dispatch.wait("@paged")

    whole = dispatch.json("watch", "@paged", "--after", start, "--timeout", "0")
    pieces: list[dict[str, Any]] = []
    cursor = start
    while piece := dispatch.json(
        "watch", "@paged", "--after", cursor, "--limit", "2", "--timeout", "0"
    )["events"]:
        pieces += piece
        cursor = piece[-1]["cursor"]

    assert pieces == whole["events"]
    assert whole["gap"] is False
    assert [event["kind"] for event in pieces].count("turn.completed") == 3


def test_a_bounded_watch_returns_with_what_there_is(dispatch: Dispatch) -> None:
    dispatch.json("new", "bounded", "hello")

    completed = dispatch.json(
        "watch", "@bounded", "--kinds", "turn.completed", "--limit", "1", "--after", "earlier:0"
    )
    nothing = dispatch.json("watch", "@bounded", "--kinds", "turn.failed", "--timeout", "0.1")

    assert (completed["events"][0]["kind"], completed["gap"]) == ("turn.completed", True)
    assert (nothing["events"], nothing["gap"]) == ([], False)
