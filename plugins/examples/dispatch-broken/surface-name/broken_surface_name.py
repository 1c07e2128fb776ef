"""A surface that answers to the name of a command."""

from dispatch_core.api import Surface, hookimpl


@hookimpl
def dispatch_surfaces() -> list[Surface]:
    return [Surface(name="list", summary="List nothing", process="broken_surface_name:main")]
