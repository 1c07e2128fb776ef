"""Two builds over one home: what a daemon refuses, who replaces it, and what an upgrade leaves behind."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.control.sync_client import Connection
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.errors import RemoteError
from dispatch_core.testing.daemon import Dispatch, eventually

from .builds import BROKEN, DIES, OTHER_LIST, OTHER_RENAME, make_build, with_build

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.e2e

VERSIONS = {"old": "7.0.0", "new": "8.0.0", "broken": "8.0.1", "dies": "8.0.2"}
CHANGES: dict[str, dict[str, tuple[str, str]]] = {
    "old": {},
    "new": {**OTHER_LIST, **OTHER_RENAME},
    "broken": BROKEN,
    "dies": DIES,
}
LIMIT = 60.0


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            target = tmp_path_factory.mktemp(name) / "build"
            made[name] = make_build(target, VERSIONS[name], CHANGES[name])
        return made[name]

    return get


@pytest.fixture
def old(dispatch: Dispatch, build: Callable[[str], Path]) -> Dispatch:
    return with_build(dispatch, build("old"))


@pytest.fixture
def new(dispatch: Dispatch, build: Callable[[str], Path]) -> Dispatch:
    return with_build(dispatch, build("new"))


def running(dispatch: Dispatch) -> dict[str, Any]:
    """Return what the daemon says in its greeting to a client that only looks."""
    with Connection.connect(dispatch.socket, timeout=LIMIT) as connection:
        return greet(connection)


def greet(connection: Connection) -> dict[str, Any]:
    hello = {"protocol": PROTOCOL, "client": "test", "version": "0", "manifest": None}
    return connection.hello(hello, timeout=LIMIT)


def busy(dispatch: Dispatch, name: str) -> Path:
    """Start a thread whose turn ends with the text "done" once the file that is returned exists."""
    go = dispatch.home / f"{name}.go"
    until = {"cmd": f"while [ ! -e {go} ]; do sleep 0.05; done", "yield_time_ms": 30_000}
    steps = [{"call": {"name": "exec_command", "arguments": until}}, {"text": "done"}]
    dispatch.json("new", name, "offline:" + json.dumps({"steps": steps}))
    eventually(
        lambda: any(i["type"] == "userMessage" for i in dispatch.json("tail", f"@{name}")["items"]),
        "its turn runs",
    )
    return go


def draining(dispatch: Dispatch) -> None:
    """Return once the daemon drains."""
    eventually(lambda: running(dispatch)["state"] == "draining", "the daemon drains")


def schema_hash(dispatch: Dispatch, op: str) -> str:
    """Return the hash of an op's schema in this build, by the manifest that it makes."""
    shutil.rmtree(dispatch.home / "cache")  # the other build's is there too
    dispatch.json("plugins")
    [manifest] = (dispatch.home / "cache").glob("manifest-*")
    first = json.loads(manifest.read_text().partition("\n")[0])
    return str(next(entry["schema_hash"] for entry in first["ops"] if entry["name"] == op))


# Skew


def test_an_idle_old_daemon_is_replaced_by_the_next_command(old: Dispatch, new: Dispatch) -> None:
    old.json("new", "kept", "--no-send")

    listed = new.run("list")

    assert [row["thread"]["handle"] for row in json.loads(listed.stdout)["threads"]] == ["@kept"]
    assert "restarting it" in listed.stderr
    assert running(new)["version"] == VERSIONS["new"]
    assert running(new)["offline"] is True


def test_a_busy_old_daemon_serves_what_has_the_same_contract(old: Dispatch, new: Dispatch) -> None:
    busy(old, "works")

    found = new.json("get", "@works")
    stopped = new.json("stop", "@works")

    assert found["thread"]["status"] == "busy"
    assert stopped["turn"]["status"] == "interrupted"


