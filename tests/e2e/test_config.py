"""``dispatch config``: without a daemon, on real files, as a person and a script use it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from dispatch_core.testing.daemon import Dispatch, temporary_home

pytestmark = pytest.mark.e2e

USER = '[defaults]\nmodel = "user-model"\n[daemon]\ngrace = 5\n'
PROJECT = '[defaults]\nmodel = "project-model"\ntext = "Hi"\n'


@pytest.fixture
def project(dispatch: Dispatch, tmp_path: Path) -> Path:
    (dispatch.home / "config.toml").write_text(USER)
    (tmp_path / ".dispatch").mkdir()
    (tmp_path / ".dispatch" / "config.toml").write_text(PROJECT)
    return tmp_path.resolve()


def config_of(project: Path) -> Path:
    return project / ".dispatch" / "config.toml"


def answer(dispatch: Dispatch, words: list[str], said: str, cwd: Path) -> tuple[int, str]:
    """Run a command on a terminal, type one line, and return its exit status and what the terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        dispatch.argv(*words),
        env=dispatch.environment,
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, f"{said}\n".encode())
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # the terminal is closed once nobody has it open
        pass
    os.close(ours)
    return process.wait(timeout=60), shown.decode()


def test_no_command_starts_the_daemon(dispatch: Dispatch, project: Path) -> None:
    for words in (["path"], ["get", "model"], ["explain"], ["schema"], ["trust", "--list"]):
        dispatch.json("config", *words, cwd=project)

    assert not Path(dispatch.socket).exists()
    assert dispatch.error("daemon", "status", "--no-start")["code"] == "daemon_unreachable"


def test_the_group_alone_names_its_commands(dispatch: Dispatch) -> None:
    error = dispatch.error("config")

    assert "explain, get, path, schema, trust" in error["message"]


def test_path_shows_both_files_and_the_trust(dispatch: Dispatch, project: Path) -> None:
    found = dispatch.json("config", "path", cwd=project)

    assert found["home"] == str(dispatch.home)
    assert found["environment"] == {"DISPATCH_HOME": str(dispatch.home)}
    assert [(f["kind"], f["path"], f["exists"], f["trust"]) for f in found["files"]] == [
        ("user", str(dispatch.home / "config.toml"), True, None),
        ("project", str(config_of(project)), True, "untrusted"),
    ]


def test_get_and_explain_agree_with_new(dispatch: Dispatch, project: Path) -> None:
    got = dispatch.json("config", "get", "model", cwd=project)
    [explained] = dispatch.json("config", "explain", "model", cwd=project)["keys"]
    elsewhere = dispatch.json("config", "get", "model", "--cwd", "/", cwd=project)
    grace = dispatch.json("config", "get", "daemon.grace", cwd=project)

    assert (got["key"], got["value"]) == ("defaults.model", "project-model")
    assert [layer["fate"] for layer in explained["layers"]] == ["overridden", "used"]
    assert elsewhere["value"] == "user-model"
    assert grace["value"] == 5.0


def test_an_unknown_key_is_refused_with_the_near_one(dispatch: Dispatch, project: Path) -> None:
    error = dispatch.error("config", "get", "modle", cwd=project)

    assert error["code"] == "not_found"
    assert "did you mean model" in error["hint"]


def test_a_broken_file_is_named_with_its_key(dispatch: Dispatch, project: Path) -> None:
    config_of(project).write_text('[defaults]\nmodle = "x"\n')

    error = dispatch.error("config", "explain", cwd=project)

    assert error["code"] == "validation"
    assert error["details"]["key"] == "defaults.modle"
    assert str(config_of(project)) in error["message"]


def test_trust_needs_a_yes_without_a_terminal(dispatch: Dispatch, project: Path) -> None:
    error = dispatch.error("config", "trust", cwd=project)
    given = dispatch.json("config", "trust", "--yes", cwd=project)
    listed = dispatch.json("config", "trust", "--list")["trusted"]

    assert "--yes" in error["hint"]
    assert (given["changed"], given["keys"], given["never"]) == (True, ["defaults.text"], [])
    assert '+text = "Hi"' in given["diff"]
    assert [(row["path"], row["state"]) for row in listed] == [(str(config_of(project)), "trusted")]


def test_trust_ends_with_a_change_and_with_revoke(dispatch: Dispatch, project: Path) -> None:
    dispatch.json("config", "trust", "--yes", cwd=project)
    counted = dispatch.json("config", "get", "text", cwd=project)

    config_of(project).write_text(PROJECT + "#")
    changed = dispatch.json("config", "get", "text", cwd=project)
    state = dispatch.json("config", "path", cwd=project)["files"][1]["trust"]
    again = dispatch.json("config", "trust", "--yes", cwd=project)
    revoked = dispatch.json("config", "trust", "--revoke", cwd=project)

    assert (counted["value"], changed["value"], state) == ("Hi", None, "changed")
    assert [line for line in again["diff"].splitlines() if line.startswith(("+#", "+text"))] == [
        "+#"
    ]
    assert revoked["trusted"] is False
    assert dispatch.error("config", "trust", "--revoke", cwd=project)["code"] == "not_found"


@pytest.mark.parametrize(("said", "status", "trusted"), [("y", 0, 1), ("n", 3, 0), ("", 3, 0)])
def test_a_person_is_shown_the_content_and_asked(
    dispatch: Dispatch, project: Path, said: str, status: int, trusted: int
) -> None:
    config_of(project).write_text('[defaults]\ntext = "Hi \\u001b"\n# \u202e hidden\n')

    code, shown = answer(dispatch, ["config", "trust"], said, project)

    assert code == status
    assert '+text = "Hi' in shown
    assert "\\u202e hidden" in shown
    assert "trust lets count: defaults.text" in shown
    assert len(dispatch.json("config", "trust", "--list")["trusted"]) == trusted


def test_a_thread_cannot_trust(project: Path) -> None:
    with temporary_home(CODEX_THREAD_ID="01a202e8-8226-71d1-9e90-ec846e3f235f") as agent:
        error = agent.error("config", "trust", "--yes", cwd=project)

        assert error["code"] == "authority"
        assert agent.json("config", "trust", "--list")["trusted"] == []


def test_people_get_tables_within_eighty_columns(dispatch: Dispatch, project: Path) -> None:
    person = Dispatch(dispatch.home, {"DISPATCH_OUTPUT": "human", "COLUMNS": "80"})

    everything = person.run("config", "explain", cwd=project).stdout
    value = person.run("config", "get", "model", cwd=project).stdout

    table = everything.partition("\nuser config:")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "defaults.model" in table
    assert "project config" in table
    assert value == "project-model\n"


def test_the_schema_describes_the_files_in_use(dispatch: Dispatch, project: Path) -> None:
    import tomllib

    import jsonschema

    schema = dispatch.json("config", "schema")

    jsonschema.Draft202012Validator.check_schema(schema)
    for text in (USER, PROJECT):
        jsonschema.Draft202012Validator(schema).validate(tomllib.loads(text))
    assert json.dumps(schema).count('"x-project-class"') > 30
