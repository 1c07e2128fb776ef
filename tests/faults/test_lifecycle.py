"""Starting, stopping and replacing the daemon while others do the same."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.control.sync_client import Connection
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.testing.daemon import Dispatch, eventually

from ..e2e.builds import (  # noqa: TID252 -- two folders of tests use the same builds
    OTHER_LIST,
    make_build,
    with_build,
)
from ..e2e.processes import alive, daemons, processes  # noqa: TID252 -- as above

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Tier

pytestmark = pytest.mark.e2e

OLD, NEW = "7.0.0", "8.0.0"
LIMIT = 90.0


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    where = tmp_path_factory.mktemp("builds")
    return make_build(where / "old", OLD, {}), make_build(where / "new", NEW, OTHER_LIST)


def greeting(dispatch: Dispatch) -> dict[str, Any]:
    with Connection.connect(dispatch.socket, timeout=LIMIT) as connection:
        hello = {"protocol": PROTOCOL, "client": "test", "version": "0", "manifest": None}
        return connection.hello(hello, timeout=LIMIT)


@pytest.mark.fault("K1")
def test_upgrades_and_commands_at_once_leave_one_daemon_of_the_new_build(
    home: Dispatch, builds: tuple[Path, Path], tier: Tier, figures: Callable[..., None]
) -> None:
    old, new = (with_build(home, build) for build in builds)
    rounds = tier.rounds(1, 50)
    failed: list[str] = []
    leftover = 0

    for _ in range(rounds):
        old.json("up")
        words = [("upgrade",)] * 2 + [("list",)] * 4
        tier.random.shuffle(words)
        started = [
            new.start(*each, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for each in words
        ]
        outputs = [process.communicate(timeout=LIMIT) for process in started]
        failed += [
            f"{' '.join(each)}: {error}"
            for each, process, (_, error) in zip(words, started, outputs, strict=True)
            if process.returncode
        ]
        left = greeting(new)
        leftover += daemons(home.home) != [left["pid"]] or left["version"] != NEW
        assert left["offline"] is True
        new.json("down")

    figures(rounds=rounds, commands_failed=len(failed), rounds_with_another_outcome=leftover)
    assert failed == []
    assert leftover == 0


def test_a_stopped_daemon_leaves_no_process_and_no_socket(
    home: Dispatch, tier: Tier, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(1, 50)
    seconds: dict[str, list[float]] = {"idle": [], "loaded": []}
    leftover = 0

    for number in range(rounds):
        for load, times in seconds.items():
            home.json("up")
            if load == "loaded":
                home.json("new", f"busy{number}", 'offline:{"first_delay": 600}')
            pid = greeting(home)["pid"]
            began = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            if load == "loaded":
                eventually(lambda: draining(home), "it drains")
                os.kill(pid, signal.SIGTERM)  # the second one does not wait for the turn
            eventually(lambda pid=pid: not alive(pid), "the daemon has ended")  # type: ignore[misc]
            times.append(time.monotonic() - began)
            eventually(lambda: processes(home.home) == [], "no process is left")
            leftover += Path(home.socket).exists()

    figures(
        rounds=rounds,
        sockets_left=leftover,
        idle_exit_seconds=round(max(seconds["idle"]), 3),
        loaded_exit_seconds=round(max(seconds["loaded"]), 3),
    )
    assert leftover == 0


@pytest.mark.fault("D9")
def test_a_stop_while_a_message_is_handed_over_leaves_no_delivery_unexplained(
    home: Dispatch, tier: Tier, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(3, 200)
    stopped_in: dict[str, int] = {}
    accepted = 0
    home.json("new", "lane", "--no-send")
    home.json("down")

    for number in range(rounds):
        point = HANDED_OVER[number % len(HANDED_OVER)]
        log = home.home / f"points{number}"
        paused = {
            "DISPATCH_TEST": "1",
            "DISPATCH_FAILPOINTS": f"{point}:pause=0.3",
            "DISPATCH_FAILPOINTS_LOG": str(log),
        }
        faulty = Dispatch(home.home, {**home.env, **paused})
        faulty.json("up")
        pid = greeting(faulty)["pid"]
        sender = faulty.start("send", "@lane", f"message {number}", "--queue", **QUIET)
        eventually(lambda log=log: log.exists(), f"the message is at {point}")  # type: ignore[misc]
        time.sleep(tier.random.uniform(0.0, 0.3))  # anywhere in the pause, and a little behind it
        os.kill(pid, signal.SIGTERM)
        sender.communicate(timeout=LIMIT)
        # What an earlier message left may be at the point before this one has arrived; then it is refused.
        accepted += sender.returncode == 0
        eventually(lambda pid=pid: not alive(pid), "the daemon has ended")  # type: ignore[misc]
        for state, reason in deliveries(home):
            stopped_in[state] = stopped_in.get(state, 0) + 1
            assert state != "sending" or reason, point

    home.json("wait", "@lane", "--timeout", "60")
    eventually(lambda: {state for state, _ in deliveries(home)} <= ENDED, "each has ended")
    states = [state for state, _ in deliveries(home)]
    log_lines = (home.home / "offline" / "model.jsonl").read_text().splitlines()
    asked = [json.loads(line).get("text", "") for line in log_lines]
    twice = sum(asked.count(f"message {number}") > 1 for number in range(rounds))
    figures(
        rounds=rounds,
        accepted=accepted,
        deliveries=len(states),
        seen_after_stop=stopped_in,
        asked_twice=twice,
    )
    assert len(states) == accepted > 0
    assert twice == 0


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
ENDED = {"done", "interrupted"}
HANDED_OVER = (
    "claim.after_commit",
    "load.before_resume",
    "load.after_resume",
    "send.before_write",
    "send.after_answer",
)


def deliveries(home: Dispatch) -> list[tuple[str, str | None]]:
    """Return state and reason of every delivery, as they are stored."""
    path = home.home / "offline" / "registry.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT state, reason FROM deliveries").fetchall()
    finally:
        connection.close()


def draining(dispatch: Dispatch) -> bool:
    return not Path(dispatch.socket).exists() or bool(greeting(dispatch)["state"] == "draining")
