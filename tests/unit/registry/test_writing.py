"""Transactions: durable when acknowledged, whole when cancelled, patient with other processes."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime

import pytest
from anyio import create_task_group, fail_after, to_thread
from anyio.lowlevel import checkpoint

from dispatch_core.api import StorageError
from dispatch_core.testing.storage import LATER, START, a_thread, a_trigger

pytestmark = pytest.mark.anyio

OPEN = """
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
import anyio
from dispatch_plugins.registry.backend import PeeweeStorage
from dispatch_core.testing.storage import a_thread

async def main(work):
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(Path(sys.argv[1]))
        await storage.open(stack)
        await work(storage)
"""

WRITE_FOR_EVER = """
async def work(storage):
    for number in range(1_000_000):
        thread = await storage.threads.add(a_thread(number), [f"{number:06}"])
        print(thread.key, flush=True)

anyio.run(main, work)
"""

CLAIM = """
async def work(storage):
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(100):
        if await storage.firings.claim("trigger-1", f"key-{number}", datetime.now(UTC)):
            print(number, flush=True)

anyio.run(main, work)
"""

HOLD_THE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def hold_the_lock(path):
    holder = start(HOLD_THE_LOCK, path)
    assert holder.stdout.readline() == "locked\n"
    return holder


def let_go(holder):
    holder.communicate("\n", timeout=10)


async def test_the_promised_pragmas_are_set(registry):
    promised = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}

    pragmas = {
        name: (
            await registry.connection.write(lambda write, sql=f"PRAGMA {name}": write.rows(sql))
        )[0][0]
        for name in promised
    }

    assert pragmas == promised
    assert registry.connection.read("PRAGMA query_only") == [(1,)]


async def test_a_read_sees_every_write_that_has_returned(registry):
    thread = await registry.threads.add(a_thread(), ["0AAAA1"])

    for number in range(50):
        await registry.threads.update(thread.key, title=str(number), updated_at=LATER)
        seen = await registry.threads.get(thread.key)
        assert seen is not None
        assert seen.title == str(number)


async def test_writes_run_on_one_thread_at_a_time(registry):
    inside, most = 0, 0
    threads = set()

    def work(transaction):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threads.add(threading.current_thread())
        transaction.rows("SELECT count(*) FROM threads")
        inside -= 1

    with fail_after(10):
        async with create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(registry.connection.write, work)

    assert most == 1
    assert threading.main_thread() not in threads


async def test_a_caller_cancelled_in_mid_write_leaves_the_whole_change(registry):
    begun, go_on = threading.Event(), threading.Event()

    def work(transaction):
        transaction.run(
            "INSERT INTO actions (at, op, principal, outcome) VALUES ('1', 'a', 'p', 'ok')"
        )
        begun.set()
        assert go_on.wait(10)
        transaction.run(
            "INSERT INTO actions (at, op, principal, outcome) VALUES ('2', 'b', 'p', 'ok')"
        )

    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(registry.connection.write, work)
            await to_thread.run_sync(begun.wait)
            tasks.cancel_scope.cancel()
            go_on.set()

    assert registry.connection.read("SELECT op FROM actions ORDER BY at") == [("a",), ("b",)]
    await registry.threads.add(a_thread(), ["0AAAA1"])


async def test_a_caller_cancelled_in_the_queue_changes_nothing(registry):
    begun, go_on = threading.Event(), threading.Event()

    def occupy(_transaction):
        begun.set()
        assert go_on.wait(10)

    with fail_after(10):
        async with create_task_group() as first:
            first.start_soon(registry.connection.write, occupy)
            await to_thread.run_sync(begun.wait)
            async with create_task_group() as second:
                second.start_soon(registry.threads.add, a_thread(), ["0AAAA1"])
                await checkpoint()
                second.cancel_scope.cancel()
            go_on.set()

    assert await registry.threads.list() == ()


async def test_an_error_in_mid_write_changes_nothing(registry):
    def work(transaction):
        transaction.run(
            "INSERT INTO actions (at, op, principal, outcome) VALUES ('1', 'a', 'p', 'ok')"
        )
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        await registry.connection.write(work)

    assert await registry.actions.latest(10) == ()


async def test_a_write_waits_for_the_lock_of_another_process(registry, path):
    await registry.threads.add(a_thread(1), ["0AAAA1"])
    holder = hold_the_lock(path)
    waiting = []

    async def write():
        waiting.append(await registry.threads.add(a_thread(2), ["0AAAA2"]))

    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(write)
            await checkpoint()
            # The event loop is free in the meantime, and reads answer.
            assert len(await registry.threads.list()) == 1
            assert waiting == []
            await to_thread.run_sync(let_go, holder)

    assert len(await registry.threads.list()) == 2


async def test_a_lock_that_is_never_released_is_a_storage_error(open_registry, path):
    async with open_registry(busy_timeout=0.1) as registry:
        holder = hold_the_lock(path)

        with fail_after(10), pytest.raises(StorageError, match="another process holds its lock"):
            await registry.threads.add(a_thread(), ["0AAAA1"])

        let_go(holder)
        assert await registry.threads.add(a_thread(), ["0AAAA1"])


async def test_of_two_processes_only_the_one_that_opened_the_registry_last_writes(
    open_registry, data_dir
):
    async with open_registry() as registry:
        await registry.triggers.add(a_trigger())
        successor = start(OPEN + CLAIM, data_dir)
        assert successor.stdout.readline() == "ready\n"

        with pytest.raises(StorageError, match="taken over"):
            await registry.firings.claim("trigger-1", "key-0", LATER)

        assert len(await registry.triggers.list()) == 1
        won = successor.communicate("\n", timeout=20)[0].split()
        with pytest.raises(StorageError, match="taken over"):
            await registry.firings.claim("trigger-1", "key-100", LATER)
    assert sorted(map(int, won)) == list(range(100))


@pytest.mark.parametrize("count", [1, 40])
async def test_a_killed_writer_loses_no_acknowledged_write(open_registry, data_dir, count):
    writer = start(OPEN + WRITE_FOR_EVER, data_dir)
    acknowledged = [writer.stdout.readline().strip() for _ in range(count)]

    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.communicate(timeout=10)[0].split()

    async with open_registry() as registry:
        kept = {thread.key for thread in await registry.threads.list(limit=1_000_000)}
    assert set(acknowledged) <= kept
    assert len(kept) <= len(acknowledged) + 1


async def test_moments_are_kept_as_sortable_text_in_utc(registry, path):
    await registry.threads.add(a_thread(created_at=datetime(2026, 1, 1, tzinfo=UTC)), ["0AAAA1"])

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT created_at FROM threads").fetchall()

    assert rows == [("2026-01-01T00:00:00.000000+00:00",)]


async def test_a_moment_without_a_time_zone_is_refused(registry):
    with pytest.raises(ValueError, match="time zone"):
        await registry.threads.add(a_thread(created_at=START.replace(tzinfo=None)), ["0AAAA1"])
