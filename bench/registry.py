"""A registry of a thousand threads: what a list costs in the store, and as a whole command."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from bench.measure import Goal, Result, interleave, short_directory
from dispatch_core.api import (
    ModelInUse,
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
)
from dispatch_plugins.registry.backend import FILE_NAME, PeeweeStorage
from dispatch_plugins.registry.queries import THREAD
from dispatch_plugins.registry.rows import column_value, turn_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from bench.world import World
    from dispatch_plugins.registry.connection import Transaction

ROUNDS = 25
THREADS = 1000
BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TWICE = Goal(of="ratio", at_most=2.0)
EIGHT_TIMES = Goal(of="ratio", at_most=8.0)


def store(world: World) -> Iterable[Result]:
    """Measure the list of the store: a statement run again and again, and the first one after opening."""
    folder = short_directory()
    try:
        sql = anyio.run(fill, folder)
        rounds = world.rounds(ROUNDS)
        for name, reopened in (("warm", False), ("first read after opening", True)):
            floor, figure = interleave(
                rounds,
                partial(_raw, folder / FILE_NAME, sql, reopened=reopened),
                partial(anyio.run, _listed, folder, reopened),
                warmup=2,
            )
            yield Result(
                name=f"list of {THREADS} in the store, {name}",
                unit="ms",
                figure=figure,
                floor=floor,
                floor_name="sqlite3: the same statement, rows as tuples",
                goal=TWICE,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def command(world: World) -> Iterable[Result]:
    """Measure ``dispatch list`` over a thousand threads: the work of its process, and the time until it has ended."""
    home = world.home()
    anyio.run(fill, home.path)
    script = str(world.bin / "dispatch")
    people = {**home.env, "DISPATCH_OUTPUT": "human"}
    commands: dict[str, tuple[Sequence[str], Mapping[str, str]]] = {
        "dispatch list": ([script, "list"], home.env),
        "dispatch list --limit 1000": ([script, "list", "--limit", "1000"], home.env),
        "dispatch list --limit 1000, a table": ([script, "list", "--limit", "1000"], people),
    }
    nothing = [world.python, "-c", "pass"]
    with world.daemon(home):
        for unit, cost in ((world.cost.unit, world.cost.of), ("ms elapsed", _elapsed)):
            samples = interleave(
                world.rounds(ROUNDS),
                partial(cost, nothing, home.env),
                *(partial(cost, *asked) for asked in commands.values()),
                warmup=2,
            )
            for name, figure in zip(commands, samples[1:], strict=True):
                yield Result(
                    name=f"{name}, of {THREADS}",
                    unit=unit,
                    figure=figure,
                    floor=samples[0],
                    floor_name="python -c pass",
                    goal=EIGHT_TIMES,
                )


async def fill(folder: Path) -> str:
    """Make a registry with a thousand threads, each with a finished turn, and return the statement that lists them."""
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(folder)
        await storage.open(stack)
        sql = storage.connection.queries.threads

        def work(transaction: Transaction) -> None:
            for number in range(THREADS):
                thread = _thread(number)
                values = tuple(column_value(name, getattr(thread, name)) for name in THREAD)
                transaction.run(sql.insert, values)
                if thread.turn is not None:
                    transaction.run(sql.put_turn, (thread.key, *turn_values(thread.turn)))

        await storage.connection.write(work)
        return sql.page


def _thread(number: int) -> ThreadRecord:
    made = BEGAN + timedelta(seconds=97 * number)
    turn = TurnRecord(
        message_id=str(uuid.uuid4()),
        id=str(uuid.uuid4()),
        status=TurnStatus.COMPLETED,
        started_at=made + timedelta(seconds=1.5),
        completed_at=made + timedelta(seconds=11.25),
    )
    return ThreadRecord(
        key=str(uuid.uuid4()),
        provider="codex",
        native_id=str(uuid.uuid4()),
        ref=f"{number:06}",
        handle=f"@worker-{number}",
        title=f"Worker {number}",
        source=Source.OWN,
        status=ThreadStatus.IDLE,
        cwd=f"/home/user/projects/project-{number % 20}",
        settings=ThreadSettings(sandbox="workspace-write", model="gpt-5", effort="high"),
        created_at=made,
        updated_at=made + timedelta(seconds=11.5),
        materialized=True,
        in_use=ModelInUse(provider="openai", model="gpt-5", effort="high"),
        turn=turn,
    )


def _raw(path: Path, sql: str, *, reopened: bool) -> float:
    """Return the milliseconds of the store's statement in bare sqlite3."""
    parameters = ("", ThreadStatus.ARCHIVED.value, THREADS)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT 1 FROM threads").fetchone()  # connected, with the schema read
        if not reopened:
            connection.execute(sql, parameters).fetchall()
        began = time.perf_counter()
        rows = connection.execute(sql, parameters).fetchall()
        elapsed = (time.perf_counter() - began) * 1000
    return _checked(rows, elapsed)


async def _listed(folder: Path, reopened: bool) -> float:
    """Return the milliseconds of a list in the store."""
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(folder)
        await storage.open(stack)
        if not reopened:
            await storage.threads.list(limit=THREADS)
        began = time.perf_counter()
        threads = await storage.threads.list(limit=THREADS)
        elapsed = (time.perf_counter() - began) * 1000
    return _checked(threads, elapsed)


def _checked(rows: Sequence[Any], elapsed: float) -> float:
    if len(rows) != THREADS:
        raise RuntimeError(f"{len(rows)} threads were read, not {THREADS}")
    return elapsed


def _elapsed(argv: Sequence[str], env: Mapping[str, str]) -> float:
    """Return the milliseconds until a command has ended. Raises RuntimeError when it fails."""
    null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], list(argv), env, file_actions=null)
    _, status = os.waitpid(pid, 0)
    elapsed = (time.perf_counter() - began) * 1000
    if status != 0:
        raise RuntimeError(
            f"{' '.join(argv)} ended with status {os.waitstatus_to_exitcode(status)}"
        )
    return elapsed
