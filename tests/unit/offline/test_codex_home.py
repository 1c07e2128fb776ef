"""The Codex home of offline mode: private, whole, and safe to write again."""

import stat
import tomllib
from pathlib import Path

import pytest

from dispatch_core.errors import ValidationFailed
from dispatch_core.offline.codex_home import offline_environ, write_codex_home

URL = "http://127.0.0.1:4711/v1"


def test_the_home_is_private_and_names_its_catalog(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "codex"

    write_codex_home(home, URL)

    config = tomllib.loads((home / "config.toml").read_text())
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in home.iterdir()} == {0o600}
    assert config["model_providers"][config["model_provider"]]["base_url"] == URL
    assert config["model_catalog_json"] == str(home / "models.json")
    assert (config["approval_policy"], config["sandbox_mode"]) == ("on-request", "workspace-write")


def test_writing_again_keeps_the_sessions_and_touches_nothing(tmp_path: Path) -> None:
    write_codex_home(tmp_path, URL)
    session = tmp_path / "sessions" / "rollout.jsonl"
    session.parent.mkdir()
    session.write_text("{}\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    write_codex_home(tmp_path, URL)

    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert session.read_text() == "{}\n"


def test_another_address_replaces_the_configuration_and_leaves_no_rubbish(tmp_path: Path) -> None:
    write_codex_home(tmp_path, URL)

    write_codex_home(tmp_path, "http://127.0.0.1:4712/v1")

    assert "4712" in (tmp_path / "config.toml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "models.json"]


def test_a_home_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    write_codex_home(tmp_path, URL)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_configuration_that_is_not_ours_is_refused_and_kept(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('model = "mine"\n')
    tmp_path.chmod(0o755)

    with pytest.raises(ValidationFailed, match="was not written by dispatch") as caught:
        write_codex_home(tmp_path, URL)

    assert caught.value.hint
    assert config.read_text() == 'model = "mine"\n'
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "del\x7f", "tab\there", "漢字 🙂"])
def test_an_odd_path_is_written_as_valid_toml(tmp_path: Path, name: str) -> None:
    home = tmp_path / name

    write_codex_home(home, URL)

    config = tomllib.loads((home / "config.toml").read_text())
    assert config["model_catalog_json"] == str(home / "models.json")


def test_a_path_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "\udcff"

    with pytest.raises(ValidationFailed, match="not valid Unicode"):
        write_codex_home(home, URL)


def test_loopback_joins_the_hosts_that_are_reached_without_a_proxy(tmp_path: Path) -> None:
    inherited = {"PATH": "/bin", "HTTP_PROXY": "http://proxy", "no_proxy": "intra.example"}

    environ = offline_environ(tmp_path, inherited)

    assert environ == {
        **inherited,
        "CODEX_HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1,intra.example",
        "no_proxy": "127.0.0.1,intra.example",
    }
