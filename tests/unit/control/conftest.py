"""A control server with a small host of its own, on a real socket, and raw clients that can say anything."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dispatch_core.contracts.surface import OpReply
from dispatch_core.control import wire
from dispatch_core.control.host import Limits
from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.control.server import ControlServer
from dispatch_core.control.stream import PeerStream
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.events import EventBus
from dispatch_core.errors import LaneBusy, NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from anyio.abc import ByteStream

    from dispatch_core.contracts.caller import Caller

HELLO = {"protocol": 1, "client": "test", "version": "1", "manifest": None, "thread_id": None}


class SmallHost:
    """A host with a handful of ops; what they did is in ``log``, and a slow op runs until ``release`` is set."""

    def __init__(self) -> None:
        self.instance = secrets.token_hex(4)
        self.events = EventBus(SystemClock())
        self.log: list[str] = []
        self.callers: list[Caller] = []
        self.calls: list[tuple[str, Mapping[str, Any], str | None, Mapping[str, Any] | None]] = []
        self.release = anyio.Event()
        self.changed = anyio.Event()
        self.graces: list[float | None] = []

    def note(self, entry: str) -> None:
        self.log.append(entry)
        self.changed.set()
        self.changed = anyio.Event()

    async def until(self, entry: str, times: int = 1) -> None:
        while self.log.count(entry) < times:
            await self.changed.wait()

    def hello(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if params["client"] == "unwanted":
            raise LaneBusy("@x", None)
        return {"protocol": wire.PROTOCOL, "instance": self.instance}

    def cancellable(self, name: str) -> bool:
        return name in ("slow.read", "wait")

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        schema: str | None,
        view: Mapping[str, Any] | None,
    ) -> OpReply:
        self.callers.append(caller)
        self.calls.append((name, args, schema, view))
        if name == "echo":
            return OpReply(result=dict(args), text=None if view is None else "seen")
        if name.startswith("slow."):
            return await self._slow(name)
        if name == "bytes":
            return OpReply(result={"blob": "x" * args["count"]})
        if name == "nan":
            return OpReply(result={"value": float("nan")})
        if name == "crash":
            raise ZeroDivisionError
        if name == "exit":
            raise SystemExit(1)
        if name == "stray":
            raise anyio.get_cancelled_exc_class()
        raise LaneBusy("@x", "t1")

    async def _slow(self, name: str) -> OpReply:
        self.note(f"{name} begun")
        try:
            await self.release.wait()
        except anyio.get_cancelled_exc_class():
            self.note(f"{name} cancelled")
            raise
        self.note(f"{name} done")
        return OpReply(result={"slow": True})

    def shutdown(self, grace: float | None) -> None:
        self.graces.append(grace)

    async def open_session(
        self,
        surface: str,
        stream: ByteStream,
        caller: Caller,
        options: Mapping[str, Any],
        started: Callable[[], Awaitable[None]],
    ) -> None:
        if surface == "silent":
            return
        if surface not in ("upper", "faulty", "exit"):
            raise NotFound(f"there is no surface {surface!r}")
        self.callers.append(caller)
        await started()
        if surface == "faulty":
            raise ZeroDivisionError
        if surface == "exit":
            raise SystemExit(1)
        await stream.send(options.get("prefix", "").encode())
        async for data in stream:
            await stream.send(data.upper())
        self.note("session over")


class RawClient:
    """Bytes in, frames out."""

    def __init__(self, stream: PeerStream) -> None:
        self.stream = stream
        self._splitter = wire.FrameSplitter(64 * 1024 * 1024)
        self._lines: Iterator[Any] = iter(())

    async def write(self, *frames: Any) -> None:
        """Send bytes as they are and objects as JSON lines, in one write."""
        data = [f if isinstance(f, bytes) else json.dumps(f).encode() + b"\n" for f in frames]
        await self.stream.send(b"".join(data))

    async def read(self) -> dict[str, Any]:
        while True:
            line = next(self._lines, None)
            if line is not None:
                frame = json.loads(line)
                assert isinstance(frame, dict)
                return frame
            self._lines = self._splitter.feed(await self.stream.receive())

    async def ask(self, *frames: Any) -> dict[str, Any]:
        await self.write(*frames)
        return await self.read()

    def rest(self) -> bytes:
        """Return what was received and is not part of a frame that was read."""
        return self._splitter.rest()

    async def ended(self) -> bool:
        """Say whether the server has closed the connection and sent nothing more before it did."""
        try:
            await self.read()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return True
        return False


class Running:
    """A server that runs, and how to reach it."""

    def __init__(self, host: SmallHost, server: ControlServer, path: Path) -> None:
        self.host = host
        self.server = server
        self.path = path
        self.scope = anyio.CancelScope()

    async def serve(self, listener: socket.socket, *, task_status: Any) -> None:
        with self.scope:
            await self.server.serve(listener, task_status=task_status)

    def stop(self) -> None:
        """End the server and its connections."""
        self.scope.cancel()

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[RawClient]:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        stream = PeerStream(sock)
        try:
            yield RawClient(stream)
        finally:
            stream.close()

    @asynccontextmanager
    async def greeted(self, **hello: Any) -> AsyncIterator[RawClient]:
        async with self.raw() as client:
            reply = await client.ask({"id": 0, "method": "$hello", "params": {**HELLO, **hello}})
            assert reply["id"] == 0
            assert "result" in reply
            yield client


@asynccontextmanager
async def running(path: Path, **limits: Any) -> AsyncIterator[Running]:
    host = SmallHost()
    server = ControlServer(host, limits=Limits(**limits))
    listener = open_listener(path)
    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                started = Running(host, server, path)
                await tasks.start(
                    lambda task_status: started.serve(listener, task_status=task_status)
                )
                yield started
                started.stop()
    finally:
        close_listener(listener, path)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of our own with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def socket_path(home: Path) -> Path:
    return home / "control.sock"


@pytest.fixture
def serving(socket_path: Path) -> Callable[..., Any]:
    """Start a server with the given limits: ``async with serving(hello=0.1) as running``."""
    return lambda **limits: running(socket_path, **limits)
