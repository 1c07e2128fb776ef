"""The whole grammar of the command line, run on the real binary, with the schema of every spelling.

A line that fails here names the command that an operator could not give.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import Dispatch, temporary_home
from dispatch_core.testing.examples import make_world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

LONG = """'offline:{"delay": 60}'"""
IDLE = "new {t} --cwd /"
DONE = "new {t} Hello --cwd /"
BUSY = f"new {{t}} {LONG} --cwd /"
READY = "wait @{t} --timeout 60"
NEXT = "send @{t} Next --queue --key {t}"
CONFIG = """
[presets.careful]
sandbox = "read-only"
"""


@dataclass(frozen=True)
class Line:
    """A command as it is typed. {t}: a name of its own. after: commands that must succeed before it. code: exit status."""

    typed: str
    after: tuple[str, ...] = ()
    stdin: str = ""
    code: int = 0


LINES = (
    # Threads
    Line("new {t} 'Say hello' --cwd /"),
    Line("new {t} -", stdin="from standard input"),
    Line("new {t} --input-file message.txt"),
    Line("new {t} --preset careful --no-send"),
    Line("new {t} --goal 'Tidy up' --goal-budget 1000 --no-send", code=0),
    Line("new {t} 'Look around' --dry-run"),
    Line("new {t} 'Not yet' --no-send"),
    Line("new {t} '/goal Tidy up'", code=2),
    Line("attach @builder"),
    Line("attach @builder --sync"),
    Line("sync"),
    Line("sync @builder"),
    Line("sync @builder --full"),
    Line("rename @{t} {t}-renamed", after=(IDLE,)),
    Line("list"),
    Line("list --archived"),
    Line("list --unmanaged --limit 5"),
    Line("list --json"),
    Line("get @builder"),
    Line("get builder"),
    Line("tail @builder"),
    Line("tail @builder --limit 1"),
    Line("archive @{t} --yes", after=(IDLE,)),
    Line("archive @{t}", after=(IDLE,), code=2),
    Line("archive @{t} --no-interactive", after=(IDLE,), code=2),
    Line("archive - --yes", after=(IDLE,), stdin="@{t}\n"),
    Line("restore @{t}", after=(DONE, READY, "archive @{t} --yes")),
    Line("fork @builder {t}"),
    Line("revert @{t} --yes", after=(DONE, READY)),
    Line("revert @{t} --turns 1 --yes", after=(DONE, READY, "send @{t} Again", READY)),
    Line("compact @{t}", after=(DONE, READY)),
    Line("search hello"),
    Line("search hello --managed"),
    Line("search hello --unmanaged"),
    Line("search hello --thread @builder"),
    Line("search hello --repo ."),
    Line("search hello --directory /"),
    Line("search hello --dir /"),
    Line("search hello --since 2020-01-01 --until 2030-01-01 --date-field created_at"),
    Line("search hello --sort created_at --ascending"),
    Line("search hello --archived --limit 1"),
    # Messages
    Line("send @{t} Hello", after=(IDLE,)),
    Line("send @{t} -", after=(IDLE,), stdin="from standard input"),
    Line("send @{t} 'One more thing' --steer", after=(BUSY,)),
    Line("send @{t} 'This instead' --interject", after=(BUSY,)),
    Line("send @{t} 'To be known' --context", after=(DONE, READY)),
    Line("send @{t} Both --steer --interject", after=(IDLE,), code=2),
    Line("send @{t} 'Nothing runs' --steer", after=(IDLE,), code=2),
    Line("send @{t} Now", after=(BUSY,), code=5),
    Line("send @{t} Next --queue", after=(BUSY,)),
    Line("send @{t} Next --queue --expires 10m --idempotency-key {t}", after=(BUSY,)),
    Line("send @{t} Hello --key {t}", after=(IDLE, "send @{t} Hello --key {t}")),
    Line("send @{t} Bye --key {t}", after=(IDLE, "send @{t} Hello --key {t}"), code=5),
    Line("send @{t} Both --queue --steer", after=(IDLE,), code=2),
    Line("send @{t} Now --expires 10m", after=(IDLE,), code=2),
    Line("stop @{t}", after=(BUSY,)),
    Line("stop --lane @{t}", after=(BUSY,)),
    Line("stop --thread @{t}", after=(BUSY,)),
    Line("wait @builder @spare"),
    Line("wait @{t} --until done --timeout 60", after=(DONE,)),
    Line("wait @builder @{t} --first --until needs-attention", after=(BUSY,)),
    Line("wait @{t} --until any --timeout 0", after=(BUSY,), code=11),
    Line("wait - --timeout 60", stdin="@builder\n@spare\n"),
    Line("watch @builder --timeout 0"),
    Line("watch --limit 1 --after earlier:0"),
    Line("watch --kinds turn.completed --kind turn.failed --timeout 0.1"),
    Line("watch --follow --timeout 0.1"),
    # Deliveries
    Line("delivery list"),
    Line("delivery list --thread @planner --state queued --state unknown --limit 2"),
    Line("delivery list --cursor 01a00000-0000-7000-8000-000000000000"),
    Line("delivery get monday"),
    Line("delivery get nobody", code=4),
    Line("delivery edit {t} Changed", after=(BUSY, NEXT)),
    Line("delivery edit {t} -", after=(BUSY, NEXT), stdin="from standard input"),
    Line("delivery edit {t} --input-file message.txt", after=(BUSY, NEXT)),
    Line("delivery reorder {t} --first", after=(BUSY, NEXT)),
    Line("delivery reorder {t} --last", after=(BUSY, NEXT)),
    Line("delivery reorder {t} --before {t}-b", after=(BUSY, NEXT, f"{NEXT}-b")),
    Line("delivery reorder monday", code=2),
    Line("delivery cancel {t} {t}-b", after=(BUSY, NEXT, f"{NEXT}-b")),
    Line("delivery cancel hello", code=5),
    Line("delivery requeue {t}", after=(BUSY, NEXT, "delivery cancel {t}")),
    Line("delivery resolve hello --sent --yes", code=5),
    Line("delivery resolve hello --sent", code=2),
    Line("dead list"),
    Line("dead list --thread @builder --limit 1"),
    # Goals
    Line("goal set @{t} 'Tidy up' --status paused --token-budget 1000", after=(DONE, READY)),
    Line("goal status @builder"),
    Line("goal clear @{t} --yes", after=(DONE, READY)),
    Line("goal clear @{t}", after=(DONE, READY), code=2),
    # Triggers
    Line("trigger list"),
    Line("trigger add {t} --when interval --seconds 86400 --thread @reviewer --text Hello"),
    Line("trigger add {t} --when cron --cron '0 3 * * *' --thread @reviewer --text Hello"),
    Line("trigger add {t} --when turn_completed --on @builder --thread @reviewer --text Hello"),
    Line("trigger pause nightly"),
    Line("trigger resume nightly"),
    Line(
        "trigger rm {t} --yes",
        after=("trigger add {t} --when interval --seconds 86400 --thread @reviewer --text Hello",),
    ),
    # Daemon
    Line("daemon status"),
    Line("daemon log"),
    Line("daemon log --limit 5"),
    Line("daemon log --daemon"),
    Line("models"),
    Line("models --no-refresh", after=("models",)),
    Line("permissions"),
    Line("up --offline"),
    Line("doctor --no-app-server"),
    Line("completion bash"),
    Line("completion zsh"),
    Line("completion fish"),
    Line("completion tcsh", code=2),
    Line("help"),
    Line("help send"),
    Line("help trigger add"),
    Line("help exit-codes"),
    Line("schema send"),
    Line("plugins"),
    Line("plugins list"),
    Line("plugins show send"),
    Line("config path"),
    Line("config get model"),
    Line("config explain"),
    Line("config explain model"),
    Line("config trust --list"),
    Line("registry check --offline"),
    Line("registry backup copy-{t}.db --offline"),
    Line("--version"),
    Line("--help"),
)
NUMBERED = [pytest.param(i, line, id=line.typed) for i, line in enumerate(LINES)]
# Options that are given before the command or to a command that is no op.
FREE = ("--version", "--help")


@pytest.fixture(scope="module")
def world() -> Iterator[Dispatch]:
    with temporary_home() as dispatch:
        (dispatch.home / "config.toml").write_text(CONFIG)
        (dispatch.home / "message.txt").write_text("From a file.\n")
        (dispatch.home / ".git").mkdir()
        (dispatch.home / ".git" / "HEAD").touch()
        make_world(dispatch)
        yield dispatch


def words(line: str, number: int) -> list[str]:
    return [word.replace("{t}", f"t{number}") for word in shlex.split(line)]


@pytest.mark.parametrize(("number", "line"), NUMBERED)
def test_the_command_runs(world: Dispatch, number: int, line: Line) -> None:
    for before in line.after:
        world.json(*words(before, number))

    done = world.run(*words(line.typed, number), stdin=line.stdin.replace("{t}", f"t{number}"))

    assert done.returncode == line.code, done.stderr or done.stdout
    assert "Traceback" not in done.stderr
    if line.code:
        assert json.loads(done.stderr)["error"]["exit_code"] == line.code
    if "{t}" in line.typed and BUSY in line.after:
        world.run("stop", f"@t{number}")


@pytest.mark.parametrize(
    "spelling",
    sorted({" ".join(s) for line in LINES if (s := shlex.split(line.typed)) and s[0] not in FREE}),
)
def test_schema_answers_for_the_spelling(world: Dispatch, spelling: str) -> None:
    typed = shlex.split(spelling)
    if typed[0] == "schema":
        typed = ["schema"]
    command = (
        typed[:2] if typed[0] in ("goal", "trigger", "daemon", "delivery", "dead") else typed[:1]
    )
    options = [word for word in typed if word.startswith("--")]

    answer: dict[str, Any] = world.json("schema", *command, *options, "--no-start")

    if answer["native"]:
        assert answer["schema"] is None
    else:
        assert answer["name"].split(".") == command
        assert answer["schema"]["type"] == answer["output_schema"]["type"] == "object"
        properties = answer["schema"].get("properties", {})
        assert set(answer["input"]) <= set(properties)


def test_a_message_says_who_sent_it_from_inside_a_thread(world: Dispatch) -> None:
    thread_id = world.json("get", "@builder")["thread"]["id"]
    inside = Dispatch(world.home, {"CODEX_THREAD_ID": thread_id})

    inside.json("send", "@reviewer", "What is left to do?", "--intro")

    world.wait("@reviewer")
    said = world.json("tail", "@reviewer", "--role", "user")["items"][-1]["text"]
    assert "What is left to do?" in said
    assert "@builder" in said


def test_a_daemon_is_started_stopped_and_its_registry_migrated(dispatch: Dispatch) -> None:
    started = dispatch.json("up")
    stopped = dispatch.json("down")
    migrated = dispatch.run("registry", "migrate", "--offline")
    checked = dispatch.run("registry", "check", "--offline")

    assert (started["status"], stopped["status"]) == ("started", "stopped")
    assert (migrated.returncode, checked.returncode) == (0, 0), migrated.stderr + checked.stderr


def test_a_projects_configuration_is_trusted_by_its_content(dispatch: Dispatch) -> None:
    project = dispatch.home / "project"
    (project / ".dispatch").mkdir(parents=True)
    (project / ".git").mkdir()
    (project / ".git" / "HEAD").touch()
    (project / ".dispatch" / "config.toml").write_text('[defaults]\nsandbox = "workspace-write"\n')

    trusted = dispatch.run("config", "trust", str(project), "--yes")

    assert trusted.returncode == 0, trusted.stderr


def test_the_demonstration_runs_to_its_end(dispatch: Dispatch) -> None:
    done = dispatch.run("demo")

    assert done.returncode == 0, done.stderr
    assert "dispatch wait @builder" in done.stdout
