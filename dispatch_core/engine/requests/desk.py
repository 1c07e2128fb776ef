"""Where requests are looked at and answered by people: finding one, what it takes, who may, and the answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.appserver.request_answers import CANCEL, DECLINE, choices, wire_answer
from dispatch_core.contracts.requests import (
    RequestClosed,
    RequestNotFound,
    RequestRecord,
    RequestState,
)
from dispatch_core.errors import AuthorityDenied, ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.requests import RequestChoice, RequestFilter
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.engine.requests.inbox import Inbox
    from dispatch_core.engine.requests.live import Live

HUMAN, AGENT, MCP = "human", "agent:", "mcp"
SHORTEST = 4  # characters of an id that name a request
SEVERAL = 5  # candidates that are named when more than one answers
CONFIRMATION = 5.0  # seconds for Codex to say that it has the answer
LONGEST_DEFERRAL = timedelta(days=1)


class Desk:
    """The Requests of the op context."""

    def __init__(self, storage: Storage, clock: Clock, inbox: Inbox) -> None:
        self._storage = storage
        self._clock = clock
        self._inbox = inbox

    async def get(self, selector: str, caller: Caller) -> RequestRecord:
        """Return the request with this id, or a unique beginning or end of it."""
        found = await self._find(selector)
        own = await self._own_thread(caller)
        if own is not None and found.thread != own:
            raise AuthorityDenied(
                f"request {found.id} is of another thread; an agent sees those of its own",
                hint="dispatch request list",
            )
        return found

    async def list(
        self, caller: Caller, wanted: RequestFilter, limit: int, *, after: str | None = None
    ) -> tuple[RequestRecord, ...]:
        """Return requests, the latest deadline first."""
        own = await self._own_thread(caller)
        if own is not None and wanted.thread not in (None, own):
            raise AuthorityDenied(
                "an agent sees the requests of its own thread", hint="leave the thread out"
            )
        store, place = self._storage.requests, None
        if after is not None and (place := await store.get(after)) is None:
            raise ValidationFailed(
                f"after: there is no request {after!r}", hint="pass next of the page before"
            )
        if own is not None:
            wanted = type(wanted)(thread=own, states=wanted.states)
        return await store.list(wanted, limit, after=place)

    def choices(self, request: RequestRecord) -> tuple[RequestChoice, ...]:
        """Return the ways in which a request can be answered."""
        if request.state is not RequestState.OPEN or request.body is None:
            return ()
        return choices(request.kind, request.body)

    def answer(
        self,
        request: RequestRecord,
        decision: str,
        *,
        answers: Mapping[str, Sequence[str]] | None = None,
        content: Any = None,
        unseen: bool = False,
    ) -> dict[str, Any]:
        """Return what would be sent to Codex."""
        live = self._inbox.waits(request.id)
        if live is None:
            raise RequestClosed(_ended(request))
        if not live.waiting:
            raise RequestClosed(live.known)
        if request.cut and decision not in (DECLINE, CANCEL) and not unseen:
            raise ValidationFailed(
                f"request {request.id} is too long to be shown whole; what is not seen is not accepted",
                hint="decline it, or add --unseen to accept it all the same",
                details={"request": request.id},
            )
        asked = live.asked  # the whole of it: a grant gives exactly what was asked for
        return wire_answer(
            asked.method, asked.kind, asked.body, decision, answers=answers, content=content
        )

    async def respond(
        self,
        request: RequestRecord,
        caller: Caller,
        decision: str,
        *,
        answers: Mapping[str, Sequence[str]] | None = None,
        content: Any = None,
        unseen: bool = False,
    ) -> RequestRecord:
        """Answer a request, and wait a little until Codex has the answer."""
        _only_a_person(caller, "answers")
        live = await self._live(request)
        result = self.answer(request, decision, answers=answers, content=content, unseen=unseen)
        no = decision in (DECLINE, CANCEL)
        await self._inbox.settle(
            live,
            result,
            by=caller.principal,
            decision=decision,
            ending=RequestState.DECLINED if no else RequestState.ANSWERED,
        )
        with anyio.move_on_after(CONFIRMATION):
            await live.closed.wait()
        return live.record or request

    async def defer(self, request: RequestRecord, caller: Caller, seconds: float) -> RequestRecord:
        """Let a request wait for so many seconds from now."""
        _only_a_person(caller, "defers")
        delay = timedelta(seconds=min(seconds, 1e9))
        if not timedelta(0) < delay <= LONGEST_DEFERRAL:
            raise ValidationFailed(
                f"a request can be deferred by up to {LONGEST_DEFERRAL.total_seconds():g} s, not {seconds:g}"
            )
        live = await self._live(request)
        with anyio.CancelScope(shield=True):
            async with live.lock:
                moved = await self._move(live, request.id, self._clock.now() + delay)
        self._inbox.disturb()
        return moved

    async def _move(self, live: Live, request_id: str, deadline: datetime) -> RequestRecord:
        """Give a request another deadline; the caller holds its lock."""
        moved = None
        if live.waiting:
            moved = await self._storage.requests.defer(request_id, deadline)
        if moved is None:
            raise RequestClosed(live.known)
        live.record = moved
        return moved

    async def _live(self, request: RequestRecord) -> Live:
        """Return what waits for the answer. Raises RequestClosed."""
        live = self._inbox.waits(request.id)
        if live is None:
            raise RequestClosed(_ended(await self._storage.requests.get(request.id) or request))
        return live

    async def _find(self, selector: str) -> RequestRecord:
        exact = await self._storage.requests.get(selector)
        if exact is not None:
            return exact
        if len(selector) < SHORTEST:
            raise ValidationFailed(
                f"{selector!r} is too short: at least {SHORTEST} characters of an id name a request",
                hint="dispatch request list shows the ids",
            )
        found = await self._storage.requests.find(selector, SEVERAL)
        if not found:
            raise RequestNotFound(selector)
        if len(found) > 1:
            raise ValidationFailed(
                f"{selector!r} names several requests: {', '.join(r.id for r in found)}",
                hint="use more of the id; the last 8 characters tell requests apart best",
                details={"candidates": [request.id for request in found]},
            )
        return found[0]

    async def _own_thread(self, caller: Caller) -> str | None:
        """Return the key of the only thread that an agent may look at, "" if it has none; None for everybody else."""
        if not caller.principal.startswith(AGENT):
            return None
        found = await self._storage.threads.find("native_id", caller.thread_id or "")
        return found[0].key if found else ""


def _ended(request: RequestRecord) -> RequestRecord:
    """Return a request that nothing waits for; it may have been read before that was recorded."""
    if request.state.closed:
        return request
    return replace(request, state=RequestState.ORPHANED, detail="the Codex that asked is gone")


def _only_a_person(caller: Caller, does: str) -> None:
    # What speaks MCP is an agent, whoever has started it.
    if caller.principal != HUMAN or caller.surface == MCP:
        raise AuthorityDenied(
            f"only a person {does} what Codex asks, not {caller.principal} by {caller.surface}",
            hint="dispatch request list, in a terminal of your own",
        )
