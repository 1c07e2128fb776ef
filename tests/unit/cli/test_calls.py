from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from .conftest import LIMIT, SCRIPT

if TYPE_CHECKING:
    from .conftest import FakeDaemon, Shell


def test_a_piped_result_is_one_plain_json_document(shell: Shell, daemon: FakeDaemon) -> None:
    shell.env["FORCE_COLOR"] = "1"
    daemon.answers["list"] = lambda _: {"result": {"threads": ["é"]}}

    ran = shell.run("list")

    assert ran.out == '{\n  "threads": [\n    "é"\n  ]\n}\n'
    assert ran.err == ""
    assert "view" not in daemon.requests[0]


def test_the_greeting_says_who_calls(shell: Shell, daemon: FakeDaemon) -> None:
    shell.env["CODEX_THREAD_ID"] = "thread-1"

    shell.run("list")

    assert daemon.greetings[0] | {"manifest": "x"} == {
        "protocol": 1, "client": "cli", "version": "0.1.0", "manifest": "x", "thread_id": "thread-1",
    }  # fmt: skip
    assert daemon.greetings[0]["manifest"]
    assert daemon.requests[0]["schema"] == "hash-list"


def test_a_safe_call_does_not_insist_on_its_plugins(shell: Shell, daemon: FakeDaemon) -> None:
    from .conftest import MANIFEST

    shell.install(MANIFEST, safe=True)

    ran = shell.run("--safe", "list")

    assert ran.code == 0
    assert daemon.greetings[0].get("manifest") is None


