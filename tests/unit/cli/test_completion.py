"""What the shells are offered; bash is asked itself."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import LIMIT, MANIFEST, SCRIPT, op

if TYPE_CHECKING:
    from .conftest import FakeDaemon, Shell

BASH = shutil.which("bash")
THREADS = [
    {"thread": {"ref": "07GXN1", "handle": "@builder", "status": "idle", "cwd": "/src"}},
    {"thread": {"ref": "07GXN2", "handle": "@big job", "status": "busy", "cwd": "/src"}},
]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: Shell, name: str) -> None:
    script = shell.run("completion", name)

    assert script.code == 0
    assert "_DISPATCH_COMPLETE" in script.out


def offered(shell: Shell, line: str, kind: str = "bash") -> list[str]:
    shell.env |= {
        "_DISPATCH_COMPLETE": f"{kind}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1)
        if kind != "fish"
        else line.rsplit(" ", maxsplit=1)[-1],
    }
    ran = shell.run()
    assert (ran.code, ran.err) == (0, "")
    return [line for line in ran.out.splitlines() if line]


def values(shell: Shell, line: str) -> set[str]:
    return {row.partition(",")[2] for row in offered(shell, line)}


def test_completion_offers_commands_options_and_choices(shell: Shell) -> None:
    assert values(shell, "dispatch go") == {"goal"}
    assert values(shell, "dispatch acme ") == {"deploy"}
    assert values(shell, "dispatch new --sandbox ") == {"read-only", "workspace-write"}
    assert "--no-send" in values(shell, "dispatch new --")
    assert "--follow" in values(shell, "dispatch watch --")
    assert offered(shell, "dispatch paint --image ") == ["file,"]


@pytest.fixture
def threads(daemon: FakeDaemon) -> FakeDaemon:
    daemon.answers["list"] = lambda _: {"result": {"threads": THREADS}}
    return daemon


def test_threads_come_from_the_daemon_with_a_description(shell: Shell, threads: FakeDaemon) -> None:
    fish = offered(shell, "dispatch tail @bu", "fish")
    zsh = offered(shell, "dispatch tail ", "zsh")

    assert fish == ["plain,@builder\tidle  /src"]
    assert zsh[:3] == ["plain", "@builder", "idle  /src"]
    assert "07GXN2" in zsh
    assert threads.greetings[0]["manifest"] is None  # no daemon is replaced for a suggestion


def test_only_the_position_of_a_thread_is_completed_with_threads(
    shell: Shell, threads: FakeDaemon
) -> None:
    assert values(shell, "dispatch watch @builder 07GXN1") == {"07GXN1"}
    assert values(shell, "dispatch tail --thread 07") == {"07GXN1", "07GXN2"}
    assert values(shell, "dispatch tail @builder 07") == set()
    assert values(shell, "dispatch send @b") == set()
    assert len(threads.requests) == 2


def test_a_title_or_handle_cannot_forge_a_line(shell: Shell, daemon: FakeDaemon) -> None:
    evil = {
        "thread": {"ref": "07GXN3", "handle": "@x\nplain,rm", "status": "a\x1b[2Jb", "cwd": "/"}
    }
    daemon.answers["list"] = lambda _: {"result": {"threads": [evil]}}

    assert offered(shell, "dispatch tail ", "fish") == ["plain,07GXN3\t@x plain,rm  a [2Jb  /"]


def test_triggers_and_models_are_offered_where_a_field_says_so(
    shell: Shell, daemon: FakeDaemon
) -> None:
    mark = {"type": "string", "description": "Which."}
    shell.install({
        **MANIFEST,
        "ops": [
            op("models", "daemon", {}),
            op("rm", "trigger", {"trigger": {**mark, "x-cli": {"argument": True, "complete": "trigger"}}}),
            op("trigger.list", "trigger", {}),
            op("use", "thread", {"model": {**mark, "x-cli": {"complete": "model"}}}),
        ],
    })  # fmt: skip
    daemon.answers["trigger.list"] = lambda _: {
        "result": {"triggers": [{"name": "nightly", "id": "0a"}]}
    }
    daemon.answers["models"] = lambda _: {"result": {"models": [{"id": "gpt-x", "name": "X"}]}}

    assert values(shell, "dispatch rm ") == {"nightly", "0a"}
    assert values(shell, "dispatch use --model g") == {"gpt-x"}


def test_presets_come_from_the_users_and_the_projects_files(shell: Shell) -> None:
    mark = {"type": "string", "description": "Which.", "x-cli": {"complete": "preset"}}
    (shell.home / "config.toml").write_text("[presets.review]\n[presets.quick]\n")
    (shell.cwd / ".dispatch").mkdir()
    (shell.cwd / ".dispatch" / "config.toml").write_text("[presets.relaxed]\n")
    shell.install({**MANIFEST, "ops": [op("use", "thread", {"preset": mark})]})

    assert values(shell, "dispatch use --preset re") == {"review", "relaxed"}
    (shell.cwd / ".dispatch" / "config.toml").write_text("not toml")
    assert values(shell, "dispatch use --preset re") == {"review"}


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"code": 1, "message": "m", "data": {"code": "internal", "message": "no"}}},
        {"result": {"threads": "none"}},
        {"result": {"threads": [None, {"thread": None}, {"thread": {"ref": 7}}]}},
        {"result": {}},
        {"hang_up": True},
    ],
)
def test_whatever_the_daemon_says_completion_is_silent(
    shell: Shell, daemon: FakeDaemon, answer: dict[str, Any]
) -> None:
    daemon.answers["list"] = lambda _: dict(answer)

    assert offered(shell, "dispatch tail ") == []


def test_without_a_daemon_none_is_started(shell: Shell) -> None:
    assert offered(shell, "dispatch tail ") == []
    assert not Path(shell.socket).exists()
    assert not (shell.home / "dispatchd.lock").exists()


def test_a_daemon_that_does_not_answer_is_not_waited_for(shell: Shell, daemon: FakeDaemon) -> None:
    reader, writer = os.pipe()

    def asleep(_: dict[str, Any]) -> dict[str, Any]:
        os.read(reader, 1)
        return {"hang_up": True}

    daemon.answers["list"] = asleep

    assert offered(shell, "dispatch tail ") == []
    os.write(writer, b"x")
    daemon.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("dispatch tail @bu", "dispatch tail @builder "),
        ("dispatch tail --thread=@bu", "dispatch tail --thread=@builder "),
        ("dispatch tail --thread @bu", "dispatch tail --thread @builder "),
        ("dispatch tail @bi", "dispatch tail '@big job' "),
        ('dispatch tail "@bi', 'dispatch tail "@big job" '),
        ("dispatch new --sandbox=re", "dispatch new --sandbox=read-only "),
        ("dispatch goal st", "dispatch goal st"),
        ("dispatch goal se", "dispatch goal set "),
    ],
)
def test_bash_completes_what_was_typed(
    shell: Shell, threads: FakeDaemon, typed: str, becomes: str
) -> None:
    assert in_bash(shell, typed) == becomes
    assert threads is not None


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ('--preset "a', '--preset "a\\$(touch \\`b\\`)\\"\\\\\'c" '),
        ('--preset="a', '--preset="a\\$(touch \\`b\\`)\\"\\\\\'c" '),
        ("--preset 'a", "--preset 'a$(touch `b`)\"\\\\'\\''c' ".replace("\\\\", "\\")),
        ("--preset a", "--preset 'a$(touch `b`)\"\\'\"'\"'c' "),
    ],
)
def test_a_name_in_a_projects_file_is_never_run_by_the_shell(
    shell: Shell, typed: str, becomes: str
) -> None:
    mark = {"type": "string", "description": "Which.", "x-cli": {"complete": "preset"}}
    shell.install({**MANIFEST, "ops": [op("use", "thread", {"preset": mark})]})
    (shell.cwd / ".dispatch").mkdir()
    name = "a$(touch `b`)\"\\'c"
    (shell.cwd / ".dispatch" / "config.toml").write_text(f"[presets.{json.dumps(name)}]\n")

    assert in_bash(shell, f"dispatch use {typed}") == f"dispatch use {becomes}"


def in_bash(shell: Shell, typed: str) -> str:
    """Return the line that an interactive bash with our script makes of one when Tab is pressed."""
    rc = shell.home / "rc"
    rc.write_text(
        "PS1='ready>'\nbind 'set bell-style none'\nbind 'set enable-bracketed-paste off'\n"
        "shown() { printf '<%s>\\n' \"$READLINE_LINE\"; }\nbind -x '\"\\C-g\": shown'\n"
        f"PATH={Path(SCRIPT).parent}:$PATH\n{shell.run('completion', 'bash').out}"
    )
    terminal, end = pty.openpty()
    command = [str(BASH), "--noprofile", "--rcfile", str(rc), "-i"]
    process = subprocess.Popen(
        command,
        stdin=end,
        stdout=end,
        stderr=end,
        env={**shell.environ, "TERM": "dumb", "COLUMNS": "200"},
        cwd=shell.cwd,
        start_new_session=True,
    )
    os.close(end)
    try:
        until(terminal, "ready>")
        os.write(terminal, typed.encode() + b"\t\x07")
        shown = until(terminal, ">\r\n")
    finally:
        process.kill()
        process.wait(LIMIT)
        os.close(terminal)
    return shown.rpartition("<")[2].removesuffix(">\r\n")


def until(terminal: int, end: str) -> str:
    shown = ""
    while not shown.endswith(end):
        readable, _, _ = select.select([terminal], [], [], LIMIT)
        assert readable, f"bash did not say {end!r} but {shown!r}"
        shown += os.read(terminal, 1).decode(errors="replace")
    return shown
