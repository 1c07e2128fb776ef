"""``dispatch registry``: check, backup and migrate, with and without a daemon, and when the registry is broken."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peewee
import pytest

from dispatch_core.testing.daemon import Dispatch, temporary_home
from dispatch_plugins.registry import schema

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

REPO = Path(__file__).parents[2]
MEMORY_EXAMPLE = REPO / "plugins" / "examples" / "dispatch-memory-storage"
MEMORY_BACKEND = '[storage]\nbackend = "memory"\n'


def registry_of(dispatch: Dispatch, *, offline: bool = True) -> Path:
    return dispatch.home / ("offline/registry.db" if offline else "registry.db")


def make_first_schema(path: Path) -> None:
    """Make an empty registry as the build of schema 1 made it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = path.parent / "first"
    folder.mkdir()
    shutil.copy(next(schema.MIGRATIONS.glob("0001_*.py")), folder)
    database = peewee.SqliteDatabase(str(path), thread_safe=False)
    with closing(database):
        database.connect()
        schema.prepare(database, path, new=True, target=schema.Schema(folder, 1))
    shutil.rmtree(folder)


def failure(dispatch: Dispatch, *words: str) -> tuple[int, dict[str, Any]]:
    """Run a command that has to fail; return its status and the error that it printed as JSON."""
    done = dispatch.run(*words, "--json")
    assert done.returncode != 0
    assert done.stdout == ""
    error: dict[str, Any] = json.loads(done.stderr)["error"]
    return done.returncode, error


def never_started(dispatch: Dispatch) -> bool:
    return not (dispatch.home / "dispatchd.log").exists()


@pytest.fixture
def idle() -> Iterator[Dispatch]:
    """A home in which no daemon has run."""
    with temporary_home() as dispatch:
        yield dispatch


@pytest.fixture(scope="module")
def running() -> Iterator[Dispatch]:
    """A home with a daemon and one thread."""
    with temporary_home() as dispatch:
        dispatch.json("new", "builder")
        yield dispatch


def test_a_registry_in_use_is_whole(running: Dispatch) -> None:
    report = running.json("registry", "check")

    assert report["path"] == str(registry_of(running))
    assert (report["exists"], report["problems"]) == (True, [])
    assert report["schema"] == report["supported"] == schema.SCHEMA_VERSION
    assert report["counts"]["threads"] == 1


def test_a_person_reads_the_check_as_lines(running: Dispatch) -> None:
    done = running.run("registry", "check", "--offline")
    text = Dispatch(running.home, {**running.env, "DISPATCH_OUTPUT": "human"}).run(
        "registry", "check"
    )

    assert json.loads(done.stdout)["problems"] == []
    lines = dict(line.split(None, 1) for line in text.stdout.splitlines())
    assert lines["state"] == "✓ whole"
    assert lines["schema"].startswith(str(schema.SCHEMA_VERSION))
    assert "threads 1" in lines["rows"]


def test_a_backup_of_a_registry_in_use_is_whole(running: Dispatch, tmp_path: Path) -> None:
    answer = running.json("registry", "backup", str(tmp_path / "copy.db"))

    copy = Path(answer["backup"])
    assert copy == tmp_path / "copy.db"
    assert copy.stat().st_size == answer["bytes"]
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT handle FROM threads").fetchall() == [("@builder",)]


