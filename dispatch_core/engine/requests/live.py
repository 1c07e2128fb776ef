"""A request that Codex waits on right now: what was asked, the one answer, and what became of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.contracts.requests import RequestState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_core.appserver.requests import Asked
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.contracts.requests import RequestRecord

GONE = "the Codex that asked is gone"


class Live:
    """One request.

    rpc_id: Codex's id as JSON text. lock: held while it is answered. record: None until it is stored. ending: the state it is to
    end in once Codex has the answer. gone: why there is nobody left to answer, None while there is. result: what Codex is told.
    """

    def __init__(self, asked: Asked, rpc_id: str) -> None:
        self.asked = asked
        self.rpc_id = rpc_id
        self.lock = anyio.Lock()
        self.record: RequestRecord | None = None
        self.thread: ThreadRecord | None = None
        self.ending: RequestState | None = None
        self.by: str | None = None
        self.decision: str | None = None
        self.detail: str | None = None
        self.gone: str | None = None
        self.result: Mapping[str, Any] | None = None
        self.closed = anyio.Event()
        self._given = anyio.Event()

    @property
    def stored(self) -> RequestRecord:
        """The record, which is there once it is recorded."""
        assert self.record is not None  # noqa: S101 -- nobody knows of it before
        return self.record

    @property
    def known(self) -> RequestRecord:
        """The record, with what is decided and not recorded yet."""
        record = self.stored
        if record.state.closed:
            return record
        state = record.state
        if self.gone is not None:
            state = RequestState.ORPHANED if self.gone == GONE else RequestState.CANCELLED
        elif self.ending is not None:
            state = RequestState.ANSWERING
        return replace(
            record,
            state=state,
            answered_by=self.by or record.answered_by,
            decision=self.decision or record.decision,
            detail=self.gone or self.detail or record.detail,
        )

    @property
    def waiting(self) -> bool:
        """Whether it can still be answered."""
        return self.record is not None and self.result is None and self.gone is None

    def give(self, result: Mapping[str, Any]) -> None:
        """Decide what Codex is told; what was decided first stays."""
        if self.result is None:
            self.result = result
            self._given.set()

    async def answer(self) -> Mapping[str, Any]:
        """Wait for what Codex is to be told."""
        await self._given.wait()
        assert self.result is not None  # noqa: S101 -- give sets both
        return self.result
