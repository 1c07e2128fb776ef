"""Following an op whose answer goes on, and how far an op is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import LIMIT, SCRIPT

if TYPE_CHECKING:
    from .conftest import FakeDaemon, Shell


class Answers:
    """Answers one call after the other; after the last one the connection ends and the daemon is gone for good."""

    def __init__(self, *batches: dict[str, Any]) -> None:
        self.batches = list(batches)

    def __call__(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not self.batches:
            return {"hang_up": True}
        return {"text": f"at {asked['params'].get('after')}", **self.batches.pop(0)}


def batch(
    number: int, *rows: dict[str, Any], rows_in: str = "events", **more: Any
) -> dict[str, Any]:
    return {"result": {rows_in: list(rows), "cursor": f"i:{number}", **more}}


def params(daemon: FakeDaemon) -> list[dict[str, Any]]:
    return [request["params"] for request in daemon.requests]


def test_rows_are_json_lines_and_each_call_goes_on_behind_the_last(
    shell: Shell, daemon: FakeDaemon
) -> None:
    daemon.answers["watch"] = Answers(batch(1), batch(3, {"n": 2}, {"n": 3}), batch(4, {"n": 4}))

    ran = shell.run("watch", "@x", "--follow", "--limit", "3")

    assert ran.code == 0
    assert [json.loads(line) for line in ran.out.splitlines()] == [{"n": 2}, {"n": 3}, {"n": 4}]
    assert [asked.get("after") for asked in params(daemon)] == [None, "i:1", "i:3"]
    assert params(daemon)[0]["timeout"] == 0  # the first cursor is known before anything happens
    assert "timeout" not in params(daemon)[1]


def test_a_row_is_there_as_soon_as_it_has_come(shell: Shell, daemon: FakeDaemon) -> None:
    reader, writer = os.pipe()

    def held_up(_: dict[str, Any]) -> dict[str, Any]:
        os.read(reader, 1)
        return {"hang_up": True}

    first = [batch(1, {"n": 1})]
    daemon.answers["watch"] = lambda asked: first.pop() if first else held_up(asked)
    process = subprocess.Popen(
        [SCRIPT, "watch"], env=shell.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None

    line = process.stdout.readline()

    assert json.loads(line) == {"n": 1}
    process.stdout.close()
    # Nobody reads any more: the command ends although nothing else happens.
    assert process.wait(LIMIT) == 141
    assert process.stderr is not None
    with process.stderr:
        assert process.stderr.read() == b""
    os.write(writer, b"x")
    daemon.close()
    os.close(reader)
    os.close(writer)


def test_people_see_the_text_of_each_batch_that_has_something(
    shell: Shell, daemon: FakeDaemon
) -> None:
    daemon.answers["watch"] = Answers(batch(1), batch(2, {"n": 2}), batch(3, {"n": 3}))

    ran = shell.on_terminal("watch", "--follow", "--limit", "2")

    assert ran.out == "at i:1\nat i:2\n"


def test_a_gap_is_said_where_it_is(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.answers["watch"] = Answers(batch(1, {"n": 1}), batch(9, {"n": 9}, gap=True))

    ran = shell.run("watch", "--follow", "--limit", "2")

    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert lines == [{"n": 1}, {"gap": True, "cursor": "i:9"}, {"n": 9}]


@pytest.mark.parametrize("bound", [["--limit", "1"], ["--timeout", "0"], ["--no-follow"]])
def test_a_bounded_call_is_one_call_with_one_document(
    shell: Shell, daemon: FakeDaemon, bound: list[str]
) -> None:
    daemon.answers["watch"] = Answers(batch(1, {"n": 1}))

    ran = shell.run("watch", *bound)

    assert ran.json["cursor"] == "i:1"
    assert len(daemon.requests) == 1


def test_following_ends_at_its_timeout(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.answers["watch"] = Answers(batch(1, {"n": 1}), *[batch(1)] * 100)

    ran = shell.run("watch", "--follow", "--timeout", "0.3")

    assert (ran.code, json.loads(ran.out)) == (0, {"n": 1})


def test_an_op_that_is_not_always_followed_is_when_asked(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.answers["tail"] = Answers(
        batch(2, {"n": 1}, {"n": 2}, rows_in="items"), batch(3, {"n": 3}, rows_in="items")
    )

    once = shell.run("tail", "@x", "--limit", "2")
    daemon.answers["tail"] = Answers(
        batch(2, {"n": 1}, {"n": 2}, rows_in="items"), batch(3, {"n": 3}, rows_in="items")
    )
    followed = shell.run("tail", "@x", "--limit", "2", "--follow", "--no-start")

    assert once.json["cursor"] == "i:2"
    assert [json.loads(line)["n"] for line in followed.out.splitlines()] == [1, 2, 3]
    assert params(daemon)[1]["limit"] == 2  # of the first answer
    assert "limit" not in params(daemon)[2]


def test_a_connection_that_is_lost_is_made_again_behind_the_last_row(
    shell: Shell, daemon: FakeDaemon
) -> None:
    answers = [batch(1, {"n": 1}), {"hang_up": True}, batch(2, {"n": 2})]
    daemon.answers["watch"] = lambda _: answers.pop(0)

    ran = shell.run("watch", "--follow", "--limit", "2")

    assert [json.loads(line) for line in ran.out.splitlines()] == [{"n": 1}, {"n": 2}]
    assert params(daemon)[2]["after"] == "i:1"
    assert [greeting["manifest"] is None for greeting in daemon.greetings] == [False, True]


def test_a_daemon_that_stays_away_is_an_error_that_says_how_to_go_on(
    shell: Shell, daemon: FakeDaemon
) -> None:
    answers = [batch(7, {"n": 1})]

    def gone(_: dict[str, Any]) -> dict[str, Any]:
        Path(shell.socket).unlink()
        return {"hang_up": True}

    daemon.answers["watch"] = lambda asked: answers.pop() if answers else gone(asked)

    ran = shell.run("watch", "--no-start")

    assert ran.code == 8
    error = json.loads(ran.err)["error"]
    assert error["code"] == "daemon_unreachable"
    assert "--after i:7" in error["hint"]
    assert error["details"]["cursor"] == "i:7"


def test_an_error_of_the_op_ends_it(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.fail("watch", "not_found", "nobody here")

    assert shell.run("watch", "@x").error["code"] == "not_found"


PROGRESS = [
    {"op": "sync", "text": "reading", "done": 1, "total": 4},
    {"op": "other", "text": "not this", "done": 1, "total": 2},
    {"op": "sync", "text": "storing\x1b[2J", "done": 4, "total": 4},
]


def told(data: dict[str, Any]) -> dict[str, Any]:
    event = {
        "seq": 1,
        "at": "now",
        "kind": "op.progress",
        "thread": None,
        "turn_id": None,
        "data": data,
    }
    return {"method": "$event", "params": {"subscription": 1, "cursor": "i:1", "event": event}}


def test_a_terminal_shows_how_far_an_op_is_on_a_line_that_is_gone_afterwards(
    shell: Shell, daemon: FakeDaemon
) -> None:
    daemon.answers["$subscribe"] = lambda _: {"result": {"subscription": 1, "cursor": "i:0"}}
    daemon.answers["sync"] = lambda _: {
        "before": [told(data) for data in PROGRESS], "result": {}, "text": "synced",
    }  # fmt: skip

    ran = shell.on_terminal("sync")

    assert ran.out == "synced\n"
    assert "\rreading 1/4 (25%)" in ran.err
    assert "not this" not in ran.err
    assert "\x1b" not in ran.err
    assert ran.err.rsplit("\r", 2)[1].strip() == ""
    assert ran.err.endswith("\r")
    assert daemon.requests[0]["params"]["kinds"] == ["op.progress"]


def test_nothing_is_asked_about_progress_where_nobody_looks(
    shell: Shell, daemon: FakeDaemon
) -> None:
    ran = shell.run("sync")

    assert ran.err == ""
    assert [request["method"] for request in daemon.requests] == ["sync"]


def test_a_daemon_without_progress_still_does_it(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.fail("$subscribe", "validation", "there is no event kind")
    daemon.answers["sync"] = lambda _: {"result": {}, "text": "synced"}

    assert shell.on_terminal("sync").out == "synced\n"
