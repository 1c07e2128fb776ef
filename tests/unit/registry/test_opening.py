"""Whose file it is, what is refused, and that nothing is ever silently begun anew."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from dispatch_core.api import StorageError
from dispatch_core.testing.storage import a_thread
from dispatch_plugins.registry import schema

pytestmark = pytest.mark.anyio


def mode_of(path):
    return path.stat().st_mode & 0o777


def run_sql(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements]


async def test_a_new_registry_is_private_and_has_an_identity(open_registry, path, data_dir):
    async with open_registry():
        modes = {file.name: mode_of(file) for file in data_dir.iterdir()}

    assert set(modes.values()) == {0o600}
    assert {"registry.db", "registry.id"} <= modes.keys()
    identity = json.loads((data_dir / "registry.id").read_text())
    assert identity == {
        "id": run_sql(path, "SELECT id FROM registry")[0][0][0],
        "schema": schema.SCHEMA_VERSION,
    }


async def test_the_file_says_whose_it_is_and_which_schema_it_has(open_registry, path):
    async with open_registry():
        pass

    application, version = run_sql(path, "PRAGMA application_id", "PRAGMA user_version")

    assert application == [(schema.APPLICATION_ID,)]
    assert version == [(schema.SCHEMA_VERSION,)]


async def test_closing_folds_the_log_into_the_file(open_registry, data_dir):
    async with open_registry() as registry:
        await registry.threads.add(a_thread(), ["0AAAA1"])

    assert sorted(file.name for file in data_dir.iterdir()) == [
        "registry.db",
        "registry.db.ballast",
        "registry.id",
    ]


async def test_an_open_file_for_others_is_made_private(open_registry, path):
    async with open_registry():
        pass
    path.chmod(0o644)

    async with open_registry():
        pass

    assert mode_of(path) == 0o600


async def test_an_up_to_date_registry_is_opened_without_a_backup(open_registry, data_dir):
    for _ in range(2):
        async with open_registry():
            pass

    assert not list(data_dir.glob("*.bak-*"))


async def test_a_newer_schema_is_refused_and_left_alone(open_registry, path):
    async with open_registry():
        pass
    run_sql(path, "PRAGMA user_version = 99")
    before = path.read_bytes()

    with pytest.raises(StorageError, match="schema 99") as caught:
        async with open_registry():
            pass

    assert str(path) in caught.value.message
    assert "--upgrade" in caught.value.hint
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_and_left_alone(open_registry, path):
    path.write_bytes(b"Dear diary, today I was not a database.\n" * 100)
    before = path.read_bytes()

    with pytest.raises(StorageError, match="not a database") as caught:
        async with open_registry():
            pass

    assert str(path) in caught.value.message
    assert "registry restore" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE songs (title TEXT)",),
        ("PRAGMA application_id = 1234567",),
        ("PRAGMA user_version = 3",),
    ],
    ids=["tables", "application id", "version"],
)
async def test_the_database_of_another_application_is_refused_and_left_alone(
    open_registry, path, statements
):
    run_sql(path, *statements)
    before = path.read_bytes()

    with pytest.raises(StorageError, match="not dispatch's registry") as caught:
        async with open_registry():
            pass

    assert "registry restore" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("loss", ["emptied", "deleted", "recreated"])
async def test_a_registry_that_lost_its_data_is_not_a_new_one(open_registry, path, loss):
    async with open_registry():
        pass
    path.unlink()
    if loss == "emptied":
        path.touch()
    if loss == "recreated":
        run_sql(path, "PRAGMA journal_mode = WAL")

    with pytest.raises(StorageError) as caught:
        async with open_registry():
            pass

    assert str(path) in caught.value.message
    assert "restore" in caught.value.hint
    assert path.exists() == (loss != "deleted")


async def test_an_unreadable_identity_still_says_that_there_was_a_registry(open_registry, path):
    path.with_suffix(".id").write_bytes(b"\xff not json")

    with pytest.raises(StorageError, match="is missing"):
        async with open_registry():
            pass


async def test_an_empty_file_without_an_identity_is_a_first_start(open_registry, path):
    path.touch()

    async with open_registry() as registry:
        assert await registry.threads.list() == ()


async def test_the_registry_of_another_folder_is_refused(open_registry, path, data_dir, tmp_path):
    async with open_registry():
        pass
    shutil.copy(path, tmp_path / "first.db")
    path.unlink()
    path.with_suffix(".id").unlink()
    async with open_registry():
        pass

    shutil.copy(tmp_path / "first.db", path)
    with pytest.raises(StorageError, match=r"not the one that registry\.id names"):
        async with open_registry():
            pass


async def test_a_lost_identity_is_written_again(open_registry, path):
    async with open_registry() as registry:
        thread = await registry.threads.add(a_thread(), ["0AAAA1"])
    identity = path.with_suffix(".id").read_text()
    path.with_suffix(".id").unlink()

    async with open_registry() as registry:
        assert await registry.threads.list() == (thread,)

    assert path.with_suffix(".id").read_text() == identity


@pytest.mark.parametrize("damage", ["zeroed header", "garbage first page", "truncated"])
async def test_a_damaged_registry_is_refused_and_left_alone(open_registry, path, damage):
    async with open_registry() as registry:
        for number in range(50):
            await registry.threads.add(a_thread(number), [f"0A{number:04}"])
    content = bytearray(path.read_bytes())
    if damage == "zeroed header":
        content[:100] = bytes(100)
    if damage == "garbage first page":
        content[100:4096] = bytes(range(256)) * 15 + bytes(156)
    if damage == "truncated":
        del content[len(content) // 2 :]
    path.write_bytes(content)

    with pytest.raises(StorageError) as caught:
        async with open_registry():
            pass

    assert str(path) in caught.value.message
    assert "restore" in caught.value.hint
    assert path.read_bytes() == bytes(content)


async def test_after_a_crash_a_damaged_page_is_found_at_the_start(open_registry, path):
    async with open_registry() as registry:
        for number in range(50):
            await registry.threads.add(a_thread(number), [f"0A{number:04}"])
    content = bytearray(path.read_bytes())
    root = run_sql(path, "SELECT rootpage FROM sqlite_master WHERE name = 'threads'")[0][0][0]
    content[(root - 1) * 4096 : root * 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    # A log that is still there is how a crash is told from a shutdown; this one holds no valid
    # frame.
    path.with_name("registry.db-wal").write_bytes(b"torn")

    with pytest.raises(StorageError, match="damaged"):
        async with open_registry():
            pass


async def test_a_folder_in_the_place_of_the_file_is_refused(open_registry, path):
    path.mkdir()

    with pytest.raises(StorageError) as caught:
        async with open_registry():
            pass

    assert str(path) in caught.value.message


async def test_a_missing_data_directory_is_refused(open_registry, data_dir):
    data_dir.rmdir()

    with pytest.raises(StorageError, match="cannot be used") as caught:
        async with open_registry():
            pass

    data_dir.mkdir()
    assert "folder exists" in caught.value.hint
