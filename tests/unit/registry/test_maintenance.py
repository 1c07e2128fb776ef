"""Looking at a registry, copying it and migrating it by hand, in whatever state it is."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import peewee
import pytest
from anyio import fail_after, to_thread

from dispatch_core.api import DeliveryFilter, DeliveryState, StorageError
from dispatch_core.testing.storage import a_thread, a_turn, deliveries_in_every_state
from dispatch_plugins.registry import inspection
from dispatch_plugins.registry.backend import PeeweeStorage
from dispatch_plugins.registry.schema import SCHEMA_VERSION

pytestmark = pytest.mark.anyio

NOBODY = 65534
# As a user who may read and not write, also when the tests run as root.
CHECK_AS_NOBODY = f"""
import dataclasses, json, os, sys
from pathlib import Path
from dispatch_plugins.registry import inspection
from dispatch_plugins.registry.backend import PeeweeStorage
if os.geteuid() == 0:
    os.seteuid({NOBODY})
folder = Path(sys.argv[1])
assert not os.access(folder, os.W_OK, effective_ids=True)
report = PeeweeStorage(folder).maintenance.check()
print(json.dumps(dataclasses.asdict(report)))
"""
WRITE_FOR_EVER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
number = 0
while True:
    connection.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        number += 1
        connection.execute(
            "INSERT INTO actions (at, op, principal, outcome) VALUES (?, 'o', 'p', 'ok')", (str(number),)
        )
    connection.execute("COMMIT")
    if number == 2:
        print("writing", flush=True)
"""


@pytest.fixture
def maintenance(data_dir):
    return PeeweeStorage(data_dir).maintenance


@pytest.fixture
async def filled(open_registry, path):
    async with open_registry() as registry:
        for number in range(50):
            await registry.threads.add(a_thread(number, turn=a_turn()), [f"0A{number:04}"])
    return path


def start_writing(path):
    return subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, path], stdout=subprocess.PIPE, text=True
    )


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# Check


async def test_a_whole_registry_has_no_problems_and_is_described(maintenance, filled, data_dir):
    before = contents(data_dir)

    report = maintenance.check()

    assert (report.exists, report.problems, report.notes) == (True, (), ())
    assert (report.schema, report.supported) == (SCHEMA_VERSION, SCHEMA_VERSION)
    assert report.counts["threads"] == report.counts["turns"] == 50
    assert report.file_bytes == filled.stat().st_size
    assert report.id in (data_dir / "registry.id").read_text()
    assert contents(data_dir) == before


async def test_a_registry_in_use_is_checked_with_what_is_in_its_log(open_registry, maintenance):
    async with open_registry() as registry:
        await registry.threads.add(a_thread(), ["0AAAA1"])

        report = await to_thread.run_sync(maintenance.check)

        assert report.problems == ()
        assert report.counts["threads"] == 1
        assert report.log_bytes > 0
        assert await registry.threads.add(a_thread(2), ["0AAAA2"])


def test_a_registry_that_never_was_is_no_problem(maintenance, data_dir):
    report = maintenance.check()

    assert (report.exists, report.schema, report.problems) == (False, None, ())
    assert list(data_dir.iterdir()) == []


def test_a_folder_that_is_not_there_is_no_problem(data_dir):
    report = PeeweeStorage(data_dir / "offline").maintenance.check()

    assert (report.exists, report.problems) == (False, ())


@pytest.mark.parametrize(
    ("loss", "words"),
    [("deleted", "is missing"), ("emptied", "is empty"), ("recreated", "no tables any more")],
)
async def test_data_that_is_lost_is_a_problem(maintenance, filled, loss, words):
    filled.unlink()
    if loss == "emptied":
        filled.touch()
    if loss == "recreated":
        with closing(sqlite3.connect(filled)) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()

    report = maintenance.check()

    (problem,) = report.problems
    assert words in problem
    assert "restore" in problem


def test_an_empty_file_of_a_first_start_is_noted(maintenance, path):
    path.touch()

    report = maintenance.check()

    assert report.problems == ()
    assert "empty" in report.notes[0]


async def test_damaged_pages_are_a_problem(maintenance, filled, damage_table):
    damage_table(filled, "threads")

    report = maintenance.check()

    assert report.exists
    assert any("damaged" in problem for problem in report.problems)


async def test_a_file_that_is_no_database_is_a_problem(maintenance, path):
    path.write_bytes(b"these are notes, and not a database" * 100)

    report = maintenance.check()

    (problem,) = report.problems
    assert "not a database" in problem
    assert report.schema is None


