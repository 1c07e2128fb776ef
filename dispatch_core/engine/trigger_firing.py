"""From an occasion to its outcome: claimed once, run one at a time, recorded whatever happens."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.contracts.caller import Caller
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import FiringStatus
from dispatch_core.errors import DaemonUnreachable, DispatchError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from anyio.abc import TaskGroup

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.records import TriggerRecord
    from dispatch_core.contracts.storage import FiringStore
    from dispatch_core.contracts.surface import OpReply

    Call = Callable[[str, Mapping[str, Any], Caller], Awaitable[OpReply]]

BACKLOG = 10
KEY_FIELD = "idempotency_key"  # an op with this input field has, with the same key, the same effect twice as once
DETAIL_LIMIT = 200
GOODBYE = 2.0

log = logging.getLogger(__name__)


class Ledger:
    """Every claim and every outcome, in the registry and as an event. fields: the input fields of an op."""

    def __init__(
        self,
        *,
        firings: FiringStore,
        events: Events,
        clock: Clock,
        call: Call,
        fields: Callable[[str], Collection[str]],
    ) -> None:
        self._fields = fields
        self._firings = firings
        self._events = events
        self._clock = clock
        self._call = call

    async def left(self, triggers: Iterable[TriggerRecord]) -> list[tuple[TriggerRecord, str]]:
        """Return the firings that a former daemon left unfinished and that may be run again; the others are unknown now."""
        by_id = {trigger.id: trigger for trigger in triggers}
        again = []
        for firing in await self._firings.claimed():
            trigger = by_id.get(firing.trigger_id)
            if trigger is not None and self.repeatable(trigger):
                again.append((trigger, firing.key))
            elif trigger is not None:
                log.warning(
                    "firing %s of trigger %s: nobody knows its outcome", firing.key, trigger.id
                )
                await self.finish(trigger, firing.key, FiringStatus.UNKNOWN, None)
        return again

    def repeatable(self, trigger: TriggerRecord) -> bool:
        """Whether the trigger's action has, with the same key, the same effect twice as once."""
        return KEY_FIELD in self._fields(trigger.op)

    async def claim(self, trigger: TriggerRecord, key: str) -> bool:
        """Claim an occasion and say whether it is new.

        False as well when the registry cannot be written; the occasion is then published as failed.
        """
        try:
            return await self._firings.claim(trigger.id, key, self._clock.now())
        except Exception as error:
            log.exception("trigger %s: occasion %s could not be claimed", trigger.id, key)
            self._publish(trigger.id, key, FiringStatus.FAILED, _detail(error))
            return False

    async def run(self, trigger: TriggerRecord, key: str) -> None:
        """Run the action of a claimed occasion and record how it ended.

        If the daemon stops before it could run, and it may be run again, the next daemon does.
        """
        caller = Caller(principal=f"trigger:{trigger.id}", surface="trigger", trigger_id=trigger.id)
        status, detail = FiringStatus.DONE, None
        args = {**trigger.args, "thread": trigger.thread}
        if self.repeatable(trigger):
            args[KEY_FIELD] = key
        try:
            await self._call(trigger.op, args, caller)
        except DaemonUnreachable as error:
            if self.repeatable(trigger):
                return
            status, detail = FiringStatus.FAILED, _detail(error)
        except OutcomeUnknown as error:
            status, detail = FiringStatus.UNKNOWN, _detail(error)
        except DispatchError as error:
            status, detail = FiringStatus.FAILED, _detail(error)
        except Exception as error:
            log.exception("trigger %s: %s raised", trigger.id, trigger.op)
            status, detail = FiringStatus.FAILED, _detail(error)
        await self.finish(trigger, key, status, detail)

    async def finish(
        self, trigger: TriggerRecord, key: str, status: FiringStatus, detail: str | None
    ) -> None:
        """Record an outcome and publish it, even if the registry cannot be written."""
        try:
            await self._firings.finish(trigger.id, key, status, detail)
        except Exception:
            log.exception("trigger %s: the outcome of %s could not be recorded", trigger.id, key)
        self._publish(trigger.id, key, status, detail)

    def _publish(self, trigger_id: str, key: str, status: FiringStatus, detail: str | None) -> None:
        self._events.publish(
            EventKind.TRIGGER_FIRED,
            data={"trigger": trigger_id, "key": key, "status": status.value, "detail": detail},
        )


class FiringLine:
    """The occasions of one trigger, in order.

    One runs, at most BACKLOG wait behind it, and the excess is recorded as failed: an overrun.
    """

    def __init__(self, trigger: TriggerRecord, ledger: Ledger) -> None:
        self._trigger = trigger
        self._ledger = ledger
        self._waiting: deque[str] = deque()
        self._running = False

    async def take(self, key: str, tasks: TaskGroup) -> None:
        """Claim an occasion and, when it is new, have its action run in tasks."""
        if not await self._ledger.claim(self._trigger, key):
            return
        if len(self._waiting) >= BACKLOG:
            await self._ledger.finish(self._trigger, key, FiringStatus.FAILED, "overrun")
            return
        self.repeat(key, tasks)

    def repeat(self, key: str, tasks: TaskGroup) -> None:
        """Have the action of a claimed occasion run in tasks."""
        self._waiting.append(key)
        if not self._running:
            self._running = True
            tasks.start_soon(self._work, name=f"trigger {self._trigger.id}")

    async def withdraw(self, reason: str) -> None:
        """Every waiting occasion is recorded as failed for this reason; the running one goes on."""
        waiting = tuple(self._waiting)
        self._waiting.clear()
        for key in waiting:
            await self._ledger.finish(self._trigger, key, FiringStatus.FAILED, reason)

    def forget(self) -> None:
        """No waiting occasion runs any more, and none is recorded: the trigger is gone."""
        self._waiting.clear()

    async def _work(self) -> None:
        try:
            while self._waiting:
                await self._ledger.run(self._trigger, self._waiting.popleft())
        finally:
            self._running = False
            if self._waiting and not self._ledger.repeatable(self._trigger):
                with anyio.CancelScope(shield=True), anyio.move_on_after(GOODBYE):
                    await self.withdraw("the daemon stopped before it ran")


def _detail(error: Exception) -> str:
    if isinstance(error, DispatchError):
        return f"{error.code}: {error.message}"[:DETAIL_LIMIT]
    return f"internal: {type(error).__name__}: {error}"[:DETAIL_LIMIT]
