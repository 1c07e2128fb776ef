"""Damaged, exchanged, deleted and foreign files, other schemas, and a migration that dies: no registry is silently made anew."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import peewee
import pytest
from anyio import fail_after, run_process, to_thread

from dispatch_core.api import StorageError
from dispatch_plugins.registry import leftovers, schema
from dispatch_plugins.registry.sql import execute

from .registries import PATIENCE, accept, crashed, kept, maintenance_of, opened, ready

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Tier

pytestmark = pytest.mark.anyio

NOBODY = 65534
NOTES = b"these are notes, and not a database " * 300
A_THREAD = """INSERT INTO threads (key, provider, native_id, ref, handle, source, status, cwd, settings, created_at,
    updated_at, materialized) VALUES ('key-1', 'codex', 'native-1', '0AAAA1', '@one', 'own', 'idle', '/srv', '{}',
    '2026-01-02T03:04:05.000000+00:00', '2026-01-02T03:04:06.000000+00:00', 1)"""
OPEN_AS_NOBODY = f"""
import os, sys
from pathlib import Path
import anyio
from contextlib import AsyncExitStack
from dispatch_core.api import StorageError
from dispatch_plugins.registry.backend import PeeweeStorage
anyio.run(anyio.sleep, 0)  # loads what anyio needs: as somebody else it may not be readable
if os.geteuid() == 0:
    os.seteuid({NOBODY})

async def main():
    async with AsyncExitStack() as stack:
        try:
            await PeeweeStorage(Path(sys.argv[1])).open(stack)
        except StorageError as error:
            print(error.message)

anyio.run(main)
"""
# Forks before each attempt, so that Python and Peewee are imported once. The backup of a migration is made by the same connection
# and is therefore interrupted as well.
KILL_AT_EVERY_STATEMENT = """
import os, shutil, signal, sys
from pathlib import Path
import peewee, playhouse.migrations
from dispatch_plugins.registry import schema
from dispatch_plugins.registry.sql import driver

start, folder = map(Path, sys.argv[1:3])

def prepare(path, fatal):
    database = peewee.SqliteDatabase(str(path), thread_safe=False)
    database.connect()
    seen = 0
    def trace(statement):
        nonlocal seen
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    driver(database).set_trace_callback(trace)
    schema.prepare(database, path, new=False)
    os._exit(0)

for fatal in range(1, 1000):
    home = folder / str(fatal)
    shutil.copytree(start, home)
    child = os.fork()
    if not child:
        try:
            prepare(home / "registry.db", fatal)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


# What can happen to the files of a registry whose daemon has died.


def zero_the_header(path: Path) -> None:
    fold_the_log(path)
    overwrite(path, 0, bytes(100))


def overwrite_a_page(path: Path) -> None:
    with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
        ((page,),) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'threads'"
        ).fetchall()
    overwrite(path, (page - 1) * 4096, b"\xa5" * 4096)


def damage_the_end_of_the_log(path: Path) -> None:
    log = log_of(path)
    extent = leftovers._extent(path.with_name("registry.db-shm"))
    assert extent is not None
    overwrite(log, 32 + (extent.frames - 1) * (24 + 4096) + 1000, b"\xa5" * 10)


def cut_the_log(path: Path) -> None:
    extent = leftovers._extent(path.with_name("registry.db-shm"))
    assert extent is not None
    os.truncate(log_of(path), 32 + (extent.frames - 1) * (24 + 4096))


