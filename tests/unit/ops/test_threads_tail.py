"""Reading a history backwards by pages, and forwards as it grows."""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import pytest

from dispatch_core.contracts.context import HistoryItem, HistoryPage
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.records import TurnRecord, TurnStatus
from dispatch_core.errors import ValidationFailed
from dispatch_plugins.ops.threads.tail import TailInput, tail

pytestmark = pytest.mark.anyio

ROLES = {"userMessage": "user", "agentMessage": "agent", "commandExecution": "tool"}


class Past:
    """A thread with a history that can grow; pages as the lanes give them."""

    def __init__(self, world, thread):
        self.world, self.thread, self.items = world, thread, []
        self.reads, self.on_read = 0, None

    async def resolve(self, selector, *, fuzzy=False):
        return self.thread

    async def history(self, thread, limit, *, before=None):
        self.reads += 1
        end = len(self.items) if before is None else int(before)
        start = max(0, end - limit)
        page = HistoryPage(items=tuple(self.items[start:end]), older=str(start) if start else None)
        if self.on_read is not None:
            self.on_read(self.reads)
        return page

    def add(self, turn, number, kind="agentMessage", *, at=None):
        item = HistoryItem(
            turn_id=turn,
            item_id=f"i{number}",
            type=kind,
            text=f"text {number}",
            role=ROLES[kind],
            turn_status="started",
        )
        self.items.insert(len(self.items) if at is None else at, item)

    def tell(self, kind=EventKind.ITEM_COMPLETED):
        self.world.events.publish(kind, thread=self.thread.key)

    async def fail_turn(self, turn):
        now = self.world.clock.now()
        record = TurnRecord(
            message_id=None,
            id=turn,
            status=TurnStatus.FAILED,
            started_at=now,
            completed_at=now,
            error="no",
        )
        await self.world.storage.threads.set_turn(self.thread.key, record, updated_at=now)
        self.tell(EventKind.TURN_FAILED)


@pytest.fixture
async def past(world):
    async with world.running():
        yield Past(world, await world.thread())


@pytest.fixture
def context(world, past):
    return SimpleNamespace(
        lanes=past,
        deliveries=world.lanes.deliveries,
        store=world.storage,
        events=world.events,
    )


def ids(output):
    return [item.item_id for item in output.items]


async def read(context, **options):
    with anyio.fail_after(5):
        return await tail(context, TailInput(thread="@x", **options))


async def test_pages_towards_the_beginning_follow_each_other(context, past):
    for number in range(7):
        past.add(f"t{number // 2}", number)

    last = await read(context, limit=3)
    middle = await read(context, limit=3, before=last.older)
    first = await read(context, limit=3, before=middle.older)

    assert [ids(page) for page in (first, middle, last)] == [
        ["i0"],
        ["i1", "i2", "i3"],
        ["i4", "i5", "i6"],
    ]
    assert (first.older, first.cursor, middle.cursor) == (None, None, None)
    assert last.cursor is not None


async def test_items_of_one_role_are_looked_for_page_by_page(context, past):
    for number in range(40):
        past.add("t", number, "commandExecution" if number % 10 else "userMessage")

    last = await read(context, limit=2, role=["user"])
    first = await read(context, limit=2, role=["user"], before=last.older)

    assert (ids(first), ids(last)) == (["i0", "i10"], ["i20", "i30"])


async def test_what_follows_a_cursor_is_each_item_once(context, past):
    seen = []
    cursor = (await read(context, limit=1)).cursor
    for turn in range(3):
        for number in range(4):
            past.add(f"t{turn}", turn * 4 + number)
        for _ in range(2):
            batch = await read(context, after=cursor, limit=2, timeout=0)
            seen += ids(batch)
            cursor = batch.cursor

    rest = await read(context, after=cursor, timeout=0)
    assert seen == [f"i{number}" for number in range(12)]
    assert (rest.items, rest.cursor, rest.gap) == ([], cursor, False)


async def test_an_item_that_comes_while_history_is_read_is_not_lost(context, past):
    past.add("t", 0)
    cursor = (await read(context)).cursor

    def comes(reads):
        if len(past.items) == 1:
            past.add("t", 1)
            past.tell()

    past.on_read = comes
    batch = await read(context, after=cursor, timeout=30)

    assert ids(batch) == ["i1"]
    assert batch.continues is True


async def test_an_item_is_returned_as_soon_as_it_is_there(context, past):
    past.add("t", 0)
    cursor = (await read(context)).cursor
    batches = []

    async def follow():
        batches.append(await read(context, after=cursor, timeout=30))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        past.tell(EventKind.THREAD_STATUS)  # nothing to look for
        past.add("t", 1)
        past.tell()

    assert ids(batches[0]) == ["i1"]


async def test_a_history_that_another_process_writes_is_looked_at_without_news(context, past):
    past.add("t", 0)
    cursor = (await read(context)).cursor

    def comes(reads):
        if reads == 2:
            past.add("t", 1)

    past.on_read = comes
    batch = await read(context, after=cursor, timeout=30)

    assert ids(batch) == ["i1"]


async def test_a_command_that_outlives_its_turn_is_still_shown(context, past):
    past.add("t1", 0)
    past.add("t2", 1)
    cursor = (await read(context)).cursor

    past.add("t1", 9, "commandExecution", at=1)
    past.add("t2", 2)
    batch = await read(context, after=cursor, timeout=0)
    after = await read(context, after=batch.cursor, timeout=0)

    assert ids(batch) == ["i9", "i2"]
    assert after.items == []


async def test_a_history_without_the_place_of_the_cursor_is_a_gap(context, past):
    past.add("t1", 0)
    cursor = (await read(context)).cursor
    past.items.clear()
    past.add("t5", 5)

    batch = await read(context, after=cursor, timeout=0)
    after = await read(context, after=batch.cursor, timeout=0)

    assert (batch.gap, ids(batch), batch.continues) == (True, ["i5"], False)
    assert (after.gap, after.items) == (False, [])


async def test_why_a_turn_failed_is_told_once_to_who_follows(context, past):
    past.add("t", 0)
    cursor = (await read(context)).cursor
    await past.fail_turn("t")

    told = await read(context, after=cursor, timeout=30)
    after = await read(context, after=told.cursor, timeout=0)
    late = await read(context, after=(await read(context)).cursor, timeout=0)

    assert [(item.type, item.text) for item in told.items] == [("turnFailed", "no")]
    assert (after.items, late.items) == ([], [])


async def test_who_follows_one_role_goes_past_the_others(context, past):
    past.add("t", 0)
    cursor = (await read(context)).cursor
    past.add("t", 1, "commandExecution")
    past.add("t", 2)

    batch = await read(context, after=cursor, role=["agent"], timeout=30)
    after = await read(context, after=batch.cursor, timeout=0)

    assert ids(batch) == ["i2"]
    assert after.items == []


@pytest.mark.parametrize("after", ["", "x", "bnVsbA", "W10", "WzEsMl0", "W1tbMSwyXV0sbnVsbF0"])
async def test_a_cursor_that_is_none_is_refused(context, past, after):
    with pytest.raises(ValidationFailed, match="not a cursor"):
        await read(context, after=after)


async def test_two_directions_at_once_are_refused(context, past):
    with pytest.raises(ValidationFailed, match="exclude each other"):
        await read(context, after="x", before="y")
