"""Control requests while the daemon builds its index, against the same daemon at rest."""

from __future__ import annotations

import json
import selectors
import shutil
import socket
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench import corpus as rollouts
from bench.indexes import FILE_SIZE, MEGABYTE
from bench.measure import Goal, Result
from bench.world import PATIENCE
from dispatch_core.control import wire
from dispatch_core.daemon.launch import greeting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.corpus import Corpus
    from bench.world import World

ROUNDS = 15
CLIENTS = 16
AT_REST = 0.7  # seconds
SIZE = 40  # MB that are indexed anew in every round


def run(world: World) -> Iterable[Result]:
    """Measure the 99th percentile of ``$ping`` with 16 clients at once, at rest and while an index is built, in turn."""
    home = world.home()
    corpus = rollouts.write(home.path / "codex", files=SIZE * MEGABYTE // FILE_SIZE, size=FILE_SIZE)
    rest, busy = [], []
    with world.daemon(home), ExitStack() as stack:
        clients = Clients(stack, home.socket)
        clients.build()
        for _ in range(world.rounds(ROUNDS)):
            rest.append(clients.rest())
            _replace(corpus)
            busy.append(clients.build())
    yield Result(
        name=f"$ping p99, {CLIENTS} clients, during an index build",
        unit="ms",
        figure=busy,
        floor=rest,
        floor_name="the daemon at rest",
        goal=Goal(of="ratio", at_most=2.0),
    )


class Clients:
    """Connections that each ask again as soon as they are answered, and one that asks for a build."""

    def __init__(self, stack: ExitStack, path: str) -> None:
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._sockets = [_connect(stack, path) for _ in range(CLIENTS)]
        self._builder = _connect(stack, path)
        self._ping = wire.request_frame(1, "$ping", {})
        for each in self._sockets:
            self._selector.register(each, selectors.EVENT_READ)
        self._selector.register(self._builder, selectors.EVENT_READ)

    def rest(self) -> float:
        """Return the 99th percentile in milliseconds, without a build."""
        return self._ask(build=False)

    def build(self) -> float:
        """Return the 99th percentile from the beginning of a build to its end."""
        self._builder.sendall(wire.request_frame(1, "sync", {"full": True}))
        return self._ask(build=True)

    def _ask(self, *, build: bool) -> float:
        until = time.perf_counter() + (PATIENCE if build else AT_REST)
        times: list[float] = []
        asked = {each: time.perf_counter() for each in self._sockets}
        for each in self._sockets:
            each.sendall(self._ping)
        running, answer = True, b""
        while asked:
            for key, _ in self._selector.select(PATIENCE):
                ready: socket.socket = key.fileobj  # type: ignore[assignment]
                data = ready.recv(1 << 20)
                now = time.perf_counter()
                if ready is self._builder:
                    answer += data
                    running = not _is_done(answer)
                    continue
                times.append(now - asked.pop(ready))
                if running and now < until:
                    asked[ready] = now
                    ready.sendall(self._ping)
        if build and running:
            raise RuntimeError(f"the build did not end within {PATIENCE:g} s")
        return statistics.quantiles(times, n=100)[98] * 1000


def _is_done(answer: bytes) -> bool:
    for line in answer.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            return False
        message = json.loads(line)
        if "error" in message:
            raise RuntimeError(message["error"])
        if "result" in message:
            return True
    return False


def _connect(stack: ExitStack, path: str) -> socket.socket:
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    connection.settimeout(PATIENCE)
    connection.connect(path)
    connection.sendall(wire.request_frame(0, "$hello", greeting()))
    while not connection.recv(1 << 20).endswith(b"\n"):
        pass
    return connection


def _replace(corpus: Corpus) -> None:
    """Make every rollout another file, so that it is indexed anew."""
    for path in corpus.files:
        copy = path.with_suffix(".new")
        shutil.copy2(path, copy)
        copy.replace(path)
