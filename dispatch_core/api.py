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
    from dispatch_core.contracts.context import (
        Clock,
        Codex,
        HistoryItem,
        HistoryPage,
        Lanes,
        OpContext,
    )
    from dispatch_core.contracts.deliveries import (
        Deliveries,
        DeliveryFilter,
        DeliveryRecord,
        DeliveryState,
        DeliveryStore,
        Epoch,
        Verdict,
        When,
    )
    from dispatch_core.contracts.events import Event, EventKind, Events, Gap
    from dispatch_core.contracts.fields import Selectors, cli_field, thread_field
    from dispatch_core.contracts.history import (
        Checkpoint,
        Document,
        History,
        HistoryIndex,
        HistorySource,
        IndexAddress,
        SearchHit,
        SearchPage,
        SearchQuery,
        SourceChange,
        SourceFacts,
        SyncReport,
        SyncState,
    )
    from dispatch_core.contracts.op import (
        Example,
        Intent,
        Op,
        OpInput,
        OpOutput,
        Stream,
    )
    from dispatch_core.contracts.records import (
        ActionRecord,
        CachedRecord,
        FiringRecord,
        FiringStatus,
        Image,
        Message,
        ModelInUse,
        Source,
        StoppedTurn,
        ThreadRecord,
        ThreadSettings,
        ThreadStatus,
        TriggerRecord,
        TurnRecord,
        TurnStatus,
    )
    from dispatch_core.contracts.requests import (
        RequestFilter,
        RequestKind,
        RequestRecord,
        Requests,
        RequestState,
        RequestStore,
    )
    from dispatch_core.contracts.search_text import (
        SearchTerm,
        fold,
        has_all_terms,
        one_token_each,
        search_terms,
        snippet,
        term_spans,
        unmarked,
    )
    from dispatch_core.contracts.settings import PluginSettings
    from dispatch_core.contracts.storage import (
        ActionLog,
        CacheStore,
        FiringStore,
        LookupField,
        Maintenance,
        MigrationReport,
        RegistryReport,
        Storage,
        ThreadStore,
        TriggerStore,
    )
    from dispatch_core.contracts.surface import OpCaller, OpInfo, OpReply, Surface, SurfaceSession
    from dispatch_core.contracts.thread_view import ThreadView, TurnView, thread_view, turn_view
    from dispatch_core.contracts.trigger import Firing, TriggerConfig, TriggerKind
    from dispatch_core.contracts.view import View, glyph, printable, safe_block, visible
    from dispatch_core.errors import (
        ActiveWriter,
        AmbiguousSelector,
        AuthorityDenied,
        CapabilityUnavailable,
        CodexError,
        DeliveryConflict,
        DeliveryNotFound,
        DiskFull,
        DispatchError,
        LaneBusy,
        LaneHeld,
        NoActiveTurn,
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
    "ActiveWriter",
    "AmbiguousSelector",
    "AuthorityDenied",
    "CacheStore",
    "CachedRecord",
    "Caller",
    "CapabilityUnavailable",
    "Checkpoint",
    "Clock",
    "Codex",
    "CodexError",
    "Deliveries",
    "DeliveryConflict",
    "DeliveryFilter",
    "DeliveryNotFound",
    "DeliveryRecord",
    "DeliveryState",
    "DeliveryStore",
    "DiskFull",
    "DispatchError",
    "Document",
    "Epoch",
    "Event",
    "EventKind",
    "Events",
    "Example",
    "Firing",
    "FiringRecord",
    "FiringStatus",
    "FiringStore",
    "Gap",
    "History",
    "HistoryIndex",
    "HistoryItem",
    "HistoryPage",
    "HistorySource",
    "Image",
    "IndexAddress",
    "Intent",
    "LaneBusy",
    "LaneHeld",
    "Lanes",
    "LookupField",
    "Maintenance",
    "Message",
    "MigrationReport",
    "ModelInUse",
    "NoActiveTurn",
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
    "RegistryReport",
    "RequestFilter",
    "RequestKind",
    "RequestRecord",
    "RequestState",
    "RequestStore",
    "Requests",
    "SearchHit",
    "SearchPage",
    "SearchQuery",
    "SearchTerm",
    "Selectors",
    "Source",
    "SourceChange",
    "SourceFacts",
    "StoppedTurn",
    "Storage",
    "StorageError",
    "Stream",
    "Surface",
    "SurfaceSession",
    "SyncReport",
    "SyncState",
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
    "Verdict",
    "View",
    "When",
    "cli_field",
    "fold",
    "glyph",
    "has_all_terms",
    "hookimpl",
    "one_token_each",
    "printable",
    "safe_block",
    "search_terms",
    "snippet",
    "term_spans",
    "thread_field",
    "thread_view",
    "turn_view",
    "unmarked",
    "visible",
]

# Where the names are, what is cheap to import first.
_HOMES = (
    "dispatch_core.errors",
    "dispatch_core.contracts.records",
    "dispatch_core.contracts.storage",
    "dispatch_core.contracts.deliveries",
    "dispatch_core.contracts.requests",
    "dispatch_core.contracts.history",
    "dispatch_core.contracts.search_text",
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
