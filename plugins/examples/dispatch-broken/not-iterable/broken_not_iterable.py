"""Returns a number where a list is expected."""

from dispatch_core.api import hookimpl


@hookimpl
def dispatch_ops() -> int:
    return 7
