"""The daemon half of the surface: one MCP session on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import ByteStream

    from dispatch_core.api import SurfaceSession


async def serve(stream: ByteStream, session: SurfaceSession) -> None:
    """Speak MCP on a byte stream until the client ends it; closing the stream is its owner's part.

    The first session imports the MCP library, in a thread, so that the daemon's loop keeps running.
    Raises ValidationFailed for options that no session can have.
    """
    serve_stream = await to_thread.run_sync(_load, limiter=CapacityLimiter(1))
    await serve_stream(stream, session)


def _load() -> Callable[[ByteStream, SurfaceSession], Awaitable[None]]:
    from dispatch_plugins.mcp.server import serve_stream  # noqa: PLC0415 -- half a second, once

    return serve_stream
