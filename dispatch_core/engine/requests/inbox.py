"""What Codex asks, from its arrival to its end: recorded first, answered once, closed when Codex has the answer or is gone.

The claim in the store decides who answers. In memory there is only what waits right now.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.appserver import rpc, signals
from dispatch_core.appserver.request_answers import (
    ACCEPT,
    DECLINE,
    denial,
    for_the_host,
    wire_answer,
)
from dispatch_core.appserver.requests import FileChanges, read_request, resolved, rpc_text
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.requests import (
    RequestClosed,
    RequestRecord,
    RequestState,
)
from dispatch_core.contracts.view import visible
from dispatch_core.engine.alarm import Alarm
from dispatch_core.engine.ids import uuid7
from dispatch_core.engine.requests import rules
from dispatch_core.engine.requests.bodies import bounded, digest
from dispatch_core.engine.requests.ledger import Ledger
from dispatch_core.engine.requests.live import GONE, Live
from dispatch_core.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from anyio.abc import TaskStatus

    from dispatch_core.appserver.requests import Asked
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.engine.alarm import Sleeper
    from dispatch_core.settings import PolicySection

log = logging.getLogger(__name__)

BY_POLICY, BY_DEADLINE = "policy", "deadline"
LONGEST = timedelta(days=30)  # a request waits at most, whatever is configured
REMEMBERED = 256  # ended turns and resolved requests by which what comes late is recognised
TURN_OVER = "the turn ended first"
ELSEWHERE = "Codex took the question back, or somebody else answered it"


class Inbox:
    """The requests of the Codex that runs. ``run`` owns the tasks that keep deadlines and record what has ended.

    key_of: our key of a Codex thread id, None for a thread that is not managed.
    """

    def __init__(
        self,
        storage: Storage,
        events: Events,
        clock: Clock,
        key_of: Callable[[str], str | None],
        policy: PolicySection,
        *,
        sleep: Sleeper = anyio.sleep,
    ) -> None:
        self._storage = storage
        self._events = events
        self._clock = clock
        self._key_of = key_of
        self._policy = policy
        self._alarm = Alarm(clock, sleep)
        self._changes = FileChanges()
        self._asked: dict[str, Live] = {}  # by Codex's id
        self._early: deque[str] = deque(maxlen=REMEMBERED)
        self._ended: deque[str] = deque(maxlen=REMEMBERED)
        self._daemon, self._generation = uuid7(), 1
        self._ledger = Ledger(storage, events, clock, sleep)

    @property
    def epoch(self) -> str:
        """Which Codex process of which daemon asks."""
        return f"{self._daemon}/{self._generation}"

    def waits(self, request_id: str) -> Live | None:
        """Return the request if Codex waits for its answer, or has not confirmed it yet."""
        return self._ledger.waiting.get(request_id)

    def disturb(self) -> None:
        """A deadline has changed."""
        self._alarm.disturb()

    # What Codex says

    async def asked(
        self, request_id: int | str, method: str, params: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return the answer to a request of Codex once there is one. Raises RpcRefusal for a method that is not for us.

        A request that Codex repeats gets the same answer, and no second row.
        """
        rpc_id = rpc_text(request_id)
        if (live := self._asked.get(rpc_id)) is not None:
            return await live.answer()
        asked = read_request(method, params, self._changes)
        if asked is None:
            return self._for_the_host(method)
        key = self._key_of(asked.thread_id)
        if key is None:
            log.warning("codex asked %s for a thread that is not managed: declined", method)
            return denial(asked.method, asked.kind)
        live = self._asked[rpc_id] = Live(asked, rpc_id)
        self._recall(live)
        try:
            await self._open(live, key)
        except RequestClosed:
            live.give(denial(asked.method, asked.kind))
        except Exception:
            # Codex waits without a deadline of its own: whatever is wrong with us, it is told no.
            log.exception("the request %s of codex cannot be recorded: declined", method)
            self._give_up(live)
        return await live.answer()

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """Take in a notification; called in wire order, never waits."""
        self._changes.notified(method, params)
        rpc_id = resolved(method, params)
        if rpc_id is not None:
            self._resolved(rpc_id)
            return
        match signals.project(method, params):
            case signals.TurnEnded(thread_id=thread_id, turn_id=turn_id):
                self._ended.append(turn_id)
                self._over(TURN_OVER, lambda a: (a.thread_id, a.turn_id) == (thread_id, turn_id))
            case signals.ItemDone(thread_id=thread_id, item_id=str(item_id)):
                # Not every kind of request is said to be resolved.
                self._over(ELSEWHERE, lambda a: (a.thread_id, a.item_id) == (thread_id, item_id))

    def lost(self) -> None:
        """Codex is gone; it does not ask again what it had asked."""
        self._generation += 1
        for live in [*self._asked.values()]:
            live.gone = live.gone or GONE
            live.give(denial(live.asked.method, live.asked.kind))
        self._asked.clear()
        self._early.clear()
        self._ended.clear()
        self._changes.clear()
        self._ledger.orphan(self.epoch)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Orphan what an earlier daemon left open, then keep deadlines and record endings until cancelled."""
        self._ledger.orphan(self.epoch)
        self._ledger.forget()
        task_status.started()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_deadlines)
            tasks.start_soon(self._ledger.run)

    # Answering

    async def settle(
        self,
        live: Live,
        result: Mapping[str, Any],
        *,
        by: str,
        decision: str,
        ending: RequestState,
        detail: str | None = None,
    ) -> None:
        """Answer a request, unless somebody was first: RequestClosed says who. Raises StorageError; nothing is answered then.

        Nobody who goes away in the middle leaves it between claim and answer.
        """
        with anyio.CancelScope(shield=True):
            async with live.lock:
                record = live.stored
                if not live.waiting:
                    raise RequestClosed(live.known)
                claimed = await self._storage.requests.claim(
                    record.id, by=by, decision=decision, at=self._clock.now()
                )
                if claimed is None:
                    raise RequestClosed(await self._storage.requests.get(record.id) or record)
                live.record = claimed
                if live.gone is not None:
                    raise RequestClosed(live.known)
                live.by, live.decision, live.ending, live.detail = by, decision, ending, detail
                live.give(result)
        if by in (BY_POLICY, BY_DEADLINE):
            await self._ledger.log_action(live, by, decision)

    # Private: a request begins

    def _for_the_host(self, method: str) -> dict[str, Any]:
        answer = for_the_host(method, self._clock.now())
        if answer is None:
            log.warning("codex asked %.100s, which is not for dispatch: refused", method)
            raise rpc.RpcRefusal
        return answer

    def _recall(self, live: Live) -> None:
        """What ended a request may have been read before its task ran."""
        if live.rpc_id in self._early:
            self._early.remove(live.rpc_id)
            live.gone = ELSEWHERE
        elif live.asked.turn_id in self._ended:
            live.gone = TURN_OVER

    async def _open(self, live: Live, key: str) -> None:
        epoch = self.epoch
        thread = await self._storage.threads.get(key)
        if thread is None:
            raise LookupError(f"thread {key} is not in the registry")
        live.thread = thread
        stored = await self._storage.requests.add(self._record(live, thread, epoch))
        live.record = stored
        if stored.state is not RequestState.OPEN:
            raise RequestClosed(stored)
        self._ledger.waiting[stored.id] = live
        self._announce(stored)
        if live.gone is not None:
            self._ledger.close(live, live.known.state, live.gone)
            live.give(denial(live.asked.method, live.asked.kind))
            return
        if not await self._by_policy(live, thread):
            self._alarm.disturb()

    def _record(self, live: Live, thread: ThreadRecord, epoch: str) -> RequestRecord:
        asked, now = live.asked, self._clock.now()
        body, cut = bounded(asked.body)
        patience = min(timedelta(seconds=min(self._policy.request_timeout, 1e9)), LONGEST)
        return RequestRecord(
            id=uuid7(),
            thread=thread.key,
            turn_id=asked.turn_id,
            item_id=asked.item_id,
            method=asked.method,
            kind=asked.kind,
            rpc_id=live.rpc_id,
            epoch=epoch,
            summary=visible(asked.summary),
            digest=digest(asked.method, asked.body),
            body=body,
            cut=cut,
            asked_at=now,
            deadline=now + patience,
        )

    def _announce(self, record: RequestRecord) -> None:
        data = {"id": record.id, "kind": record.kind.value, "state": record.state.value}
        asks = {"method": record.method, "request": record.id, "kind": record.kind.value}
        for kind, about in (
            (EventKind.REQUEST_OPENED, data),
            (EventKind.APPROVAL_REQUESTED, asks),
        ):
            self._events.publish(kind, thread=record.thread, turn_id=record.turn_id, data=about)

    async def _by_policy(self, live: Live, thread: ThreadRecord) -> bool:
        """Answer as the user's configuration says; return whether it says anything."""
        asked: Asked = live.asked
        number = rules.allowing(self._policy, asked, thread, self._clock.now())
        if number is not None:
            result = wire_answer(asked.method, asked.kind, asked.body, ACCEPT)
            decision, ending = ACCEPT, RequestState.ANSWERED
            detail = rules.describe(self._policy.allow[number - 1], number)
        elif rules.denies(self._policy, thread):
            result = denial(asked.method, asked.kind)
            decision, ending = DECLINE, RequestState.DECLINED
            detail = "[policy] says deny"
        else:
            return False
        await self.settle(
            live, result, by=BY_POLICY, decision=decision, ending=ending, detail=detail
        )
        return True

    def _give_up(self, live: Live) -> None:
        """Tell Codex no without a record of it."""
        live.give(denial(live.asked.method, live.asked.kind))
        self._asked.pop(live.rpc_id, None)
        if live.record is not None:
            self._ledger.close(live, RequestState.DECLINED, "it could not be recorded")

    # Private: a request ends

    def _resolved(self, rpc_id: str) -> None:
        live = self._asked.get(rpc_id)
        if live is None:
            self._early.append(rpc_id)
        else:
            self._conclude(live, ELSEWHERE, confirmed=True)

    def _over(self, why: str, concerned: Callable[[Asked], bool]) -> None:
        for live in [live for live in self._asked.values() if concerned(live.asked)]:
            self._conclude(live, why, confirmed=why is ELSEWHERE)

    def _conclude(self, live: Live, why: str, *, confirmed: bool) -> None:
        """Codex waits no longer. confirmed: it has taken the answer, if there was one."""
        self._asked.pop(live.rpc_id, None)
        if live.ending is not None and confirmed:
            self._ledger.close(live, live.ending, live.detail)
            return
        live.gone = live.gone or why
        live.give(denial(live.asked.method, live.asked.kind))
        if live.record is not None:
            self._ledger.close(live, RequestState.CANCELLED, why)

    # Private: what runs

    async def _keep_deadlines(self) -> None:
        while True:
            self._alarm.reset()
            now = self._clock.now()
            waiting = [live for live in self._ledger.waiting.values() if live.waiting]
            for live in waiting:
                if live.record is not None and live.record.deadline <= now:
                    await self._expire(live)
            later = [live.record.deadline for live in waiting if live.waiting and live.record]
            await self._alarm.wait(later)

    async def _expire(self, live: Live) -> None:
        """Nobody has answered: it is a no, also when that cannot be recorded now."""
        result = denial(live.asked.method, live.asked.kind)
        try:
            await self.settle(
                live,
                result,
                by=BY_DEADLINE,
                decision=DECLINE,
                ending=RequestState.EXPIRED,
                detail="nobody answered in time",
            )
        except RequestClosed:
            return
        except StorageError as error:
            log.warning("a request expired and cannot be recorded yet: %s", error)
            live.by, live.decision = BY_DEADLINE, DECLINE
            live.ending, live.detail = RequestState.EXPIRED, "nobody answered in time"
            live.give(result)
