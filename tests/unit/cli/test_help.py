from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.errors import PROJECTIONS
from dispatch_plugins.cli import command_line as click_line
from dispatch_plugins.cli.app import App
from dispatch_plugins.cli.catalog import command_line
from dispatch_plugins.cli.invocation import Invocation
from dispatch_plugins.cli.names import NATIVE

if TYPE_CHECKING:
    from dispatch_plugins.cli import fast

    from .conftest import Shell

from .conftest import MANIFEST, OPS
from .conftest import op as make_op


def test_the_root_help_lists_every_command_in_its_section(shell: Shell) -> None:
    help_ = shell.run("--help")

    assert help_.code == 0
    assert help_.err == ""
    titles = [
        line for line in help_.out.splitlines() if line.endswith(":") and not line.startswith(" ")
    ]
    assert titles == [
        "Examples:", "Threads:", "Messages:", "Goals:", "Daemon:", "From acme-dispatch:", "Plugins:", "Options:",
    ]  # fmt: skip
    sections = _sections(help_.out)
    assert [line.split("  ")[0] for line in sections["Goals"]] == ["goal clear", "goal set"]
    assert sections["From acme-dispatch"] == ["acme deploy  Do acme.deploy in one go"]
    own = [name for name, (_, _, section) in NATIVE.items() if section == "Daemon"]
    assert [line.split()[0] for line in sections["Daemon"]] == ["daemon", "mcp", *own]
    assert "secret op" not in help_.out


def test_no_arguments_and_h_show_the_same_help(shell: Shell) -> None:
    helps = {shell.run(*args).out for args in ((), ("-h",), ("--help",), ("help",))}

    assert len(helps) == 1


def test_the_help_of_a_command_begins_with_examples(shell: Shell) -> None:
    help_ = shell.run("new", "--help").out

    lines = help_.splitlines()
    assert lines[0] == "Usage: dispatch new [OPTIONS] NAME [TEXT]"
    assert lines[2] == "  Do new in one go."
    assert lines[4] == "Examples:"
    assert "# all" in lines[5]
    assert "fails with validation" not in help_  # what does not work is no example to copy
    assert "[default: yes]" in help_
    assert "[default: 20]" in help_
    assert "the current directory" in help_
    assert "--tag, --label TEXT" in help_
    assert "--secret" not in help_


def test_a_long_option_name_is_never_cut(shell: Shell) -> None:
    shell.env["COLUMNS"] = "30"

    help_ = shell.run("new", "--help").out

    assert "--approval-policy-of-the-new-thread TEXT\n" in help_


def test_a_third_partys_command_names_its_distribution(shell: Shell) -> None:
    help_ = shell.run("acme", "deploy", "--help").out

    assert "(from acme-dispatch)" in help_


def test_a_group_explains_its_commands(shell: Shell) -> None:
    help_ = shell.run("goal", "-h")

    assert help_.code == 0
    assert _sections(help_.out)["Commands"] == [
        "clear  Do goal.clear in one go",
        "set    Do goal.set in one go",
    ]


@pytest.mark.parametrize("words", ["goal", "goal set", "new", "watch", "archive", "acme deploy"])
def test_help_takes_the_words_of_a_command(shell: Shell, words: str) -> None:
    assert shell.run("help", *words.split()).out == shell.run(*words.split(), "--help").out


@pytest.mark.parametrize(
    "words", [["new", "-h"], ["new", "--no-start", "--help"], ["--json", "new", "-h"]]
)
def test_help_is_the_same_in_every_spelling(shell: Shell, words: list[str]) -> None:
    assert shell.run(*words).out == shell.run("new", "--help").out


def test_an_op_that_has_an_option_called_help_keeps_it(shell: Shell) -> None:
    shell.install({**MANIFEST, "ops": [make_op("pick", "thread", {"help": {"type": "string"}})]})

    assert "--help TEXT" in shell.run("pick", "-h").out
    assert shell.run("pick", "--help").error["code"] == "validation"


def test_a_group_without_a_command_is_refused_naming_its_commands(shell: Shell) -> None:
    error = shell.run("goal").error

    assert error["exit_code"] == 2
    assert "clear, set" in error["message"]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op["name"])
def test_the_shown_command_line_of_an_example_means_its_input(op: dict[str, Any]) -> None:
    if "cli" in op["hidden_from"]:
        return
    seen: list[fast.Plan] = []
    inputs = [example["input"] for example in op["examples"]]
    inputs = [{**dict.fromkeys(op["schema"]["required"], "x"), **given} for given in inputs]
    if op["name"] in ("wait", "archive"):
        name = op["schema"]["required"][0]
        inputs = [{name: ["@a", "-b", "@c"]}]

    for given in inputs:
        words = shlex.split(command_line(op, given))[1:]
        app = App(Invocation(MANIFEST, {}), execute=lambda _, plan, **__: seen.append(plan) or 0)
        click_line.run(app, [*words, "--yes"] if op["intent"] == "destroy" else words)

    assert [(plan.op["name"], plan.values) for plan in seen] == [
        (op["name"], given) for given in inputs
    ]


def test_the_exit_codes_are_explained_with_their_error_codes(shell: Shell) -> None:
    table = shell.run("help", "exit-codes").json["exit_codes"]

    by_number = {row["exit_code"]: row for row in table}
    assert {code["code"] for row in table for code in row["codes"]} == set(PROJECTIONS)
    assert {"validation", "ambiguous"} <= {code["code"] for code in by_number[2]["codes"]}
    assert {"active_writer", "unsupported"} <= {code["code"] for code in by_number[8]["codes"]}
    assert all(row["meaning"] for row in table)


def test_the_root_help_opens_with_what_a_newcomer_wants_to_do(shell: Shell) -> None:
    examples = _sections(shell.run("--help").out)["Examples"]

    assert examples[0].startswith("dispatch new tester")
    assert [line.split()[1] for line in examples] == ["new", "send", "goal"]


def test_too_many_choices_stand_in_the_description(shell: Shell) -> None:
    words = [f"choice{number}ofmany" for number in range(8)]
    schema = {"type": "string", "enum": words, "description": "One of many."}
    shell.install({**MANIFEST, "ops": [make_op("pick", "thread", {"one": schema})]})

    help_ = shell.run("pick", "--help").out

    assert "--one WORD" in help_
    assert all(word in help_ for word in words)


def test_help_says_what_an_op_has_for_what_it_is(shell: Shell) -> None:
    assert "--follow / --no-follow" in shell.run("watch", "--help").out
    assert "[default: no]" in shell.run("tail", "--help").out
    assert "--no-interactive" in shell.run("archive", "--help").out
    assert "--follow" not in shell.run("list", "--help").out


def _sections(help_: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    title = ""
    for line in help_.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line[:-1]
        elif line.startswith("  "):
            sections.setdefault(title, []).append(line.strip())
    return sections
