"""Requests of Codex, in a dictionary."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dispatch_core.api import RequestRecord, RequestState

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import RequestFilter


class MemoryRequests:
    """A RequestStore in a dictionary by id."""

    def __init__(self) -> None:
        self._requests: dict[str, RequestRecord] = {}

    async def add(self, request: RequestRecord) -> RequestRecord:
        for known in self._requests.values():
            if (known.epoch, known.rpc_id) == (request.epoch, request.rpc_id):
                return known
        json.dumps(request.body, allow_nan=False)  # a backend that writes could not keep it either
        return self._put(request)

    async def get(self, request_id: str) -> RequestRecord | None:
        return self._requests.get(request_id)

    async def find(self, part: str, limit: int) -> tuple[RequestRecord, ...]:
        found = [
            r for i, r in sorted(self._requests.items()) if i.startswith(part) or i.endswith(part)
        ]
        return tuple(found[: max(limit, 0)])

    async def list(
        self, wanted: RequestFilter, limit: int, *, after: RequestRecord | None = None
    ) -> tuple[RequestRecord, ...]:
        found = [
            request
            for request in self._requests.values()
            if wanted.thread in (None, request.thread)
            and (not wanted.states or request.state in wanted.states)
            and (after is None or _place(request) < _place(after))
        ]
        return tuple(sorted(found, key=_place, reverse=True)[: max(limit, 0)])

    async def claim(
        self, request_id: str, *, by: str, decision: str, at: datetime
    ) -> RequestRecord | None:
        changes = {"answered_by": by, "decision": decision, "answered_at": at}
        return self._change(request_id, state=RequestState.ANSWERING, **changes)

    async def defer(self, request_id: str, deadline: datetime) -> RequestRecord | None:
        return self._change(request_id, deadline=deadline)

    async def close(
        self,
        request_id: str,
        state: RequestState,
        *,
        at: datetime,
        by: str | None = None,
        decision: str | None = None,
        detail: str | None = None,
    ) -> RequestRecord | None:
        found = self._requests.get(request_id)
        if found is None or found.state.closed:
            return None
        return self._put(
            replace(
                found,
                state=state,
                answered_by=by or found.answered_by,
                decision=decision or found.decision,
                closed_at=at,
                detail=detail,
                body=None,
            )
        )

    async def orphan(
        self, *, epoch: str | None, at: datetime, detail: str
    ) -> tuple[RequestRecord, ...]:
        found = [r for _, r in sorted(self._requests.items()) if not r.state.closed]
        ended = [
            await self.close(r.id, RequestState.ORPHANED, at=at, detail=detail)
            for r in found
            if r.epoch != epoch
        ]
        return tuple(request for request in ended if request is not None)

    async def forget(self, before: datetime) -> int:
        old = [r.id for r in self._requests.values() if r.closed_at and r.closed_at < before]
        for request_id in old:
            del self._requests[request_id]
        return len(old)

    def _change(self, request_id: str, **changes: Any) -> RequestRecord | None:
        """Change a request that is open."""
        found = self._requests.get(request_id)
        if found is None or found.state is not RequestState.OPEN:
            return None
        return self._put(replace(found, **changes))

    def _put(self, request: RequestRecord) -> RequestRecord:
        self._requests[request.id] = request
        return request


def _place(request: RequestRecord) -> tuple[datetime, str]:
    return request.deadline, request.id
