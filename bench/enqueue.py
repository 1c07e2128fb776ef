"""What it costs to accept something durably: for one client, and for 64 that commit together."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio

from bench.measure import Goal, Result, short_directory
from dispatch_core.api import (
    DeliveryRecord,
    DeliveryState,
    Message,
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    When,
)
from dispatch_core.daemon.assembly import SWITCH_INTERVAL
from dispatch_core.engine.ids import uuid7
from dispatch_plugins.registry.backend import PeeweeStorage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.world import World
    from dispatch_core.api import Storage

ROUNDS = 25
BLOCK = 4096
FLOOR_BLOCKS = 1024
TRIPS = 50  # of one client, in a sample
CLIENTS = 64
EACH = 20  # of each of many clients, in a sample
WARM = 2000  # the write-ahead log has its size then, and is written anew from its beginning
BEGAN = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
THREAD = ThreadRecord(
    key="thread",
    provider="codex",
    native_id="native",
    ref="",
    handle="@worker",
    title=None,
    source=Source.OWN,
    status=ThreadStatus.IDLE,
    cwd="/home/user",
    settings=ThreadSettings(),
    created_at=BEGAN,
    updated_at=BEGAN,
)


def run(world: World) -> Iterable[Result]:
    """Measure one client against a write and fdatasync of 4 KiB in place, and 64 clients against one."""
    floors, one, many = anyio.run(_measured, world.rounds(ROUNDS))
    yield Result(
        name="durable enqueue, one client",
        unit="µs",
        figure=one,
        floor=floors,
        floor_name=f"write and fdatasync of {BLOCK} bytes",
        goal=Goal(of="ratio", at_most=2.0),
    )
    yield Result(
        name=f"durable enqueue, one of {CLIENTS} clients'",
        unit="µs",
        figure=many,
        floor=one,
        floor_name="durable enqueue, one client",
        goal=Goal(of="ratio", at_most=1 / 8),
    )


async def _measured(rounds: int) -> tuple[list[float], list[float], list[float]]:
    """Return samples of the floor, of one client and of many, taken in turn, each in microseconds for one enqueue."""
    samples: tuple[list[float], list[float], list[float]] = ([], [], [])
    switch = sys.getswitchinterval()
    folder = short_directory()
    try:
        sys.setswitchinterval(SWITCH_INTERVAL)  # as the daemon does
        async with AsyncExitStack() as stack:
            storage = PeeweeStorage(folder)
            await storage.open(stack)
            file = _blocks(folder / "floor")
            stack.callback(os.close, file)
            await storage.threads.add(THREAD, ["000001"])
            for _ in range(WARM):
                await _enqueue(storage)
            for number in range(-1, rounds):
                taken = (*await _one(storage, file), await _many(storage))
                if number >= 0:
                    for kept, sample in zip(samples, taken, strict=True):
                        kept.append(sample)
    finally:
        sys.setswitchinterval(switch)
        shutil.rmtree(folder, ignore_errors=True)
    return samples


def _blocks(path: Path) -> int:
    """Return an open file that has its size on disk already."""
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    os.write(file, bytes(BLOCK * FLOOR_BLOCKS))
    os.fsync(file)
    return file


async def _one(storage: Storage, file: int) -> tuple[float, float]:
    """Return the medians of a write in place that is synced, and of one client, which waits for each; taken in turn."""
    floors, times = [], []
    for number in range(TRIPS):
        block = number % FLOOR_BLOCKS
        began = time.perf_counter()
        os.pwrite(file, b"x" * BLOCK, block * BLOCK)
        os.fdatasync(file)
        synced = time.perf_counter()
        await _enqueue(storage)
        times.append(time.perf_counter() - synced)
        floors.append(synced - began)
    return statistics.median(floors) * 1e6, statistics.median(times) * 1e6


async def _many(storage: Storage) -> float:
    """Return the time that many clients need, by the number of what they enqueue."""

    async def client() -> None:
        for _ in range(EACH):
            await _enqueue(storage)

    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for _ in range(CLIENTS):
            tasks.start_soon(client)
    return (time.perf_counter() - began) / (CLIENTS * EACH) * 1e6


async def _enqueue(storage: Storage) -> None:
    delivery = DeliveryRecord(
        id=uuid7(),
        thread=THREAD.key,
        state=DeliveryState.QUEUED,
        when=When.IDLE,
        digest="d" * 64,
        principal="human",
        created_at=BEGAN,
        message=Message(text="x" * 120),
    )
    await storage.deliveries.add(delivery)
