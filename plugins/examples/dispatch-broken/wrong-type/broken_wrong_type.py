"""Returns names where ops are expected."""

from dispatch_core.api import hookimpl


@hookimpl
def dispatch_ops() -> list[str]:
    return ["wrongtype.one"]
