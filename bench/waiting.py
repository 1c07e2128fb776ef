"""A daemon with a hundred messages waiting in each of a thousand threads, against the same daemon with nothing to do."""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack, ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import anyio

from bench.backlog import MESSAGES, fill_backlog
from bench.control import Client
from bench.measure import Goal, Result, interleave, resident_mib
from bench.registry import THREADS, fill
from bench.world import PATIENCE
from dispatch_core.control import wire
from dispatch_core.daemon.launch import greeting
from dispatch_plugins.registry.backend import PeeweeStorage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bench.world import Home, World

ROUNDS = 15
REQUESTS = (("$ping", 1000), ("list", 200))  # with the round trips of a sample
MEMORY_ROUNDS = 3
MORE = 100  # messages, each for another thread


def run(world: World) -> Iterable[Result]:
    """Measure the 99th percentile of round trips, and memory, of both daemons in turn. Neither finds a Codex: nothing drains.

    In some threads one more message is queued while the daemon runs, so that in each of these a task waits for Codex.
    """
    idle, laden = _homes(world)
    with world.daemon(idle, "degraded") as without, world.daemon(laden, "degraded") as daemon:
        _queue_more(laden)
        samples = interleave(
            MEMORY_ROUNDS, partial(resident_mib, daemon.pid), partial(resident_mib, without.pid)
        )
        yield Result(
            name=f"daemon memory, {MESSAGES} messages wait in {THREADS} threads",
            unit="MiB",
            figure=samples[0],
            floor=samples[1],
            floor_name="nothing waits in as many threads",
            goal=Goal(of="figure", at_most=150.0),
        )
        with ExitStack() as stack:
            busy, calm = _client(stack, laden), _client(stack, idle)
            for name, trips in REQUESTS:
                request = wire.request_frame(1, name, {})
                figure, floor = interleave(
                    world.rounds(ROUNDS),
                    partial(_p99, busy, request, trips),
                    partial(_p99, calm, request, trips),
                )
                yield Result(
                    name=f"{name} p99, something waits in {THREADS} threads",
                    unit="µs",
                    figure=figure,
                    floor=floor,
                    floor_name="nothing waits",
                    goal=Goal(of="ratio", at_most=2.0),
                )


def _homes(world: World) -> tuple[Home, Home]:
    """Return a home with nothing but threads, and one with the backlog; there is no Codex for either."""
    idle, laden = (_without_codex(world.home()) for _ in range(2))
    anyio.run(fill, idle.path)
    anyio.run(fill_backlog, laden.path)
    anyio.run(_move_to, laden.path)
    return idle, laden


def _without_codex(home: Home) -> Home:
    return replace(home, env={**home.env, "DISPATCH_CODEX_BIN": str(home.path / "no-codex")})


async def _move_to(folder: Path) -> None:
    """Give all threads a directory that is there: a message for another one is refused."""
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(folder)
        await storage.open(stack)
        await storage.connection.write(
            lambda transaction: transaction.run("UPDATE threads SET cwd = ?", (str(folder),))
        )


def _queue_more(home: Home) -> None:
    with home.connect() as connection:
        for number in range(MORE):
            args = {"thread": f"{number:06}", "text": "Go on.", "queue": True}
            connection.request("send", args, timeout=PATIENCE)


def _client(stack: ExitStack, home: Home) -> Client:
    client = Client(stack, home.socket)
    client.trip(wire.request_frame(0, "$hello", greeting()))
    return client


def _p99(client: Client, request: bytes, trips: int) -> float:
    return statistics.quantiles(client.times(request, trips), n=100)[98] * 1e6
