"""Whatever SQLite runs into, a StorageError with a way out is what leaves."""

from __future__ import annotations

import sqlite3
from contextlib import AsyncExitStack

import pytest

from dispatch_core.api import StorageError
from dispatch_core.testing.storage import LATER, a_thread
from dispatch_plugins.registry.backend import PeeweeStorage
from dispatch_plugins.registry.faults import is_fatal, storage_error

pytestmark = pytest.mark.anyio


def sqlite_error(code, name, text="what SQLite says"):
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode, error.sqlite_errorname = code, name
    return error


async def limit_pages(registry, pages):
    await registry.connection.write(lambda write: write.rows(f"PRAGMA max_page_count = {pages}"))


async def test_a_full_disk_loses_nothing_and_recovers(registry):
    kept = await registry.threads.add(a_thread(1), ["0AAAA1"])
    pages = registry.connection.read("PRAGMA page_count")[0][0]
    await limit_pages(registry, pages)

    with pytest.raises(StorageError, match="disk is full") as caught:
        await registry.threads.add(a_thread(2, title="x" * 50_000), ["0AAAA2"])

    assert "free some space" in caught.value.hint
    assert await registry.threads.list() == (kept,)
    await limit_pages(registry, 1_000_000)
    added = await registry.threads.add(a_thread(2, title="x" * 50_000), ["0AAAA2"])
    assert await registry.threads.list() == (kept, added)


async def test_a_registry_that_is_not_open_says_so(data_dir):
    storage = PeeweeStorage(data_dir)

    with pytest.raises(StorageError, match="not open"):
        await storage.threads.get("key")
    with pytest.raises(StorageError, match="not open"):
        await storage.firings.claimed()


async def test_a_closed_registry_says_so(data_dir):
    storage = PeeweeStorage(data_dir)
    async with AsyncExitStack() as stack:
        await storage.open(stack)

    with pytest.raises(StorageError, match="not open"):
        await storage.threads.update("key", updated_at=LATER)


async def test_text_that_is_not_unicode_is_refused(registry):
    with pytest.raises(StorageError, match="cannot keep this value"):
        await registry.threads.add(a_thread(title="\ud800"), ["0AAAA1"])
    with pytest.raises(StorageError, match="cannot keep this value"):
        await registry.threads.find("title", "\ud800")

    assert await registry.threads.list() == ()


@pytest.mark.parametrize("loss", ["deleted", "replaced"])
async def test_a_file_taken_away_in_use_takes_no_more_writes(registry, path, loss):
    await registry.threads.add(a_thread(1), ["0AAAA1"])
    aside = path.rename(path.with_suffix(".aside"))
    if loss == "replaced":
        path.write_bytes(aside.read_bytes())

    with pytest.raises(StorageError, match="moved or replaced"):
        await registry.threads.add(a_thread(2), ["0AAAA2"])

    aside.replace(path)
    assert await registry.threads.add(a_thread(2), ["0AAAA2"])


async def test_a_row_of_an_unknown_kind_is_a_storage_error(registry):
    thread = await registry.threads.add(a_thread(), ["0AAAA1"])
    await registry.connection.write(
        lambda write: write.run("UPDATE threads SET status = 'dancing'")
    )

    with pytest.raises(StorageError, match="dancing"):
        await registry.threads.get(thread.key)


async def test_damage_met_while_writing_stops_all_further_writes(registry):
    def damaged(_transaction):
        raise sqlite_error(sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT")

    with pytest.raises(StorageError, match="damaged"):
        await registry.connection.write(damaged)

    with pytest.raises(StorageError, match="damaged"):
        await registry.threads.add(a_thread(), ["0AAAA1"])
    assert await registry.threads.list() == ()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "disk is full"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "another process holds its lock"),
        (sqlite3.SQLITE_READONLY_DIRECTORY, "read-only"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
        (sqlite3.SQLITE_CORRUPT, "damaged"),
        (sqlite3.SQLITE_NOTADB, "not a database"),
        (sqlite3.SQLITE_IOERR_FSYNC, "disk reported an error"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, "contradicts what is stored"),
        (sqlite3.SQLITE_MISMATCH, "what SQLite says"),
    ],
)
def test_every_kind_of_error_is_named_with_a_way_out(path, code, words):
    failure = storage_error(sqlite_error(code, "NAME"), path)

    assert words in failure.message
    assert str(path) in failure.message
    assert failure.hint
    assert failure.details["sqlite"] == "NAME"


def test_a_rollback_that_fails_as_well_does_not_hide_the_cause(path):
    try:
        try:
            raise sqlite_error(sqlite3.SQLITE_FULL, "SQLITE_FULL")
        except sqlite3.Error:
            raise sqlite_error(sqlite3.SQLITE_ERROR, "SQLITE_ERROR", "no transaction") from None
    except sqlite3.Error as error:
        failure = storage_error(error, path)

    assert "disk is full" in failure.message


def test_only_damage_and_lost_writes_are_fatal():
    assert is_fatal(sqlite_error(sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"))
    assert is_fatal(sqlite_error(sqlite3.SQLITE_CORRUPT_INDEX, "SQLITE_CORRUPT_INDEX"))
    assert not is_fatal(sqlite_error(sqlite3.SQLITE_FULL, "SQLITE_FULL"))
    assert not is_fatal(sqlite_error(sqlite3.SQLITE_BUSY, "SQLITE_BUSY"))
