"""Declares the MCP surface; nothing of it is imported until a process or a session needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import Surface, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatch_core.api import PluginSettings


@hookimpl
def dispatch_surfaces(settings: PluginSettings) -> Iterable[Surface]:  # noqa: ARG001 -- the hook's signature
    """Return the one surface of this plugin."""
    return [
        Surface(
            name="mcp",
            summary="Serve every op as MCP tools on stdin and stdout",
            process="dispatch_plugins.mcp.bridge:main",
            session="dispatch_plugins.mcp.session:serve",
        )
    ]