def test_a_backup_overwrites_nothing(running: Dispatch, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")

    status, error = failure(running, "registry", "backup", str(tmp_path / "precious"))

    assert (status, error["code"]) == (1, "storage")
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_relative_target_is_where_the_user_is(running: Dispatch, tmp_path: Path) -> None:
    done = running.run("registry", "backup", "copy.db", "--json", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy.db").exists()


def test_a_registry_is_not_migrated_under_a_daemon(running: Dispatch) -> None:
    status, error = failure(running, "registry", "migrate")

    assert (status, error["code"]) == (8, "unsupported")
    assert error["details"]["reason"] == "daemon_running"
    assert "dispatch down" in error["hint"]


def test_a_registry_is_not_replaced_under_a_daemon(running: Dispatch) -> None:
    status, error = failure(running, "registry", "restore", "--yes")

    assert (status, error["code"]) == (8, "unsupported")
    assert error["details"]["reason"] == "daemon_running"


def test_without_a_registry_a_check_is_calm_and_starts_nothing(idle: Dispatch) -> None:
    report = idle.json("registry", "check")

    assert (report["exists"], report["problems"]) == (False, [])
    assert never_started(idle)
    assert not registry_of(idle).exists()


def test_without_a_registry_there_is_nothing_to_copy_or_migrate(idle: Dispatch) -> None:
    status, error = failure(idle, "registry", "backup")
    report = idle.json("registry", "migrate")

    assert (status, error["code"]) == (1, "storage")
    assert (report["before"], report["after"], report["backup"]) == (0, 0, None)
    assert never_started(idle)


def test_an_older_registry_is_migrated_with_a_copy_and_then_used(idle: Dispatch) -> None:
    make_first_schema(registry_of(idle))

    before = idle.json("registry", "check")
    report = idle.json("registry", "migrate")
    again = idle.json("registry", "migrate")

    assert (before["schema"], before["problems"]) == (1, [])
    assert (report["before"], report["after"]) == (1, schema.SCHEMA_VERSION)
    assert Path(report["backup"]).exists()
    assert (again["before"], again["backup"]) == (schema.SCHEMA_VERSION, None)
    assert never_started(idle)
    idle.json("new", "builder")
    assert idle.json("registry", "check")["counts"]["threads"] == 1


def test_a_migration_without_a_copy(idle: Dispatch) -> None:
    make_first_schema(registry_of(idle))

    report = idle.json("registry", "migrate", "--no-backup")

    assert (report["after"], report["backup"]) == (schema.SCHEMA_VERSION, None)
    assert list(registry_of(idle).parent.glob("*.bak-*")) == []


def test_a_migration_that_fails_says_so_and_changes_nothing(idle: Dispatch) -> None:
    path = registry_of(idle)
    make_first_schema(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cache (something TEXT)")

    status, error = failure(idle, "registry", "migrate")

    assert (status, error["code"]) == (1, "storage")
    assert "unchanged" in error["hint"]
    assert idle.json("registry", "check")["schema"] == 1


@pytest.mark.parametrize("damage", ["garbage", "emptied", "newer"])
def test_a_registry_that_the_daemon_refuses_can_be_looked_at(idle: Dispatch, damage: str) -> None:
    path = registry_of(idle)
    make_first_schema(path)
    if damage == "garbage":
        path.write_bytes(b"these are notes" * 1000)
    if damage == "emptied":
        path.write_bytes(b"")
    if damage == "newer":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()

    done = idle.run("registry", "check", "--json")

    assert done.returncode == 1
    assert len(json.loads(done.stdout)["problems"]) == 1
    assert path.read_bytes() == before
    assert never_started(idle)
    assert failure(idle, "list")[1]["code"] == "storage"


def test_offline_threads_have_a_registry_of_their_own(idle: Dispatch) -> None:
    make_first_schema(registry_of(idle))
    online = Dispatch(idle.home, {**idle.env, "DISPATCH_OFFLINE": "0"})

    usual = online.json("registry", "check")
    offline = online.json("registry", "check", "--offline")

    assert (usual["path"], usual["exists"]) == (str(registry_of(idle, offline=False)), False)
    assert (offline["path"], offline["exists"]) == (str(registry_of(idle)), True)


def test_a_group_alone_and_a_misspelt_command_say_what_there_is(idle: Dispatch) -> None:
    alone = failure(idle, "registry")
    misspelt = failure(idle, "registry", "chek")

    assert (alone[0], misspelt[0]) == (2, 2)
    assert "backup, check, migrate" in alone[1]["message"]
    assert "check" in misspelt[1]["message"]


def test_a_backend_without_maintenance_says_so(idle: Dispatch, tmp_path: Path) -> None:
    shutil.copytree(
        MEMORY_EXAMPLE / "dispatch_memory_storage", tmp_path / "dispatch_memory_storage"
    )
    about = tmp_path / "dispatch_memory_storage-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: dispatch-memory-storage\nVersion: 0.1.0\n"
    )
    (about / "entry_points.txt").write_text(
        "[dispatch.v1.storage]\nmemory = dispatch_memory_storage\n"
    )
    (idle.home / "config.toml").write_text(MEMORY_BACKEND)
    path = ":".join(filter(None, [str(tmp_path), idle.environment.get("PYTHONPATH")]))
    other = Dispatch(idle.home, {**idle.env, "PYTHONPATH": path})

    status, error = failure(other, "registry", "check")

    assert (status, error["code"]) == (8, "unsupported")
    assert "memory" in error["message"]


def test_a_backend_that_is_not_installed_is_named(idle: Dispatch) -> None:
    (idle.home / "config.toml").write_text(MEMORY_BACKEND)

    status, error = failure(idle, "registry", "check")

    assert (status, error["code"]) == (13, "plugin")
    assert "memory" in error["message"]


@pytest.fixture
def stopped(idle: Dispatch) -> Dispatch:
    """A home whose daemon has ended: one thread is in the backup beside the registry, and another one came later."""
    idle.json("new", "builder")
    idle.json("registry", "backup")
    idle.json("new", "later")
    idle.run("down")
    return idle


def handles(dispatch: Dispatch) -> set[str]:
    with closing(sqlite3.connect(registry_of(dispatch))) as connection:
        return {row[0] for row in connection.execute("SELECT handle FROM threads")}


def test_a_restored_registry_is_the_newest_backup_and_what_was_there_is_kept(
    stopped: Dispatch,
) -> None:
    registry = registry_of(stopped)

    answer = stopped.json("registry", "restore", "--yes")

    assert handles(stopped) == {"@builder"}
    kept = registry.with_name(answer["aside"]["registry.db"])
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT count(*) FROM threads").fetchone() == (2,)
    assert Path(answer["backup"]).exists()
    assert len(stopped.json("list")["threads"]) == 1


def test_a_restore_asks_first(stopped: Dispatch) -> None:
    before = {file.name for file in registry_of(stopped).parent.iterdir()}

    status, error = failure(stopped, "registry", "restore")

    assert (status, error["code"]) == (2, "validation")
    assert "--yes" in error["hint"]
    assert handles(stopped) == {"@builder", "@later"}
    assert {file.name for file in registry_of(stopped).parent.iterdir()} == before


@pytest.mark.parametrize("state", ["emptied", "deleted", "overwritten", "a folder"])
def test_whatever_has_become_of_the_registry_a_backup_takes_its_place(
    stopped: Dispatch, state: str
) -> None:
    registry = registry_of(stopped)
    registry.unlink()
    if state == "emptied":
        registry.touch()
    if state == "overwritten":
        registry.write_bytes(b"no database" * 1000)
    if state == "a folder":
        registry.mkdir()

    stopped.json("registry", "restore", "--yes")

    assert handles(stopped) == {"@builder"}
    assert stopped.json("registry", "check")["problems"] == []


def test_a_backup_that_is_no_good_is_not_used(stopped: Dispatch) -> None:
    registry = registry_of(stopped)
    [good] = registry.parent.glob("registry.db.bak-*")
    bad = good.with_name("registry.db.bak-2-29990101T000000000000")
    bad.write_bytes(good.read_bytes()[:5000])

    status, error = failure(stopped, "registry", "restore", str(bad), "--yes")
    answer = stopped.json("registry", "restore", "--yes")

    assert (status, error["code"]) == (1, "storage")
    assert answer["backup"] == str(good)
    assert list(answer["skipped"]) == [str(bad)]


def test_the_backup_of_another_registry_is_refused(
    stopped: Dispatch, running: Dispatch, tmp_path: Path
) -> None:
    running.json("registry", "backup", str(tmp_path / "other.db"))

    status, error = failure(stopped, "registry", "restore", str(tmp_path / "other.db"), "--yes")

    assert (status, error["code"]) == (1, "storage")
    assert "another registry" in error["message"]
    assert handles(stopped) == {"@builder", "@later"}


def test_without_a_backup_nothing_is_touched(idle: Dispatch) -> None:
    idle.json("new", "builder")
    idle.run("down")

    status, error = failure(idle, "registry", "restore", "--yes")
    named, missing = failure(idle, "registry", "restore", "nowhere.db", "--yes")

    assert (status, named) == (1, 1)
    assert "no good backup" in error["message"]
    assert "is not there" in missing["message"]
    assert handles(idle) == {"@builder"}
