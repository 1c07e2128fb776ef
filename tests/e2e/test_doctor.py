"""The doctor on a real home, with a real Codex: what it finds, what it mends, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import Dispatch, eventually, temporary_home

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.e2e

QUICK = "--no-app-server"


def checks(dispatch: Dispatch, *words: str, **options: Any) -> dict[str, dict[str, Any]]:
    """The checks by name, and the whole report under ""."""
    done = dispatch.run("doctor", *words, **options)
    assert done.returncode in (0, 8), done.stderr
    report = json.loads(done.stdout)
    assert (report["status"] == "fail") == (done.returncode == 8)
    return {"": report, **{check["name"]: check for check in report["checks"]}}


def test_a_healthy_home_without_a_daemon_has_no_failure_and_stays_without_one(
    dispatch: Dispatch,
) -> None:
    found = checks(dispatch)

    failed = [name for name, check in found.items() if name and check["status"] == "fail"]
    assert failed == []
    assert found["app_server"]["status"] == "ok", found["app_server"]
    assert found["codex_binary"]["data"]["source"] in ("wheel", "PATH", "DISPATCH_CODEX_BIN")
    assert found["daemon"]["status"] == "ok"
    assert not os.path.lexists(dispatch.socket)


def test_a_running_daemon_is_asked(dispatch: Dispatch) -> None:
    dispatch.json("new", "x", "--no-send", "--cwd", "/")

    found = checks(dispatch, QUICK)

    assert found["daemon"]["data"]["pid"] == dispatch.pid()
    assert found["daemon"]["status"] == "ok", found["daemon"]
    assert found["registry"]["status"] == "ok", found["registry"]
    assert found["log"]["status"] == "ok", found["log"]
    assert found["app_server"]["status"] == "warn"


def test_every_check_that_is_not_ok_says_what_to_do(dispatch: Dispatch) -> None:
    (dispatch.home / "config.toml").write_text("[daemon]\ngrace = -1\n")
    env = {"DISPATCH_CODEX_BIN": "/no/such/codex", "PATH": "/nowhere", "DISPATCH_OFFLINE": "0"}

    found = checks(Dispatch(dispatch.home, env))

    wrong = [check for name, check in found.items() if name and check["status"] != "ok"]
    assert {check["name"] for check in wrong} >= {"path", "config", "codex_binary", "codex_auth"}
    assert [check["name"] for check in wrong if not check["recovery"]] == []


def test_a_stale_socket_is_found_and_removed(dispatch: Dispatch) -> None:
    dispatch.json("up")
    daemon = dispatch.pid()
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: checks(dispatch, QUICK)["daemon"]["status"] != "fail", "its lock is free")

    found = checks(dispatch, QUICK)["daemon"]
    mended = checks(dispatch, QUICK, "--fix")["daemon"]

    assert (found["status"], found["data"]["socket_exists"]) == ("warn", True)
    assert mended["status"] == "ok"
    assert dispatch.socket in mended["fixed"][0]
    assert not os.path.lexists(dispatch.socket)


def test_the_socket_of_a_daemon_that_lives_is_never_removed(dispatch: Dispatch) -> None:
    dispatch.json("up")
    daemon = dispatch.pid()
    os.kill(daemon, signal.SIGSTOP)
    try:
        found = checks(dispatch, QUICK, "--fix", "--timeout", "0.3")["daemon"]
    finally:
        os.kill(daemon, signal.SIGCONT)

    assert found["status"] == "fail"
    assert found["fixed"] == []
    assert dispatch.pid() == daemon


def test_the_socket_of_a_daemon_of_another_home_is_never_removed(dispatch: Dispatch) -> None:
    path = str(dispatch.home / "shared.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(4)

        elsewhere = Dispatch(dispatch.home, {"DISPATCH_SOCKET": path})
        found = checks(elsewhere, QUICK, "--fix", "--timeout", "0.3")["daemon"]

    assert (found["status"], found["fixed"]) == ("fail", [])
    assert os.path.lexists(path)


def test_a_file_in_the_place_of_the_socket_is_never_removed(dispatch: Dispatch) -> None:
    path = dispatch.home / "notes.txt"
    path.write_text("not yours")

    elsewhere = Dispatch(dispatch.home, {"DISPATCH_SOCKET": str(path)})
    found = checks(elsewhere, QUICK, "--fix")["daemon"]

    assert (found["status"], found["fixed"]) == ("fail", [])
    assert path.read_text() == "not yours"


def test_what_others_may_read_is_made_private(dispatch: Dispatch) -> None:
    dispatch.json("up")
    dispatch.home.chmod(0o755)
    (dispatch.home / "dispatchd.log").chmod(0o644)

    found = checks(dispatch, QUICK)["home"]
    mended = checks(dispatch, QUICK, "--fix")

    assert found["status"] == "warn"
    assert str(dispatch.home / "dispatchd.log") in found["data"]["loose"]
    assert mended["home"]["status"] == "ok"
    assert mended[""]["fixed"] == mended["home"]["fixed"] != []
    assert dispatch.home.stat().st_mode & 0o077 == 0


def test_a_damaged_registry_is_named_and_left_as_it_is(dispatch: Dispatch) -> None:
    registry = dispatch.home / "offline" / "registry.db"
    dispatch.json("new", "x", "--no-send", "--cwd", "/")
    dispatch.json("down")
    registry.write_bytes(b"not a database at all" * 400)

    found = checks(dispatch, QUICK, "--fix")["registry"]

    assert found["status"] == "fail"
    assert str(registry) in found["summary"]
    assert registry.read_bytes().startswith(b"not a database")


def test_a_codex_that_is_too_old_and_one_that_does_not_start_are_told_apart(
    tmp_path: Path,
) -> None:
    old, broken = tmp_path / "old", tmp_path / "broken"
    old.write_text("#!/bin/sh\necho codex-cli 0.1.2\n")
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo codex-cli 0.163.0; exit 0; }\necho no licence >&2\nexit 7\n'
    )
    for program in (old, broken):
        program.chmod(0o755)

    with temporary_home(DISPATCH_CODEX_BIN=str(old)) as dispatch:
        too_old = checks(dispatch, QUICK)["codex_binary"]
    with temporary_home(DISPATCH_CODEX_BIN=str(broken)) as dispatch:
        unstartable = checks(dispatch)

    assert too_old["status"] == "fail"
    assert "0.1.2" in too_old["summary"]
    assert unstartable["codex_binary"]["status"] == "ok"
    assert unstartable["app_server"]["status"] == "fail"
    assert "no licence" in unstartable["app_server"]["detail"]


def test_a_codex_that_never_answers_is_given_up(tmp_path: Path) -> None:
    silent = tmp_path / "codex"
    silent.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && { echo codex-cli 0.163.0; exit 0; }\nexec sleep 600\n'
    )
    silent.chmod(0o755)

    with temporary_home(DISPATCH_CODEX_BIN=str(silent)) as dispatch:
        found = checks(dispatch, "--timeout", "0.5")["app_server"]

    assert found["status"] == "fail"
    assert "0.5 s" in found["summary"]


def test_a_socket_on_which_nobody_listens_is_a_warning(dispatch: Dispatch) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(dispatch.socket)

        found = checks(dispatch, QUICK)

    assert found["daemon"]["status"] == "warn"


def test_a_broken_configuration_is_said_once_and_the_rest_is_still_looked_at(
    dispatch: Dispatch,
) -> None:
    (dispatch.home / "config.toml").write_text("this is [not TOML\n")

    found = checks(dispatch, QUICK)

    assert found["manifest"]["status"] == found["config"]["status"] == "fail"
    assert found["plugins"]["status"] == found["registry"]["status"] == "warn"
    assert found["home"]["status"] == found["disk"]["status"] == "ok"
    assert "Traceback" not in str(found)


def test_a_list_of_commands_that_cannot_be_kept_is_a_warning(dispatch: Dispatch) -> None:
    shutil.rmtree(dispatch.home / "cache")
    (dispatch.home / "cache").write_text("no directory")

    found = checks(dispatch, QUICK)["manifest"]

    assert found["status"] == "warn"
    assert str(dispatch.home / "cache") in found["summary"]


def test_a_project_that_is_not_trusted_is_named(dispatch: Dispatch, tmp_path: Path) -> None:
    (tmp_path / ".dispatch").mkdir()
    (tmp_path / ".dispatch" / "config.toml").write_text('[defaults]\nmodel = "m"\n')

    found = checks(dispatch, QUICK, cwd=tmp_path)["trust"]

    assert found["status"] == "warn"
    assert str(tmp_path) in found["summary"]
    assert "config trust" in found["recovery"]


def test_the_screen_has_a_glyph_a_word_and_the_next_step(dispatch: Dispatch) -> None:
    people = Dispatch(
        dispatch.home, {"DISPATCH_OUTPUT": "human", "COLUMNS": "80", "PATH": "/nowhere"}
    )

    done = people.run("doctor", QUICK)

    lines = done.stdout.splitlines()
    assert any(line.startswith("! warn") and "path" in line for line in lines)
    assert any(line.startswith("✓ ok") and "python" in line for line in lines)
    assert any("next: add " in line for line in lines)
    assert "\x1b[" not in done.stdout


def plugin(folder: Path, group: str, code: str) -> dict[str, str]:
    """Install a distribution acme-thing with one plugin, acme, and return the environment that finds it."""
    info = folder / "acme_thing-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-thing\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[dispatch.v1.{group}]\nacme = acme_thing\n")
    (folder / "acme_thing.py").write_text(code)
    search = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": search}


def test_a_plugin_that_failed_is_a_warning_with_its_name(
    dispatch: Dispatch, tmp_path: Path
) -> None:
    guest = Dispatch(dispatch.home, plugin(tmp_path, "plugins", "raise ValueError('no')\n"))

    found = checks(guest, QUICK)["plugins"]

    assert found["status"] == "warn"
    assert "acme-thing" in found["detail"]
    assert found["recovery"] == "dispatch plugins show acme"


def test_no_third_party_plugin_is_imported(dispatch: Dispatch, tmp_path: Path) -> None:
    mark = tmp_path / "imported"
    code = (
        f"open({str(mark)!r}, 'a').close()\n"
        "from dispatch_hookspecs import hookimpl\n"
        "@hookimpl\ndef dispatch_storage(settings, data_dir):\n    return None\n"
    )
    guest = Dispatch(dispatch.home, plugin(tmp_path, "storage", code))
    (dispatch.home / "config.toml").write_text('[storage]\nbackend = "acme"\n')
    guest.run("plugins")  # the manifest is built, once, in a process of its own
    imported = mark.exists()
    mark.unlink()

    found = checks(guest, QUICK)

    assert imported
    assert found["registry"]["status"] == "ok"
    assert "acme-thing" in found["registry"]["summary"]
    assert not mark.exists()
