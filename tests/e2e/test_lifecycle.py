"""The daemon under failure: races to start, kills, a missing Codex."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch_core.daemon.paths import READY_FD
from dispatch_core.testing.daemon import Dispatch, eventually, temporary_home

from .processes import alive, daemons

pytestmark = pytest.mark.e2e


def codex_pid(dispatch: Dispatch, *, other_than: int | None = None) -> int:
    """Return the process id of the app-server, once there is one, and it is not the one that was killed."""
    seen: list[int | None] = []

    def runs() -> bool:
        seen.append(dispatch.json("daemon", "status")["codex"]["pid"])
        return seen[-1] not in (None, other_than)

    eventually(runs, "Codex runs")
    return int(seen[-1] or 0)


def test_eight_starters_at_once_leave_exactly_one_daemon(dispatch: Dispatch) -> None:
    starters = [dispatch.start("up", "--json", stdout=subprocess.PIPE) for _ in range(8)]

    outputs = [starter.communicate(timeout=60)[0] for starter in starters]

    assert [starter.returncode for starter in starters] == [0] * 8
    assert sum('"status": "started"' in output for output in outputs) == 1
    assert len(daemons(dispatch.home)) == 1


def test_down_leaves_no_process_and_no_socket(dispatch: Dispatch) -> None:
    dispatch.json("up")
    daemon, codex = dispatch.pid(), codex_pid(dispatch)

    stopped = dispatch.json("down")

    assert stopped["status"] == "stopped"
    assert not alive(daemon)
    assert not alive(codex)
    assert not Path(dispatch.socket).exists()
    assert dispatch.json("down")["status"] == "not_running"


def test_down_waits_for_the_running_turn(dispatch: Dispatch) -> None:
    dispatch.json("new", "works", 'offline:{"delay": 1.0, "text": "finished in time"}')

    dispatch.json("down")

    assert dispatch.json("get", "@works")["turn"]["status"] == "completed"
    assert dispatch.json("tail", "@works")["items"][-1]["text"] == "finished in time"


def test_down_interrupts_what_outlasts_the_grace(dispatch: Dispatch) -> None:
    dispatch.json("new", "endless", 'offline:{"delay": 60}')

    dispatch.json("down", "--grace", "0.1")

    assert dispatch.json("get", "@endless")["turn"]["status"] == "interrupted"


def test_a_killed_app_server_interrupts_the_turn_and_the_next_send_works(
    dispatch: Dispatch,
) -> None:
    dispatch.json("new", "victim", 'offline:{"first_delay": 60}')
    eventually(
        lambda: any(i["type"] == "userMessage" for i in dispatch.json("tail", "@victim")["items"]),
        "the message is in Codex's history",
    )
    killed = codex_pid(dispatch)

    os.kill(killed, signal.SIGKILL)
    eventually(
        lambda: dispatch.json("get", "@victim")["turn"]["status"] == "interrupted",
        "it is interrupted",
    )
    dispatch.json("send", "@victim", 'offline:{"text": "back again"}')
    done = dispatch.wait("@victim")

    assert done["text"] == "back again"
    assert codex_pid(dispatch, other_than=killed) != killed
    assert dispatch.json("daemon", "status")["codex"]["restarts"] == 1


def test_a_waiter_learns_that_the_app_server_died(dispatch: Dispatch) -> None:
    dispatch.json("new", "waited", 'offline:{"first_delay": 60}')
    eventually(
        lambda: any(i["type"] == "userMessage" for i in dispatch.json("tail", "@waited")["items"]),
        "the message is in Codex's history",
    )
    waiter = dispatch.start("wait", "@waited", "--timeout", "60", stdout=subprocess.PIPE)

    os.kill(codex_pid(dispatch), signal.SIGKILL)
    output = waiter.communicate(timeout=60)[0]

    assert '"outcome": "unknown"' in output or '"outcome": "interrupted"' in output


def test_a_thread_that_codex_never_stored_survives_a_killed_app_server(dispatch: Dispatch) -> None:
    ref = dispatch.json("new", "unstored", "--no-send")["thread"]["ref"]
    killed = codex_pid(dispatch)

    os.kill(killed, signal.SIGKILL)
    codex_pid(dispatch, other_than=killed)
    dispatch.json("send", ref, "hello")
    done = dispatch.wait(ref)

    assert done["thread"]["ref"] == ref
    assert done["text"] == "Offline reply: hello"


def test_a_killed_daemon_takes_codex_with_it_and_up_recovers(dispatch: Dispatch) -> None:
    dispatch.json("new", "survivor", 'offline:{"first_delay": 60}')
    eventually(
        lambda: any(
            i["type"] == "userMessage" for i in dispatch.json("tail", "@survivor")["items"]
        ),
        "the message is in Codex's history",
    )
    daemon, codex = dispatch.pid(), codex_pid(dispatch)

    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not alive(codex), "the app-server is gone")
    restarted = dispatch.json("up")
    eventually(
        lambda: dispatch.json("get", "@survivor")["turn"]["status"] == "interrupted",
        "it is interrupted",
    )
    dispatch.json("send", "@survivor", 'offline:{"text": "still here"}')

    assert restarted["status"] == "started"
    assert dispatch.wait("@survivor")["text"] == "still here"


def test_a_daemon_without_codex_is_degraded_and_says_what_to_do() -> None:
    with temporary_home(DISPATCH_CODEX_BIN="/no/such/codex") as dispatch:
        dispatch.json("up")

        eventually(lambda: dispatch.json("daemon", "status")["state"] == "degraded", "degraded")
        status = dispatch.json("daemon", "status")
        error = dispatch.error("new", "x", "hello")

        assert "/no/such/codex" in status["reason"]
        assert status["fix"]
        assert error["code"] == "codex_unavailable"
        assert error["hint"]
        assert dispatch.json("list")["threads"] == []


def test_a_codex_that_is_too_old_is_named(tmp_path: Path) -> None:
    old = tmp_path / "codex"
    old.write_text("#!/bin/sh\necho codex-cli 0.1.2\n")
    old.chmod(0o755)
    with temporary_home(DISPATCH_CODEX_BIN=str(old)) as dispatch:
        dispatch.json("up")

        eventually(lambda: dispatch.json("daemon", "status")["state"] == "degraded", "degraded")

        assert "0.1.2" in dispatch.json("daemon", "status")["reason"]


def test_a_codex_that_exits_at_start_leaves_the_daemon_up(tmp_path: Path) -> None:
    broken = tmp_path / "codex"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo codex-cli 0.169.0; exit 0; }\necho no licence >&2\nexit 7\n'
    )
    broken.chmod(0o755)
    with temporary_home(DISPATCH_CODEX_BIN=str(broken)) as dispatch:
        dispatch.json("up")

        eventually(lambda: dispatch.json("daemon", "status")["state"] == "degraded", "degraded")

        status = dispatch.json("daemon", "status")
        log = "\n".join(dispatch.json("daemon", "log", "--daemon")["lines"])
        assert status["fix"]
        assert "no licence" in log
        assert dispatch.json("list")["threads"] == []


def test_no_start_never_starts_a_daemon(dispatch: Dispatch) -> None:
    error = dispatch.error("list", "--no-start")

    assert error["code"] == "daemon_unreachable"
    assert "dispatch up" in error["hint"]
    assert daemons(dispatch.home) == []


def test_a_command_starts_the_daemon(dispatch: Dispatch) -> None:
    assert dispatch.json("list")["threads"] == []

    assert len(daemons(dispatch.home)) == 1


def test_sigterm_drains_and_ends_the_daemon(dispatch: Dispatch) -> None:
    dispatch.json("new", "drained", 'offline:{"delay": 0.5, "text": "done"}')
    daemon = dispatch.pid()

    os.kill(daemon, signal.SIGTERM)
    eventually(lambda: not alive(daemon), "the daemon is gone")

    assert dispatch.json("get", "@drained")["turn"]["status"] == "completed"


def test_a_daemon_that_is_ended_as_soon_as_it_is_ready_ends_in_good_order(
    dispatch: Dispatch,
) -> None:
    receiver, sender = os.pipe()
    daemon = subprocess.Popen(
        [sys.executable, "-P", "-m", "dispatch_core.daemon.main", "run", "--offline"],
        env={**dispatch.environment, READY_FD: str(sender)},
        pass_fds=(sender,),
    )
    os.close(sender)

    with os.fdopen(receiver, "rb") as ready:
        assert b'"ready"' in ready.readline()
    daemon.terminate()

    assert daemon.wait(60) == 0
    assert list(dispatch.home.rglob("registry.db"))
    assert not list(dispatch.home.rglob("registry.db-wal"))


def test_an_open_directory_is_refused(dispatch: Dispatch) -> None:
    dispatch.home.chmod(0o777)

    error = dispatch.error("up")

    assert "can be written by other users" in error["message"]
    assert "chmod 700" in error["hint"]


def test_an_idle_daemon_with_other_plugins_is_replaced_and_stays_offline(
    dispatch: Dispatch,
) -> None:
    dispatch.json("new", "kept", "--no-send")
    before = dispatch.pid()
    (dispatch.home / "config.toml").write_text('[plugins]\ndisable = ["mcp"]\n')

    threads = dispatch.json("list")["threads"]

    status = dispatch.json("daemon", "status")
    assert [row["thread"]["handle"] for row in threads] == ["@kept"]
    assert status["pid"] != before
    assert status["offline"] is True
    assert not alive(before)


def test_a_busy_daemon_with_other_plugins_is_left_alone(dispatch: Dispatch) -> None:
    dispatch.json("new", "busy", 'offline:{"delay": 60}')
    before = dispatch.pid()
    (dispatch.home / "config.toml").write_text('[plugins]\ndisable = ["mcp"]\n')

    assert dispatch.pid() == before
    dispatch.json("stop", "@busy")
    dispatch.json("list")

    assert dispatch.pid() != before


def test_safe_mode_runs_with_a_broken_plugin_configuration(dispatch: Dispatch) -> None:
    (dispatch.home / "config.toml").write_text('[plugins]\nmode = "wrong"\n')

    error = dispatch.error("list")
    threads = dispatch.json("--safe", "list")["threads"]

    assert error["code"] == "validation"
    assert "plugins.mode" in error["message"]
    assert threads == []


def test_a_wrong_configuration_is_named_before_the_daemon_is_up(dispatch: Dispatch) -> None:
    (dispatch.home / "config.toml").write_text("[daemon]\ngrace = -1\n")

    error = dispatch.error("up")

    assert error["code"] == "validation"
    assert "daemon.grace" in error["message"]
    assert daemons(dispatch.home) == []
