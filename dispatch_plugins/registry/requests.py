"""Requests of Codex, in the registry: what waits for an answer, and what became of the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dispatch_core.api import RequestRecord, RequestState
from dispatch_plugins.registry.rows import request_of, request_values, text_of

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import RequestFilter
    from dispatch_plugins.registry.connection import Connection, Transaction
    from dispatch_plugins.registry.queries import RequestQueries

# It sorts after every text, and after every character of one.
_LAST: Final = "\U0010ffff"


class PeeweeRequests:
    """The RequestStore of the registry."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def _queries(self) -> RequestQueries:
        return self._connection.queries.requests

    async def add(self, request: RequestRecord) -> RequestRecord:
        """Store a new request and return it, or the one that has its (epoch, rpc_id) already."""
        sql, values = self._queries, request_values(request)

        def work(transaction: Transaction) -> RequestRecord:
            known = transaction.rows(sql.same, (request.epoch, request.rpc_id))
            if known:
                return request_of(known[0])
            transaction.run(sql.insert, values)
            return request_of(transaction.rows(sql.get, (request.id,))[0])

        return await self._connection.write(work)

    async def get(self, request_id: str) -> RequestRecord | None:
        """Return the request, or None."""
        rows = self._connection.read(self._queries.get, (request_id,))
        return request_of(rows[0]) if rows else None

    async def find(self, part: str, limit: int) -> tuple[RequestRecord, ...]:
        """Return the requests whose id begins or ends with part, oldest first."""
        values = (part, part + _LAST, -len(part), part, max(limit, 0))
        return tuple(map(request_of, self._connection.read(self._queries.find, values)))

    async def list(
        self, wanted: RequestFilter, limit: int, *, after: RequestRecord | None = None
    ) -> tuple[RequestRecord, ...]:
        """Return requests, the latest deadline first and then the greatest id, behind ``after``."""
        states = json.dumps([RequestState(state).value for state in wanted.states])
        deadline, last = (_LAST, _LAST) if after is None else (text_of(after.deadline), after.id)
        values = (
            wanted.thread, wanted.thread, states, states, deadline, deadline, last, max(limit, 0),
        )  # fmt: skip
        return tuple(map(request_of, self._connection.read(self._queries.page, values)))

    async def claim(
        self, request_id: str, *, by: str, decision: str, at: datetime
    ) -> RequestRecord | None:
        """Turn an OPEN request into an ANSWERING one and return it, or None."""
        return await self._changed(
            self._queries.claim, (by, decision, text_of(at), request_id), request_id
        )

    async def defer(self, request_id: str, deadline: datetime) -> RequestRecord | None:
        """Give an OPEN request another deadline and return it, or None."""
        return await self._changed(self._queries.defer, (text_of(deadline), request_id), request_id)

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
        """End a request that is OPEN or ANSWERING, forget its body and return it, or None."""
        values = (RequestState(state).value, by, decision, text_of(at), detail, request_id)
        return await self._changed(self._queries.close, values, request_id)

    async def orphan(
        self, *, epoch: str | None, at: datetime, detail: str
    ) -> tuple[RequestRecord, ...]:
        """End every OPEN or ANSWERING request of another epoch as ORPHANED and return them, oldest first."""
        sql, when = self._queries, text_of(at)
        orphaned = RequestState.ORPHANED

        def work(transaction: Transaction) -> tuple[RequestRecord, ...]:
            live = map(request_of, transaction.rows(sql.live, ()))
            found = [request for request in live if request.epoch != epoch]
            for request in found:
                transaction.run(sql.close, (orphaned.value, None, None, when, detail, request.id))
            return tuple(
                replace(request, state=orphaned, body=None, closed_at=at, detail=detail)
                for request in found
            )

        return await self._connection.write(work)

    async def forget(self, before: datetime) -> int:
        """Remove the requests that were closed before a moment; how many there were."""
        sql, moment = self._queries.forget, text_of(before)

        def work(transaction: Transaction) -> int:
            return transaction.run(sql, (moment,))

        return await self._connection.write(work)

    async def _changed(
        self, sql: str, values: tuple[object, ...], request_id: str
    ) -> RequestRecord | None:
        """Run a statement; return the request if it changed it."""
        get = self._queries.get

        def work(transaction: Transaction) -> RequestRecord | None:
            if transaction.run(sql, values) == 0:
                return None
            return request_of(transaction.rows(get, (request_id,))[0])

        return await self._connection.write(work)