@pytest.mark.parametrize("words", [("list",), ("rename", "@works", "other")])
def test_a_busy_old_daemon_refuses_another_contract_and_does_nothing(
    old: Dispatch, new: Dispatch, words: tuple[str, ...]
) -> None:
    busy(old, "works")
    before = running(old)["instance"]

    error = new.error(*words)

    assert error["code"] == "daemon_stale"
    assert "nothing was done" in error["message"]
    assert "1 turn" in error["message"]
    assert "dispatch upgrade" in error["hint"]
    assert running(old)["instance"] == before
    assert old.json("get", "@works")["thread"]["status"] == "busy"


def test_the_control_socket_refuses_another_contract_of_a_read_and_of_a_write(
    old: Dispatch, new: Dispatch
) -> None:
    old.json("new", "kept", "--no-send")
    params = {"list": {}, "rename": {"thread": "@kept", "name": "other"}, "new.op": {}}
    refused = {}

    with Connection.connect(old.socket, timeout=LIMIT) as connection:
        greet(connection)
        for op, args in params.items():
            schema = "0" * 16 if op == "new.op" else schema_hash(new, op)
            with pytest.raises(RemoteError) as caught:
                connection.request(op, args, schema=schema, timeout=LIMIT)
            refused[op] = caught.value.code

    assert refused == dict.fromkeys(params, "daemon_stale")
    assert old.json("get", "@kept")["thread"]["handle"] == "@kept"


def test_an_mcp_session_is_not_cut_off_by_a_command_of_another_build(
    old: Dispatch, new: Dispatch
) -> None:
    old.json("up")
    session = old.start("mcp", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert session.stdin is not None
    assert session.stdout is not None
    ask(session, 1, "initialize", **INITIALIZE)
    contract = ask(session, 2, "tools/list")

    error = new.error("list")

    assert error["code"] == "daemon_stale"
    assert "1 session" in error["message"]
    assert ask(session, 3, "tools/list")["result"] == contract["result"]
    session.stdin.close()
    assert session.wait(LIMIT) == 0
    session.stdout.close()


def test_an_mcp_session_of_the_new_build_in_a_busy_old_daemon_offers_what_that_daemon_executes(
    old: Dispatch, new: Dispatch
) -> None:
    busy(old, "works")

    session = new.start(
        "mcp", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    answer = ask(session, 1, "initialize", **INITIALIZE)
    _, complaint = session.communicate(timeout=LIMIT)

    assert answer["result"]["serverInfo"]["version"] == VERSIONS["old"]
    assert "dispatch upgrade" in complaint


INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "0"},
}


def ask(session: subprocess.Popen[str], number: int, method: str, **params: Any) -> dict[str, Any]:
    assert session.stdin is not None
    assert session.stdout is not None
    request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
    session.stdin.write(json.dumps(request) + "\n")
    session.stdin.flush()
    while True:
        answer = json.loads(session.stdout.readline())
        if answer.get("id") == number:
            return dict(answer)


# dispatch upgrade


def test_an_upgrade_waits_for_the_running_turn_and_says_what_it_did(
    old: Dispatch, new: Dispatch
) -> None:
    go = busy(old, "works")
    before = running(old)

    upgrade = new.start("upgrade", "--grace", "60", stdout=subprocess.PIPE)
    draining(old)
    go.touch()
    done = json.loads(upgrade.communicate(timeout=LIMIT)[0])

    after = running(new)
    assert done["status"] == "upgraded"
    assert done["from"] == {name: before[name] for name in ("version", "build", "pid")}
    assert done["to"] == {name: after[name] for name in ("version", "build", "pid")}
    assert (done["from"]["version"], done["to"]["version"]) == ("7.0.0", "8.0.0")
    assert (done["turns"], done["interrupted"], done["offline"]) == (1, [], True)
    assert new.json("get", "@works")["turn"]["status"] == "completed"


