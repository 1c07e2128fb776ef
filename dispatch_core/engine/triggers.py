"""The trigger engine: when → action → thread, each occasion once."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.contracts.events import Event, EventKind, Gap
from dispatch_core.engine.alarm import Alarm
from dispatch_core.engine.trigger_config import (
    bind,
    due,
    kind_named,
    next_instant,
    options_of,
    parse,
    source_of,
)
from dispatch_core.engine.trigger_firing import FiringLine, Ledger
from dispatch_core.errors import DispatchError, TriggerNotFound, ValidationFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
    from datetime import datetime

    from anyio.abc import TaskGroup, TaskStatus
    from pydantic import BaseModel

    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.records import ThreadRecord, TriggerRecord
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.contracts.trigger import TriggerKind
    from dispatch_core.engine.alarm import Sleeper
    from dispatch_core.engine.events import EventBus
    from dispatch_core.engine.trigger_firing import Call

WATCH_RETRY = 30.0
KEY_LIMIT = 200

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Armed:
    """A trigger that can fire.

    config: bound, as the kind's functions see it. after_seq: events up to this one are older than
    the arming. scope: holds the task of a ``watch`` kind. next_at: for time kinds, in UTC.
    """

    record: TriggerRecord
    kind: TriggerKind[Any]
    config: BaseModel
    after_seq: int
    next_at: datetime | None = None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class TriggerEngine:
    """Every enabled trigger, armed while ``run`` runs.

    A change and a claim never overlap: once ``remove`` or ``enable(enabled=False)`` has returned,
    no new action starts.
    """

    def __init__(  # noqa: PLR0913 -- the parts it works with, all by keyword
        self,
        *,
        kinds: Mapping[str, TriggerKind[Any]],
        storage: Storage,
        events: EventBus,
        clock: Clock,
        call: Call,
        fields: Callable[[str], Collection[str]],
        resolve: Callable[[str], Awaitable[ThreadRecord]],
        sleep: Sleeper = anyio.sleep,
    ) -> None:
        self._kinds = kinds
        self._triggers = storage.triggers
        self._events = events
        self._clock = clock
        self._resolve = resolve
        self._sleep = sleep
        self._ledger = Ledger(
            firings=storage.firings, events=events, clock=clock, call=call, fields=fields
        )
        self._lock = anyio.Lock()
        self._alarm = Alarm(clock, sleep)
        self._armed: dict[str, Armed] = {}
        self._lines: dict[str, FiringLine] = {}
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Fire every trigger until cancelled; started once all of them are armed.

        Raises StorageError when the registry cannot be read at the start, and nothing afterwards.
        """
        since = self._events.last_seq
        async with self._events.subscribe() as stream, anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                await self._arm_all(since)
                await self._take_up(tasks)
                tasks.start_soon(self._keep_time, name="trigger time")
                tasks.start_soon(self._read_events, stream, name="trigger events")
                task_status.started()
                await anyio.sleep_forever()
            finally:
                self._tasks = None
                self._armed.clear()

    async def add(self, trigger: TriggerRecord) -> TriggerRecord:
        """Validate kind and configuration, store the trigger and arm it.

        The stored configuration has its defaults written out, and the ref of the thread in place of
        any other selector, so that a trigger stays with its thread when a handle changes. Raises
        ValidationFailed naming the field, and what resolving the thread raises.
        """
        kind = kind_named(self._kinds, trigger.kind)
        config = parse(kind, trigger.config)
        source = await self._source(config)
        changes = {} if source is None else {"thread": source.ref}
        trigger = replace(trigger, config=options_of(config, **changes))
        bound = bind(config, thread=source.key if source else None, created_at=trigger.created_at)
        next_at = self._first(kind, bound)
        async with self._lock:
            if any(other.name == trigger.name for other in await self._triggers.list()):
                raise ValidationFailed(
                    f"there is already a trigger named {trigger.name!r}",
                    hint="choose another name, or dispatch trigger rm the old one",
                    details={"field": "name"},
                )
            trigger = replace(trigger, next_at=next_at if trigger.enabled else None)
            await self._triggers.add(trigger)
            if trigger.enabled:
                self._arm(trigger, kind, bound, self._events.last_seq)
        self._announce(trigger.id, "added")
        return trigger

    async def remove(self, trigger_id: str) -> None:
        """Disarm and forget a trigger; an action that runs goes on. Raises TriggerNotFound."""
        async with self._lock:
            if not await self._triggers.remove(trigger_id):
                raise TriggerNotFound(trigger_id)
            self._disarm(trigger_id)
            if line := self._lines.pop(trigger_id, None):
                line.forget()
        self._announce(trigger_id, "removed")

    async def enable(self, trigger_id: str, *, enabled: bool) -> TriggerRecord:
        """Pause or resume a trigger; what fell due while it was paused does not fire.

        Pausing withdraws what waits behind a running action. Raises TriggerNotFound, and
        ValidationFailed when a trigger is resumed whose kind is not installed.
        """
        trigger = await self._get(trigger_id)
        if trigger.enabled is enabled:
            return trigger
        return await (self._resume(trigger) if enabled else self._pause(trigger))

    async def _pause(self, trigger: TriggerRecord) -> TriggerRecord:
        async with self._lock:
            if not await self._triggers.update(trigger.id, enabled=False, next_at=None):
                raise TriggerNotFound(trigger.id)
            self._disarm(trigger.id)
            if line := self._lines.get(trigger.id):
                await line.withdraw("paused")
        self._announce(trigger.id, "paused")
        return replace(trigger, enabled=False, next_at=None)

    async def _resume(self, trigger: TriggerRecord) -> TriggerRecord:
        kind, bound = await self._bound(trigger)
        trigger = replace(trigger, enabled=True, next_at=self._first(kind, bound))
        async with self._lock:
            if not await self._triggers.update(trigger.id, enabled=True, next_at=trigger.next_at):
                raise TriggerNotFound(trigger.id)
            self._arm(trigger, kind, bound, self._events.last_seq)
        self._announce(trigger.id, "resumed")
        return trigger

    async def _get(self, trigger_id: str) -> TriggerRecord:
        trigger = await self._triggers.get(trigger_id)
        if trigger is None:
            raise TriggerNotFound(trigger_id)
        return trigger

    async def _source(self, config: BaseModel) -> ThreadRecord | None:
        selector = source_of(config)
        return None if selector is None else await self._resolve(selector)

    async def _bound(self, trigger: TriggerRecord) -> tuple[TriggerKind[Any], BaseModel]:
        kind = kind_named(self._kinds, trigger.kind)
        config = parse(kind, trigger.config)
        source = await self._source(config)
        return kind, bind(
            config, thread=source.key if source else None, created_at=trigger.created_at
        )

    def _first(self, kind: TriggerKind[Any], config: BaseModel) -> datetime | None:
        first = next_instant(kind, config, self._clock.now())
        if first is None and kind.next_after is not None:
            raise ValidationFailed(
                f"this {kind.name} trigger would never fire",
                hint="choose an instant that will come",
                details={"field": "kind", "kind": kind.name},
            )
        return first

    async def _take_up(self, tasks: TaskGroup) -> None:
        """Run what a former daemon had claimed and not finished, where that can be done twice with the effect of once."""
        async with self._lock:
            for trigger, key in await self._ledger.left(await self._triggers.list()):
                line = self._lines.setdefault(trigger.id, FiringLine(trigger, self._ledger))
                line.repeat(key, tasks)

    async def _arm_all(self, since: int) -> None:
        """Arm what is enabled; what cannot be armed is logged and stays in the registry."""
        async with self._lock:
            for trigger in await self._triggers.list():
                if not trigger.enabled:
                    continue
                try:
                    kind, bound = await self._bound(trigger)
                    self._arm(trigger, kind, bound, since)
                except DispatchError as error:
                    log.warning("trigger %s is not armed: %s", trigger.id, error.message)
                except Exception:
                    log.exception("trigger %s is not armed", trigger.id)

    def _arm(
        self, trigger: TriggerRecord, kind: TriggerKind[Any], config: BaseModel, since: int
    ) -> None:
        armed = Armed(trigger, kind, config, since, trigger.next_at)
        if trigger.next_at is None:
            armed.next_at = next_instant(kind, config, self._clock.now())
        self._disarm(trigger.id)
        self._armed[trigger.id] = armed
        if trigger.id not in self._lines:
            self._lines[trigger.id] = FiringLine(trigger, self._ledger)
        if kind.watch is not None and self._tasks is not None:
            self._tasks.start_soon(self._watch, armed, name=f"trigger watch {trigger.id}")
        self._alarm.disturb()

    def _disarm(self, trigger_id: str) -> None:
        if armed := self._armed.pop(trigger_id, None):
            armed.scope.cancel()

    def _announce(self, trigger_id: str, change: str) -> None:
        self._events.publish(
            EventKind.TRIGGER_CHANGED, data={"trigger": trigger_id, "change": change}
        )

    async def _occasion(self, armed: Armed, key: str) -> None:
        """Hand an occasion to its line, unless it is disarmed; the caller holds the lock."""
        if self._tasks is None or self._armed.get(armed.record.id) is not armed:
            return
        if not 0 < len(key) <= KEY_LIMIT:
            log.error(
                "trigger %s: %s gave a key of %d characters",
                armed.record.id,
                armed.kind.name,
                len(key),
            )
            return
        await self._lines[armed.record.id].take(key, self._tasks)

    async def _keep_time(self) -> None:
        while True:
            self._alarm.reset()
            now = self._clock.now()
            ready = [a for a in self._armed.values() if a.next_at is not None and a.next_at <= now]
            for armed in sorted(ready, key=lambda a: a.next_at or now):
                await self._fire_due(armed, now)
            await self._alarm.wait(
                [a.next_at for a in self._armed.values() if a.next_at is not None]
            )

    async def _fire_due(self, armed: Armed, now: datetime) -> None:
        """Fire one trigger and store its next instant; a kind that fails disarms it alone."""
        trigger_id = armed.record.id
        try:
            async with self._lock:
                if armed.next_at is None or self._armed.get(trigger_id) is not armed:
                    return
                instant, following = due(armed.kind, armed.config, scheduled=armed.next_at, now=now)
                missed, armed.next_at = armed.next_at, following
                if instant is None:
                    log.warning("trigger %s: missed since %s, beyond the grace", trigger_id, missed)
                else:
                    await self._occasion(armed, instant.isoformat())
                await self._triggers.update(trigger_id, next_at=following)
        except Exception:
            log.exception("trigger %s: the instant %s failed", trigger_id, armed.next_at)
            if armed.next_at is not None and armed.next_at <= now:
                self._disarm(trigger_id)

    async def _read_events(self, stream: AsyncIterator[Event | Gap]) -> None:
        async for event in stream:
            if isinstance(event, Gap):
                log.warning("events before %d were missed; nothing is guessed", event.next_seq)
                continue
            for armed in tuple(self._armed.values()):
                if armed.kind.match is not None and event.seq > armed.after_seq:
                    await self._match(armed, event)

    async def _match(self, armed: Armed, event: Event) -> None:
        if armed.kind.match is None:
            return
        try:
            firing = armed.kind.match(armed.config, event)
            if firing is None:
                return
            async with self._lock:
                await self._occasion(armed, firing.key)
        except Exception:
            log.exception("trigger %s: matching event %d failed", armed.record.id, event.seq)

    async def _watch(self, armed: Armed) -> None:
        """Fire what a source yields; one that fails starts again later, one that ends is done."""
        with armed.scope:
            while armed.kind.watch is not None:
                try:
                    await self._drain(armed, armed.kind.watch(armed.config))
                except Exception:
                    log.exception("trigger %s: its source failed", armed.record.id)
                    await self._sleep(WATCH_RETRY)
                else:
                    log.info("trigger %s: its source has ended", armed.record.id)
                    return

    async def _drain(self, armed: Armed, source: AsyncIterator[Any]) -> None:
        # An async generator left open would be finalised in another task, outside this scope.
        async with AsyncExitStack() as stack:
            if close := getattr(source, "aclose", None):
                stack.push_async_callback(close)
            async for firing in source:
                async with self._lock:
                    await self._occasion(armed, firing.key)
