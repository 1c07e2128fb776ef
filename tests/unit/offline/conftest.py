"""The offline model on a real port, and the real Codex on the other end of a pipe."""

import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import anyio
import codex_cli_bin
import pytest
from anyio import BrokenResourceError, EndOfStream
from anyio.abc import Process, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from dispatch_core.offline.codex_home import offline_environ, write_codex_home
from dispatch_core.offline.model import OfflineModel

FRAME_LIMIT = 64 * 1024 * 1024


class Refused(Exception):
    """An error reply of the app-server."""


class Codex:
    """The plainest client there can be: one request at a time, every other frame kept in order."""

    def __init__(self, process: Process, directory: Path) -> None:
        assert process.stdout is not None
        self._process = process
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._count = 0
        self.directory = directory
        self.frames: list[dict[str, Any]] = []

    async def request(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        await self._write({"id": self._count, "method": method, "params": params})
        while True:
            frame = await self._read()
            if frame.get("id") == self._count and "method" not in frame:
                if "error" in frame:
                    raise Refused(frame["error"])
                return dict(frame["result"])
            self.frames.append(frame)

    async def notify(self, method: str) -> None:
        await self._write({"method": method})

    async def respond(self, request: dict[str, Any], result: dict[str, Any]) -> None:
        await self._write({"id": request["id"], "result": result})

    async def expect(self, method: str) -> dict[str, Any]:
        """The first frame of this method that was not expected before; it and all before it are consumed."""
        while True:
            while self.frames:
                frame = self.frames.pop(0)
                if frame["method"] == method:
                    return frame
            self.frames.append(await self._read())

    async def start_thread(self, **params: Any) -> str:
        started = await self.request("thread/start", cwd=str(self.directory), **params)
        return str(started["thread"]["id"])

    async def start_turn(self, thread: str, text: str, **params: Any) -> str:
        entry = {"type": "text", "text": text}
        started = await self.request("turn/start", threadId=thread, input=[entry], **params)
        return str(started["turn"]["id"])

    async def run_turn(self, thread: str, text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The finished turn, and every frame that came before it."""
        await self.start_turn(thread, text)
        before: list[dict[str, Any]] = []
        while True:
            frame = self.frames.pop(0) if self.frames else await self._read()
            if frame["method"] == "turn/completed":
                return frame["params"]["turn"], before
            before.append(frame)

    async def _write(self, frame: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send(json.dumps(frame).encode() + b"\n")

    async def _read(self) -> dict[str, Any]:
        return dict(json.loads(await self._lines.receive_until(b"\n", FRAME_LIMIT)))


class Web:
    """A client of the offline model that can also send what no proper client would."""

    def __init__(self, base_url: str) -> None:
        self.port = int(base_url.removesuffix("/v1").rpartition(":")[2])

    def connect(self) -> Awaitable[SocketStream]:
        return anyio.connect_tcp("127.0.0.1", self.port)

    async def exchange(self, data: bytes) -> bytes:
        """Everything that comes back until the server closes."""
        received = b""
        with anyio.fail_after(10):
            async with await self.connect() as stream:
                await stream.send(data)
                try:
                    while True:
                        received += await stream.receive()
                except (EndOfStream, BrokenResourceError):
                    return received

    async def post(self, path: str, body: object) -> tuple[int, str]:
        return await self._ask("POST", path, json.dumps(body).encode())

    async def get(self, path: str) -> tuple[int, str]:
        return await self._ask("GET", path, b"")

    async def say(self, *items: object, thread: str = "t1") -> tuple[int, list[dict[str, Any]]]:
        """Ask the model, and return the status and the events; a string is a message of the user."""
        status, text = await self.post("/v1/responses", self.body(*items, thread=thread))
        lines = text.split("\n")
        return status, [json.loads(line[6:]) for line in lines if line.startswith("data: ")]

    @staticmethod
    def body(*items: object, thread: str = "t1") -> dict[str, Any]:
        messages = [
            {"role": "user", "content": item} if isinstance(item, str) else item for item in items
        ]
        metadata = {"thread_id": thread, "turn_id": "u1"}
        return {"model": "offline-model", "input": messages, "client_metadata": metadata}

    @staticmethod
    def request(method: str, path: str, body: bytes, **headers: str) -> bytes:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = f"Content-Length: {len(body)}\r\n"
        return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}{length}\r\n".encode() + body

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        answer = await self.exchange(self.request(method, path, body, Connection="close"))
        head, _, rest = answer.partition(b"\r\n\r\n")
        text = _dechunked(rest) if b"chunked" in head else rest
        return int(head.split()[1]), text.decode()


def _dechunked(data: bytes) -> bytes:
    joined = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        joined, data = joined + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return joined


StartCodex = Callable[..., AbstractAsyncContextManager[Codex]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def short_dir() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def log(short_dir: Path) -> Path:
    return short_dir / "requests.jsonl"


@pytest.fixture
async def model(log: Path) -> AsyncIterator[OfflineModel]:
    served = OfflineModel(log=log)
    async with anyio.create_task_group() as group:
        await group.start(served.serve)
        yield served
        group.cancel_scope.cancel()


@pytest.fixture
def web(model: OfflineModel) -> Web:
    return Web(model.base_url)


@pytest.fixture
def start_codex(short_dir: Path) -> StartCodex:
    @asynccontextmanager
    async def start(base_url: str, *, env: Mapping[str, str] | None = None) -> AsyncIterator[Codex]:
        home, work = short_dir / "codex", short_dir / "work"
        write_codex_home(home, base_url)
        work.mkdir(exist_ok=True)
        clean = {"PATH": os.environ["PATH"], "HOME": str(short_dir)}
        command = [str(codex_cli_bin.bundled_codex_path()), "app-server"]
        process = await anyio.open_process(
            command, cwd=work, env=offline_environ(home, {**clean, **(env or {})}), stderr=DEVNULL
        )
        async with process:
            try:
                codex = Codex(process, work)
                client = {"name": "offline_test", "title": "Offline test", "version": "1"}
                with anyio.fail_after(20):
                    await codex.request("initialize", clientInfo=client)
                    await codex.notify("initialized")
                yield codex
            finally:
                process.terminate()

    return start


@pytest.fixture
async def codex(model: OfflineModel, start_codex: StartCodex) -> AsyncIterator[Codex]:
    async with start_codex(model.base_url) as started:
        yield started
