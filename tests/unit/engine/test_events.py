"""The stream of events: nothing is lost silently, and publishing never waits."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from dispatch_core.contracts.events import EventKind, Gap
from dispatch_core.engine.events import EventBus

pytestmark = pytest.mark.anyio


class Still:
    def now(self):
        return datetime(2026, 5, 4, tzinfo=UTC)


@pytest.fixture
def bus():
    return EventBus(Still(), capacity=4)


def publish(bus, count):
    for number in range(count):
        bus.publish(EventKind.THREAD_STATUS, thread="k", data={"n": number})


async def take(stream, count):
    with anyio.fail_after(5):
        return [await anext(stream) for _ in range(count)]


async def test_a_subscriber_reads_from_now_on(bus):
    publish(bus, 2)

    async with bus.subscribe() as stream:
        publish(bus, 2)

        assert [event.seq for event in await take(stream, 2)] == [3, 4]


async def test_a_cursor_resumes_without_gap_or_repetition(bus):
    publish(bus, 4)

    async with bus.subscribe(after=2) as stream:
        assert [event.seq for event in await take(stream, 2)] == [3, 4]
    assert bus.last_seq == 4


async def test_a_reader_that_falls_behind_is_told_what_is_missing(bus):
    async with bus.subscribe() as stream:
        publish(bus, 1)
        first = await take(stream, 1)
        publish(bus, 6)
        rest = await take(stream, 5)

    assert first[0].seq == 1
    assert rest[0] == Gap(4)
    assert [event.seq for event in rest[1:]] == [4, 5, 6, 7]


@pytest.mark.parametrize("after", [99, -5])
async def test_a_cursor_of_another_daemon_is_a_gap(bus, after):
    publish(bus, 2)

    async with bus.subscribe(after=after) as stream:
        seen = await take(stream, 3)

    assert seen[0] == Gap(1)
    assert [event.seq for event in seen[1:]] == [1, 2]


async def test_a_waiting_reader_is_woken_and_several_read_on_their_own(bus):
    seen = []

    async def read(stream):
        seen.extend(event.seq for event in await take(stream, 2))

    async with bus.subscribe() as one, bus.subscribe() as two, anyio.create_task_group() as tasks:
        tasks.start_soon(read, one)
        tasks.start_soon(read, two)
        await anyio.wait_all_tasks_blocked()
        publish(bus, 2)

    assert sorted(seen) == [1, 1, 2, 2]


async def test_what_is_published_cannot_be_changed_afterwards(bus):
    data = {"n": 1}

    event = bus.publish(EventKind.CODEX_STATE, data=data)
    data["n"] = 2

    assert event.data == {"n": 1}
