"""What ``dispatch schema`` says of every way to spell a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Shell


def test_the_schema_of_a_command_needs_no_daemon(shell: Shell) -> None:
    spelled = shell.run("schema", "goal", "set")
    named = shell.run("schema", "goal.set")

    assert spelled.json["schema"]["required"] == ["thread"]
    assert spelled.out == named.out


def test_a_flag_is_answered_with_the_input_it_stands_for(shell: Shell) -> None:
    with_it = shell.run("schema", "list", "--archived").json
    without = shell.run("schema", "new", "--no-send", "--limit", "--sandbox=read-only").json

    assert (with_it["command"], with_it["input"]) == ("list --archived", {"archived": True})
    assert without["input"] == {"send": False}
    assert with_it["name"] == "list"


@pytest.mark.parametrize(
    "spelling",
    [
        "goal clear --yes",
        "watch --follow",
        "list --json",
        "new --label",
        "archive --no-interactive",
    ],
)
def test_every_option_that_can_be_typed_is_known(shell: Shell, spelling: str) -> None:
    assert shell.run("schema", *spelling.split()).code == 0


def test_an_option_that_the_op_does_not_have_is_refused_with_what_may_be_meant(
    shell: Shell,
) -> None:
    error = shell.run("schema", "list", "--archive").error

    assert error["exit_code"] == 2
    assert error["message"] == "dispatch list has no option --archive"
    assert "--archived" in error["details"]["similar"]


@pytest.mark.parametrize("spelling", ["tail --fellow", "lst", "goal", "goal sett"])
def test_what_is_no_spelling_is_refused(shell: Shell, spelling: str) -> None:
    error = shell.run("schema", *spelling.split()).error

    assert error["exit_code"] == 2
    assert error["hint"]


@pytest.mark.parametrize("spelling", ["up", "plugins show", "mcp"])
def test_a_command_that_is_no_op_says_so(shell: Shell, spelling: str) -> None:
    answer = shell.run("schema", *spelling.split()).json
    text = shell.on_terminal("schema", *spelling.split())

    assert (answer["native"], answer["schema"], answer["output_schema"]) == (True, None, None)
    assert "is no op" in text.out
