"""Many writes in one transaction: each is undone alone, all are durable together, in the order in which they were asked for."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import asynccontextmanager, closing

import pytest
from anyio import CancelScope, create_task_group, fail_after, to_thread
from anyio.lowlevel import checkpoint

from dispatch_core.api import StorageError
from dispatch_core.testing.storage import a_thread

pytestmark = pytest.mark.anyio

CALLERS = 20


def add(name):
    """Return work that writes one row and returns its name."""

    def work(transaction):
        transaction.run(
            "INSERT INTO actions (at, op, principal, outcome) VALUES (?, ?, 'p', 'ok')",
            (name, name),
        )
        return name

    return work


def names(registry):
    return [row[0] for row in registry.connection.read("SELECT op FROM actions ORDER BY id")]


class Held:
    """The writer, held until it is let go; ``statements`` counts what is run afterwards."""

    def __init__(self):
        self.begun, self.go_on = threading.Event(), threading.Event()

    def work(self, _transaction):
        self.begun.set()
        assert self.go_on.wait(10)


@asynccontextmanager
async def held(registry):
    """Yield while the writer is busy, so that what is asked for meanwhile becomes one batch."""
    holder = Held()
    with fail_after(10):
        async with create_task_group() as tasks:
            tasks.start_soon(registry.connection.write, holder.work)
            await to_thread.run_sync(holder.begun.wait)
            try:
                yield
                await checkpoint()
            finally:
                holder.go_on.set()


async def collect(registry, work, outcomes):
    try:
        outcomes.append(await registry.connection.write(work))
    except Exception as error:  # noqa: BLE001 -- the outcome
        outcomes.append(error)


def trace(registry):
    statements = []
    registry.connection._writer.connection().set_trace_callback(statements.append)
    return statements


async def test_what_waits_together_is_committed_together_in_order(registry):
    statements = trace(registry)
    outcomes = []

    async with create_task_group() as tasks, held(registry):
        for number in range(CALLERS):
            tasks.start_soon(collect, registry, add(str(number)), outcomes)

    expected = [str(number) for number in range(CALLERS)]
    assert outcomes == expected
    assert names(registry) == expected
    assert statements.count("COMMIT") == 2  # of the one that held the writer, and of all others


async def test_one_that_raises_is_undone_alone(registry):
    outcomes = []

    def broken(transaction):
        add("half")(transaction)
        raise LookupError("half-way")

    def refused(transaction):
        add("refused")(transaction)
        transaction.run(
            "INSERT INTO turns (thread_id, status, started_at) VALUES ('nobody', 'x', 'y')"
        )

    async with create_task_group() as tasks, held(registry):
        for work in (add("first"), broken, refused, add("last")):
            tasks.start_soon(collect, registry, work, outcomes)

    assert outcomes[0] == "first"
    assert isinstance(outcomes[1], LookupError)
    assert isinstance(outcomes[2], StorageError)
    assert outcomes[3] == "last"
    assert names(registry) == ["first", "last"]


async def test_a_commit_that_fails_changes_nothing_for_anybody(registry):
    await registry.connection.write(add("before"))
    pages = registry.connection.read("PRAGMA page_count")[0][0]
    await registry.connection.write(lambda write: write.rows(f"PRAGMA max_page_count = {pages}"))
    outcomes = []

    def too_big(transaction):
        transaction.run(
            "INSERT INTO actions (at, op, principal, outcome) VALUES ('1', ?, 'p', 'ok')",
            ("x" * 50_000,),
        )

    async with create_task_group() as tasks, held(registry):
        for work in (add("small"), too_big, add("other")):
            tasks.start_soon(collect, registry, work, outcomes)

    assert [outcome.code for outcome in outcomes] == ["disk_full"] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert names(registry) == ["before"]


async def test_a_caller_cancelled_while_others_wait_changes_nothing_and_holds_nobody_up(registry):
    outcomes = []

    async with create_task_group() as tasks, held(registry):
        tasks.start_soon(collect, registry, add("first"), outcomes)
        with CancelScope() as gone:
            async with create_task_group() as cancelled:
                cancelled.start_soon(registry.connection.write, add("cancelled"))
                await checkpoint()
                gone.cancel()
        tasks.start_soon(collect, registry, add("last"), outcomes)

    assert outcomes == names(registry) == ["first", "last"]


async def test_whoever_is_to_write_next_may_be_cancelled(registry):
    outcomes = []

    with fail_after(10):
        async with create_task_group() as tasks, create_task_group() as cancelled, held(registry):
            cancelled.start_soon(registry.connection.write, add("cancelled"))
            await checkpoint()
            tasks.start_soon(collect, registry, add("last"), outcomes)
            await checkpoint()
            cancelled.cancel_scope.cancel()

    assert outcomes == names(registry) == ["last"]


async def test_a_caller_cancelled_after_its_work_has_begun_gets_the_result_first(registry):
    begun, go_on = threading.Event(), threading.Event()
    events = []

    def slow(transaction):
        begun.set()
        assert go_on.wait(10)
        return add("slow")(transaction)

    async def caller(scope):
        with scope:
            events.append(await registry.connection.write(slow))
            await checkpoint()
            events.append("not cancelled")

    scope = CancelScope()
    with fail_after(10):
        async with create_task_group() as tasks:
            async with held(registry):
                tasks.start_soon(collect, registry, add("first"), [])
                await checkpoint()
                tasks.start_soon(caller, scope)
            await to_thread.run_sync(begun.wait)
            scope.cancel()
            go_on.set()

    assert events == ["slow"]
    assert names(registry) == ["first", "slow"]


async def test_a_caller_that_raises_for_good_leaves_the_writer_free(registry):
    def leaves(_transaction):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await registry.connection.write(leaves)

    assert await registry.threads.add(a_thread(), ["0AAAA1"])


async def test_the_rows_are_there_for_others_when_the_callers_hear_of_it(registry, path):
    seen = []

    async def write(name):
        await registry.connection.write(add(name))
        with closing(sqlite3.connect(path)) as other:
            seen.append(
                other.execute("SELECT count(*) FROM actions WHERE op = ?", (name,)).fetchone()[0]
            )

    with fail_after(20):
        async with create_task_group() as tasks:
            for number in range(CALLERS):
                tasks.start_soon(write, str(number))

    assert seen == [1] * CALLERS
