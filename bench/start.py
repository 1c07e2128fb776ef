"""How long a daemon takes to be ready, and what it holds when it is idle, against a bare asyncio server on a Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Goal, Result, end, interleave, resident_mib, until_line
from bench.world import PATIENCE, READY_FD, make_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.world import Home, World

ROUNDS = 21
THREADS = 20
MEMORY = Goal(of="figure", at_most=50.0)
BARE = "bare asyncio server"


def run(world: World) -> Iterable[Result]:
    """Measure from the start of the process to the line on the ready pipe, for both in the same way; then memory."""
    home = world.home()
    with world.daemon(home):
        pass  # builds the manifest and the registry: what is measured is every later start
    figures, floors = interleave(
        world.rounds(ROUNDS), lambda: _start(world, home), lambda: _start_bare(world, home)
    )
    yield Result(
        name="daemon start to socket ready",
        unit="ms",
        figure=figures,
        floor=floors,
        floor_name=BARE,
        goal=Goal(of="ratio", at_most=3.5),
    )
    fresh, used, bare = zip(*(_memory(world) for _ in range(2)), strict=True)
    for name, samples in (("fresh", fresh), (f"after {THREADS} threads and turns", used)):
        yield Result(
            name=f"daemon memory, {name}",
            unit="MiB",
            figure=samples,
            floor=bare,
            floor_name=BARE,
            goal=MEMORY,
        )


def _start(world: World, home: Home) -> float:
    process, elapsed = until_line(world.daemon_argv(), home.env, READY_FD)
    end(process)
    return elapsed


def _start_bare(world: World, home: Home) -> float:
    process, elapsed = until_line(_bare(world, home), home.env, "BENCH_READY_FD")
    end(process)
    return elapsed


def _bare(world: World, home: Home) -> list[str]:
    path = home.path / "bare.sock"
    path.unlink(missing_ok=True)
    script = str(Path(__file__).with_name("echo.py"))
    return [world.python, "-P", script, str(path), "/dev/null"]


def _memory(world: World) -> tuple[float, float, float]:
    home = world.home()
    process, _ = until_line(_bare(world, home), home.env, "BENCH_READY_FD")
    bare = resident_mib(process.pid)
    end(process)
    with world.daemon(home):
        pass  # makes the registry and the manifest, as the first daemon of a home does; all later ones find them
    with world.daemon(home) as daemon, home.connect() as connection:
        fresh = resident_mib(daemon.pid)
        for number in range(THREADS):
            ref = make_thread(connection, home, f"bench-{number}")["ref"]
            connection.request("send", {"thread": ref, "text": "hello"}, timeout=PATIENCE)
            connection.request("wait", {"thread": ref}, timeout=PATIENCE)
        return fresh, resident_mib(daemon.pid), bare
