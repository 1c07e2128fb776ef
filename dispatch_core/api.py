"""The one module plugin authors import.

Everything here is stable within API version 1; nothing else in ``dispatch_core`` is, except ``dispatch_core.testing``.
Names are looked up when they are first used: the storage backend needs no pydantic, and the daemon's socket waits for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dispatch_hookspecs import hookimpl

if TYPE_CHECKING:
    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.context import Clock, Codex, HistoryItem, OpContext
    from dispatch_core.contracts.events import Event, EventKind, Events, Gap
    from dispatch_core.contracts.fields import cli_field
    from dispatch_core.contracts.op import Example, Intent, Op, OpInput, OpOutput
    from dispatch_core.contracts.records import (
        ActionRecord,
        FiringRecord,
        FiringStatus,
        Source,
        ThreadRecord,
        ThreadSettings,
        ThreadStatus,
        TriggerRecord,
        TurnRecord,
        TurnStatus,
    )
    from dispatch_core.contracts.settings import PluginSettings
    from dispatch_core.contracts.storage import (
        ActionLog,
        FiringStore,
        LookupField,
        Storage,
        ThreadStore,
        TriggerStore,
    )
    from dispatch_core.contracts.surface import OpCaller, OpInfo, OpReply, Surface, SurfaceSession
    from dispatch_core.contracts.thread_view import ThreadView, TurnView, thread_view, turn_view
    from dispatch_core.contracts.trigger import Firing, TriggerConfig, TriggerKind
    from dispatch_core.contracts.view import View, glyph, printable, safe_block
    from dispatch_core.errors import (
        AmbiguousSelector,
        AuthorityDenied,
        CodexError,
        DispatchError,
        LaneBusy,
        NotFound,
        OutcomeUnknown,
        PartialSuccess,
        StorageError,
        ThreadNotFound,
        TimedOut,
        TriggerNotFound,
        ValidationFailed,
    )

__all__ = [
    "ActionLog",
    "ActionRecord",
    "AmbiguousSelector",
    "AuthorityDenied",
    "Caller",
    "Clock",
    "Codex",
    "CodexError",
    "DispatchError",
    "Event",
    "EventKind",
    "Events",
    "Example",
    "Firing",
    "FiringRecord",
    "FiringStatus",
    "FiringStore",
    "Gap",
    "HistoryItem",
    "Intent",
    "LaneBusy",
    "LookupField",
    "NotFound",
    "Op",
    "OpCaller",
    "OpContext",
    "OpInfo",
    "OpInput",
    "OpOutput",
    "OpReply",
    "OutcomeUnknown",
    "PartialSuccess",
    "PluginSettings",
    "Source",
    "Storage",
    "StorageError",
    "Surface",
    "SurfaceSession",
    "ThreadNotFound",
    "ThreadRecord",
    "ThreadSettings",
    "ThreadStatus",
    "ThreadStore",
    "ThreadView",
    "TimedOut",
    "TriggerConfig",
    "TriggerKind",
    "TriggerNotFound",
    "TriggerRecord",
    "TriggerStore",
    "TurnRecord",
    "TurnStatus",
    "TurnView",
    "ValidationFailed",
    "View",
    "cli_field",
    "glyph",
    "hookimpl",
    "printable",
    "safe_block",
    "thread_view",
    "turn_view",
]

# Where the names are, what is cheap to import first.
_HOMES = (
    "dispatch_core.errors",
    "dispatch_core.contracts.records",
    "dispatch_core.contracts.storage",
    "dispatch_core.contracts.events",
    "dispatch_core.contracts.caller",
    "dispatch_core.contracts.surface",
    "dispatch_core.contracts.settings",
    "dispatch_core.contracts.context",
    "dispatch_core.contracts.view",
    "dispatch_core.contracts.fields",
    "dispatch_core.contracts.op",
    "dispatch_core.contracts.trigger",
    "dispatch_core.contracts.thread_view",
)


def __getattr__(name: str) -> Any:
    """Return a public name from the module that defines it, and keep it."""
    if name in __all__:
        for home in _HOMES:
            found = vars(import_module(home)).get(name)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
