"""A control server in a process of its own, driven over its standard input: one JSON command per line, one JSON answer per line.

``control_server.py SOCKET LIMITS`` with LIMITS as JSON. Commands: ``{"do": "publish", "count": N}``, ``{"do": "state"}``,
``{"do": "end"}``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from anyio import to_thread

from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.surface import OpReply
from dispatch_core.control import wire
from dispatch_core.control.host import Limits
from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.control.server import ControlServer
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.events import EventBus
from dispatch_core.errors import NotFound, UnknownOp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio.abc import ByteStream

    from dispatch_core.contracts.caller import Caller


class Host:
    """A host with ops that end well, badly, late and not at all. running: how many handlers run."""

    instance = "faults"

    def __init__(self) -> None:
        self.events = EventBus(SystemClock())
        self.running = 0
        self.written = 0

    def hello(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if params["client"] == "crash":
            raise ZeroDivisionError
        return {"protocol": wire.PROTOCOL, "instance": self.instance}

    def cancellable(self, name: str) -> bool:
        return name != "write"

    def shutdown(self, grace: float | None) -> None:
        raise RuntimeError("nobody asked for that")

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        schema: str | None,
        view: Mapping[str, Any] | None,
    ) -> OpReply:
        self.running += 1
        try:
            return OpReply(result=await self._result(name, args))
        finally:
            self.running -= 1

    async def _result(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        if name == "echo":
            return dict(args)
        if name == "blob":
            return {"blob": "x" * args["size"]}
        if name == "wait":
            await anyio.sleep_forever()
        if name == "write":
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            self.written += 1
            return {"written": self.written}
        if name == "crash":
            raise ZeroDivisionError
        if name == "exit":
            raise SystemExit(3)
        if name == "stray":
            raise anyio.get_cancelled_exc_class()
        if name == "group":
            raise ExceptionGroup("two at once", [ZeroDivisionError(), OSError()])
        raise UnknownOp(name)

    async def open_session(
        self,
        surface: str,
        stream: ByteStream,
        caller: Caller,
        options: Mapping[str, Any],
        started: Callable[[], Awaitable[None]],
    ) -> None:
        if surface not in ("upper", "crash", "exit"):
            raise NotFound(f"there is no surface {surface!r}")
        await started()
        self.running += 1
        try:
            if surface != "upper":
                await self._result(surface, {})
            async for data in stream:
                await stream.send(data.upper())
        finally:
            self.running -= 1


class Counting(logging.Handler):
    """Counts the errors that nobody foresaw."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1


def _state(host: Host, server: ControlServer, errors: Counting) -> dict[str, int]:
    # Two of the tasks are the one that asks and the accept loop's; a thread's own descriptor is closed again.
    return {
        "connections": server.connections,
        "descriptors": len(os.listdir("/dev/fd")) - 1,  # noqa: PTH208
        "tasks": len(anyio.get_running_tasks()),
        "running": host.running,
        "written": host.written,
        "errors": errors.count,
        "last_seq": host.events.last_seq,
    }


async def _obey(host: Host, server: ControlServer, errors: Counting) -> None:
    while line := await to_thread.run_sync(sys.stdin.readline):
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "end":
            return
        if command["do"] == "publish":
            for number in range(command["count"]):
                host.events.publish(EventKind.ITEM_COMPLETED, thread="t", data={"text": "x" * 200})
                if number % 50 == 0:
                    await anyio.lowlevel.checkpoint()
            answer = {"last_seq": host.events.last_seq}
        if command["do"] == "state":
            answer = _state(host, server, errors)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def main(path: Path, limits: Limits) -> None:
    errors = Counting()
    logging.getLogger().addHandler(errors)
    host = Host()
    server = ControlServer(host, limits=limits)
    listener = open_listener(path)
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(server.serve, listener)
            sys.stdout.write("{}\n")
            sys.stdout.flush()
            await _obey(host, server, errors)
            tasks.cancel_scope.cancel()
    finally:
        close_listener(listener, path)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), Limits(**json.loads(sys.argv[2])))
