"""A handful of ops behind the real contract, and the session that a surface gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dispatch_core.api import (
    Caller,
    LaneBusy,
    OpInfo,
    OpReply,
    SurfaceSession,
    ThreadNotFound,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

AGENT = Caller(principal="agent:0199-own", surface="mcp", thread_id="0199-own")
THREAD = {"type": "string", "description": "Ref, id, handle or title of the thread."}


def op_info(
    name: str,
    noun: str,
    intent: str,
    properties: Mapping[str, Any],
    *,
    required: Sequence[str] = (),
    summary: str = "",
    defs: Mapping[str, Any] | None = None,
    idempotent: bool = True,
    dist: str = "codex-dispatch",
    output: Mapping[str, Any] | None = None,
) -> OpInfo:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }
    return OpInfo(
        name=name,
        summary=summary or f"Do {name}",
        noun=noun,
        intent=intent,
        idempotent=idempotent,
        timeout=30.0,
        schema={**schema, "$defs": dict(defs)} if defs else schema,
        output_schema=output or {"type": "object"},
        schema_hash=name,
        examples=[],
        plugin="test",
        dist=dist,
    )


class Ops:
    """An OpCaller with a few ops; it keeps what it was asked, and how waiting calls ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any], Caller]] = []
        self.waiting = anyio.Event()
        self.release = anyio.Event()
        self.cancelled = anyio.Event()
        text = {"type": "string", "description": "What to say.", "x-cli": {"argument": True}}
        cwd = {"type": "string", "description": "Where it works.", "x-cli": {"path": True}}
        word = {
            "type": "object",
            "properties": {"thread": {"type": "string"}},
            "required": ["thread"],
        }
        self._table: dict[str, tuple[OpInfo, Callable[[Mapping[str, Any]], Awaitable[Any]]]] = {}
        for info, handler in [
            (
                op_info(
                    "get", "thread", "read", {"thread": THREAD}, required=["thread"], output=word
                ),
                self._get,
            ),
            (
                op_info("wait", "thread", "read", {"thread": THREAD}, required=["thread"]),
                self._wait,
            ),
            (
                op_info(
                    "send",
                    "message",
                    "write",
                    {"thread": THREAD, "text": text},
                    required=["thread", "text"],
                    idempotent=False,
                ),
                self._send,
            ),
            (
                op_info("archive", "thread", "destroy", {"thread": THREAD}, required=["thread"]),
                self._echo,
            ),
            (
                op_info(
                    "trigger.add",
                    "trigger",
                    "write",
                    {"thread": THREAD, "op": {"type": "string", "description": "What to run."}},
                    required=["op"],
                ),
                self._echo,
            ),
            (op_info("new", "thread", "write", {"cwd": cwd}, required=["cwd"]), self._echo),
            (op_info("daemon.status", "daemon", "read", {}), self._status),
            (op_info("daemon.crash", "daemon", "read", {}), self._crash),
        ]:
            self._table[info.name] = (info, handler)

    def ops(self, surface: str) -> Sequence[OpInfo]:
        assert surface == "mcp"
        return [info for _, (info, _) in sorted(self._table.items())]

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        view: Mapping[str, Any] | None = None,
    ) -> OpReply:
        self.calls.append((name, dict(args), caller))
        return OpReply(result=await self._table[name][1](args))

    async def _get(self, args: Mapping[str, Any]) -> dict[str, Any]:
        if args["thread"] == "@nobody":
            raise ThreadNotFound("@nobody")
        return {"thread": args["thread"]}

    async def _send(self, args: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(args.get("text"), str):
            raise ValidationFailed("text: a text is required")
        if args["thread"] == "@busy":
            raise LaneBusy("@busy", "t1")
        return {"said": args["text"]}

    async def _wait(self, args: Mapping[str, Any]) -> dict[str, Any]:
        self.waiting.set()
        try:
            await self.release.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled.set()
            raise
        return {"thread": args["thread"], "settled": True}

    async def _echo(self, args: Mapping[str, Any]) -> dict[str, Any]:
        return dict(args)

    async def _status(self, args: Mapping[str, Any]) -> dict[str, Any]:
        print("a stray line")
        return {"state": "ready", "title": "half a \ud83d pair"}

    async def _crash(self, args: Mapping[str, Any]) -> dict[str, Any]:
        raise RuntimeError("secret path /home/x")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def ops() -> Ops:
    return Ops()


@pytest.fixture
def make_op() -> Callable[..., OpInfo]:
    return op_info


@pytest.fixture
def open_session(ops: Ops) -> Callable[..., SurfaceSession]:
    def make(**options: Any) -> SurfaceSession:
        return SurfaceSession(ops=ops, caller=AGENT, options=options, version="9.8.7")

    return make
