"""The one module plugin authors import.

Everything here is stable within API version 1; nothing else in ``dispatch_core`` is, except ``dispatch_core.testing``.
"""

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
from dispatch_hookspecs import hookimpl

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
