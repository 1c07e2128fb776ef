"""From one schema to the next: all of it or none, with a copy of what was there before."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing

import peewee
import pytest
from anyio import fail_after, run_process

from dispatch_core.api import (
    FiringStatus,
    ModelInUse,
    StorageError,
    ThreadSettings,
    ThreadStatus,
    TurnStatus,
)
from dispatch_core.testing.storage import LATER, a_thread
from dispatch_plugins.registry import files, schema
from dispatch_plugins.registry.models import tables

pytestmark = pytest.mark.anyio

NEXT = schema.SCHEMA_VERSION + 1

ADDITION = """
def up(migrator, db):
    db.execute_sql('ALTER TABLE threads ADD COLUMN colour TEXT')
    db.execute_sql('CREATE TABLE labels (name TEXT PRIMARY KEY)')
"""
BROKEN = ADDITION + "    db.execute_sql('INSERT INTO nowhere VALUES (1)')\n"
DANGLING = (
    ADDITION
    + """
    db.execute_sql("INSERT INTO turns (thread_id, status, started_at) VALUES ('nobody', 'x', 'y')")
"""
)

# Forks before each attempt, so that Python and Peewee are imported once; the parent has no
# connection open.
KILL_AT_EVERY_STATEMENT = """
import json, os, shutil, signal, sys
from pathlib import Path
import peewee, playhouse.migrations
from dispatch_plugins.registry import schema
from dispatch_plugins.registry.sql import driver

start, folder, migrations = map(Path, sys.argv[1:4])
version = int(sys.argv[4])

def upgrade(path, fatal):
    database = peewee.SqliteDatabase(str(path), thread_safe=False)
    database.connect()
    database.pragma("journal_mode", "WAL")
    seen = 0
    def trace(statement):
        nonlocal seen
        seen += 1
        if seen == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
    driver(database).set_trace_callback(trace)
    schema.upgrade(database, path, schema.Schema(migrations, version))
    os._exit(0)

for fatal in range(1, 1000):
    path = folder / f"{fatal}.db"
    if start.exists():
        shutil.copy(start, path)
    child = os.fork()
    if not child:
        try:
            upgrade(path, fatal)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


@pytest.fixture
def migrations(tmp_path):
    folder = tmp_path / "migrations"
    shutil.copytree(schema.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__*"))
    return folder


@pytest.fixture
async def current(open_registry, path):
    async with open_registry() as registry:
        await registry.threads.add(a_thread(), ["0AAAA1"])
    return path


def connected(path):
    database = peewee.SqliteDatabase(str(path), thread_safe=False)
    database.connect()
    return closing(database)


def schema_of(path):
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        ).fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    return version, {name: " ".join(sql.split()).replace("( ", "(") for name, sql in rows}


def test_the_version_is_the_number_of_the_last_migration():
    numbers = [int(file.name[:4]) for file in schema.MIGRATIONS.glob("[0-9]*.py")]

    assert sorted(numbers) == list(range(1, schema.SCHEMA_VERSION + 1))


async def test_the_migrations_make_what_the_models_say(current, tmp_path):
    with connected(tmp_path / "models.db") as database:
        database.create_tables(list(tables(database)))

    _, migrated = schema_of(current)
    _, declared = schema_of(tmp_path / "models.db")

    assert {name: sql for name, sql in migrated.items() if "migrations" not in name} == declared


async def test_an_upgrade_applies_what_is_missing_and_keeps_the_rows(current, migrations):
    (migrations / f"{NEXT:04}_colours.py").write_text(ADDITION)

    with connected(current) as database:
        schema.upgrade(database, current, schema.Schema(migrations, NEXT))

        assert database.pragma("user_version") == NEXT
        assert database.execute_sql("SELECT ref, colour FROM threads").fetchall() == [
            ("0AAAA1", None)
        ]
        assert database.pragma("foreign_keys") == 1


@pytest.mark.parametrize("migration", [BROKEN, DANGLING], ids=["failing", "dangling"])
async def test_a_failing_upgrade_leaves_the_registry_as_it_was(current, migrations, migration):
    before = schema_of(current)
    (migrations / f"{NEXT:04}_broken.py").write_text(migration)

    with connected(current) as database:
        with pytest.raises(StorageError):
            schema.upgrade(database, current, schema.Schema(migrations, NEXT))

        assert database.pragma("foreign_keys") == 1
    assert schema_of(current) == before


