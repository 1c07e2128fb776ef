"""What is written when, and what is published before it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import anyio
import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import (
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
)
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.lane import Lane
from dispatch_core.engine.registrar import News, Registrar

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 5, 4, tzinfo=UTC)
LONG = 3600.0
STARTED, COMPLETED = News(EventKind.TURN_STARTED, "t"), News(EventKind.TURN_COMPLETED, "t")


async def _no_delivery(lane):
    pass


class Desk:
    """A registrar, one lane with a submitted turn, and what came of them in order."""

    def __init__(self, storage, record, delay, retry):
        self.threads, self.events = storage.threads, EventBus(SystemClock())
        self.lane = Lane(record)
        turn = TurnRecord(message_id="m", id="t", status=TurnStatus.SUBMITTED, started_at=NOW)
        self.lane.turn, self.lane.active = turn, "t"
        self.registrar = Registrar(
            self.threads,
            self.events,
            SystemClock(),
            follow=_no_delivery,
            delay=delay,
            retry=retry,
        )

    def turns_to(self, status):
        self.lane.turn = replace(self.lane.turn, status=status)
        self.lane.active = None if status.finished else "t"

    async def stored(self):
        record = await self.threads.get(self.lane.key)
        return None if record.turn is None else record.turn.status

    def published(self):
        return [event.kind for event in self.events._ring]


@pytest.fixture
def desk(storage):
    @asynccontextmanager
    async def running(*, delay=LONG, retry=LONG):
        thread = ThreadRecord(
            key="k",
            provider="codex",
            native_id="n",
            ref="",
            handle="@x",
            title="x",
            source=Source.OWN,
            status=ThreadStatus.IDLE,
            cwd="/",
            settings=ThreadSettings(),
            created_at=NOW,
            updated_at=NOW,
        )
        record = await storage.threads.add(thread, ["0AAAA1"])
        desk = Desk(storage, record, delay, retry)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                await tasks.start(desk.registrar.run)
                yield desk
                tasks.cancel_scope.cancel()

    return running


async def test_news_of_a_deferred_state_does_not_wait_for_the_registry(desk):
    async with desk() as desk:
        desk.turns_to(TurnStatus.STARTED)

        desk.registrar.defer(desk.lane, STARTED)
        await anyio.wait_all_tasks_blocked()

        assert desk.published() == [EventKind.TURN_STARTED]
        assert await desk.stored() is None


async def test_a_deferred_state_is_written_with_the_next_one(desk):
    async with desk() as desk:
        desk.turns_to(TurnStatus.STARTED)
        desk.registrar.defer(desk.lane, STARTED)
        desk.turns_to(TurnStatus.COMPLETED)

        desk.registrar.mark(desk.lane, COMPLETED)
        await anyio.wait_all_tasks_blocked()
        writes = list(desk.threads.writes)
        await desk.registrar.flush()

        assert desk.published() == [EventKind.TURN_STARTED, EventKind.TURN_COMPLETED]
        assert await desk.stored() is TurnStatus.COMPLETED
        assert desk.threads.writes == writes == [TurnStatus.COMPLETED]


async def test_a_deferred_state_without_a_next_one_is_written_by_itself(desk):
    async with desk(delay=0.001) as desk:
        desk.turns_to(TurnStatus.STARTED)

        desk.registrar.defer(desk.lane, STARTED)
        while await desk.stored() is not TurnStatus.STARTED:
            await desk.lane.change()

        assert desk.published() == [EventKind.TURN_STARTED]


async def test_a_flush_writes_what_was_deferred(desk):
    async with desk() as desk:
        desk.turns_to(TurnStatus.STARTED)
        desk.registrar.defer(desk.lane, STARTED)

        await desk.registrar.flush()

        assert await desk.stored() is TurnStatus.STARTED
        assert desk.published() == [EventKind.TURN_STARTED]


async def test_an_end_is_in_the_registry_before_it_is_told(desk):
    async with desk() as desk, desk.events.subscribe() as events:
        desk.turns_to(TurnStatus.COMPLETED)

        desk.registrar.mark(desk.lane, COMPLETED)
        event = await anext(events)

        assert event.kind is EventKind.TURN_COMPLETED
        assert await desk.stored() is TurnStatus.COMPLETED


async def test_what_could_not_be_written_is_written_again_after_a_while(desk):
    async with desk(retry=0.001) as desk:
        desk.threads.broken = True
        desk.turns_to(TurnStatus.COMPLETED)
        desk.registrar.mark(desk.lane, COMPLETED)
        await desk.lane.change()

        desk.threads.broken = False
        while await desk.stored() is not TurnStatus.COMPLETED:
            await desk.lane.change()

        assert desk.published() == [EventKind.TURN_COMPLETED]
