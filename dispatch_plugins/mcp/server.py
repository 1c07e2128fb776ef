"""The MCP server of one session, on the SDK's low-level server.

Imported only when a session opens: the SDK takes half a second.
"""

from __future__ import annotations

import json
import logging
from math import inf
from typing import TYPE_CHECKING, Any, cast

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

from dispatch_core.api import DispatchError
from dispatch_plugins.mcp.framing import LineFile
from dispatch_plugins.mcp.grouping import tools
from dispatch_plugins.mcp.routing import Answer, find, route, schema_call

if TYPE_CHECKING:
    from anyio.abc import ByteStream
    from mcp.server.context import ServerRequestContext
    from mcp_types import CallToolRequestParams, PaginatedRequestParams

    from dispatch_core.api import SurfaceSession
    from dispatch_plugins.mcp.grouping import ToolSpec
    from dispatch_plugins.mcp.routing import OpCall

PROGRESS_EVERY = 3.0  # seconds
LAST_WORDS = 5.0  # seconds
INSTRUCTIONS = (
    "dispatch runs Codex threads on this machine. A message that was accepted is not answered yet: "
    "wait for the thread, then read it. An error says what to do next."
)

log = logging.getLogger(__name__)


async def serve_stream(
    stream: ByteStream, session: SurfaceSession, *, last_words: float = LAST_WORDS
) -> None:
    """Serve one session of JSON-RPC lines, in the protocol era that the client opens with.

    last_words: seconds for a client that has ended the session to take the last answers.
    """
    server = build_server(session)
    # stdio_server only iterates over, writes to and flushes its files.
    file = cast("anyio.AsyncFile[str]", LineFile(stream))
    with anyio.move_on_after(inf) as scope:
        async with stdio_server(stdin=file, stdout=file) as (read, write):
            await server.run(read, write, server.create_initialization_options())
            scope.deadline = anyio.current_time() + last_words


def build_server(
    session: SurfaceSession, *, progress_every: float = PROGRESS_EVERY
) -> Server[dict[str, Any]]:
    """Return a server that shows the session's ops as tools.

    progress_every: seconds between the progress notifications of a call that takes longer.
    Raises ValidationFailed for options that no session can have.
    """
    handlers = _Handlers(session, progress_every)
    return Server(
        "dispatch",
        version=session.version,
        title="dispatch",
        instructions=INSTRUCTIONS,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
    )


class _Handlers:
    def __init__(self, session: SurfaceSession, progress_every: float) -> None:
        options = session.options
        specs = tools(
            session.ops.ops("mcp"),
            str(options.get("profile") or "default"),
            thread_id=options.get("thread_id") or session.caller.thread_id,
        )
        self._session = session
        self._progress_every = progress_every
        self._specs = {spec.name: spec for spec in specs}
        self._tools = [Tool.model_validate(spec.wire()) for spec in specs]

    async def list_tools(
        self,
        ctx: ServerRequestContext[dict[str, Any]],  # noqa: ARG002 -- the SDK's signature
        params: PaginatedRequestParams | None,  # noqa: ARG002
    ) -> ListToolsResult:
        return ListToolsResult(tools=self._tools)

    async def call_tool(
        self, ctx: ServerRequestContext[dict[str, Any]], params: CallToolRequestParams
    ) -> CallToolResult:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._report, ctx, params.name)
            result = await self._answer(params.name, params.arguments or {})
            tasks.cancel_scope.cancel()
        return result

    async def _report(self, ctx: ServerRequestContext[dict[str, Any]], name: str) -> None:
        """Say regularly that the call goes on; the SDK drops it unless the client asked."""
        started = anyio.current_time()
        while True:
            await anyio.sleep(self._progress_every)
            elapsed = anyio.current_time() - started
            await ctx.session.report_progress(elapsed, message=f"{name}: {elapsed:.0f} s")

    async def _answer(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        # Everything is caught: a legacy client would be sent the text of any other exception.
        try:
            spec = find(self._specs, name)
            target = route(self._specs, spec, arguments)
            if isinstance(target, Answer):
                return _result(target.result)
            return await self._call(spec, target)
        except DispatchError as error:
            return _failure(error)
        except Exception:
            log.exception("the call of the tool %s failed", name)
            return _failure(_unexpected())

    async def _call(self, spec: ToolSpec, target: OpCall) -> CallToolResult:
        session = self._session
        try:
            reply = await session.ops.call(target.op.name, target.args, session.caller)
        except DispatchError as error:
            wrong_input = error.code == "validation"
            return _failure(error, schema_call(spec, target.op) if wrong_input else None)
        return _result(reply.result)


def _unexpected() -> DispatchError:
    return DispatchError(
        "the call failed inside dispatch; whether it had an effect is not known",
        hint="dispatch daemon log --daemon shows the cause",
    )


def _failure(error: DispatchError, hint: str | None = None) -> CallToolResult:
    full = error.to_dict()
    shown = {key: full[key] for key in ("code", "message", "hint", "retryable")}
    shown["hint"] = "; ".join(part for part in (shown["hint"], hint) if part) or None
    return _result(shown, is_error=True)


def _result(document: dict[str, Any], *, is_error: bool = False) -> CallToolResult:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON can carry a lone surrogate and UTF-8 cannot: writing it would end the session.
        text = text.encode("utf-8", "replace").decode()
        document = json.loads(text)
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=document,
        is_error=is_error,
    )