@pytest.mark.parametrize("begin", ["from nothing", "from the current schema"])
async def test_an_upgrade_killed_at_any_statement_is_old_or_new(
    current, migrations, tmp_path, begin
):
    (migrations / f"{NEXT:04}_colours.py").write_text(ADDITION)
    start = current if begin == "from the current schema" else tmp_path / "nothing.db"
    folder = tmp_path / "killed"
    folder.mkdir()

    with fail_after(60):
        await run_process(
            [sys.executable, "-c", KILL_AT_EVERY_STATEMENT, start, folder, migrations, str(NEXT)],
            stderr=None,
        )

    old = schema_of(start)
    left = [schema_of(file) for file in sorted(folder.glob("*.db"), key=lambda f: int(f.stem))]
    new = left[-1]
    assert new[0] == NEXT
    assert "labels" in new[1]
    assert len(left) > 10
    assert all(state in (old, new) for state in left)


async def test_a_backup_is_a_private_complete_copy_named_after_its_version(current):
    with closing(sqlite3.connect(current)) as connection:
        copy = files.back_up(connection, current, 7)

    assert copy.name.startswith("registry.db.bak-7-")
    assert copy.stat().st_mode & 0o777 == 0o600
    assert schema_of(copy) == schema_of(current)
    assert not list(copy.parent.glob("*.new"))


async def test_a_restored_backup_opens(open_registry, current):
    with closing(sqlite3.connect(current)) as connection:
        copy = files.back_up(connection, current, 7)
    current.unlink()

    copy.rename(current)

    async with open_registry() as registry:
        assert [thread.ref for thread in await registry.threads.list()] == ["0AAAA1"]


async def test_an_older_registry_is_backed_up_before_it_is_upgraded(current, migrations, data_dir):
    (migrations / f"{NEXT:04}_colours.py").write_text(ADDITION)
    newest = schema.Schema(migrations, NEXT)

    with connected(current) as database:
        schema.prepare(database, current, new=False, target=newest)

    (backup,) = data_dir.glob(f"registry.db.bak-{schema.SCHEMA_VERSION}-*")
    assert schema_of(backup)[0] == schema.SCHEMA_VERSION
    assert schema_of(current)[0] == NEXT
    assert json.loads((data_dir / "registry.id").read_text())["schema"] == NEXT


async def test_a_registry_of_schema_1_is_brought_up_to_date_with_its_rows(
    open_registry, first_schema, data_dir
):
    async with open_registry() as registry:
        one, two = await registry.threads.list(archived=True)
        (trigger,) = await registry.triggers.list()
        firing = await registry.firings.latest(trigger.id)

    assert (one.ref, one.handle, one.ephemeral, one.in_use) == ("0AAAA1", "@one", False, None)
    assert one.settings == ThreadSettings(sandbox="read-only", model="m")
    assert one.turn is not None
    assert one.turn.status is TurnStatus.COMPLETED
    assert (two.status, two.turn) == (ThreadStatus.ARCHIVED, None)
    assert (trigger.name, firing.status) == ("nightly", FiringStatus.DONE)
    (backup,) = data_dir.glob("registry.db.bak-1-*")
    assert schema_of(backup)[0] == 1
    assert backup.stat().st_mode & 0o777 == 0o600


async def test_what_is_new_in_schema_2_can_be_written_to_an_upgraded_registry(
    open_registry, first_schema
):
    async with open_registry() as registry:
        one = await registry.threads.update(
            "key-1", in_use=ModelInUse(model="m2"), ephemeral=True, updated_at=LATER
        )
        await registry.cache.put("models", ["m2"], LATER)

        assert await registry.threads.get("key-1") == one
        assert (one.in_use, one.ephemeral) == (ModelInUse(model="m2"), True)
        assert (await registry.cache.get("models")).value == ["m2"]


async def test_a_migration_that_cannot_run_leaves_schema_1_with_its_rows_and_a_backup(
    open_registry, first_schema, path, data_dir
):
    with closing(sqlite3.connect(first_schema)) as connection:
        connection.execute("CREATE TABLE cache (something TEXT)")
    before = schema_of(path)

    with pytest.raises(StorageError, match="could not be brought to schema") as caught:
        async with open_registry():
            pass

    assert "unchanged" in caught.value.hint
    assert schema_of(path) == before
    assert len(list(data_dir.glob("registry.db.bak-1-*"))) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM threads").fetchone() == (2,)


async def test_damage_in_an_older_registry_is_found_before_it_is_copied_or_changed(
    open_registry, first_schema, path, data_dir, damage_table
):
    damage_table(first_schema, "threads")
    before = path.read_bytes()

    with pytest.raises(StorageError, match="damaged"):
        async with open_registry():
            pass

    assert path.read_bytes() == before
    assert list(data_dir.glob("*.bak-*")) == []
