"""A world for triggers: manual time, a registry in memory, actions that are recorded, the real engine and event stream."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import (
    FiringRecord,
    FiringStatus,
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TriggerRecord,
)
from dispatch_core.contracts.surface import OpReply
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.triggers import TriggerEngine
from dispatch_core.errors import StorageError, ThreadNotFound
from dispatch_plugins.triggers.codex_events import TURN_COMPLETED
from dispatch_plugins.triggers.time import CRON, INTERVAL

START = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def settle():
    """Every task has run as far as it can without time or an answer."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


class ManualClock:
    """Wall time and waking time; the second is what sleeping is measured in."""

    def __init__(self):
        self._wall, self._awake = START, 0.0
        self._sleepers = []

    def now(self):
        return self._wall

    async def sleep(self, seconds):
        sleeper = (self._awake + seconds, anyio.Event())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    async def advance(self, seconds):
        end = self._awake + seconds
        await settle()
        while due := [moment for moment, _ in self._sleepers if moment <= end]:
            self._move(max(0.0, min(due) - self._awake))
            await self._wake()
        self._move(end - self._awake)
        await self._wake()

    def jump(self, seconds):
        """The wall clock is set, or the machine was suspended: nobody has slept."""
        self._wall += timedelta(seconds=seconds)

    def _move(self, seconds):
        self._wall += timedelta(seconds=seconds)
        self._awake += seconds

    async def _wake(self):
        for moment, event in self._sleepers:
            if moment <= self._awake:
                event.set()
        await settle()


class MemoryTriggers:
    """Triggers in memory. writing: awaited before a change returns."""

    def __init__(self, firings):
        self.rows, self._firings = {}, firings
        self.writing = None

    async def add(self, trigger):
        if trigger.id in self.rows:
            raise ValueError(trigger.id)
        self.rows[trigger.id] = trigger
        await self._written()

    async def get(self, trigger_id):
        return self.rows.get(trigger_id)

    async def list(self):
        return tuple(self.rows.values())

    async def remove(self, trigger_id):
        for row in [row for row in self._firings.rows if row[0] == trigger_id]:
            del self._firings.rows[row]
        return self.rows.pop(trigger_id, None) is not None

    async def update(self, trigger_id, *, enabled=None, next_at=None):
        if trigger_id not in self.rows:
            return False
        row = self.rows[trigger_id]
        enabled = row.enabled if enabled is None else enabled
        self.rows[trigger_id] = replace(row, enabled=enabled, next_at=next_at)
        await self._written()
        return True

    async def _written(self):
        if self.writing is not None:
            await self.writing()


class MemoryFirings:
    def __init__(self):
        self.rows, self.broken = {}, False

    async def claim(self, trigger_id, key, at):
        await anyio.lowlevel.checkpoint()
        if self.broken:
            raise StorageError("the disk is full")
        if (trigger_id, key) in self.rows:
            return False
        self.rows[trigger_id, key] = FiringRecord(
            trigger_id=trigger_id, key=key, status=FiringStatus.CLAIMED, at=at
        )
        return True

    async def finish(self, trigger_id, key, status, detail=None):
        await anyio.lowlevel.checkpoint()
        if (trigger_id, key) in self.rows:
            row = self.rows[trigger_id, key]
            self.rows[trigger_id, key] = replace(row, status=status, detail=detail)

    async def latest(self, trigger_id):
        return ([row for row in self.rows.values() if row.trigger_id == trigger_id] or [None])[-1]

    async def claimed(self):
        return tuple(r for r in self.rows.values() if r.status is FiringStatus.CLAIMED)


class Actions:
    """What the triggers asked for. error: raised by actions. gate: awaited by actions. effect: called by them."""

    def __init__(self):
        self.calls, self.error, self.gate, self.effect = [], None, None, None
        self.running = self.most = 0

    async def call(self, name, args, caller, *, view=None):
        self.calls.append((name, dict(args), caller))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.gate is not None:
                await self.gate.wait()
            await anyio.lowlevel.checkpoint()
            if self.effect is not None:
                await self.effect(caller)
            if self.error is not None:
                raise self.error
            return OpReply(result={})
        finally:
            self.running -= 1

    def ops(self, surface):
        return [
            SimpleNamespace(
                name="send",
                intent="write",
                schema={
                    "properties": {"thread": {}, "text": {}},
                    "required": ["thread", "text"],
                },
            ),
            SimpleNamespace(
                name="get",
                intent="read",
                schema={"properties": {"thread": {}}, "required": ["thread"]},
            ),
        ]

    @property
    def texts(self):
        return [args.get("text") for _, args, _ in self.calls]


class Threads:
    """The threads @builder and @reviewer, resolved by ref and handle."""

    def __init__(self):
        self.all = [_thread("0AbCd1", "@builder"), _thread("0EfGh2", "@reviewer")]

    def __getitem__(self, handle):
        return next(t for t in self.all if t.handle == handle)

    async def resolve(self, selector, *, fuzzy=False):
        for thread in self.all:
            if selector in (thread.ref, thread.handle):
                return thread
        raise ThreadNotFound(selector)

    async def writable(self, selector):
        return await self.resolve(selector)


class World:
    def __init__(self):
        self.clock = ManualClock()
        self.firings = MemoryFirings()
        self.triggers = MemoryTriggers(self.firings)
        self.storage = SimpleNamespace(triggers=self.triggers, firings=self.firings)
        self.events = EventBus(self.clock, capacity=64)
        self.actions = Actions()
        self.threads = Threads()
        self.kinds = {kind.name: kind for kind in (INTERVAL, CRON, TURN_COMPLETED)}
        self.start = START
        self.settle = settle
        self.fields = ()

    def engine(self):
        return TriggerEngine(
            kinds=self.kinds,
            storage=self.storage,
            events=self.events,
            clock=self.clock,
            call=self.actions.call,
            fields=lambda op: self.fields,
            resolve=self.threads.resolve,
            sleep=self.clock.sleep,
        )

    @asynccontextmanager
    async def running(self):
        engine = self.engine()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                await tasks.start(engine.run)
                yield engine
                tasks.cancel_scope.cancel()

    def trigger(self, name="t", kind="interval", **config):
        return TriggerRecord(
            id=f"{name:0>8}",
            name=name,
            kind=kind,
            config=config,
            thread="@reviewer",
            op="send",
            args={"text": name},
            created_at=self.clock.now(),
        )

    def turn_ends(self, turn_id, handle="@builder", kind=EventKind.TURN_COMPLETED):
        self.events.publish(kind, thread=self.threads[handle].key, turn_id=turn_id)

    def ledger(self):
        return [(row.key, row.status.value, row.detail) for row in self.firings.rows.values()]

    def context(self, engine):
        return OpContext(
            caller=HUMAN,
            lanes=self.threads,
            deliveries=None,
            requests=None,
            codex=None,
            store=self.storage,
            events=self.events,
            clock=self.clock,
            triggers=engine,
            daemon=None,
            ops=self.actions,
            history=None,
        )


@pytest.fixture
def world():
    return World()


def _thread(ref, handle):
    return ThreadRecord(
        key=f"key-{ref}",
        provider="codex",
        native_id=f"native-{ref}",
        ref=ref,
        handle=handle,
        title=None,
        source=Source.OWN,
        status=ThreadStatus.IDLE,
        cwd="/tmp",
        settings=ThreadSettings(),
        created_at=START,
        updated_at=START,
    )