def test_an_upgrade_interrupts_what_outlasts_the_grace_and_names_it(
    old: Dispatch, new: Dispatch
) -> None:
    busy(old, "one")
    busy(old, "two")

    done = new.json("upgrade", "--grace", "0.2")

    assert sorted(done["interrupted"]) == ["@one", "@two"]
    assert new.json("get", "@one")["turn"]["status"] == "interrupted"


def test_the_same_build_is_left_alone(old: Dispatch) -> None:
    old.json("up")
    before = running(old)["instance"]

    done = old.json("upgrade")

    assert done["status"] == "current"
    assert running(old)["instance"] == before


def test_without_a_daemon_there_is_nothing_to_upgrade(new: Dispatch) -> None:
    assert new.json("upgrade")["status"] == "not_running"
    assert not Path(new.socket).exists()


def test_a_build_that_cannot_start_leaves_the_old_daemon_and_its_turns_alone(
    old: Dispatch, build: Callable[[str], Path]
) -> None:
    busy(old, "works")
    before = running(old)["instance"]

    error = with_build(old, build("broken")).error("upgrade")

    assert "no_such_module" in error["message"]
    assert "nothing was done" in error["message"]
    assert running(old)["instance"] == before
    assert old.json("get", "@works")["thread"]["status"] == "busy"


def test_a_build_that_dies_at_its_start_is_not_passed_over_in_silence(
    old: Dispatch, build: Callable[[str], Path]
) -> None:
    old.json("new", "kept", "--no-send")

    error = with_build(old, build("dies")).error("upgrade")

    assert error["code"] == "daemon_unreachable"
    assert "has stopped" in error["message"]
    assert "it dies" in error["message"]
    assert "dispatch up --offline" in error["hint"]
    assert error["details"]["from"]["version"] == VERSIONS["old"]
    assert old.json("list")["threads"][0]["thread"]["handle"] == "@kept"


def test_an_upgrade_in_the_background_ends_with_the_new_daemon(
    old: Dispatch, new: Dispatch
) -> None:
    go = busy(old, "works")

    begun = new.json("upgrade", "--no-wait", "--grace", "60")
    draining(old)
    go.touch()
    answered = new.json("up")

    assert begun["status"] == "upgrading"
    assert begun["from"]["version"] == VERSIONS["old"]
    assert (answered["status"], answered["stale"]) == ("already_running", False)
    assert new.json("get", "@works")["turn"]["status"] == "completed"


def test_a_command_that_comes_meanwhile_is_held_back_and_then_served(
    old: Dispatch, new: Dispatch
) -> None:
    go = busy(old, "works")
    upgrade = new.start("upgrade", "--grace", "60", stdout=subprocess.PIPE)
    draining(old)

    read = new.json("get", "@works")
    writer = new.start("new", "later", "--no-send", stdout=subprocess.PIPE)
    go.touch()
    written = json.loads(writer.communicate(timeout=LIMIT)[0])

    assert read["thread"]["status"] == "busy"
    assert written["thread"]["handle"] == "@later"
    assert json.loads(upgrade.communicate(timeout=LIMIT)[0])["status"] == "upgraded"
    assert running(new)["version"] == VERSIONS["new"]


def test_a_command_that_cannot_be_held_back_so_long_is_told_when_to_try_again(
    old: Dispatch, new: Dispatch
) -> None:
    busy(old, "works")
    upgrade = new.start("upgrade", "--grace", "600", stdout=subprocess.PIPE)
    draining(old)

    error = new.error("new", "later", "--no-send")
    new.run("down", "--grace", "0")  # a second request to stop hurries the first

    assert (error["code"], error["retryable"]) == ("daemon_unreachable", True)
    assert "is being upgraded" in error["message"]
    assert "nothing was done" in error["message"]
    assert 500 < error["details"]["seconds"] < 600
    assert json.loads(upgrade.communicate(timeout=LIMIT)[0])["interrupted"] == ["@works"]


