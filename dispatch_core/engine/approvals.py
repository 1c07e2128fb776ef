"""Every request that Codex makes of us is answered. Nobody can be asked yet, so the answer is no, at once, and it is recorded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.requests import REFUSALS
from dispatch_core.contracts.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dispatch_core.contracts.events import Events

log = logging.getLogger(__name__)


class Approvals:
    """Answers Codex's requests. key_of: our key for a Codex thread id, or None for a thread we do not manage."""

    def __init__(self, events: Events, key_of: Callable[[str], str | None]) -> None:
        self._events = events
        self._key_of = key_of

    def answer(self, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the result to send back, or None when the method is unknown and must be refused as such."""
        refusal = REFUSALS.get(method)
        thread_id = params.get("threadId")
        key = self._key_of(thread_id) if isinstance(thread_id, str) else None
        log.warning(
            "codex asked %s for thread %s: %s",
            method,
            thread_id,
            "declined" if refusal else "unknown",
        )
        self._events.publish(
            EventKind.APPROVAL_REQUESTED,
            thread=key,
            turn_id=params.get("turnId"),
            data={"method": method, "answer": "declined" if refusal else "unsupported"},
        )
        return refusal
