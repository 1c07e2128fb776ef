from __future__ import annotations

import importlib.metadata
import json
import sys
from typing import TYPE_CHECKING

import pytest

from .conftest import MANIFEST

if TYPE_CHECKING:
    from .conftest import Shell

FORBIDDEN = {
    "anyio", "asyncio", "click", "collections", "dataclasses", "importlib.metadata", "inspect", "logging", "mcp", "pathlib",
    "peewee", "pluggy", "pydantic", "stevedore", "subprocess", "urllib",
}  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["sned"], "send"),
        (["goal", "sett"], "goal set"),
        (["plugin"], "plugins"),
        (["acme", "deplyo"], "acme deploy"),
    ],
)
def test_an_unknown_command_is_answered_with_near_misses(
    shell: Shell, typed: list[str], meant: str
) -> None:
    error = shell.run(*typed).error

    assert error["exit_code"] == 2
    assert error["message"] == f"there is no command {' '.join(typed)!r}"
    assert meant in error["details"]["similar"]
    assert f"dispatch {meant}" in error["hint"]
    assert "1 plugin failed to load: dispatch plugins" in error["hint"]


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["send", "@x"], "dispatch send needs TEXT", "dispatch send --help"),
        (["send", "@x", "hello", "world"], "does not expect 'world'", "quotes"),
        (["list", "--achived"], "dispatch list has no option --achived", "did you mean --archived"),
        (["send", "@x", "-hello"], "no option -hello", "put -- before"),
        (["new", "x", "--limit", "many"], "dispatch new --limit: 'many' is not a whole number", "dispatch new --help"),
        (["new", "x", "--sandbox", "none"], "is not one of read-only, workspace-write", "dispatch new --help"),
        (["new", "x", "--config", "novalue"], "KEY=VALUE", "dispatch new --help"),
        (["new", "x", "--config", "a=1", "--config", "a=2"], "'a' is given twice", "dispatch new --help"),
        (["new", "x", "--limit"], "dispatch new: ", "dispatch new --help"),
        (["list", "--color", "pink"], "--color", "dispatch list --help"),
        (["secret", "op"], "there is no command 'secret'", "dispatch --help"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_says_what_and_what_next(
    shell: Shell, args: list[str], message: str, hint: str
) -> None:
    error = shell.run(*args).error

    assert (error["code"], error["exit_code"]) == ("validation", 2)
    assert message in error["message"]
    assert hint in error["hint"]


def test_on_a_terminal_a_mistake_is_two_lines(shell: Shell) -> None:
    shell.env["NO_COLOR"] = "1"

    ran = shell.on_terminal("sned")

    assert ran.err.splitlines()[0] == "dispatch: there is no command 'sned'"
    assert ran.err.splitlines()[1].startswith("hint: did you mean dispatch send?")


def test_the_version_is_that_of_the_distribution(shell: Shell) -> None:
    version = importlib.metadata.version("codex-dispatch")

    assert shell.run("--version").out == f"dispatch {version}\n"
    assert shell.run("--version", python=("-X", "importtime")).err.count("json") == 0


def test_plugins_are_listed_with_their_state(shell: Shell) -> None:
    shell.env["NO_COLOR"] = "1"

    table = shell.on_terminal("plugins").out.splitlines()
    listed = shell.run("plugins", "list").json["plugins"]

    assert table[0].split() == ["NAME", "STATE", "DISTRIBUTION", "STAGE", "REASON"]
    broken = next(line for line in table if line.startswith("broken"))
    assert broken.split()[:5] == ["broken", "✗", "quarantined", "broken-dispatch", "0.3"]
    assert "load" in broken
    assert [each["name"] for each in listed] == ["threads", "acme", "broken"]


def test_one_plugin_is_shown_with_its_traceback(shell: Shell) -> None:
    shown = shell.on_terminal("plugins", "show", "broken").out
    error = shell.run("plugins", "show", "brokn").error

    assert "Traceback: line 1\n  line 2" in shown
    assert error["exit_code"] == 4
    assert "broken" in error["hint"]


def test_recovery_commands_work_without_a_manifest(shell: Shell) -> None:
    (shell.home / "config.toml").write_text("[plugins\n")

    down = shell.run("down")
    plugins = shell.run("plugins")
    help_ = shell.run("--help")
    failed = shell.run("list")

    assert down.json == {"status": "not_running", "stopped": False, "pid": None}
    assert plugins.code == 0
    assert "config.toml" in plugins.json["error"]["message"]
    assert help_.code == 0
    assert failed.error["message"] == plugins.json["error"]["message"]


def test_another_surface_is_handed_its_own_command_line(shell: Shell) -> None:
    (shell.home / "elsewhere.py").write_text(
        "def main(argv, manifest):\n    print(argv, len(manifest['ops']))\n    return 7\n"
    )
    surface = {"name": "web", "summary": "Web.", "process": "elsewhere:main", "session": None, "plugin": "web",
               "dist": "web-dispatch"}  # fmt: skip
    shell.install(MANIFEST | {"surfaces": [*MANIFEST["surfaces"], surface]})
    shell.env["PYTHONPATH"] = str(shell.home)

    ran = shell.run("--color", "never", "web", "--port", "1")
    help_ = shell.run("--help").out

    assert (ran.code, ran.out) == (
        7,
        f"['--color', 'never', 'web', '--port', '1'] {len(MANIFEST['ops'])}\n",
    )
    assert "From web-dispatch:\n  web  Web\n" in help_


def test_a_surface_that_cannot_be_imported_is_its_plugins_fault(shell: Shell) -> None:
    (shell.home / "torn.py").write_text("import nowhere_to_be_found\n")
    surface = {"name": "web", "summary": "Web.", "process": "torn:main", "session": None, "plugin": "web",
               "dist": "web-dispatch"}  # fmt: skip
    shell.install(MANIFEST | {"surfaces": [*MANIFEST["surfaces"], surface]})
    shell.env["PYTHONPATH"] = str(shell.home)

    ran = shell.run("web")

    assert (ran.code, ran.out) == (13, "")
    assert "plugin web (web-dispatch)" in ran.err
    assert "nowhere_to_be_found" in ran.err
    assert shell.run("--help").code == 0


def test_a_mistake_of_ours_is_an_error_object_and_debug_shows_where(shell: Shell) -> None:
    broken = json.loads(json.dumps(MANIFEST))
    next(op for op in broken["ops"] if op["name"] == "list")["schema"] = None
    shell.install(broken)

    error = shell.run("list").error
    debug = shell.run("list", "--debug")

    assert (error["code"], error["exit_code"]) == ("internal", 1)
    assert "--debug" in error["hint"]
    assert "Traceback" in debug.err


@pytest.mark.usefixtures("daemon")
def test_a_plain_call_imports_next_to_nothing(shell: Shell) -> None:
    # -S: what site imports for this environment (an editable install, say) is no doing of ours.
    bare = set(_imported(shell.run("--version", python=("-X", "importtime")).err))

    ran = shell.run("list", python=("-X", "importtime"))

    assert ran.code == 0
    assert "dispatch_plugins.cli.call" in _imported(ran.err)
    assert FORBIDDEN.isdisjoint(_imported(ran.err) - bare)


@pytest.mark.parametrize("words", [("--help",), ("goal", "-h"), ("new", "--help")])
def test_plain_help_imports_next_to_nothing(shell: Shell, words: tuple[str, ...]) -> None:
    bare = set(_imported(shell.run("--version", python=("-X", "importtime")).err))

    ran = shell.run(*words, python=("-X", "importtime"))

    assert ran.out.startswith("Usage: dispatch")
    assert "dispatch_plugins.cli.help" in _imported(ran.err)
    assert (FORBIDDEN | {"json", "re", "typing"}).isdisjoint(_imported(ran.err) - bare)


def test_other_help_imports_click_and_no_plugin_machinery(shell: Shell) -> None:
    ran = shell.run("help", "new", python=("-X", "importtime"))

    assert "click" in _imported(ran.err)
    assert {"anyio", "asyncio", "importlib.metadata", "logging", "mcp", "peewee", "pluggy", "pydantic", "stevedore",
            "subprocess", "socket"}.isdisjoint(_imported(ran.err))  # fmt: skip


def _imported(report: str) -> set[str]:
    return {
        line.rpartition("|")[2].strip()
        for line in report.splitlines()
        if line.startswith("import time:")
    }


def test_the_boot_module_runs_by_itself(shell: Shell) -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, "-P", "-m", "dispatch_core.boot", "goal", "--help"],
        env=shell.environ, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip

    assert done.stdout.startswith("Usage: dispatch goal COMMAND")
