"""What dispatch adds to a turn: ``send`` until its turn.completed event, against a minimal client of the bare app-server."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.measure import Goal, Result, interleave
from bench.world import PATIENCE, make_thread
from dispatch_core.appserver.client import OPT_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.world import Home, World
    from dispatch_core.control.sync_client import Connection

ROUNDS = 60
TEXT = "Say hello"


def run(world: World) -> Iterable[Result]:
    """Measure one turn in one thread at a time, ours and bare in turn, each with a Codex and a Codex home of its own."""
    home, bare_home = world.home(), world.home()
    with (
        world.daemon(home),
        home.connect() as connection,
        bare(world.codex, bare_home) as client,
    ):
        connection.subscribe(kinds=["turn.completed"], timeout=PATIENCE)
        ref = make_thread(connection, home, "bench")["ref"]
        figures, floors = interleave(
            world.rounds(ROUNDS), lambda: _ours(connection, ref), client.turn, warmup=2
        )
    yield Result(
        name="send to turn completed",
        unit="ms",
        figure=figures,
        floor=floors,
        floor_name="bare app-server",
        goal=Goal(of="excess", at_most=5.0),
    )


def _ours(connection: Connection, ref: str) -> float:
    began = time.perf_counter()
    connection.request("send", {"thread": ref, "text": TEXT}, timeout=PATIENCE)
    next(connection.events(timeout=PATIENCE))
    return (time.perf_counter() - began) * 1000


class Bare:
    """The least that can drive an app-server: one line out, lines in until the one that is wanted."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._last_id = 0
        self.thread = ""

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the result of one request; notifications before it are dropped."""
        self._last_id += 1
        self.write({"id": self._last_id, "method": method, "params": params})
        while True:
            message = self.read()
            if message.get("id") == self._last_id:
                result: dict[str, Any] = message["result"]
                return result

    def turn(self) -> float:
        """Return the milliseconds from turn/start to turn/completed."""
        began = time.perf_counter()
        message = [{"type": "text", "text": TEXT}]
        self.request("turn/start", {"threadId": self.thread, "input": message})
        while self.read().get("method") != "turn/completed":
            pass
        return (time.perf_counter() - began) * 1000

    def write(self, message: dict[str, Any]) -> None:
        """Write one line."""
        if self._process.stdin is None:
            raise RuntimeError("the app-server has no stdin")
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """Return the next line."""
        if self._process.stdout is None:
            raise RuntimeError("the app-server has no stdout")
        message: dict[str, Any] = json.loads(self._process.stdout.readline())
        return message


@contextmanager
def bare(codex: str, home: Home) -> Iterator[Bare]:
    """Yield a client with one thread."""
    process = subprocess.Popen(
        [codex, "app-server"],
        env=home.env,
        cwd=home.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            client = Bare(process)
            capabilities = {"experimentalApi": True, "optOutNotificationMethods": list(OPT_OUT)}
            info = {"name": "bench", "title": "bench", "version": "0"}
            client.request("initialize", {"clientInfo": info, "capabilities": capabilities})
            client.write({"method": "initialized"})
            started = client.request("thread/start", {"cwd": str(home.path)})
            client.thread = started["thread"]["id"]
            yield client
        finally:
            process.terminate()
