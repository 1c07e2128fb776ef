"""What a person or an agent gets wrong, and what the world gets wrong under them: a typed error, a next step, nothing half-done.

Every refusal goes through ``refused``: it has a code of the error table and its exit status, a hint whose commands exist, no
traceback, and it leaves the registry, Codex and the daemon's log as they were.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import codex_cli_bin
import jsonschema
import pytest

import dispatch_core
import dispatch_plugins
from dispatch_core.control.sync_client import Connection
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import PROJECTIONS, RemoteError
from dispatch_core.plugin import manifest
from dispatch_core.testing.daemon import COMMAND_DEADLINE, Dispatch, eventually, temporary_home
from dispatch_core.testing.examples import command_line, make_world
from dispatch_plugins.cli.names import NATIVE, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

pytestmark = [pytest.mark.e2e, pytest.mark.anyio]

DEADLINE = 60
NOBODY = "01a2020b-6b06-7f70-bca4-0c72be18c69f"
TWO_MB = "x" * 2_000_000
NOT_UTF8 = os.fsdecode(b"a\xff")  # as such a byte on a command line reaches a program
GREETING = {"protocol": PROTOCOL, "client": "bad-input", "version": "0"}
ABOVE_A_FRAME = 9 * 1024 * 1024

# -- what a refusal is -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """A command that is refused. says: a part of its message; hint: a part of its hint."""

    words: tuple[str, ...]
    code: str
    says: str = ""
    hint: str = ""
    stdin: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        typed = " ".join(word if len(word) < 40 else f"{word[:20]}…" for word in self.words)
        if self.stdin:
            typed += f" < {self.stdin!r}" if len(self.stdin) < 40 else f" < {len(self.stdin)}"
        return ascii(typed)[1:-1]


def bad(typed: str, code: str, *more: str, **fields: Any) -> Bad:
    """A refused command as it is typed. more: words that cannot be typed."""
    return Bad((*shlex.split(typed), *more), code, **fields)


@dataclass(frozen=True)
class State:
    """What a refusal must leave as it is."""

    threads: Any
    triggers: Any
    unmanaged: frozenset[str]
    histories: Mapping[str, int]
    asked: int


def ask(connection: Connection, op: str, **args: Any) -> dict[str, Any]:
    return dict(connection.request(op, args, timeout=DEADLINE).result)


@contextmanager
def connected(dispatch: Dispatch) -> Iterator[Connection]:
    """A connection to the control socket, after the greeting."""
    with Connection.connect(dispatch.socket, timeout=DEADLINE) as connection:
        connection.hello(GREETING, timeout=DEADLINE)
        yield connection


def state_of(dispatch: Dispatch) -> State:
    codex = dispatch.home / "offline" / "codex"
    model = dispatch.home / "offline" / "model.jsonl"
    with connected(dispatch) as connection:
        unmanaged = ask(connection, "list", unmanaged=True, limit=200)["threads"]
        threads = ask(connection, "list", archived=True, limit=200)["threads"]
        triggers = ask(connection, "trigger.list")["triggers"]
    return State(
        threads=threads,
        triggers=triggers,
        unmanaged=frozenset(row["thread"]["id"] for row in unmanaged),
        histories={str(path): path.stat().st_size for path in codex.rglob("*.jsonl")},
        asked=model.read_bytes().count(b"\n") if model.exists() else 0,
    )


def daemon_log(dispatch: Dispatch) -> str:
    return (dispatch.home / "dispatchd.log").read_text(encoding="utf-8")


@contextmanager
def nothing_done(dispatch: Dispatch) -> Iterator[None]:
    """Whatever happens inside leaves registry and Codex as they were, and nothing unforeseen in the daemon's log."""
    before, logged = state_of(dispatch), len(daemon_log(dispatch))
    yield
    assert state_of(dispatch) == before
    news = daemon_log(dispatch)[logged:]
    assert "Traceback" not in news, news
    assert " ERROR " not in news, news


def run(dispatch: Dispatch, one: Bad, cwd: Path | None = None) -> tuple[int, str]:
    """Run a command that is refused; return its exit status and what it said on stderr."""
    done = subprocess.run(
        dispatch.argv(*one.words),
        env=dispatch.environment,
        input=one.stdin,
        capture_output=True,
        timeout=COMMAND_DEADLINE,
        cwd=cwd or dispatch.home,
        check=False,
    )
    assert done.stdout == b"", done.stdout
    return done.returncode, done.stderr.decode("utf-8")


def refused(
    dispatch: Dispatch, one: Bad, ops: Iterable[Mapping[str, Any]], cwd: Path | None = None
) -> dict[str, Any]:
    """Run a command that is refused as it should be, and return its error."""
    status, said = run(dispatch, one, cwd)
    assert "Traceback" not in said, said
    error: dict[str, Any] = json.loads(said)["error"]
    judge(error, ops)
    assert (error["code"], status) == (one.code, PROJECTIONS[one.code].exit_code), error
    assert one.says in error["message"], error
    assert one.hint in error["hint"], error
    return error


def judge(error: Mapping[str, Any], ops: Iterable[Mapping[str, Any]]) -> None:
    """An error is one of the table's, and its hint is a step that can be taken."""
    assert error["code"] in PROJECTIONS
    assert error["code"] not in ("internal", "plugin"), error
    assert error["message"]
    assert error["hint"], error
    assert wrong_commands(error["hint"], ops) == []


