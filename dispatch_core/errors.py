"""Everything that can go wrong, and how each surface says it.

DispatchError
├── ValidationFailed (ValueError)          the request is wrong; nothing was done
│   ├── AmbiguousSelector                  more than one thread answers to the name
│   └── NoActiveTurn                       no turn runs in the thread
├── Declined                               a person said no
├── NotFound (LookupError)
│   ├── ThreadNotFound
│   ├── TriggerNotFound
│   ├── DeliveryNotFound
│   └── UnknownOp
├── LaneBusy                               a turn is running in the thread
│   └── LaneHeld                           earlier messages come first
├── DeliveryConflict                       the delivery, or its key, is not in the state this needs
├── RequestClosed                          what Codex asked takes no answer any more
├── ApprovalRequired                       a person must answer first
├── AuthorityDenied (PermissionError)      this caller may not do this
├── CodexError                             Codex refused, or cannot be reached
│   ├── CodexUnavailable                   there is no running app-server
│   ├── ActiveWriter                       another process holds the thread
│   ├── CapabilityUnavailable              this Codex, or this backend, cannot do it
│   ├── CodexOverloaded                    -32001: nothing was done, retry later
│   └── CodexTimeout (TimeoutError)        no answer before the deadline
├── AlreadyRunning                         another daemon holds the lock of this home
├── DaemonUnreachable (ConnectionError)    there is no daemon, or it went away
│   └── DaemonStale                        the daemon runs another build or other plugins
├── StagingFailed                          files could not be prepared
├── OutcomeUnknown                         it may have happened: do not retry
├── TimedOut (TimeoutError)                the wait ended, the work goes on
├── PartialSuccess                         some of it was done, some was not
├── PluginFault                            a plugin broke its contract
├── ProtocolViolation (ValueError)         a malformed frame on the control socket
├── StorageError                           the registry cannot be read or written
│   └── DiskFull                           there is no room to keep it
├── Cancelled                              the caller withdrew the request
└── RemoteError                            any of these, received from the daemon

``PROJECTIONS`` is the one table from a code to an exit status, an RPC error number and whether a retry is safe.
This module is standard library only: the fast path of the CLI imports it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs more than everything else in this module
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Projection:
    """How one error code appears on the surfaces. retryable: whether repeating the request is safe."""

    __slots__ = ("exit_code", "retryable", "rpc_code")

    def __init__(self, exit_code: int, rpc_code: int, *, retryable: bool = False) -> None:
        self.exit_code = exit_code
        self.rpc_code = rpc_code
        self.retryable = retryable


PROJECTIONS: dict[str, Projection] = {
    "internal": Projection(1, 1000),
    "validation": Projection(2, 1002),
    "ambiguous": Projection(2, 1002),
    "declined": Projection(3, 1003),
    "not_found": Projection(4, 1004),
    "unknown_op": Projection(4, -32601),
    "lane_busy": Projection(5, 1005, retryable=True),
    "delivery_conflict": Projection(5, 1017),
    "request_closed": Projection(5, 1019),
    "approval_required": Projection(6, 1006),
    "authority": Projection(7, 1007),
    "app_server": Projection(8, 1008),
    "codex_unavailable": Projection(8, 1008, retryable=True),
    "codex_overloaded": Projection(8, 1008, retryable=True),
    "codex_timeout": Projection(8, 1008),
    "active_writer": Projection(8, 1008),
    "unsupported": Projection(8, 1008),
    "no_active_turn": Projection(2, 1002),
    "already_running": Projection(1, 1016),
    "daemon_unreachable": Projection(8, 1018, retryable=True),
    "daemon_stale": Projection(8, 1028),
    "staging": Projection(9, 1009),
    "unknown_outcome": Projection(10, 1010),
    "timeout": Projection(11, 1011, retryable=True),
    "partial": Projection(12, 1012),
    "plugin": Projection(13, 1013),
    "storage": Projection(1, 1014),
    "disk_full": Projection(1, 1024, retryable=True),
    "cancelled": Projection(1, 1015),
    "protocol": Projection(1, -32600),
}


class DispatchError(Exception):
    """The base of every error a user can meet.

    message says what failed and why; hint is the next command or step, without a full stop; details is a JSON object.
    """

    code: str = "internal"

    def __init__(
        self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    @property
    def projection(self) -> Projection:
        return PROJECTIONS.get(self.code, PROJECTIONS["internal"])  # a newer daemon may know more

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON error object that every surface shows: code, message, hint, exit_code, retryable, details."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.projection.exit_code,
            "retryable": self.projection.retryable,
            "details": self.details,
        }


class ValidationFailed(DispatchError, ValueError):
    code = "validation"


class AmbiguousSelector(ValidationFailed):
    """Several threads answer to one selector; details["candidates"] lists {ref, id_prefix, title, managed, cwd}."""

    code = "ambiguous"

    def __init__(self, selector: str, candidates: Sequence[Mapping[str, Any]]) -> None:
        refs = ", ".join(str(candidate["ref"]) for candidate in candidates)
        super().__init__(
            f"{selector!r} names {len(candidates)} threads: {refs}",
            hint="use one of these refs; dispatch list --archived shows what each of them is",
            details={"selector": selector, "candidates": [dict(c) for c in candidates]},
        )


class NoActiveTurn(ValidationFailed):
    code = "no_active_turn"

    def __init__(self, thread: str) -> None:
        super().__init__(
            f"no turn runs in {thread}",
            hint=f"dispatch send {thread} TEXT starts one; dispatch get {thread} shows the last",
            details={"thread": thread},
        )


class Declined(DispatchError):
    code = "declined"


class NotFound(DispatchError, LookupError):
    code = "not_found"


class ThreadNotFound(NotFound):
    def __init__(self, selector: str, *, similar: Sequence[str] = ()) -> None:
        hint = "dispatch list shows the threads"
        if similar:
            hint = f"did you mean {', '.join(similar)}? {hint}"
        super().__init__(
            f"no thread answers to {selector!r}",
            hint=hint,
            details={"selector": selector, "similar": list(similar)},
        )


class TriggerNotFound(NotFound):
    def __init__(self, trigger: str) -> None:
        super().__init__(
            f"there is no trigger {trigger!r}",
            hint="dispatch trigger list shows the triggers",
            details={"trigger": trigger},
        )


class DeliveryNotFound(NotFound):
    def __init__(self, delivery: str) -> None:
        super().__init__(
            f"there is no delivery {delivery!r}",
            hint="dispatch delivery list shows what was accepted",
            details={"delivery": delivery},
        )


class UnknownOp(NotFound):
    code = "unknown_op"

    def __init__(self, name: str, *, similar: Sequence[str] = ()) -> None:
        hint = "dispatch plugins shows what is installed and what failed to load"
        if similar:
            hint = f"did you mean {', '.join(similar)}? {hint}"
        super().__init__(f"there is no op {name!r}", hint=hint, details={"op": name})


class LaneBusy(DispatchError):
    """A turn runs in the thread. waiting: it does not go on before somebody answers what Codex asks."""

    code = "lane_busy"

    def __init__(self, thread: str, turn_id: str | None, *, waiting: bool = False) -> None:
        running = "waits for an answer" if waiting else "is running"
        hint = (
            "add --queue to send it when the turn has ended, --steer to say it to the running turn, "
            "or --interject to replace that turn"
        )
        if waiting:
            hint = f"dispatch request list --thread {thread} shows what Codex asks; or {hint}"
        super().__init__(
            f"a turn {running} in {thread}; a message sent now would be merged into it",
            hint=hint,
            details={"thread": thread, "turn_id": turn_id},
        )


class LaneHeld(LaneBusy):
    """Nothing runs, but earlier messages come first: they wait, or the outcome of one is unknown."""

    def __init__(self, thread: str, why: str, hint: str) -> None:
        DispatchError.__init__(self, why, hint=hint, details={"thread": thread, "turn_id": None})


class DeliveryConflict(DispatchError):
    code = "delivery_conflict"


class ApprovalRequired(DispatchError):
    code = "approval_required"


class AuthorityDenied(DispatchError, PermissionError):
    code = "authority"


class CodexError(DispatchError):
    """Codex answered with an error; details carries its own code and message."""

    code = "app_server"


class CodexUnavailable(CodexError):
    code = "codex_unavailable"


class CodexOverloaded(CodexError):
    code = "codex_overloaded"


class ActiveWriter(CodexError):
    code = "active_writer"

    def __init__(self, thread: str) -> None:
        super().__init__(
            f"another process holds {thread}: Codex lets one process at a time write a thread",
            hint="close it there (the desktop app, codex in a terminal), or fork it: "
            f"dispatch fork {thread} NAME",
            details={"thread": thread},
        )


class CapabilityUnavailable(CodexError):
    code = "unsupported"


class CodexTimeout(CodexError, TimeoutError):
    code = "codex_timeout"


class AlreadyRunning(DispatchError):
    code = "already_running"

    def __init__(self, lock: str) -> None:
        super().__init__(
            "a daemon is running in this dispatch home already",
            hint="dispatch daemon status",
            details={"lock": lock},
        )


class DaemonUnreachable(DispatchError, ConnectionError):
    code = "daemon_unreachable"


class DaemonStale(DaemonUnreachable):
    code = "daemon_stale"


class StagingFailed(DispatchError):
    code = "staging"


class OutcomeUnknown(DispatchError):
    code = "unknown_outcome"


class TimedOut(DispatchError, TimeoutError):
    code = "timeout"


class PartialSuccess(DispatchError):
    code = "partial"


class PluginFault(DispatchError):
    """A plugin broke its contract; the message always names the plugin."""

    code = "plugin"


class ProtocolViolation(DispatchError, ValueError):
    """A frame on the control socket is malformed."""

    code = "protocol"


class StorageError(DispatchError):
    code = "storage"


class DiskFull(StorageError):
    """There is no room to keep it; nothing was changed."""

    code = "disk_full"


class Cancelled(DispatchError):
    code = "cancelled"


class RemoteError(DispatchError):
    """An error that the daemon reported, rebuilt from its JSON object."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(
            str(error.get("message", "the daemon reported an error without a message")),
            hint=error.get("hint"),
            details=error.get("details") or {},
        )
        self.code = str(error.get("code", "internal"))
