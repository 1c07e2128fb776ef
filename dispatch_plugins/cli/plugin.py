"""The command line, as a surface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import PluginSettings, Surface, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def dispatch_surfaces(settings: PluginSettings) -> Iterable[Surface]:  # noqa: ARG001 -- nothing to configure
    """Return the command line, which runs in a process of its own."""
    return (
        Surface(
            name="cli",
            summary="The dispatch command line.",
            process="dispatch_plugins.cli.main:main",
        ),
    )
