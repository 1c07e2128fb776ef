"""The only code that knows the JSONL protocol of ``codex app-server``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

LATE = frozenset(
    {"binary", "calls", "client", "evidence", "history", "process", "rpc", "threads", "turns"}
)

if TYPE_CHECKING:
    from types import ModuleType

    from dispatch_core.appserver import binary as binary
    from dispatch_core.appserver import calls as calls
    from dispatch_core.appserver import client as client
    from dispatch_core.appserver import evidence as evidence
    from dispatch_core.appserver import history as history
    from dispatch_core.appserver import process as process
    from dispatch_core.appserver import rpc as rpc
    from dispatch_core.appserver import threads as threads
    from dispatch_core.appserver import turns as turns
else:

    def __getattr__(name: str) -> ModuleType:
        """Import a module when it is first used as ``appserver.NAME``.

        The daemon's socket is ready before Codex is started, and what only Codex needs is a tenth of what the daemon imports.
        """
        if name not in LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return import_module(f"{__name__}.{name}")
