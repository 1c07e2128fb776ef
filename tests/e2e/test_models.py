"""Models and permission profiles of the real Codex, and of its absence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dispatch_core.testing.daemon import eventually, temporary_home

if TYPE_CHECKING:
    from pathlib import Path

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e


def test_the_models_of_codex_are_listed_with_what_is_configured(shared: Dispatch) -> None:
    found = shared.json("models")

    default = next(model for model in found["models"] if model["default"])
    assert (found["catalog_state"], found["source"]) == ("ready", "app-server")
    assert default["id"] == found["configured"]["model"] == "offline-model"
    assert default["default_effort"] in [effort["id"] for effort in default["efforts"]]
    assert "text" in default["input_modalities"]


def test_without_refresh_the_last_answer_is_shown_with_its_age(shared: Dispatch) -> None:
    asked = shared.json("models")

    kept = shared.json("models", "--no-refresh")

    assert (kept["source"], kept["refreshed_at"]) == ("cache", asked["refreshed_at"])
    assert kept["models"] == asked["models"]


def test_nothing_was_asked_yet(dispatch: Dispatch) -> None:
    found = dispatch.json("models", "--no-refresh")

    assert (found["catalog_state"], found["models"]) == ("empty", [])
    assert found["refreshed_at"] is None
    assert "--no-refresh" in found["hint"]


def test_the_cache_stands_in_for_a_codex_that_is_gone(dispatch: Dispatch) -> None:
    asked = dispatch.json("models")
    dispatch.json("permissions", "--cwd", "/")
    dispatch.json("down")
    with temporary_home() as nowhere:
        broken = type(dispatch)(dispatch.home, {"DISPATCH_CODEX_BIN": str(nowhere.home / "codex")})
        broken.json("up")
        eventually(lambda: broken.json("daemon", "status")["state"] == "degraded", "degraded")

        models = broken.json("models")
        profiles = broken.json("permissions", "--cwd", "/")
        never_asked = broken.error("permissions", "--cwd", "/tmp")

    assert (models["source"], models["models"]) == ("cache", asked["models"])
    assert "codex" in models["warning"].lower()
    assert profiles["source"] == "cache"
    assert never_asked["code"] == "codex_unavailable"


def test_the_permission_profiles_of_a_directory(shared: Dispatch, tmp_path: Path) -> None:
    found = shared.json("permissions", cwd=tmp_path)

    assert (found["catalog_state"], found["cwd"]) == ("ready", str(tmp_path))
    assert ":workspace" in [profile["id"] for profile in found["profiles"]]
    assert all(profile["built_in"] for profile in found["profiles"])


@pytest.mark.parametrize("words", [("models", "--hidden"), ("permissions", "--disallowed")])
def test_a_table_fits_eighty_columns(shared: Dispatch, words: tuple[str, ...]) -> None:
    people = type(shared)(shared.home, {"DISPATCH_OUTPUT": "human", "COLUMNS": "80"})

    done = people.run(*words, "--cwd", "/") if words[0] == "permissions" else people.run(*words)

    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "offline-mini" in done.stdout or ":read-only" in done.stdout
