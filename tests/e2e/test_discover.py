"""Threads that others made: list them, attach them, read them; on the real Codex."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from codex_cli_bin import bundled_codex_path

from dispatch_core.testing.daemon import temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e

DEADLINE = 60.0  # seconds for one codex exec


def codex_exec(dispatch: Dispatch, prompt: str, cwd: Path) -> None:
    """Have somebody else make a thread with one finished turn: codex itself, without a daemon."""
    done = subprocess.run(
        [str(bundled_codex_path()), "exec", "--skip-git-repo-check", prompt],
        env={**dispatch.environment, "CODEX_HOME": str(dispatch.home / "offline" / "codex")},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def unmanaged(dispatch: Dispatch, *words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dispatch.json("list", "--unmanaged", *words)["threads"]
    return rows


@pytest.fixture
def others(tmp_path: Path) -> Iterator[tuple[Dispatch, Path]]:
    """A home with one managed thread and two that codex exec made, in a repository and beside it."""
    inside = tmp_path / "repo" / "src"
    inside.mkdir(parents=True)
    (tmp_path / "repo" / ".git").mkdir()
    (tmp_path / "repo" / ".git" / "HEAD").touch()
    with temporary_home() as dispatch:
        dispatch.json("up")
        dispatch.json("new", "mine", "Say hello", "--cwd", str(tmp_path))
        dispatch.json("wait", "@mine", "--timeout", "60")
        codex_exec(dispatch, "the first haystack", inside)
        codex_exec(dispatch, "the second haystack", tmp_path)
        yield dispatch, tmp_path


def test_threads_of_others_are_listed_attached_and_read_but_never_written(
    others: tuple[Dispatch, Path],
) -> None:
    dispatch, root = others

    rows = unmanaged(dispatch)
    pages = dispatch.json("list", "--unmanaged", "--limit", "1")
    rest = unmanaged(dispatch, "--limit", "1", "--after", pages["next"])
    in_repo = unmanaged(dispatch, "--repo", str(root / "repo"))
    relative = dispatch.json("list", "--unmanaged", "--dir", ".", cwd=root / "repo" / "src")

    assert [row["preview"] for row in rows] == ["the second haystack", "the first haystack"]
    assert {row["origin"] for row in rows} == {"exec"}
    assert [(row["thread"]["managed"], row["thread"]["ref"]) for row in rows] == [(False, None)] * 2
    assert [row["thread"]["id"] for row in [*pages["threads"], *rest]] == [
        row["thread"]["id"] for row in rows
    ]
    assert [row["preview"] for row in in_repo] == ["the first haystack"]
    assert [row["preview"] for row in relative["threads"]] == ["the first haystack"]

    first = rows[1]["thread"]["id"]
    refused = dispatch.error("get", first)
    synced = dispatch.json("sync", first)
    assert f"dispatch attach {first}" in refused["hint"]
    assert (synced["threads"][0]["managed"], len(unmanaged(dispatch))) == (False, 2)

    attached = dispatch.json("attach", first, "--sync")["attached"][0]
    again = dispatch.json("attach", first, "@mine")["attached"]
    assert (attached["new"], attached["thread"]["source"]) == (True, "attached")
    assert attached["sync"]["state"] in ("partial", "complete")
    assert [(item["new"], item["thread"]["managed"]) for item in again] == [(False, True)] * 2
    assert [row["preview"] for row in unmanaged(dispatch)] == ["the second haystack"]

    ref = attached["thread"]["ref"]
    told = dispatch.json("tail", ref)["items"]
    shown = dispatch.json("get", ref, "--items", "1")
    denied = dispatch.error("send", ref, "hi")
    assert [item["text"] for item in told] == [
        "the first haystack",
        "Offline reply: the first haystack",
    ]
    assert (shown["writable"], Path(shown["path"]).name[:8]) == (False, "rollout-")
    assert shown["items"][0]["text"] == "Offline reply: the first haystack"
    assert denied["code"] == "authority"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("attach", "01a00000"), "not_found"),
        (("attach", "@nobody"), "not_found"),
        (("attach", "01a00000-0000-7000-8000-000000000000"), "not_found"),
        (("attach",), "validation"),
        (("sync", "@nobody"), "not_found"),
        (("sync", "01a00000-0000-7000-8000-000000000000"), "not_found"),
        (("list", "--repo", "/"), "validation"),
        (("list", "--directory", "/no/such"), "validation"),
        (("list", "--after", "x"), "validation"),
        (("list", "--status", "asleep"), "validation"),
    ],
)
def test_what_cannot_be_found_says_what_to_type(
    shared: Dispatch, words: tuple[str, ...], code: str
) -> None:
    error = shared.error(*words)

    assert error["code"] == code
    assert error["hint"]
    assert shared.json("list", "--archived")["threads"] == []


def test_several_are_attached_each_by_itself(others: tuple[Dispatch, Path]) -> None:
    dispatch, _ = others
    ids = [row["thread"]["id"] for row in unmanaged(dispatch)]

    error = dispatch.error("attach", "01a00000", *ids)

    assert (error["code"], error["exit_code"]) == ("partial", 12)
    assert [bool(result["error"]) for result in error["details"]["results"]] == [False, False, True]
    assert unmanaged(dispatch) == []
