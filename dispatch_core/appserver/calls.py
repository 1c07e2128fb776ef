"""One request to Codex: our params in, its answer out, and its prose turned into typed errors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dispatch_core.errors import ActiveWriter, CapabilityUnavailable, CodexError

if TYPE_CHECKING:
    from dispatch_core.appserver.messages import Params
    from dispatch_core.contracts.context import Codex

ACTIVE_WRITER = re.compile(r"(?:thread (\S+) )?already has an active writer")
UNKNOWN_METHOD = re.compile(r"unknown variant `([^`]+)`")
MORE = "dispatch daemon log --daemon shows what Codex said"


class ThreadUnknown(CodexError):
    """Codex has no such thread on disk."""


class ThreadArchived(CodexError):
    """Codex has archived the thread; it must be restored before it can be loaded."""


class TurnGone(CodexError):
    """The turn is not the one that runs: it has ended, or has not begun. Nothing was done."""


class NotSteerable(CapabilityUnavailable):
    """The running turn is one that takes no messages, such as a compaction. Nothing was done."""


class TurnUnknown(CodexError):
    """The history of the thread has no such turn."""


class NotArchived(CodexError):
    """Codex has no archived thread of this id."""


KINDS: tuple[tuple[tuple[str, ...], type[CodexError]], ...] = (
    # The file of a thread whose Codex was killed before the first line was in it is empty: there is no thread in it.
    (
        ("no rollout found", "thread not loaded", "thread not found", ".jsonl is empty"),
        ThreadUnknown,
    ),
    (("is archived",), ThreadArchived),
    (("no active turn", "expected active turn"), TurnGone),
    (("cannot steer",), NotSteerable),
    (("turn not found",), TurnUnknown),
    (("no archived rollout found",), NotArchived),
    (
        ("requires experimentalApi", "only supports paginated threads", "ephemeral thread"),
        CapabilityUnavailable,
    ),
)


async def call(codex: Codex, method: str, params: Params) -> dict[str, Any]:
    """Send a request and return its result. Raises as ``Codex.request``, with what the prose of an error means as its type."""
    try:
        return await codex.request(method, params.wire())
    except CodexError as error:
        raise typed(error) from error


def typed(error: CodexError) -> CodexError:
    """Nearly every error of Codex has the code -32600; only its prose tells them apart."""
    if type(error) is not CodexError:
        return error
    if writer := ACTIVE_WRITER.search(error.message):
        return ActiveWriter(writer[1] or "the thread")
    unknown = UNKNOWN_METHOD.search(error.message)
    if unknown and unknown[1] == error.details.get("method"):
        return CapabilityUnavailable(
            f"this Codex has no {unknown[1]}",
            hint="update Codex; dispatch daemon status shows its version",
            details={"method": unknown[1]},
        )
    kind = next((k for texts, k in KINDS if any(t in error.message for t in texts)), CodexError)
    return kind(error.message, hint=error.hint or MORE, details=error.details)