def test_a_terminal_shows_the_text_of_the_daemon(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = lambda asked: {"result": {}, "text": f"for {asked['view']}"}

    ran = shell.on_terminal("list")

    assert ran.out == "for {'width': 80, 'color': True, 'text_only': True}\n"


@pytest.mark.parametrize(
    ("args", "env", "color"),
    [
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color=never"], {"FORCE_COLOR": "1"}, False),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
        ([], {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colours_are_a_matter_of_options_then_environment(
    shell: Shell, daemon: FakeDaemon, args: list[str], env: dict[str, str], color: bool
) -> None:
    shell.env |= env

    shell.on_terminal("list", *args)

    assert daemon.requests[0]["view"]["color"] is color


def test_json_on_a_terminal_is_asked_for_by_option_or_environment(
    shell: Shell, daemon: FakeDaemon
) -> None:
    daemon.answers["list"] = lambda _: {"result": {"a": 1}, "text": "text"}

    after = shell.on_terminal("list", "--json")
    before = shell.on_terminal("--json", "list")
    shell.env["DISPATCH_OUTPUT"] = "json"
    environment = shell.on_terminal("list")

    assert after.json == before.json == environment.json == {"a": 1}


def test_human_output_can_be_asked_for_in_a_pipe(shell: Shell, daemon: FakeDaemon) -> None:
    shell.env["DISPATCH_OUTPUT"] = "human"
    daemon.answers["list"] = lambda _: {"result": {}, "text": "for people"}

    assert shell.run("list").out == "for people\n"


def test_a_result_without_text_is_shown_as_json(shell: Shell, daemon: FakeDaemon) -> None:
    assert shell.on_terminal("list").json == {"echo": {}}
    assert daemon.requests


def test_a_remote_error_keeps_its_code_and_exit_status(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.fail("send", "lane_busy", "a turn is running", thread="@x")

    error = shell.run("send", "@x", "hi").error

    assert (error["code"], error["exit_code"], error["retryable"]) == ("lane_busy", 5, True)
    assert error["details"] == {"thread": "@x"}


def test_an_error_on_a_terminal_is_a_red_line_and_a_hint(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.fail("send", "not_found", "nobody\x1b[2J here")

    ran = shell.on_terminal("send", "@x", "hi")

    assert ran.code == 4
    assert ran.out == ""
    assert ran.err == "\x1b[31mdispatch: nobody [2J here\x1b[0m\n\x1b[2mhint: try this\x1b[0m\n"


def test_without_a_daemon_no_start_names_up(shell: Shell) -> None:
    error = shell.run("list", "--no-start").error

    assert error["exit_code"] == 8
    assert "dispatch up" in error["hint"]


def test_a_stale_daemon_with_running_turns_is_not_replaced(
    shell: Shell, daemon: FakeDaemon
) -> None:
    daemon.fail("$hello", "daemon_stale", "other plugins", active_turns=2)

    error = shell.run("list").error

    assert (error["code"], error["exit_code"]) == ("daemon_stale", 8)
    assert error["message"] == "other plugins"


def test_words_become_the_input(shell: Shell, daemon: FakeDaemon) -> None:
    ran = shell.run(
        "new", "--text", "go", "builder", "--sandbox=read-only", "--no-send", "--limit", "-3", "--weight", "0.5",
        "--tag", "a", "--label", "b", "--config", "n=1", "--config", "s=x=y", "--config", 'o={"k": null}',
    )  # fmt: skip

    assert ran.json["echo"] == {
        "name": "builder",
        "text": "go",
        "cwd": str(shell.cwd),
        "sandbox": "read-only",
        "send": False,
        "limit": -3,
        "weight": 0.5,
        "tag": ["a", "b"],
        "config": {"n": 1, "s": "x=y", "o": {"k": None}},
    }
    assert daemon.requests[0]["method"] == "new"


def test_a_field_of_the_op_wins_over_a_global_option(shell: Shell, daemon: FakeDaemon) -> None:
    ran = shell.run("--json", "acme", "deploy", "prod", "--json", "x")

    assert ran.json["echo"] == {"target": "prod", "json": "x"}
    assert daemon.requests


def test_text_can_begin_with_a_dash_after_two_dashes(shell: Shell, daemon: FakeDaemon) -> None:
    assert shell.run("send", "@x", "--", "--json").json["echo"]["text"] == "--json"
    assert daemon.requests


def test_a_dash_reads_the_text_from_stdin(shell: Shell, daemon: FakeDaemon) -> None:
    ran = shell.run("send", "@x", "-", stdin="grüße\n".encode())

    assert ran.json["echo"] == {"thread": "@x", "text": "grüße\n"}
    assert daemon.requests


def test_stdin_that_is_not_utf8_is_refused(shell: Shell) -> None:
    error = shell.run("send", "@x", "-", stdin=b"ab\xff").error

    assert error["exit_code"] == 2
    assert "byte 2 is 0xff" in error["message"]


def test_an_argument_that_is_not_utf8_is_refused(shell: Shell) -> None:
    error = shell.run("send", "@x", b"a\xff").error

    assert error["exit_code"] == 2
    assert "UTF-8" in error["message"]


def test_a_relative_directory_is_resolved_in_the_caller(shell: Shell, daemon: FakeDaemon) -> None:
    (shell.cwd / "sub").mkdir()

    ran = shell.run("new", "b", "--cwd", "sub/../sub")

    assert ran.json["echo"]["cwd"] == str(shell.cwd / "sub")
    assert daemon.requests


@pytest.mark.parametrize(
    ("name", "why"), [("gone", "does not exist"), ("file", "is not a directory")]
)
def test_a_directory_that_cannot_be_one_is_refused(shell: Shell, name: str, why: str) -> None:
    (shell.cwd / "file").touch()

    error = shell.run("new", "b", "--cwd", name).error

    assert error["exit_code"] == 2
    assert f"{shell.cwd / name} {why}" in error["message"]
    assert error["hint"]


def test_destroying_needs_yes_without_a_terminal(shell: Shell, daemon: FakeDaemon) -> None:
    error = shell.run("goal", "clear", "@x").error
    confirmed = shell.run("goal", "clear", "@x", "--yes")

    assert error["exit_code"] == 2
    assert "--yes" in error["hint"]
    assert confirmed.code == 0
    assert len(daemon.requests) == 1


@pytest.mark.parametrize(("keys", "code"), [(b"y\n", 0), (b"n\n", 3), (b"\n", 3), (b"\x04", 3)])
def test_destroying_asks_on_a_terminal(
    shell: Shell, daemon: FakeDaemon, keys: bytes, code: int
) -> None:
    ran = shell.on_terminal("goal", "clear", "@x", "--force", keys=keys)

    assert ran.code == code
    assert "dispatch goal clear --force" in ran.err
    assert "(@x). Continue? [y/N]" in ran.err
    assert len(daemon.requests) == (1 if code == 0 else 0)


@pytest.mark.parametrize("option", [[], ["--no-interactive"]])
def test_what_may_not_be_asked_is_refused(
    shell: Shell, daemon: FakeDaemon, option: list[str]
) -> None:
    error = shell.run("goal", "clear", "@x", *option).error
    on_terminal = shell.on_terminal("goal", "clear", "@x", "--no-interactive", keys=b"y\n")
    confirmed = shell.run("goal", "clear", "@x", "--no-interactive", "--yes")

    assert (error["exit_code"], on_terminal.code, confirmed.code) == (2, 2, 0)
    assert len(daemon.requests) == 1


def test_the_question_names_every_target(shell: Shell, daemon: FakeDaemon) -> None:
    ran = shell.on_terminal("archive", "@a", "@b", *(f"@c{n}" for n in range(10)), keys=b"n\n")

    assert "12 targets: @a, @b, @c0" in ran.err
    assert "@c7 and 2 more" in ran.err
    assert daemon.requests == []


def test_names_are_read_from_stdin_one_a_line(shell: Shell, daemon: FakeDaemon) -> None:
    ran = shell.run("wait", "@a", "-", "@z", stdin=b"@b\n\n  @c\n")

    assert ran.json["echo"]["threads"] == ["@a", "@b", "@c", "@z"]
    assert daemon.requests


def test_no_names_on_stdin_are_not_all_of_them(shell: Shell, daemon: FakeDaemon) -> None:
    error = shell.run("watch", "-", stdin=b"\n").error

    assert error["exit_code"] == 2
    assert error["details"]["field"] == "thread"
    assert daemon.requests == []


def test_stdin_is_read_for_one_thing_only(shell: Shell) -> None:
    error = shell.run("archive", "-", "--note", "-", "--yes", stdin=b"@a\n").error

    assert error["exit_code"] == 2
    assert "THREAD" in error["message"]


def test_files_are_made_absolute_in_the_caller(shell: Shell, daemon: FakeDaemon) -> None:
    for name in ("a.png", "b.png"):
        (shell.cwd / name).touch()

    ran = shell.run(
        "paint", "--image", "a.png", "--image", "./b.png", "--base", str(shell.cwd / "a.png")
    )

    assert ran.json["echo"] == {
        "image": [str(shell.cwd / "a.png"), str(shell.cwd / "b.png")],
        "base": str(shell.cwd / "a.png"),
    }
    assert daemon.requests


@pytest.mark.parametrize(("name", "why"), [("gone", "does not exist"), (".", "is not a file")])
def test_a_file_that_is_none_is_refused(shell: Shell, name: str, why: str) -> None:
    error = shell.run("paint", "--image", name).error

    assert error["exit_code"] == 2
    assert why in error["message"]
    assert error["details"]["field"] == "image"
    assert error["hint"]


def test_an_interrupt_ends_with_130_and_no_traceback(shell: Shell, daemon: FakeDaemon) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [SCRIPT, "wait", "@x"],
        env=shell.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def asked(_: dict[str, object]) -> dict[str, object]:
        os.kill(process.pid, signal.SIGINT)
        os.read(reader, 1)
        return {"result": {}}

    daemon.answers["wait"] = asked
    out, err = process.communicate(timeout=LIMIT)
    os.write(writer, b"x")
    os.close(writer)

    assert (process.returncode, out, err) == (130, "", "")
    daemon.close()
    os.close(reader)


def test_a_reader_that_goes_away_is_no_error(shell: Shell, daemon: FakeDaemon) -> None:
    daemon.answers["list"] = lambda _: {"result": {"rows": ["x" * 1000] * 200}}
    reader, writer = os.pipe()
    os.close(reader)

    with os.fdopen(writer, "wb") as out:
        done = subprocess.run(
            [SCRIPT, "list"],
            env=shell.environ,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
            check=False,
        )

    assert (done.returncode, done.stderr) == (141, b"")
