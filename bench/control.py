"""Round trips on the control socket, against asyncio streams that answer the same bytes to the same client."""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Goal, Result, end, interleave, until_line
from bench.world import PATIENCE, make_thread
from dispatch_core.control import wire
from dispatch_core.daemon.launch import greeting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.world import World

ROUNDS = 25
THREADS = 50


def run(world: World) -> Iterable[Result]:
    """Measure ``$ping`` and a ``list`` of 50 threads; a sample is the median of many round trips on one connection."""
    home = world.home()
    with ExitStack() as stack:
        stack.enter_context(world.daemon(home))
        with home.connect() as connection:
            for number in range(THREADS):
                make_thread(connection, home, f"bench-{number}")
        for name, trips, goal in (
            ("$ping", 400, Goal(of="ratio", at_most=2.5)),
            ("list", 60, None),
        ):
            request = wire.request_frame(1, name, {})
            ours = Client(stack, home.socket)
            ours.trip(wire.request_frame(0, "$hello", greeting()))
            reply = ours.trip(request)
            floor = Client(stack, _echo(stack, world, home.path / f"echo-{trips}", reply))
            figures, floors = interleave(
                world.rounds(ROUNDS),
                partial(ours.median, request, trips),
                partial(floor.median, request, trips),
            )
            yield Result(
                name=name if name == "$ping" else f"{name} of {THREADS} threads",
                unit="µs",
                figure=figures,
                floor=floors,
                floor_name=f"asyncio echo of {len(reply)} bytes",
                goal=goal,
            )


class Client:
    """A blocking socket that writes a line and reads one."""

    def __init__(self, stack: ExitStack, path: str) -> None:
        self._socket = stack.enter_context(socket.socket(socket.AF_UNIX))
        self._socket.settimeout(PATIENCE)
        self._socket.connect(path)

    def trip(self, request: bytes) -> bytes:
        """Return the line that answers a line."""
        self._socket.sendall(request)
        reply = self._socket.recv(1 << 20)
        while not reply.endswith(b"\n"):
            chunk = self._socket.recv(1 << 20)
            if not chunk:
                raise RuntimeError("the server went away")
            reply += chunk
        return reply

    def median(self, request: bytes, trips: int) -> float:
        """Return the median round trip in microseconds."""
        return statistics.median(self.times(request, trips)) * 1e6

    def times(self, request: bytes, trips: int) -> list[float]:
        """Return the seconds of each of many round trips."""
        times = []
        for _ in range(trips):
            began = time.perf_counter()
            self.trip(request)
            times.append(time.perf_counter() - began)
        return times


def _echo(stack: ExitStack, world: World, path: Path, reply: bytes) -> str:
    file = path.with_suffix(".reply")
    file.write_bytes(reply)
    script = str(Path(__file__).with_name("echo.py"))
    argv = [world.python, script, str(path), str(file)]
    process, _ = until_line(argv, {}, "BENCH_READY_FD")
    stack.callback(end, process)
    return str(path)
