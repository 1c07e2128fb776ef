"""A home of its own, a manifest written by hand, a daemon that answers what a test tells it, and the real console script."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.errors import PROJECTIONS
from dispatch_core.plugin.manifest import FORMAT, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SCRIPT = str(Path(sys.executable).with_name("dispatch"))
FILE = (
    "import os; from dispatch_core.daemon.paths import Paths; from dispatch_core.plugin.manifest import current_key, file_of;"
    "paths = Paths.from_env(os.environ); print(file_of(paths, current_key(paths, safe={safe})))"
)
LIMIT = 30


def op(name: str, noun: str, properties: dict[str, Any], **changes: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    schema["required"] = changes.pop("required", [])
    schema["$defs"] = changes.pop("defs", {})
    return {
        "name": name,
        "summary": f"Do {name} in one go.",
        "noun": noun,
        "intent": "write",
        "idempotent": False,
        "timeout": 10.0,
        "schema": schema,
        "output_schema": {"type": "object"},
        "schema_hash": f"hash-{name}",
        "examples": [{"input": {}, "output": {}, "error": None, "title": ""}],
        "plugin": noun,
        "dist": "codex-dispatch",
        "hidden_from": [],
        **changes,
    }


def plugin(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "group": "dispatch.v1.plugins",
        "value": f"dispatch_plugins.ops.{name}",
        "dist": "codex-dispatch",
        "version": "0.1.0",
        "first_party": True,
        "state": "loaded",
        "stage": None,
        "reason": None,
        "traceback": None,
        "provides": {"ops": [], "kinds": [], "surfaces": [], "storage": False},
        **changes,
    }


def text(**changes: Any) -> dict[str, Any]:
    return {"type": "string", "description": "Some words.", **changes}


def nullable(schema: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "anyOf": [schema, {"type": "null"}],
        "default": None,
        "description": "Perhaps.",
        **changes,
    }


ARGUMENT = {"x-cli": {"argument": True}}
STDIN = {"x-cli": {"argument": True, "stdin": True}}
OPS = [
    op("list", "thread", {"archived": {"type": "boolean", "default": False, "description": "All."}},
       intent="read", idempotent=True),
    op(
        "new",
        "thread",
        {
            "name": text(**ARGUMENT),
            "text": nullable({"type": "string"}, **STDIN),
            "cwd": text(**{"x-cli": {"path": True, "default_cwd": True}}),
            "sandbox": nullable({"$ref": "#/$defs/Sandbox"}),
            "approval_policy_of_the_new_thread": nullable({"type": "string"}),
            "send": {"type": "boolean", "default": True, "description": "Send the text."},
            "limit": {"type": "integer", "default": 20, "description": "How many."},
            "weight": nullable({"type": "number"}),
            "tag": {"type": "array", "items": {"type": "string"}, "default": [], "description": "Tags.",
                    "x-cli": {"aliases": ["label"]}},
            "config": {"type": "object", "default": {}, "description": "More.", "x-cli": {"repeated": True}},
            "secret": nullable({"type": "string"}, **{"x-cli": {"hidden": True}}),
        },
        required=["name", "cwd"],
        defs={"Sandbox": {"type": "string", "enum": ["read-only", "workspace-write"]}},
        examples=[
            {"input": {"name": "tester", "text": "it's time", "sandbox": "read-only", "send": False,
                       "tag": ["a", "b"], "config": {"n": 1, "s": "x"}}, "output": {}, "error": None, "title": "all"},
            {"input": {"name": "tester"}, "output": None, "error": "validation", "title": ""},
        ],
    ),
    op("send", "message", {"thread": text(**ARGUMENT), "text": text(**STDIN)}, required=["thread", "text"]),
    op("wait", "message", {"threads": {"type": "array", "items": {"type": "string"}, "description": "Who.", **ARGUMENT}},
       required=["threads"], timeout=None, intent="read"),
    op("watch", "message", {"thread": {"type": "array", "items": {"type": "string"}, "default": [], "description": "Who.",
                                       "x-cli": {"argument": True, "complete": "thread"}},
                            "after": nullable({"type": "string"}), "limit": nullable({"type": "integer"}),
                            "timeout": nullable({"type": "number"})},
       intent="read", timeout=None, stream={"rows": "events", "always": True}),
    op("tail", "thread", {"thread": text(**{"x-cli": {"argument": True, "complete": "thread"}}),
                          "after": nullable({"type": "string"}), "limit": nullable({"type": "integer"})},
       required=["thread"], intent="read", stream={"rows": "items", "always": False}),
    op("sync", "thread", {"full": {"type": "boolean", "default": False, "description": "All of it."}}, progress=True),
    op("archive", "thread", {"thread": {"type": "array", "items": {"type": "string"}, "description": "Who.", **ARGUMENT},
                             "note": nullable({"type": "string"}, **{"x-cli": {"stdin": True}})},
       required=["thread"], intent="destroy"),
    op("paint", "thread", {"image": {"type": "array", "items": {"type": "string"}, "default": [], "description": "What.",
                                     "x-cli": {"file": True}},
                           "base": nullable({"type": "string"}, **{"x-cli": {"file": True}})}),
    op("goal.set", "goal", {"thread": text(**ARGUMENT)}, required=["thread"]),
    op("goal.clear", "goal", {"thread": text(**ARGUMENT), "force": {"type": "boolean", "default": False, "description": "Now."}},
       required=["thread"], intent="destroy"),
    op("daemon.status", "daemon", {}, intent="read"),
    op("secret.op", "thread", {}, hidden_from=["cli"]),
    op("acme.deploy", "acme", {"target": text(**ARGUMENT), "json": text()}, required=["target"], plugin="acme",
       dist="acme-dispatch"),
]  # fmt: skip
MANIFEST: dict[str, Any] = {
    "format": FORMAT,
    "key": "test-key",
    "version": "0.1.0",
    "build": "test",
    "sources": [],
    "ops": sorted(OPS, key=lambda each: each["name"]),
    "surfaces": [
        {"name": "cli", "summary": "Command line.", "process": "dispatch_plugins.cli.main:main", "session": None,
         "plugin": "cli", "dist": "codex-dispatch"},
        {"name": "mcp", "summary": "Serve MCP.", "process": "dispatch_plugins.mcp.bridge:main", "session": None,
         "plugin": "mcp", "dist": "codex-dispatch"},
    ],
    "kinds": [],
    "plugins": [
        plugin("threads", provides={"ops": ["list", "new"], "kinds": [], "surfaces": [], "storage": False}),
        plugin("acme", dist="acme-dispatch", version="2.0", first_party=False),
        plugin("broken", dist="broken-dispatch", version="0.3", first_party=False, state="quarantined", stage="load",
               reason="ModuleNotFoundError: No module named 'nowhere'", traceback="Traceback: line 1\n  line 2"),
    ],
}  # fmt: skip

Answer = dict[str, Any]


class FakeDaemon:
    """A server that speaks the control protocol and answers with what ``answers`` holds for a method.

    An answer may have "before": frames that are written first, and "hang_up": the connection is closed instead of the reply.
    """

    def __init__(self, path: str) -> None:
        self.requests: list[dict[str, Any]] = []
        self.greetings: list[dict[str, Any]] = []
        self.answers: dict[str, Callable[[dict[str, Any]], Answer]] = {}
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def fail(self, method: str, code: str, message: str, **details: Any) -> None:
        self.answers[method] = lambda _: error_answer(code, message, **details)

    def close(self) -> None:
        # Closing a socket does not wake its accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_UNIX) as knock, contextlib.suppress(OSError):
            knock.connect(self._path)
        self._thread.join(LIMIT)
        self._listener.close()
        Path(self._path).unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
                for line in stream:
                    reply = self._answer(json.loads(line))
                    frames = [*reply.pop("before", ()), reply]
                    hang_up = reply.pop("hang_up", False)
                    for frame in frames[:-1] if hang_up else frames:
                        stream.write(json.dumps(frame).encode() + b"\n")
                    stream.flush()
                    if hang_up:
                        break

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method = request["method"]
        if method == "$hello":
            self.greetings.append(request["params"])
            answer = self.answers.get(
                method, lambda _: {"result": {"pid": 1, "state": "ready", "offline": False}}
            )
        else:
            self.requests.append(request)
            answer = self.answers.get(method, lambda asked: {"result": {"echo": asked["params"]}})
        return {"id": request["id"], **answer(request)}


def error_answer(code: str, message: str, **details: Any) -> Answer:
    projection = PROJECTIONS[code]
    data = {"code": code, "message": message, "hint": "try this", "exit_code": projection.exit_code,
            "retryable": projection.retryable, "details": details}  # fmt: skip
    return {"error": {"code": projection.rpc_code, "message": message, "data": data}}


@dataclass
class Ran:
    """How a command ended. out and err: what it wrote; on a terminal with line ends as a program writes them."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        assert self.out == ""
        error = json.loads(self.err)["error"]
        assert set(error) == {"code", "message", "hint", "exit_code", "retryable", "details"}
        assert error["exit_code"] == self.code
        return dict(error)


