"""Goals that go on by themselves: which ones do, what is told about them, and how they are made to rest before the daemon stops.

An active goal starts the next turn as soon as one has ended, so a daemon that only waited for its turns would never stop.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import ActionRecord
from dispatch_core.errors import CodexUnavailable, DispatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dispatch_core.contracts.context import Clock, Codex
    from dispatch_core.contracts.events import Events
    from dispatch_core.contracts.storage import Storage

log = logging.getLogger(__name__)

UPDATED, CLEARED = "thread/goal/updated", "thread/goal/cleared"
ACTIVE, PAUSED = "active", "paused"
OP, PRINCIPAL = "daemon.drain", "daemon"
WHY = "paused: the daemon stops"
PAGES = 100  # pages of loaded threads that are read at most


class Goals:
    """The active goals of managed threads. key_of: our key of a Codex thread id, None for a thread that is not managed."""

    def __init__(
        self,
        storage: Storage,
        events: Events,
        clock: Clock,
        codex: Codex,
        key_of: Callable[[str], str | None],
    ) -> None:
        self._storage = storage
        self._events = events
        self._clock = clock
        self._codex = codex
        self._key_of = key_of
        self._active: set[str] = set()

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """Take in a notification of Codex; of a managed thread's goal it becomes an event. Never waits."""
        native_id = params.get("threadId")
        if method not in (UPDATED, CLEARED) or not isinstance(native_id, str):
            return
        goal = params.get("goal")
        goal = goal if method == UPDATED and isinstance(goal, dict) else {}
        status = goal.get("status")
        (self._active.add if status == ACTIVE else self._active.discard)(native_id)
        key = self._key_of(native_id)
        if key is not None:
            turn_id = params.get("turnId")
            self._events.publish(
                EventKind.GOAL_CHANGED,
                thread=key,
                turn_id=turn_id if isinstance(turn_id, str) else None,
                data={
                    "status": status or "cleared",
                    "tokens_used": goal.get("tokensUsed"),
                    "token_budget": goal.get("tokenBudget"),
                },
            )

    def active(self) -> list[str]:
        """Return the keys of the managed threads that have an active goal, as far as was heard."""
        return [key for native_id in self._active if (key := self._key_of(native_id)) is not None]

    def lost(self) -> None:
        """Codex is gone, and what went on in it."""
        self._active.clear()

    async def rest(self, held: Iterable[str] = ()) -> None:
        """Pause the active goals of the managed threads that this Codex holds, each with a line in the action log.

        held: Codex ids of threads that are loaded; of each it is asked whether its goal is active, because a goal that was set a
        moment ago has not been heard of. A goal of a thread that another process holds goes on there. One that cannot be
        paused is logged; its turn is interrupted when the grace is over.
        """
        try:
            loaded = await self._loaded() if self._active else frozenset()
            going_on = (self._active & loaded) | {
                native_id for native_id in {*held} - self._active if await self._goes_on(native_id)
            }
        except DispatchError as error:
            log.warning("active goals are not paused: %s", error)
            return
        for native_id in sorted(going_on):
            key = self._key_of(native_id)
            if key is not None:
                await self._pause(native_id, key)

    async def _goes_on(self, native_id: str) -> bool:
        try:
            answer = await self._codex.request("thread/goal/get", {"threadId": native_id})
        except CodexUnavailable:
            raise
        except DispatchError:
            return False  # an ephemeral thread, or a Codex without goals
        goal = answer.get("goal")
        return isinstance(goal, dict) and goal.get("status") == ACTIVE

    async def _loaded(self) -> frozenset[str]:
        """Return the ids of the threads that Codex holds."""
        found: set[str] = set()
        params: dict[str, Any] = {}
        for _ in range(PAGES):
            page = await self._codex.request("thread/loaded/list", params)
            found.update(name for name in page.get("data") or () if isinstance(name, str))
            cursor = page.get("nextCursor")
            if not cursor:
                break
            params = {"cursor": cursor}
        return frozenset(found)

    async def _pause(self, native_id: str, key: str) -> None:
        outcome = "ok"
        try:
            await self._codex.request("thread/goal/set", {"threadId": native_id, "status": PAUSED})
        except DispatchError as error:
            log.warning("the goal of thread %s is not paused: %s", key, error)
            outcome = error.code
        else:
            self._active.discard(native_id)
            log.info("paused the goal of thread %s", key)
        await self._record(key, outcome)

    async def _record(self, key: str, outcome: str) -> None:
        """Write what was done to the action log, where a person finds which goals are to be set to active again."""
        try:
            thread = await self._storage.threads.get(key)
            action = ActionRecord(
                at=self._clock.now(),
                op=OP,
                principal=PRINCIPAL,
                outcome=outcome,
                thread=thread.ref if thread else None,
                detail=WHY,
            )
            await self._storage.actions.append(action)
        except Exception:
            # The backend may be anybody's, and the daemon has to stop all the same.
            log.exception("the paused goal of thread %s is missing from the action log", key)