def delete_the_log(path: Path) -> None:
    log_of(path).unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def truncate(path: Path) -> None:
    fold_the_log(path)
    os.truncate(path, path.stat().st_size // 2)


def delete(path: Path) -> None:
    path.unlink()


def exchange(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "UPDATE registry SET id = '00000000-0000-0000-0000-000000000000'"
        ).fetchall()
        connection.commit()


def put_another_applications_file(path: Path) -> None:
    delete_all(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


def put_no_database(path: Path) -> None:
    delete_all(path)
    path.write_bytes(NOTES)


def put_a_folder(path: Path) -> None:
    delete_all(path)
    path.mkdir()


def delete_all(path: Path) -> None:
    for name in ("registry.db", "registry.db-wal", "registry.db-shm"):
        path.with_name(name).unlink(missing_ok=True)


def contents(home: Path) -> dict[str, bytes]:
    """Return what is in the database, in its log, and in what names it."""
    names = ("registry.db", "registry.db-wal", "registry.id")
    return {name: (home / name).read_bytes() for name in names if (home / name).is_file()}


def fold_the_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def log_of(path: Path) -> Path:
    return path.with_name("registry.db-wal")


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


DAMAGES = [
    zero_the_header,
    overwrite_a_page,
    damage_the_end_of_the_log,
    cut_the_log,
    delete_the_log,
    empty,
    truncate,
    delete,
    exchange,
    put_another_applications_file,
    put_no_database,
    put_a_folder,
]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry whose daemon was killed, with a backup and with a log that holds what was accepted since."""
    folder = tmp_path_factory.mktemp("victim")
    crashed(folder, 20)
    fold_the_log(folder / "registry.db")
    maintenance_of(folder).backup()
    crashed(folder, 20, first=1000)
    return folder


@pytest.mark.fault("S4")
@pytest.mark.parametrize("damage", DAMAGES)
async def test_damage_is_named_with_the_command_that_restores(
    victim: Path, figures: Callable[..., None], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    home = tmp_path / "home"
    shutil.copytree(victim, home)
    path = home / "registry.db"
    damage(path)
    before = contents(home)

    with pytest.raises(StorageError) as caught:
        async with opened(home):
            pass

    assert str(path) in caught.value.message
    assert "dispatch registry restore" in (caught.value.hint or "")
    assert before.items() <= contents(home).items()
    maintenance = maintenance_of(home)
    assert (await to_thread.run_sync(maintenance.check)).problems
    await to_thread.run_sync(lambda: maintenance.restore(maintenance.plan_restore()))
    async with opened(home) as storage:
        there = await kept(storage)
    assert {f"id-{number:04}" for number in range(1, 21)} <= there
    figures(damage=damage.__name__, restored=len(there))


@pytest.mark.fault("S4")
async def test_memory_that_makes_no_sense_costs_nothing(
    victim: Path, figures: Callable[..., None], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(victim, home)
    overwrite(home / "registry.db-shm", 0, b"\xa5" * 32768)

    async with opened(home) as storage:
        there = await kept(storage)

    expected = {f"id-{number:04}" for number in (*range(1, 21), *range(1000, 1020))}
    assert expected <= there
    figures(damage="memory overwritten", kept=len(there), lost=len(expected - there))


@pytest.mark.fault("S4")
@pytest.mark.parametrize("name", ["registry.db", "registry.db-wal"])
async def test_files_deleted_in_use_take_no_more_writes_and_lose_none(
    figures: Callable[..., None], tmp_path: Path, name: str
) -> None:
    async with ready(tmp_path) as storage:
        accepted = {await accept(storage, number) for number in range(1, 20)}
        aside = (tmp_path / name).rename(tmp_path / "aside")

        with pytest.raises(StorageError, match="moved or replaced") as caught:
            await accept(storage, 100)

        assert "registry restore" in (caught.value.hint or "")
        assert await kept(storage) == accepted
        if name == "registry.db":
            aside.rename(tmp_path / name)
            accepted.add(await accept(storage, 101))
    async with opened(tmp_path) as storage:
        assert accepted <= await kept(storage)
    figures(damage=f"{name} deleted in use", kept=len(accepted))


@pytest.mark.fault("S4")
async def test_a_file_that_may_not_be_read_is_named(
    figures: Callable[..., None], tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("a file of one's own can always be made readable; another user's needs root")
    home = tmp_path / "home"
    home.mkdir()
    async with ready(home) as storage:
        await accept(storage, 1)
    for folder in (home, *home.parents):
        folder.chmod(folder.stat().st_mode | 0o755)

    with fail_after(PATIENCE):
        done = await run_process([sys.executable, "-c", OPEN_AS_NOBODY, str(home)], stderr=None)

    assert str(home / "registry.db") in done.stdout.decode()
    assert "cannot be used" in done.stdout.decode()
    async with opened(home) as storage:
        assert await kept(storage) == {"id-0001"}
    figures(damage="not readable")


def make(path: Path, version: int) -> None:
    """Make the registry that the build of a schema has left, with a thread in it."""
    path.parent.mkdir()
    folder = path.parent / "migrations"
    folder.mkdir()
    for number in range(1, version + 1):
        (file,) = schema.MIGRATIONS.glob(f"{number:04}_*.py")
        shutil.copy(file, folder)
    database = peewee.SqliteDatabase(str(path), thread_safe=False)
    with closing(database):
        database.connect()
        schema.prepare(database, path, new=True, target=schema.Schema(folder, version))
        execute(database, A_THREAD)
    shutil.rmtree(folder)


def described(path: Path) -> tuple[int, tuple[tuple[str, str], ...], int]:
    """Return the version, the schema and how many threads there are."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        ).fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        names = {name for name, _ in rows}
        ((threads,),) = connection.execute(
            "SELECT count(*) FROM threads" if "threads" in names else "SELECT 0"
        ).fetchall()
    return version, tuple(rows), threads


@pytest.mark.fault("S5")
@pytest.mark.parametrize("version", range(1, schema.SCHEMA_VERSION + 1))
async def test_every_schema_that_was_released_is_brought_up_to_date(
    figures: Callable[..., None], tmp_path: Path, version: int
) -> None:
    path = tmp_path / "home" / "registry.db"
    make(path, version)

    async with opened(path.parent) as storage:
        (thread,) = await storage.threads.list()

    backups = list(path.parent.glob(f"registry.db.bak-{version}-*"))
    assert thread.ref == "0AAAA1"
    assert described(path)[0] == schema.SCHEMA_VERSION
    assert len(backups) == (version < schema.SCHEMA_VERSION)
    assert all(described(backup)[0] == version for backup in backups)
    figures(schema=version, backups=len(backups))


@pytest.mark.fault("S5")
@pytest.mark.parametrize("version", [schema.SCHEMA_VERSION + 1, 99, -1])
async def test_a_schema_of_the_future_and_one_that_never_was_are_refused(
    figures: Callable[..., None], tmp_path: Path, version: int
) -> None:
    path = tmp_path / "home" / "registry.db"
    make(path, schema.SCHEMA_VERSION)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()

    with pytest.raises(StorageError) as caught:
        async with opened(path.parent):
            pass

    assert f"schema {version}" in caught.value.message
    assert "registry restore" in (caught.value.hint or "")
    assert path.read_bytes() == before
    figures(refused_schema=version)


@pytest.mark.fault("S6")
async def test_a_migration_killed_at_any_statement_leaves_the_old_schema_or_the_new_one(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    versions = range(1, schema.SCHEMA_VERSION) if tier.full else [1]
    statements = between = without_backup = 0
    for version in versions:
        start, folder = tmp_path / f"from-{version}", tmp_path / f"killed-{version}"
        make(start / "registry.db", version)
        folder.mkdir()
        old = described(start / "registry.db")

        with fail_after(60):
            argv = [sys.executable, "-c", KILL_AT_EVERY_STATEMENT, str(start), str(folder)]
            await run_process(argv, stderr=None)

        homes = sorted(folder.iterdir(), key=lambda home: int(home.name))
        new = described(homes[-1] / "registry.db")
        assert new[0] == schema.SCHEMA_VERSION
        opened_again = homes if tier.full else tier.random.sample(homes, 8)
        for home in homes:
            state, backups = described(home / "registry.db"), good_backups(home, old)
            between += state not in (old, new)
            without_backup += state != old and not backups
            if home in opened_again:
                async with opened(home) as storage:
                    assert len(await storage.threads.list()) == 1
        statements += len(homes)
    assert (between, without_backup) == (0, 0)
    figures(statements=statements, between=between, without_backup=without_backup)


def good_backups(home: Path, old: tuple[int, tuple[tuple[str, str], ...], int]) -> list[Path]:
    return [file for file in home.glob("registry.db.bak-*[0-9]") if described(file) == old]