COMMAND = re.compile(r"(?<![\w-])dispatch((?: [a-z][a-z-]*)+)([^;:,?]*)")
OPTION = re.compile(r"(--[a-z][a-z-]*)")
SURFACES = ("mcp",)
OF_EVERY_COMMAND = {"--help", "--debug", "--json", "--no-start", "--yes", "--safe"}


def wrong_commands(text: str, ops: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the commands that a text names and that do not exist, or do not have the options it gives them."""
    known = {words_of(op["name"]): op for op in ops}
    groups = {words[:1] for words in known if len(words) > 1}
    wrong = []
    for match in COMMAND.finditer(text):
        words = tuple(match[1].split())
        op = known.get(words[:1]) or known.get(words[:2])
        if words in groups and match[2].startswith(" --help"):
            continue
        if op is None and words[0] not in (*NATIVE, *SURFACES):
            wrong.append(match[0])
        elif op is not None:
            options = {f"--{name.replace('_', '-')}" for name in op["schema"]["properties"]}
            given = set(OPTION.findall(match[0])) - OF_EVERY_COMMAND
            negated = {f"--no-{option[2:]}" for option in options}
            wrong += [f"{match[0]}: {option}" for option in sorted(given - options - negated)]
    return wrong


# -- the world ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ops(tmp_path_factory: pytest.TempPathFactory) -> list[Mapping[str, Any]]:
    home = tmp_path_factory.mktemp("manifest")
    return list(manifest.load(Paths(str(home)))["ops"])


@pytest.fixture(scope="module")
def world() -> Iterator[Dispatch]:
    """The world of the examples; @spark and the archived @ash are ephemeral, and two archived threads are @twin."""
    with temporary_home() as dispatch:
        make_world(dispatch)
        for name in ("spark", "ash"):
            dispatch.json("new", name, "Say hello", "--ephemeral", "--cwd", "/")
            dispatch.wait(f"@{name}")
        dispatch.json("archive", "@ash", "--yes")
        for _ in range(2):
            dispatch.json("new", "twin", "--no-send", "--cwd", "/")
            dispatch.json("archive", "@twin", "--yes")
        files = dispatch.home / "files"
        files.mkdir()
        (files / "big.txt").write_text(TWO_MB)
        (files / "bytes").write_bytes(b"MZ\x00\xff\xfe" * 9)
        (files / "nul.txt").write_bytes(b"a\0b")
        (files / "utf-16.txt").write_bytes("hello".encode("utf-16"))
        (files / "empty").touch()
        (files / "text.png").write_text("no picture")
        (files / "cut.png").write_bytes(b"\x89PN")
        (files / "folder").mkdir()
        os.mkfifo(files / "pipe")
        (files / "list.json").write_text("[1]")
        yield dispatch


def verbs(thread: str) -> dict[str, str]:
    """Return every command that acts on one thread, by a word for it."""
    return {
        "send": f"send {thread} hi",
        "steer": f"send {thread} hi --steer",
        "interject": f"send {thread} hi --interject",
        "context": f"send {thread} hi --context",
        "stop": f"stop {thread}",
        "rename": f"rename {thread} another",
        "archive": f"archive {thread} --yes",
        "restore": f"restore {thread}",
        "fork": f"fork {thread} copy",
        "revert": f"revert {thread} --yes",
        "compact": f"compact {thread}",
        "goal status": f"goal status {thread}",
        "goal set": f"goal set {thread} x --token-budget 10",
        "goal clear": f"goal clear {thread} --yes",
        "get": f"get {thread}",
        "tail": f"tail {thread}",
        "wait": f"wait {thread} --timeout 5",
        "watch": f"watch {thread} --timeout 0",
        "sync": f"sync {thread}",
        "search": f"search hello --thread {thread}",
        "attach": f"attach {thread}",
        "trigger": f"trigger add bad --when interval --seconds 900 --thread {thread} --text x",
    }


def each(thread: str, code: str, names: str, **fields: Any) -> list[Bad]:
    """Return some verbs on one thread, each refused with the same code; names: words of ``verbs``, separated by commas."""
    lines = verbs(thread)
    return [bad(lines[name.strip()], code, **fields) for name in names.split(",")]


ALL = ", ".join(verbs("x"))
NEED_HISTORY = "fork, revert, tail, search"
WRITES = "send, steer, interject, context, stop, revert, compact, goal set, goal clear, trigger"

# -- selectors ---------------------------------------------------------------------------------------

SELECTORS = [
    *each("@nobody", "not_found", ALL),
    *each(NOBODY, "not_found", ALL),
    *each("@twin", "ambiguous", ALL.replace("attach, ", ""), says="names 2 threads"),
    *[bad(f"get --thread={word}", "validation") for word in ("''", "y" * 501)],
    bad("get @biulder", "not_found", hint="did you mean @builder"),
    bad("trigger rm nobody --yes", "not_found", hint="dispatch trigger list"),
    bad("trigger pause nobody", "not_found"),
    bad("sned @builder hi", "validation", hint="send"),
    bad("trigger ad nightly", "validation", hint="add"),
]


@pytest.mark.parametrize("one", SELECTORS, ids=str)
def test_a_thread_that_is_not_one_is_refused(
    world: Dispatch, ops: list[Mapping[str, Any]], one: Bad
) -> None:
    with nothing_done(world):
        error = refused(world, one, ops)

    if one.code == "ambiguous":
        found = error["details"]["candidates"]
        assert len({candidate["ref"] for candidate in found}) == 2
        assert all(candidate["ref"] in error["message"] for candidate in found)
        assert {candidate["title"] for candidate in found} == {"twin"}


# -- texts and files ---------------------------------------------------------------------------------

TAKES_TEXT = (
    "send @builder",
    "send @builder --context",
    "send @planner --queue",
    "new never --cwd /",
    "delivery edit monday",
)
FILES = "--input-file", "--base-file", "--developer-file", "--output-schema-file"


def texts() -> Iterator[Bad]:
    for command in TAKES_TEXT:
        for empty in ("", " ", "\n\t "):
            yield bad(command, "validation", empty, says="empty")
            yield bad(f"{command} -", "validation", stdin=empty.encode(), says="empty")
        yield bad(f"{command} -", "validation", stdin=TWO_MB.encode(), says="2,000,000")
        yield bad(f"{command} -", "validation", stdin=b"x" * ABOVE_A_FRAME, says="stdin")
        yield bad(f"{command} -", "validation", stdin=b"a\xff", says="not UTF-8")
        yield bad(f"{command} -", "validation", stdin="hi".encode("utf-16-le"), says="NUL")
        yield bad(command, "validation", NOT_UTF8, says="not valid UTF-8")
        yield bad(command, "validation", "/goal x")
    yield bad("send @builder - --steer", "validation", stdin=TWO_MB.encode())
    for goal in ("goal set @builder --token-budget 9", "new never --cwd / --goal-budget 9 --goal"):
        yield bad(goal, "validation", " ")
        yield bad(goal, "validation", "x" * 4001)
        yield bad(goal, "validation", NOT_UTF8, says="not valid UTF-8")
    yield bad("goal set @builder - --token-budget 9", "validation", stdin=TWO_MB.encode())
    yield bad("wait -", "validation", stdin=b"\n")
    yield bad("archive - --yes", "validation", says="names no")
    yield bad("archive - --yes", "validation", stdin=b"\xff", says="not UTF-8")
    for name in ("''", "@", "' '", "'a\tb'", "y" * 101):
        yield bad(f"rename @builder {name}", "validation")
        yield bad(f"fork @builder {name}", "validation")
        yield bad(f"new {name} --cwd / --no-send", "validation")
    for typed in ("rename @builder", "fork @builder", "new", "search", "get", "attach", "models"):
        yield bad(typed, "validation", NOT_UTF8)


def files() -> Iterator[Bad]:
    for option in FILES:
        for name in ("big.txt", "bytes", "nul.txt", "utf-16.txt", "empty", "folder", "pipe", "no"):
            if option == "--input-file":
                yield bad(f"send @builder {option} files/{name}", "validation")
            yield bad(f"new never --cwd / --no-send {option} files/{name}", "validation")
    yield bad("new never --cwd / --no-send --output-schema-file files/list.json", "validation")
    for name in ("bytes", "text.png", "cut.png", "empty", "folder", "pipe", "no"):
        yield bad(f"send @builder look --image files/{name}", "validation")
        yield bad(f"new never look --cwd / --image files/{name}", "validation")
    yield bad("send @builder --image", "validation", NOT_UTF8, "look")
    yield bad("send @builder --input-file", "validation", NOT_UTF8)
    for name in ("no", "files/empty", "files/pipe"):
        yield bad(f"new never --no-send --cwd {name}", "validation", says="--cwd")
        yield bad(f"fork @builder copy --cwd {name}", "validation", says="--cwd")
        yield bad(f"search x --directory {name}", "validation", says="--directory")


@pytest.mark.parametrize("one", [*texts(), *files()], ids=str)
def test_a_text_or_file_that_cannot_be_sent_is_refused(
    world: Dispatch, ops: list[Mapping[str, Any]], one: Bad
) -> None:
    with nothing_done(world):
        refused(world, one, ops)


DELIVERIES = [
    bad("send @planner Hello", "lane_busy", hint="--queue"),
    bad("send @builder Hello --expires 10m", "validation", hint="--queue"),
    *(
        bad("send @planner Hello --queue --expires", "validation", when, says="expires")
        for when in (
            "soon",
            "-5m",
            "0s",
            "10",
            "2020-01-01T00:00Z",
            "2999-01-01T00:00Z",
            "99999999d",
        )
    ),
    bad("send @builder Bye --idempotency-key hello", "delivery_conflict", hint="delivery get"),
    bad("send @builder x --idempotency-key", "validation", "", says="key"),
    bad("send @builder x --idempotency-key", "validation", " a", says="key"),
    bad("send @builder x --idempotency-key", "validation", "a\nb", says="key"),
    bad("send @builder x --idempotency-key", "validation", "k" * 201, says="key"),
    bad("send @builder x --context --idempotency-key k", "validation", says="--context"),
    bad("send @planner x --steer --idempotency-key k", "validation", says="--steer"),
    *(bad(f"send @planner x --queue --{way}", "validation") for way in ("steer", "interject")),
    *(
        bad(f"delivery {verb} {NOBODY}", "not_found", hint="delivery list")
        for verb in ("get", "cancel", "requeue", "edit x --delivery", "reorder --last")
    ),
    bad("delivery get x", "not_found"),
    bad("delivery get", "not_found", " "),
    bad("delivery get 01a", "not_found"),
    bad("delivery cancel hello", "delivery_conflict", says="done"),
    bad("delivery edit hello x", "delivery_conflict", says="done"),
    bad("delivery edit monday", "validation", says="no message"),
    bad("delivery edit monday x --input-file files/list.json", "validation", says="two messages"),
    bad("delivery reorder hello --last", "delivery_conflict"),
    bad("delivery reorder monday", "validation", hint="--first"),
    bad("delivery reorder monday --first --last", "validation", hint="--first"),
    bad("delivery reorder monday --before monday", "validation"),
    bad("delivery reorder monday --before hello", "delivery_conflict"),
    bad("delivery requeue monday", "delivery_conflict"),
    bad("delivery resolve monday --sent --yes", "delivery_conflict"),
    bad("delivery resolve hello --yes", "validation", hint="--drop"),
    bad("delivery resolve hello --sent --drop --yes", "validation", hint="--drop"),
    bad("delivery list --after here", "validation"),
    bad("delivery list --state lost", "validation"),
    bad("delivery list --limit 0", "validation"),
    bad("delivery list --thread @nobody", "not_found"),
    bad("dead list --thread @nobody", "not_found"),
]


@pytest.mark.parametrize("one", DELIVERIES, ids=str)
def test_what_cannot_be_done_with_a_message_is_refused(
    world: Dispatch, ops: list[Mapping[str, Any]], one: Bad
) -> None:
    with nothing_done(world), connected(world) as connection:
        before = ask(connection, "delivery.list")
        refused(world, one, ops)
        assert ask(connection, "delivery.list") == before


@pytest.mark.parametrize("char", ["🙂", "\x01"])
def test_the_longest_text_is_sent_whole_in_any_alphabet(dispatch: Dispatch, char: str) -> None:
    dispatch.json("new", "reader", "--no-send", "--cwd", "/")

    receipt = dispatch.json("send", "@reader", "-", stdin=char * 1_048_576)["receipt"]

    assert receipt["state"] == "submitted"
    assert dispatch.wait("@reader")["outcome"] == "done"


# -- ephemeral and archived threads -------------------------------------------------------------------

STATES = [
    *each("@spark", "unsupported", NEED_HISTORY, says="ephemeral", hint="dispatch new"),
    *each("@spark", "unsupported", "goal status, goal set, goal clear", hint="dispatch new"),
    *each("@spark", "no_active_turn", "steer, interject, stop"),
    *each("@retired", "authority", WRITES, says="archived", hint="dispatch restore"),
    *each("@retired", "authority", "goal status, fork", hint="dispatch restore"),
    *each("@ash", "authority", WRITES, says="archived", hint="dispatch new"),
    *each("@ash", "unsupported", "goal status, fork, tail", hint="dispatch new"),
    *each("@ash", "not_found", "restore", says="ephemeral", hint="dispatch new"),
    *each("@reviewer", "no_active_turn", "steer, interject, stop", hint="dispatch send"),
    *each("@reviewer", "validation", "fork, revert, compact", says="reviewer"),
    bad("new builder hi --cwd /", "validation", says="already", hint="dispatch send"),
    bad("new builder hi --cwd / --dry-run", "validation", says="already", hint="dispatch send"),
    bad("rename @spare builder", "validation", says="already"),
    bad("fork @spare builder", "validation", says="already"),
]


@pytest.mark.parametrize("one", STATES, ids=str)
def test_what_the_state_of_a_thread_forbids_is_refused(
    world: Dispatch, ops: list[Mapping[str, Any]], one: Bad
) -> None:
    with nothing_done(world):
        refused(world, one, ops)


@pytest.mark.parametrize("name", ["get", "wait", "watch", "tail", "attach", "archive"])
def test_an_archived_thread_is_read_all_the_same(world: Dispatch, name: str) -> None:
    with nothing_done(world):
        world.json(*shlex.split(verbs("@retired")[name]))


def test_an_ephemeral_thread_that_ended_with_codex_says_so_on_every_verb(
    dispatch: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    dispatch.json("new", "spark", "Say hello", "--ephemeral", "--cwd", "/")
    dispatch.wait("@spark")
    dispatch.json("down")
    dispatch.json("up")
    eventually(
        lambda: bool(dispatch.json("get", "@spark")["thread"]["status"] == "error"),
        "it is noticed that the thread is gone",
    )

    with nothing_done(dispatch):
        for one in (
            *each("@spark", "not_found", "send, context, compact", hint="dispatch new"),
            *each("@spark", "unsupported", NEED_HISTORY),
            *each("@spark", "no_active_turn", "steer, interject, stop"),
        ):
            refused(dispatch, one, ops)

    assert dispatch.json("get", "@spark")["thread"]["status"] == "error"


# -- directories that vanish --------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("restart", [False, True])
def test_no_turn_is_started_where_no_directory_is(
    dispatch: Dispatch, ops: list[Mapping[str, Any]], turns: int, restart: bool
) -> None:
    place = dispatch.home / "place"
    place.mkdir()
    text = ["Say hello"] if turns else ["--no-send"]
    ref = dispatch.json("new", "lost", *text, "--cwd", str(place))["thread"]["ref"]
    dispatch.wait(ref)
    place.rmdir()
    if restart:
        dispatch.json("down")
        dispatch.json("up")
    onwards = f"dispatch fork {ref} NAME --cwd" if turns else "dispatch new NAME --cwd"

    with nothing_done(dispatch):
        for name in ("send", "interject", "goal set", *(["fork"] if turns else [])):
            refused(dispatch, bad(verbs(ref)[name], "validation", hint=onwards), ops)

    place.mkdir()
    dispatch.json("send", ref, "Again")
    assert dispatch.wait(ref)["outcome"] == "done"


IN_NO_DIRECTORY = [
    bad("new never --no-send", "validation", hint="--cwd"),
    bad("new never --no-send --cwd .", "validation"),
    bad("send @builder look --image a.png", "validation"),
    bad("send @builder --input-file a.txt", "validation"),
    bad("search x --directory .", "validation"),
    bad("search x --repo sub", "validation"),
    bad("permissions", "validation", hint="--cwd"),
    bad("config path", "validation", hint="--cwd"),
    bad("config get model", "validation", hint="--cwd"),
    bad("config explain", "validation", hint="--cwd"),
    bad("config path --cwd sub", "validation"),
    bad("config trust", "validation", hint="PATH"),
    bad("config trust --revoke", "validation", hint="PATH"),
]


def in_no_directory(dispatch: Dispatch, words: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory that was removed under it."""
    place = dispatch.home / "under"
    place.mkdir(exist_ok=True)
    command = shlex.join(dispatch.argv(*words))
    return subprocess.run(
        ["/bin/sh", "-c", f"cd {place} && rmdir {place} && exec {command}"],
        env=dispatch.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE,
        check=False,
    )


@pytest.mark.parametrize("one", IN_NO_DIRECTORY, ids=str)
def test_a_command_that_needs_the_current_directory_says_that_it_is_gone(
    world: Dispatch, ops: list[Mapping[str, Any]], one: Bad
) -> None:
    with nothing_done(world):
        done = in_no_directory(world, one.words)

    error = json.loads(done.stderr)["error"]
    judge(error, ops)
    assert (error["code"], done.returncode) == (one.code, 2)
    assert "director" in error["message"]
    assert one.hint in error["hint"]


@pytest.mark.parametrize(
    "typed",
    [
        "list",
        "get @builder",
        "new no-place --no-send --cwd /",
        "search hello",
        "models",
        "daemon status",
        "config path --cwd /",
        "plugins",
        "schema send",
        "completion bash",
        "registry check",
        "help send",
        "doctor --no-app-server",
    ],
)
def test_a_command_that_needs_no_directory_works_without_one(world: Dispatch, typed: str) -> None:
    done = in_no_directory(world, shlex.split(typed))

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


# -- a thread that another process holds ---------------------------------------------------------------


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
        asked: list[tuple[str, dict[str, Any]]] = [
            ("initialize", {"clientInfo": {"name": "other", "title": "other", "version": "1"}}),
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


def test_a_thread_that_another_process_holds_is_read_and_not_written(
    dispatch: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    thread = dispatch.json("new", "held", "Say hello", "--cwd", "/")["thread"]
    ref = thread["ref"]
    dispatch.wait(ref)
    dispatch.json("down")
    dispatch.json("up")
    refusals = (
        *each(ref, "active_writer", "send, context, revert, compact, archive", hint="fork"),
        *each(ref, "active_writer", "goal set", hint="dispatch fork"),
        *each(ref, "no_active_turn", "steer, interject, stop"),
    )

    with held_elsewhere(dispatch, thread["id"]):
        with nothing_done(dispatch):
            for one in refusals:
                error = refused(dispatch, one, ops)
                assert ref in error["message"]
            for name in ("attach", "tail", "get", "wait", "watch", "goal status", "search"):
                dispatch.json(*shlex.split(verbs(ref)[name]))
        forked = dispatch.json(*shlex.split(verbs(ref)["fork"]))
        renamed = dispatch.json(*shlex.split(verbs(ref)["rename"]))
    dispatch.json("send", ref, "Again")

    assert forked["turn"]["status"] == "completed"
    assert renamed["thread"]["handle"] == "@another"
    assert dispatch.wait(ref)["text"] == "Offline reply: Again"


# -- a provider, or a Codex, that does not answer -------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """What the model does to a turn, what becomes of the turn, and what is said of it."""

    step: Mapping[str, Any] = field(default_factory=dict)
    status: str = "failed"
    says: str = ""


@pytest.mark.parametrize(
    "fault",
    [
        Fault({"http": 503}, says="503"),
        Fault({"http": 401}, says="401"),
        Fault({"http": 429}, says="429"),
        Fault({"cut": True}, says="disconnected"),
        Fault({"failed": {"code": "server_error", "message": "overloaded"}}, says="overloaded"),
        Fault({"http": 500, "times": 1}, status="completed"),
    ],
    ids=lambda fault: json.dumps(fault.step),
)
def test_a_turn_that_the_provider_ends_says_why_and_the_thread_goes_on(
    world: Dispatch, fault: Fault
) -> None:
    name = f"faulty-{abs(hash(fault.says)) % 10_000}"
    ref = world.json("new", name, f"offline:{json.dumps(fault.step)}", "--cwd", "/")["thread"][
        "ref"
    ]

    found = world.wait(ref)
    shown = world.json("get", ref)
    world.json("send", ref, "offline:{} Again")

    assert found["turn"]["status"] == shown["turn"]["status"] == fault.status
    assert fault.says in (shown["turn"]["error"] or "")
    assert world.wait(ref)["outcome"] == "done"


DEAD_PROVIDER = """\
model = "dead"
model_provider = "dead"
[model_providers.dead]
name = "Dead"
base_url = "http://127.0.0.1:{port}/v1"
wire_api = "responses"
requires_openai_auth = false
supports_websockets = false
request_max_retries = 1
stream_max_retries = 1
[features]
plugins = false
remote_plugin = false
apps = false
shell_snapshot = false
[analytics]
enabled = false
[feedback]
enabled = false
[otel]
exporter = "none"
"""


def test_a_provider_that_cannot_be_reached_is_named_and_does_not_keep_a_thread_busy(
    ops: list[Mapping[str, Any]],
) -> None:
    with socket.socket() as taken, temporary_home(DISPATCH_OFFLINE="0") as plain:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        home = plain.home / "codex"
        home.mkdir()
        (home / "config.toml").write_text(DEAD_PROVIDER.format(port=taken.getsockname()[1]))
        reach = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "CODEX_HOME": str(home)}
        binary = str(codex_cli_bin.bundled_codex_path())
        dispatch = Dispatch(plain.home, {**plain.env, **reach, "DISPATCH_CODEX_BIN": binary})
        ref = dispatch.json("new", "alone", "Say hello", "--cwd", "/")["thread"]["ref"]
        eventually(
            lambda: bool(dispatch.json("get", ref)["turn"]["error"]), "Codex says what it waits for"
        )

        late = refused(dispatch, bad(f"wait {ref} --timeout 0.1", "timeout"), ops)
        busy = refused(dispatch, bad(f"send {ref} more", "lane_busy"), ops)
        stopped = dispatch.json("stop", ref)
        shown = dispatch.json("get", ref)

        assert "onnect" in late["message"], late
        assert f"dispatch stop {ref}" in late["hint"]
        assert "--interject" in busy["hint"]
        assert stopped["turn"]["status"] == shown["turn"]["status"] == "interrupted"
        assert shown["thread"]["status"] == "idle"
        assert "Traceback" not in daemon_log(dispatch)


def test_a_codex_that_cannot_be_started_leaves_what_needs_none(
    ops: list[Mapping[str, Any]],
) -> None:
    with temporary_home() as plain:
        plain.json("new", "kept", "Say hello", "--cwd", "/")
        plain.wait("@kept")
        plain.json("down")
        dispatch = Dispatch(plain.home, {"DISPATCH_CODEX_BIN": "/no/such/codex"})
        dispatch.run("up")
        with connected(dispatch) as connection:
            before = ask(connection, "list", archived=True)

        for name in ("send", "context", "fork", "revert", "compact", "goal set", "archive"):
            error = refused(dispatch, bad(verbs("@kept")[name], "codex_unavailable"), ops)
            assert "/no/such/codex" in error["message"]
        refused(dispatch, bad("new never --cwd / hi", "codex_unavailable"), ops)
        for name in ("get", "watch", "wait"):
            dispatch.json(*shlex.split(verbs("@kept")[name]))

        with connected(dispatch) as connection:
            assert ask(connection, "list", archived=True) == before
        assert "Traceback" not in daemon_log(dispatch)


# -- every op of the manifest, as it is ---------------------------------------------------------------

WRONG: tuple[Any, ...] = ({"no": "such"}, "no such value", 7.5, [{"no": "such"}])


def usual(op: Mapping[str, Any]) -> dict[str, Any]:
    """Return an input that the op understands: that of an example, rather one that succeeds."""
    examples = sorted(op["examples"], key=lambda example: "error" in example)
    return dict(examples[0]["input"])


def wrong_values(op: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (field, a value of a wrong type) for every field of an op."""
    for name, schema in op["schema"].get("properties", {}).items():
        whole = {**schema, "$defs": op["schema"].get("$defs", {})}
        fits = jsonschema.Draft202012Validator(whole).is_valid
        several = schema.get("type") == "array"
        value = next((v for v in WRONG[3 if several else 0 :] if not fits(v)), None)
        if value is not None:
            yield name, value


def selectors(op: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield (field, whether it takes several) for every field that takes threads."""
    for name, schema in op["schema"].get("properties", {}).items():
        if schema.get("x-cli", {}).get("complete") == "thread":
            yield name, schema.get("type") == "array"


Wrong = tuple[str, dict[str, Any], set[str], str | None]


def wrong_inputs(op: Mapping[str, Any]) -> Iterator[Wrong]:
    """Yield (what is wrong, input, the codes it may be refused with, the field that is named) for an op."""
    base = usual(op)
    for name in op["schema"].get("required", ()):
        rest = {key: value for key, value in base.items() if key != name}
        yield f"without {name}", rest, {"validation"}, name
    yield "unknown field", {**base, "no_such_field": 1}, {"validation"}, "no_such_field"
    for name, value in wrong_values(op):
        yield f"{name} is {value!r}", {**base, name: value}, {"validation"}, name
    for name, several in selectors(op):
        nobody = ["@nobody"] if several else "@nobody"
        codes = {"not_found"} if name == "thread" else {"not_found", "validation"}
        yield f"{name} is nobody", {**base, name: nobody}, codes, None


def verdict(op: Mapping[str, Any], case: Wrong, error: Mapping[str, Any] | None) -> str | None:
    """Return what is wrong with the answer to a wrong input, None for nothing."""
    what, _, codes, named = case
    if error is None:
        return f"{op['name']}: {what}: it was accepted"
    if error["code"] not in codes or not error["hint"]:
        return f"{op['name']}: {what}: {error}"
    said = json.dumps([error["message"], error.get("details")])
    if named is not None and named not in said and named.replace("_", "-") not in said:
        return f"{op['name']}: {what}: {named} is not named: {error}"
    return None


def test_every_op_refuses_what_it_does_not_take_on_the_control_socket(
    world: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    problems, hints = [], set()
    with nothing_done(world), connected(world) as connection:
        for op in ops:
            for case in wrong_inputs(op):
                try:
                    ask(connection, op["name"], **case[1])
                    error = None
                except RemoteError as raised:
                    error = raised.to_dict()
                    hints.add(raised.hint or "")
                problems.append(verdict(op, case, error))

    assert [problem for problem in problems if problem] == []
    assert [wrong for hint in hints for wrong in wrong_commands(hint, ops)] == []


def wrong_lines(op: Mapping[str, Any]) -> Iterator[tuple[str, list[str], set[str]]]:
    """Yield (what is wrong, words, codes) for an op on the command line."""
    base, head = usual(op), command_line(op, {})
    if op["schema"].get("required"):
        yield "no arguments", head, {"validation"}
    yield "unknown option", [*command_line(op, base), "--no-such-option"], {"validation"}
    yield "too many words", [*command_line(op, base), *["x"] * 9], {"validation"}
    for number, name in enumerate(op["schema"].get("properties", {})):
        option = f"--{name.replace('_', '-')}"
        # What is not text is refused in one place, whatever the option.
        values = (
            *((NOT_UTF8,) if number == 0 else ()),
            *(() if accepts_text(op, name) else ("no such value",)),
        )
        for value in values:
            rest = {key: kept for key, kept in base.items() if key != name}
            words = [*command_line(op, rest), f"{option}={value}"]
            yield f"{option}={value!a}", words, {"validation"}
    for name, several in selectors(op):
        nobody = ["@nobody"] if several else "@nobody"
        codes = {"not_found"} if name == "thread" else {"not_found", "validation"}
        yield f"{name} is nobody", command_line(op, {**base, name: nobody}), codes


def accepts_text(op: Mapping[str, Any], name: str) -> bool:
    """Whether a field takes any text, so that on a command line nothing is of a wrong type."""
    schema = op["schema"]["properties"][name]
    marks = schema.get("x-cli", {})
    if marks.get("path") or marks.get("file"):
        return False
    item = schema.get("items", schema)
    whole = {**item, "$defs": op["schema"].get("$defs", {})}
    return jsonschema.Draft202012Validator(whole).is_valid("no such value")


def test_every_op_refuses_what_it_does_not_take_on_the_command_line(
    world: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    problems = []
    with nothing_done(world):
        for op in ops:
            for what, words, codes in wrong_lines(op):
                status, said = run(world, Bad(tuple(words), ""))
                error = json.loads(said)["error"]
                judge(error, ops)
                if error["code"] not in codes or status != error["exit_code"]:
                    problems.append(f"{op['name']}: {what}: {error}")

    assert problems == []


async def test_every_op_refuses_what_it_does_not_take_in_mcp(
    world: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    problems = []
    with nothing_done(world), anyio.fail_after(DEADLINE):
        async with mcp_client(world) as client:
            offered = {tool.name for tool in (await client.list_tools()).tools}
            for op in ops:
                name = "dispatch_" + op["name"].replace(".", "_")
                assert (name in offered) is ("mcp" not in op["hidden_from"])
                if name not in offered:
                    continue
                confirm = {"confirm": True} if op["intent"] == "destroy" else {}
                for case in wrong_inputs(op):
                    reply = await client.call_tool(name, {**case[1], **confirm})
                    error = reply.structured_content if reply.is_error else None
                    problems.append(verdict(op, case, error))

    assert [problem for problem in problems if problem] == []


def mcp_client(dispatch: Dispatch) -> Any:
    # The SDK is imported here, because it takes longer than most test modules.
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    argv = dispatch.argv("mcp", "--profile", "flat")
    server = StdioServerParameters(
        command=sys.executable, args=argv[1:], env=dispatch.environment, cwd=dispatch.home
    )
    return Client(stdio_client(server))


MESSAGES: list[tuple[dict[str, Any], str]] = [
    ({"thread": "@builder", "text": TWO_MB}, "validation"),
    ({"thread": "@builder", "text": " "}, "validation"),
    ({"thread": "@builder", "text": "a\0b"}, "validation"),
    ({"thread": "@twin", "text": "hi"}, "ambiguous"),
    ({"thread": "@retired", "text": "hi"}, "authority"),
    ({"thread": "@builder", "text": "hi", "image": ["relative.png"]}, "validation"),
    ({"thread": "@builder", "text": "hi", "image": ["/dev/null"]}, "validation"),
    ({"thread": "@builder", "input_file": "/no/such/file"}, "validation"),
]


async def test_a_message_that_cannot_be_sent_is_refused_in_mcp_as_well(
    world: Dispatch, ops: list[Mapping[str, Any]]
) -> None:
    codes = []
    with nothing_done(world), anyio.fail_after(DEADLINE):
        async with mcp_client(world) as client:
            for arguments, _ in MESSAGES:
                reply = await client.call_tool("dispatch_send", arguments)
                judge(reply.structured_content, ops)
                codes.append(reply.structured_content["code"] if reply.is_error else None)

    assert codes == [code for _, code in MESSAGES]


# -- frames -------------------------------------------------------------------------------------------

HELLO = {"id": 1, "method": "$hello", "params": GREETING}


def send_frame(text: str) -> bytes:
    return json.dumps(
        {"id": 2, "method": "send", "params": {"thread": "@builder", "text": text}}
    ).encode()


FRAMES: list[tuple[str, bytes, str]] = [
    ("2 MB", send_frame(TWO_MB), "validation"),
    ("empty", send_frame(" "), "validation"),
    ("NUL", send_frame("a\0b"), "validation"),
    ("lone surrogate", send_frame("\ud800"), "protocol"),
    ("lone surrogate in a selector", send_frame("x").replace(b"@builder", b"\\udc80"), "protocol"),
    ("not UTF-8", send_frame("x").replace(b"x", b"\xff"), "protocol"),
    ("not JSON", b"{", "protocol"),
    ("no object", b"[1]", "protocol"),
    ("above a frame", send_frame("x" * ABOVE_A_FRAME), "protocol"),
    ("params that are none", b'{"id": 2, "method": "send", "params": [1]}', "protocol"),
    ("unknown op", b'{"id": 2, "method": "sned", "params": {}}', "unknown_op"),
    ("number that is none", b'{"id": 2, "method": "send", "params": {"x": NaN}}', "protocol"),
    ("too deep", b'{"id":2,"method":"send","params":' + b"[" * 99_999, "protocol"),
]


@pytest.mark.parametrize(("frame", "code"), [f[1:] for f in FRAMES], ids=[f[0] for f in FRAMES])
def test_a_frame_that_is_wrong_gets_a_typed_error_and_the_daemon_goes_on(
    world: Dispatch, frame: bytes, code: str
) -> None:
    with nothing_done(world), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(DEADLINE)
        connection.connect(world.socket)
        lines = connection.makefile("rb")
        connection.sendall(json.dumps(HELLO).encode() + b"\n")
        greeting = json.loads(lines.readline())
        connection.sendall(frame + b"\n")
        answer = json.loads(lines.readline())

    assert greeting["result"]["state"] == "ready"
    assert answer["error"]["data"]["code"] == code


# -- the hints of the source ---------------------------------------------------------------------------


def literal(node: ast.expr) -> str:
    """Return the text of a literal, with X for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) for part in node.values)
    if isinstance(node, ast.IfExp):
        return f"{literal(node.body)}; {literal(node.orelse)}"
    if isinstance(node, ast.BoolOp):
        return "; ".join(map(literal, node.values))
    return "X"


def hints_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every hint that a module writes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg == "hint":
                    yield node.lineno, literal(keyword.value)
            if isinstance(node.func, ast.Name) and node.func.id == "refuse" and len(node.args) > 1:
                yield node.lineno, literal(node.args[1])
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", None) == "hint":
            yield node.lineno, literal(node.value)


def sources() -> Iterator[Path]:
    for package in (dispatch_core, dispatch_plugins):
        yield from sorted(Path(package.__path__[0]).rglob("*.py"))


def test_every_hint_in_the_source_names_commands_that_exist(ops: list[Mapping[str, Any]]) -> None:
    found = [(path, line, text) for path in sources() for line, text in hints_of(path)]

    wrong = [
        f"{path.name}:{line}: {command}"
        for path, line, text in found
        for command in wrong_commands(text, ops)
    ]

    assert len(found) > 100
    assert wrong == []


@pytest.mark.parametrize(
    ("hint", "wrong"),
    [
        ("dispatch list shows the threads", 0),
        ("dispatch trigger list, or dispatch registry check", 0),
        ("dispatch fork X NAME --cwd DIRECTORY", 0),
        ("install codex-dispatch again", 0),
        ("dispatch show X", 1),
        ("dispatch trigger lst", 1),
        ("dispatch fork X NAME --directory DIRECTORY", 1),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(
    ops: list[Mapping[str, Any]], hint: str, wrong: int
) -> None:
    assert len(wrong_commands(hint, ops)) == wrong
