"""A backlog of a hundred thousand messages over a thousand threads: what it costs to find the next one."""

from __future__ import annotations

import shutil
import sqlite3
import statistics
import time
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID

import anyio

from bench.measure import Goal, Result, interleave, short_directory
from bench.registry import THREADS, fill
from dispatch_core.api import DeliveryRecord, DeliveryState, Message, When
from dispatch_plugins.registry.backend import FILE_NAME, PeeweeStorage
from dispatch_plugins.registry.rows import delivery_values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from bench.world import World
    from dispatch_plugins.registry.connection import Transaction

ROUNDS = 25
MESSAGES = 100_000
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TEXT = "Read the report, and tell me what it leaves out. " * 6  # 300 characters


def run(world: World) -> Iterable[Result]:
    """Measure the store over a backlog: the next message of a thread, and the count of what waits."""
    folder = short_directory()
    try:
        head, pending, threads = anyio.run(fill_backlog, folder)
        yield from _heads(world.rounds(ROUNDS), folder, head, threads)
        yield _counted(world.rounds(ROUNDS), folder, pending)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def fill_backlog(folder: Path) -> tuple[str, str, list[str]]:
    """Make a registry with the backlog; return the statements of ``head`` and ``pending``, and the keys of the threads."""
    await fill(folder)
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(folder)
        await storage.open(stack)
        threads = [thread.key for thread in await storage.threads.list(limit=THREADS)]
        sql = storage.connection.queries.deliveries

        def work(transaction: Transaction) -> None:
            for number in range(MESSAGES):
                thread = threads[number % len(threads)]
                values = delivery_values(_delivery(number, thread))
                transaction.rows(sql.insert, (*values, thread, thread))

        await storage.connection.write(work)
        return sql.head, sql.pending, threads


def _delivery(number: int, thread: str) -> DeliveryRecord:
    text = f"{number}: {TEXT}"
    return DeliveryRecord(
        id=str(UUID(int=((1 << 44) + number) << 80 | 7 << 76 | 2 << 62 | number)),
        thread=thread,
        state=DeliveryState.QUEUED,
        when=When.IDLE,
        digest=sha256(text.encode()).hexdigest(),
        principal="human",
        created_at=BEGAN + timedelta(milliseconds=number),
        message=Message(text=text),
    )


def _heads(rounds: int, folder: Path, sql: str, threads: Sequence[str]) -> Iterable[Result]:
    """Each round asks every thread once, and counts as its median and as its 99th percentile."""
    for name, of in (("p50", statistics.median), ("p99", _percentile_99)):
        floor, figure = interleave(
            rounds,
            partial(_raw_heads, folder / FILE_NAME, sql, threads, of),
            partial(anyio.run, _store_heads, folder, threads, of),
        )
        yield Result(
            name=f"next message of a thread, {MESSAGES} wait in {THREADS}, {name}",
            unit="ms",
            figure=figure,
            floor=floor,
            floor_name="sqlite3: the same statement, a row as a tuple",
            goal=Goal(of="figure", at_most=20.0) if name == "p99" else None,
        )


def _raw_heads(
    path: Path, sql: str, threads: Sequence[str], of: Callable[[Sequence[float]], float]
) -> float:
    samples = []
    with closing(sqlite3.connect(path)) as connection:
        for thread in threads:
            began = time.perf_counter()
            rows = connection.execute(sql, (thread,) * 3).fetchall()
            samples.append((time.perf_counter() - began) * 1000)
            _expect(len(rows), 1)
    return of(samples)


async def _store_heads(
    folder: Path, threads: Sequence[str], of: Callable[[Sequence[float]], float]
) -> float:
    samples = []
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(folder)
        await storage.open(stack)
        for thread in threads:
            began = time.perf_counter()
            head = await storage.deliveries.head(thread)
            samples.append((time.perf_counter() - began) * 1000)
            _expect(head is not None, True)
    return of(samples)


def _counted(rounds: int, folder: Path, sql: str) -> Result:
    floor, figure = interleave(
        rounds, partial(_raw_pending, folder / FILE_NAME, sql), partial(anyio.run, _pending, folder)
    )
    return Result(
        name=f"what waits by thread, {MESSAGES} in {THREADS}",
        unit="ms",
        figure=figure,
        floor=floor,
        floor_name="sqlite3: the same statement, rows as tuples",
    )


def _raw_pending(path: Path, sql: str) -> float:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql).fetchall()
        began = time.perf_counter()
        rows = connection.execute(sql).fetchall()
        elapsed = (time.perf_counter() - began) * 1000
    _expect(sum(count for _, count in rows), MESSAGES)
    return elapsed


async def _pending(folder: Path) -> float:
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(folder)
        await storage.open(stack)
        await storage.deliveries.pending()
        began = time.perf_counter()
        waiting = await storage.deliveries.pending()
        elapsed = (time.perf_counter() - began) * 1000
    _expect(sum(waiting.values()), MESSAGES)
    return elapsed


def _percentile_99(samples: Sequence[float]) -> float:
    return statistics.quantiles(samples, n=100)[98]


def _expect(got: object, wanted: object) -> None:
    if got != wanted:
        raise RuntimeError(f"{got} were read, not {wanted}")
