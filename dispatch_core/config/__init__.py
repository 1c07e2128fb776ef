"""The layers of configuration for new threads: which value counts, where it stands, and what a project may say.

Beside ``dispatch_core.api`` the one module that a plugin may import: for plugins that make threads or explain settings. Names are
looked up when they are first used; the daemon's socket does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatch_core.config.files import Places
    from dispatch_core.config.keys import ACCESS, KEYS
    from dispatch_core.config.layers import (
        Candidate,
        Configuration,
        Fate,
        Resolved,
        Source,
        brief,
    )
    from dispatch_core.config.texts import decode, read_file

__all__ = [
    "ACCESS",
    "KEYS",
    "Candidate",
    "Configuration",
    "Fate",
    "Places",
    "Resolved",
    "Source",
    "brief",
    "decode",
    "read_file",
]

_HOMES = {
    "ACCESS": "keys",
    "KEYS": "keys",
    "Places": "files",
    "decode": "texts",
    "read_file": "texts",
}


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'layers')}"), name)
