"""Starting and stopping, with the real daemon; there is no Codex, which a daemon survives."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import LIMIT, SCRIPT, Shell

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def real() -> Iterator[Shell]:
    home = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    made = Shell(
        home,
        home,
        {"DISPATCH_CODEX_BIN": str(home / "no-codex"), "CODEX_HOME": str(home / "codex")},
    )
    yield made
    made.run("down", "--grace", "0")
    shutil.rmtree(home)


def test_many_starts_at_once_make_one_daemon(real: Shell) -> None:
    real.run("plugins")  # builds the manifest once, not eight times

    starts = [
        subprocess.Popen(
            [SCRIPT, "up"],
            env=real.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    outputs = [start.communicate(timeout=2 * LIMIT) for start in starts]

    assert [(start.returncode, err) for start, (_, err) in zip(starts, outputs, strict=True)] == [
        (0, "")
    ] * 8
    answers = [json.loads(out) for out, _ in outputs]
    assert sorted(answer["status"] for answer in answers) == ["already_running"] * 7 + ["started"]
    assert len({answer["pid"] for answer in answers}) == 1
    assert {answer["offline"] for answer in answers} == {False}


def test_down_returns_when_nothing_is_left(real: Shell) -> None:
    started = real.run("up").json

    stopped = real.run("down").json

    assert stopped == {"status": "stopped", "stopped": True, "pid": started["pid"]}
    process = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(started["pid"])], capture_output=True, check=False
    )
    assert process.stdout.strip() in (b"", b"Z", b"Zs")  # ended; init may not have taken note yet
    assert not Path(real.socket).exists()
    with (real.home / "dispatchd.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert real.run("down").json["status"] == "not_running"


def test_two_downs_at_once_both_succeed(real: Shell) -> None:
    real.run("up")

    downs = [
        subprocess.Popen([SCRIPT, "down"], env=real.environ, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [json.loads(down.communicate(timeout=LIMIT)[0]) for down in downs]

    assert [down.returncode for down in downs] == [0, 0]
    assert any(output["stopped"] for output in outputs)
    assert not Path(real.socket).exists()


def test_a_socket_that_a_killed_daemon_left_is_cleaned_away(real: Shell) -> None:
    pid = real.run("up").json["pid"]
    subprocess.run(["kill", "-9", str(pid)], check=True)

    down = real.run("down").json

    assert down["stopped"] is False or down["pid"] == pid
    assert not Path(real.socket).exists()
    assert real.run("up").json["status"] == "started"


def test_a_command_starts_the_daemon(real: Shell) -> None:
    ran = real.run("list")

    assert ran.code == 0, ran.err
    assert ran.json["threads"] == []
    assert real.run("up").json["status"] == "already_running"


def test_an_idle_daemon_with_other_plugins_is_replaced(real: Shell) -> None:
    before = real.run("up").json["pid"]
    real.env["DISPATCH_PLUGINS_DISABLE"] = "time_triggers"

    ran = real.run("list")

    assert ran.code == 0, ran.err
    assert "restarting" in ran.err
    assert real.run("up").json["pid"] != before


def test_a_daemon_that_cannot_start_says_why(real: Shell) -> None:
    (real.home / "registry.db").write_bytes(
        b"not a database, but long enough to be looked at" * 100
    )

    error = real.run("up").error

    assert "registry.db" in error["message"]
    assert real.run("down").json["status"] == "not_running"


def test_a_home_that_cannot_be_made_is_named(real: Shell) -> None:
    (real.home / "file").touch()
    real.env["DISPATCH_HOME"] = str(real.home / "file" / "home")

    error = real.run("up").error

    assert error["exit_code"] == 2
    assert str(real.home / "file") in error["message"]
    del real.env["DISPATCH_HOME"]


def test_offline_is_not_promised_by_a_daemon_that_is_not(real: Shell) -> None:
    real.run("up")

    error = real.run("up", "--offline").error

    assert error["exit_code"] == 2
    assert "dispatch down" in error["hint"]


def test_relative_paths_in_the_environment_are_those_of_the_caller(real: Shell) -> None:
    real.env["DISPATCH_SOCKET"] = "elsewhere.sock"
    real.cwd = real.home / "sub"
    real.cwd.mkdir()

    started = real.run("up").json

    assert started["socket"] == str(real.cwd / "elsewhere.sock")
    assert real.run("down").json["pid"] == started["pid"]