def test_a_wait_outlives_the_daemon_that_it_asked(old: Dispatch, new: Dispatch) -> None:
    busy(old, "works")
    waiter = new.start("wait", "@works", "--timeout", "60", stdout=subprocess.PIPE)

    new.json("upgrade", "--grace", "0")

    [result] = json.loads(waiter.communicate(timeout=LIMIT)[0])["results"]
    assert result["outcome"] == "interrupted"


def test_queued_messages_go_on_under_the_new_daemon(old: Dispatch, new: Dispatch) -> None:
    go = busy(old, "works")
    for number in range(3):
        old.json("send", "@works", f"message {number}", "--queue")

    done = new.json("upgrade", "--grace", "0")

    go.touch()
    assert (done["interrupted"], done["queued"]) == (["@works"], 3)
    eventually(lambda: len(messages(new, "@works")) == 4, "each was sent")
    assert messages(new, "@works")[1:] == ["message 0", "message 1", "message 2"]


LOOP = ("--thread", "@kept", "--allow-loop")


def messages(dispatch: Dispatch, thread: str) -> list[str]:
    items = dispatch.json("tail", thread, "--limit", "100")["items"]
    return [item["text"] for item in items if item["type"] == "userMessage"]


def test_what_only_needs_the_registry_is_accepted_without_codex(new: Dispatch) -> None:
    without = with_build(new, Path(new.env["PYTHONPATH"]))
    without.json("new", "kept", "--no-send")
    without.json("down")
    missing = with_build(new, Path(new.env["PYTHONPATH"]), DISPATCH_CODEX_BIN="/no/such/codex")
    missing.json("up")
    eventually(lambda: running(missing)["state"] == "degraded", "degraded")

    receipt = missing.json("send", "@kept", "later", "--queue")["receipt"]
    missing.json(
        "trigger", "add", *["t", "--when", "turn_completed", "--on", "@kept", "--text", "x"], *LOOP
    )
    listed = missing.json("list")["threads"]

    assert receipt["state"] == "queued"
    assert [row["thread"]["handle"] for row in listed] == ["@kept"]


# The registry


def test_a_registry_of_a_newer_build_is_refused_by_up_and_by_upgrade(
    old: Dispatch, new: Dispatch
) -> None:
    new.json("new", "kept", "--no-send")
    new.json("down")
    registry = old.home / "offline" / "registry.db"
    known = schema_of(registry)
    set_schema(registry, known + 1)

    error = old.error("up")

    assert error["code"] == "storage"
    assert f"schema {known + 1}, made by a newer dispatch" in error["message"]
    assert "pip install --upgrade" in error["hint"]
    set_schema(registry, known)
    new.json("up")
    before = running(new)["instance"]
    set_schema(registry, known + 1)
    refused = old.error("upgrade")
    assert refused["code"] == "storage"
    assert "the daemon that runs goes on" in refused["message"]
    assert running(new)["instance"] == before
    set_schema(registry, known)


def schema_of(registry: Path) -> int:
    connection = sqlite3.connect(registry)
    try:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])
    finally:
        connection.close()


def set_schema(registry: Path, version: int) -> None:
    connection = sqlite3.connect(registry)
    try:
        connection.execute(f"PRAGMA user_version = {version}")
    finally:
        connection.close()


# up and doctor


def test_up_says_that_another_build_runs(old: Dispatch, new: Dispatch) -> None:
    old.json("up")

    answer = new.json("up")

    assert (answer["status"], answer["stale"]) == ("already_running", True)
    assert old.json("up")["stale"] is False


def test_the_doctor_names_the_upgrade(old: Dispatch, new: Dispatch) -> None:
    old.json("up")

    checks = json.loads(new.run("doctor", "--no-app-server").stdout)["checks"]

    [daemon] = [check for check in checks if check["name"] == "daemon"]
    assert daemon["recovery"] == "dispatch upgrade"