async def test_a_truncated_file_is_a_problem(maintenance, filled):
    os.truncate(filled, filled.stat().st_size // 2)

    report = maintenance.check()

    assert report.problems


async def test_a_newer_schema_is_a_problem_and_named(maintenance, filled):
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute("PRAGMA user_version = 99")

    report = maintenance.check()

    (problem,) = report.problems
    assert report.schema == 99
    assert "newer dispatch" in problem


def test_an_older_schema_is_noted(maintenance, first_schema):
    before = first_schema.read_bytes()

    report = maintenance.check()

    assert (report.schema, report.problems) == (1, ())
    assert "registry migrate" in report.notes[0]
    assert report.counts["threads"] == 2
    assert first_schema.read_bytes() == before


def test_another_applications_database_is_a_problem(maintenance, path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")

    report = maintenance.check()

    (problem,) = report.problems
    assert "another application" in problem


async def test_the_registry_of_another_folder_is_a_problem(maintenance, filled):
    filled.with_suffix(".id").write_text('{"id": "another", "schema": 2}')

    report = maintenance.check()

    (problem,) = report.problems
    assert "registry.id" in problem


async def test_a_lost_identity_is_noted(maintenance, filled):
    filled.with_suffix(".id").unlink()

    report = maintenance.check()

    assert report.problems == ()
    assert "registry.id" in report.notes[0]


async def test_a_row_that_makes_no_sense_is_a_problem(maintenance, filled):
    with closing(sqlite3.connect(filled, isolation_level=None)) as connection:
        connection.execute("UPDATE threads SET status = 'dancing' WHERE key = 'key-0007'")

    report = maintenance.check()

    (problem,) = report.problems
    assert "key-0007" in problem
    assert "dancing" in problem


async def test_a_row_without_the_one_it_refers_to_is_a_problem(maintenance, filled):
    with closing(sqlite3.connect(filled, isolation_level=None)) as connection:
        connection.execute("DELETE FROM threads WHERE key = 'key-0007'")

    report = maintenance.check()

    (problem,) = report.problems
    assert "turns" in problem


async def test_a_damaged_search_index_is_noted_and_no_problem(maintenance, filled, data_dir):
    (data_dir / "index.db").write_bytes(b"not an index" * 100)

    report = maintenance.check()

    assert report.problems == ()
    assert report.index_bytes == 1200
    assert "index.db" in report.notes[0]


def test_a_folder_in_the_place_of_the_file_is_a_problem(maintenance, path):
    path.mkdir()

    report = maintenance.check()

    assert report.problems


async def test_a_folder_that_cannot_be_written_can_be_checked(filled, data_dir):
    for file in data_dir.iterdir():
        file.chmod(0o444)
    data_dir.chmod(0o555)
    try:
        with fail_after(30):
            done = await to_thread.run_sync(
                lambda: subprocess.run(
                    [sys.executable, "-c", CHECK_AS_NOBODY, data_dir],
                    capture_output=True,
                    text=True,
                    check=False,
                )
            )
    finally:
        data_dir.chmod(0o755)

    assert '"problems": []' in done.stdout, done.stderr
    assert '"threads": 50' in done.stdout


# Backup


async def test_a_backup_is_a_private_whole_copy_that_opens(maintenance, filled, tmp_path):
    copy = maintenance.backup(tmp_path / "copy.db")

    assert copy == tmp_path / "copy.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    restored = tmp_path / "restored"
    restored.mkdir()
    shutil.copy(copy, restored / "registry.db")
    report = PeeweeStorage(restored).maintenance.check()
    assert (report.problems, report.counts["threads"]) == ((), 50)


async def test_a_backup_without_a_name_is_put_beside_the_registry(maintenance, filled):
    first, second = maintenance.backup(), maintenance.backup()

    assert first != second
    assert first.parent == filled.parent
    assert first.name.startswith(f"registry.db.bak-{SCHEMA_VERSION}-")


async def test_a_folder_is_filled_with_a_backup_of_its_own_name(maintenance, filled, tmp_path):
    copy = maintenance.backup(tmp_path)

    assert copy.parent == tmp_path
    assert copy.name.startswith(f"registry.db.bak-{SCHEMA_VERSION}-")


async def test_a_backup_overwrites_nothing(maintenance, filled, tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")

    with pytest.raises(StorageError, match="overwrites nothing"):
        maintenance.backup(target)

    assert contents(tmp_path) == {"precious": b"precious"}


async def test_a_backup_never_replaces_the_registry_itself(maintenance, filled):
    before = filled.read_bytes()

    with pytest.raises(StorageError, match="overwrites nothing"):
        maintenance.backup(filled)

    assert filled.read_bytes() == before


async def test_a_backup_into_a_folder_that_is_not_there_says_so(maintenance, filled, tmp_path):
    with pytest.raises(StorageError, match="cannot be written") as caught:
        maintenance.backup(tmp_path / "nowhere" / "copy.db")

    assert "folder exists" in caught.value.hint


async def test_a_backup_while_others_write_holds_whole_transactions(maintenance, filled, tmp_path):
    writer = start_writing(filled)
    try:
        assert writer.stdout.readline() == "writing\n"

        with fail_after(20):
            copies = [
                await to_thread.run_sync(maintenance.backup, tmp_path / f"{number}.db")
                for number in range(5)
            ]
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=10)

    counts = []
    for copy in copies:
        with closing(sqlite3.connect(copy)) as connection:
            assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
            counts.append(connection.execute("SELECT count(*) FROM actions").fetchone()[0])
    assert all(count % 2 == 0 for count in counts)
    assert counts == sorted(counts)
    assert counts[0] > 0


async def test_who_begins_to_write_during_a_backup_is_seen_whole_or_not_at_all(filled, data_dir):
    before = set(contents(data_dir))
    with inspection.read_only(filled, locked=True) as database:
        first = database.execute_sql("SELECT count(*) FROM actions").fetchone()[0]
        with closing(sqlite3.connect(filled, isolation_level=None)) as writer:
            writer.execute(
                "INSERT INTO actions (at, op, principal, outcome) VALUES ('1', 'o', 'p', 'ok')"
            )
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        second = database.execute_sql("SELECT count(*) FROM actions").fetchone()[0]

        with pytest.raises(peewee.OperationalError, match="readonly"):
            database.execute_sql("DELETE FROM actions")
    assert second == first + 1
    assert set(contents(data_dir)) == before


async def test_a_damaged_registry_is_not_copied(maintenance, filled, tmp_path, damage_table):
    damage_table(filled, "threads")

    with pytest.raises(StorageError, match="damaged"):
        maintenance.backup(tmp_path / "copy.db")

    assert list(tmp_path.iterdir()) == []


def test_there_is_nothing_to_copy_before_the_first_start(maintenance, tmp_path):
    with pytest.raises(StorageError, match="no registry"):
        maintenance.backup(tmp_path / "copy.db")

    assert list(tmp_path.iterdir()) == []


# Migrate


def test_a_migration_says_from_where_to_where_and_keeps_a_copy(maintenance, first_schema, data_dir):
    report = maintenance.migrate()

    assert (report.before, report.after) == (1, SCHEMA_VERSION)
    (backup,) = data_dir.glob("registry.db.bak-1-*")
    assert report.backup == str(backup)
    found = maintenance.check()
    assert (found.schema, found.problems, found.notes) == (SCHEMA_VERSION, (), ())
    assert found.counts["threads"] == 2


def test_a_migration_makes_no_copy_if_none_is_wanted(maintenance, first_schema, data_dir):
    report = maintenance.migrate(backup=False)

    assert (report.after, report.backup) == (SCHEMA_VERSION, None)
    assert list(data_dir.glob("*.bak-*")) == []


async def test_a_current_registry_is_not_touched(maintenance, filled, data_dir):
    before = contents(data_dir)

    report = maintenance.migrate()

    assert (report.before, report.after, report.backup) == (SCHEMA_VERSION, SCHEMA_VERSION, None)
    assert contents(data_dir) == before


def test_a_migration_makes_no_registry(maintenance, data_dir):
    report = maintenance.migrate()

    assert (report.before, report.after) == (0, 0)
    assert list(data_dir.iterdir()) == []


async def test_a_newer_registry_is_not_migrated(maintenance, filled):
    with closing(sqlite3.connect(filled)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = filled.read_bytes()

    with pytest.raises(StorageError, match="newer dispatch"):
        maintenance.migrate()

    assert filled.read_bytes() == before


def test_a_migration_that_fails_leaves_the_old_schema_and_the_copy(
    maintenance, first_schema, data_dir
):
    with closing(sqlite3.connect(first_schema)) as connection:
        connection.execute("CREATE TABLE cache (something TEXT)")

    with pytest.raises(StorageError, match="could not be brought to schema"):
        maintenance.migrate()

    report = maintenance.check()
    assert (report.schema, report.problems, report.counts["threads"]) == (1, (), 2)
    assert len(list(data_dir.glob("registry.db.bak-1-*"))) == 1


def test_a_migration_waits_for_nobody_for_ever(first_schema, tmp_path):
    holder = sqlite3.connect(first_schema, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(StorageError, match="another process holds its lock"):
            PeeweeStorage(first_schema.parent, busy_timeout=0.1).maintenance.migrate(backup=False)
    finally:
        holder.execute("ROLLBACK")
        holder.close()

    assert PeeweeStorage(first_schema.parent).maintenance.check().schema == 1


async def test_what_had_not_ended_in_a_backup_is_in_doubt_once_it_is_restored(
    open_registry, maintenance
):
    async with open_registry() as registry:
        added = {each.id: each for each in await deliveries_in_every_state(registry)}
        copy = maintenance.backup()

    maintenance.restore(maintenance.plan_restore(copy))

    async with open_registry() as registry:
        kept = {each.id: each for each in await registry.deliveries.list(DeliveryFilter(), 100)}
    assert kept.keys() == added.keys()
    for delivery_id, before in added.items():
        ended = before.state.ended or before.state is DeliveryState.UNKNOWN
        wanted = before.state if ended else DeliveryState.UNKNOWN
        assert kept[delivery_id].state is wanted