@dataclass
class Shell:
    """The console script in a home of its own."""

    home: Path
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {**kept, "DISPATCH_HOME": str(self.home), "TERM": "xterm", **self.env}

    @property
    def socket(self) -> str:
        return f"{self.home}/dispatchd.sock"

    def install(self, manifest: dict[str, Any], *, safe: bool = False) -> None:
        environ = {**self.environ, "DISPATCH_SAFE": "1"} if safe else self.environ
        command = [sys.executable, "-P", "-c", FILE.format(safe=safe)]
        file = subprocess.run(
            command, env=environ, capture_output=True, check=True, text=True, timeout=LIMIT
        ).stdout
        (self.home / "cache").mkdir(exist_ok=True)
        Path(file.strip()).write_text(encode(manifest))

    def run(
        self, *args: str | bytes, stdin: bytes | None = None, python: tuple[str, ...] = ()
    ) -> Ran:
        command = [sys.executable, *python, SCRIPT, *args] if python else [SCRIPT, *args]
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environ,
            cwd=self.cwd,
            timeout=LIMIT,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def on_terminal(self, *args: str, keys: bytes = b"") -> Ran:
        """Run with a terminal of 80 columns for stdin, stdout and stderr; the latter on one of its own, to tell them apart."""
        out, out_end = pty.openpty()
        err, err_end = pty.openpty()
        process = subprocess.Popen(
            [SCRIPT, *args],
            stdin=out_end,
            stdout=out_end,
            stderr=err_end,
            env=self.environ,
            cwd=self.cwd,
        )
        os.close(out_end)
        os.close(err_end)
        os.write(out, keys)
        texts = _read_all({out: bytearray(), err: bytearray()})
        code = process.wait(LIMIT)
        return Ran(code, texts[out], texts[err])


def _read_all(buffers: dict[int, bytearray]) -> dict[int, str]:
    deadline = time.monotonic() + LIMIT
    waiting = set(buffers)
    while waiting:
        readable, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
        assert readable, "the command did not end"
        for descriptor in readable:
            try:
                data = os.read(descriptor, 65536)
            except OSError:  # how Linux says that the other end is closed
                data = b""
            buffers[descriptor] += data
            if not data:
                waiting.discard(descriptor)
                os.close(descriptor)
    return {fd: data.decode().replace("\r\n", "\n") for fd, data in buffers.items()}


@pytest.fixture
def shell() -> Iterator[Shell]:
    home = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    work = home / "work"
    work.mkdir()
    made = Shell(home, work)
    made.install(MANIFEST)
    yield made
    shutil.rmtree(home)


@pytest.fixture
def daemon(shell: Shell) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(shell.socket)
    yield fake
    fake.close()
