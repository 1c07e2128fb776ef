"""Listing threads, managed and not, and looking at one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.history import (
    Checkpoint,
    HistorySource,
    SourceFacts,
    SyncState,
)
from dispatch_core.contracts.records import Message, ModelInUse, ThreadStatus
from dispatch_core.contracts.view import View
from dispatch_core.errors import CodexUnavailable, NotFound, ThreadNotFound, ValidationFailed
from dispatch_plugins.ops.threads.listing import ListInput, list_threads, render_list
from dispatch_plugins.ops.threads.show import GetInput, get, render_get

pytestmark = pytest.mark.anyio

VIEW = View(100, color=False, now=datetime(2026, 5, 5, tzinfo=UTC), home="/home/you")
UNMANAGED = "01a08340-5251-7d23-87b0-50f6e191{:04d}"
BASE = 1_777_000_000


class Known:
    """What an index knows of sources."""

    def __init__(self):
        self.known = {}

    def sources(self, native_ids):
        return {i: self.known[i] for i in native_ids if i in self.known}


@pytest.fixture
def context(world):
    return OpContext(
        caller=HUMAN,
        deliveries=world.lanes.deliveries,
        requests=None,
        lanes=world.lanes,
        codex=world.codex,
        store=world.storage,
        events=world.events,
        clock=world.clock,
        triggers=None,
        daemon=None,
        ops=None,
        history=Known(),
    )


class Disk:
    """Codex's ``thread/list`` over threads that are newest first: pages, cursors that are places in time."""

    def __init__(self, world, present=(), archived=(), page=100):
        self.threads = {False: list(present), True: list(archived)}
        self.page, self.asked = page, []
        world.codex.on["thread/list"] = self

    async def __call__(self, params):
        self.asked.append(dict(params))
        rows = self.threads[bool(params.get("archived"))]
        if params["cursor"] is not None:
            rows = [row for row in rows if row["updatedAt"] < float(params["cursor"])]
        page = rows[: min(params["limit"], self.page)]
        more = len(rows) > len(page)
        return {"data": page, "nextCursor": str(page[-1]["updatedAt"]) if more else None}


def stored(number, **more):
    return {
        "id": UNMANAGED.format(number),
        "name": f"name {number}",
        "preview": f"first\nmessage {number}",
        "cwd": f"/home/you/{number % 2}",
        "status": {"type": "notLoaded"},
        "source": "cli",
        "modelProvider": "openai",
        "createdAt": BASE,
        "updatedAt": BASE - number,
        **more,
    }


async def every_page(context, **options):
    """Return all rows of all pages, and how many there were in each."""
    rows, sizes, after = [], [], None
    while True:
        page = await list_threads(context, ListInput(after=after, **options))
        rows += page.threads
        sizes.append(len(page.threads))
        after = page.next
        if after is None:
            return rows, sizes


async def test_what_changed_last_comes_first(world, context):
    async with world.running():
        a, b, c = [await world.thread(name) for name in "abc"]
        await world.storage.threads.update(a.key, updated_at=world.clock.now())

        listed = await list_threads(context, ListInput())

    assert [row.thread.ref for row in listed.threads] == [a.ref, c.ref, b.ref]
    assert (listed.managed, listed.next) == (True, None)


async def test_a_thread_that_changes_between_pages_is_not_left_out(world, context):
    async with world.running():
        a, b, c = [await world.thread(name) for name in "abc"]

        first = await list_threads(context, ListInput(limit=1))
        await world.storage.threads.update(a.key, updated_at=world.clock.now())
        second = await list_threads(context, ListInput(limit=1, after=first.next))
        third = await list_threads(context, ListInput(limit=1, after=second.next))

    found = [row.thread.ref for page in (first, second, third) for row in page.threads]
    assert found == [c.ref, b.ref, a.ref]
    assert third.next is None
    assert f"--after {first.next}" in render_list(first, VIEW)


async def test_threads_are_picked_by_state_and_place(world, context, tmp_path):
    (tmp_path / "repo" / "inner").mkdir(parents=True)
    (tmp_path / "repo" / ".git").write_text("gitdir: elsewhere\n")
    async with world.running():
        inside, outside = await world.thread("inside"), await world.thread("outside")
        await world.storage.threads.update(
            inside.key, cwd=str(tmp_path / "repo" / "src"), updated_at=world.clock.now()
        )
        await world.storage.threads.update(
            outside.key,
            cwd=f"{tmp_path}/repository",
            status=ThreadStatus.ARCHIVED,
            updated_at=world.clock.now(),
        )

        async def refs(**options):
            page = await list_threads(context, ListInput(**options))
            return [row.thread.ref for row in page.threads]

        assert await refs(repo=str(tmp_path / "repo" / "inner")) == [inside.ref]
        assert await refs(directory=str(tmp_path), archived=True) == [outside.ref, inside.ref]
        assert await refs(status=["archived"]) == [outside.ref]
        assert await refs(status=["busy"]) == []
        assert await refs() == [inside.ref]


async def test_a_repository_that_is_none_is_refused(context):
    with pytest.raises(ValidationFailed, match="no Git repository") as caught:
        await list_threads(context, ListInput(repo="/"))

    assert "--directory" in caught.value.hint


async def test_unmanaged_threads_are_all_there_and_none_twice_whatever_the_page(world, context):
    async with world.running():
        mine = await world.thread("mine")
        managed = stored(3, id=mine.native_id)
        disk = Disk(world, [stored(n) if n != 3 else managed for n in range(12)], page=5)

        rows, sizes = await every_page(context, unmanaged=True, limit=4)

    assert [row.thread.id for row in rows] == [UNMANAGED.format(n) for n in range(12) if n != 3]
    assert sizes == [4, 4, 3]
    assert {row.thread.managed for row in rows} == {False}
    assert all(asked["sourceKinds"] for asked in disk.asked)


async def test_only_the_first_page_has_codex_look_at_its_files(world, context):
    disk = Disk(world, [stored(n) for n in range(6)], page=3)

    await every_page(context, unmanaged=True, limit=6)

    assert [asked["useStateDbOnly"] for asked in disk.asked] == [False, True]


async def test_a_thread_that_moved_up_between_pages_costs_nothing_that_follows(world, context):
    disk = Disk(world, [stored(n) for n in range(4)])

    first = await list_threads(context, ListInput(unmanaged=True, limit=2))
    moved = disk.threads[False].pop(1)
    disk.threads[False].insert(0, {**moved, "updatedAt": BASE + 9})
    second = await list_threads(context, ListInput(unmanaged=True, limit=2, after=first.next))

    assert [row.thread.title for row in second.threads] == ["name 2", "name 3"]


async def test_archived_unmanaged_threads_come_last_and_only_if_asked_for(world, context):
    Disk(world, [stored(5)], [stored(1)])

    without, _ = await every_page(context, unmanaged=True)
    with_them, _ = await every_page(context, unmanaged=True, archived=True, limit=1)
    alone, _ = await every_page(context, unmanaged=True, status=["archived"])

    assert [row.thread.title for row in without] == ["name 5"]
    assert [(row.thread.title, row.thread.status) for row in with_them] == [
        ("name 5", "not_loaded"),
        ("name 1", "archived"),
    ]
    assert [row.thread.title for row in alone] == ["name 1"]


async def test_a_filter_that_fits_little_stops_early_and_goes_on(world, context):
    disk = Disk(world, [stored(n) for n in range(60)], page=1)

    rows, sizes = await every_page(context, unmanaged=True, directory="/home/you/1", limit=100)

    assert len(rows) == 30
    assert len(sizes) > 1
    assert len(disk.asked) == 60


async def test_an_unmanaged_row_says_what_codex_says(world, context):
    Disk(
        world,
        [
            stored(1, source={"subAgent": "review"}, status={"type": "active", "activeFlags": []}),
            stored(2, name=None, cwd=None, updatedAt=None, source={"custom": "x"}, status="?"),
            {"id": 7},
            "?",
        ],
    )

    [first, second] = (await list_threads(context, ListInput(unmanaged=True))).threads

    assert (first.thread.ref, first.thread.source, first.thread.status) == (
        None,
        "unmanaged",
        "busy",
    )
    assert (first.preview, first.origin, first.provider) == (
        "first message 1",
        "subAgent",
        "openai",
    )
    assert (second.thread.title, second.thread.cwd, second.updated_at) == (None, None, None)
    assert (second.thread.status, second.origin) == ("unknown", "x")


@pytest.mark.parametrize("after", ["", "x", "WzEsMl0", "bnVsbA", "W10" * 9000])
async def test_a_cursor_that_is_none_is_refused(world, context, after):
    Disk(world)

    for unmanaged in (False, True):
        with pytest.raises(ValidationFailed, match="after"):
            await list_threads(context, ListInput(after=after, unmanaged=unmanaged))


async def test_a_cursor_of_another_question_is_refused(world, context):
    async with world.running():
        for name in "ab":
            await world.thread(name)
        first = await list_threads(context, ListInput(limit=1))

        with pytest.raises(ValidationFailed, match="another question"):
            await list_threads(context, ListInput(limit=1, archived=True, after=first.next))


async def test_a_thread_is_shown_with_its_turn(world, context):
    async def described(params):
        return {"thread": {"id": params["threadId"], "path": "/codex/rollout.jsonl"}}

    world.codex.on["thread/read"] = described
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.completed(thread, turn.id, "failed", {"message": "broken\x1b[2J"})
        await world.lanes.settled(thread)

        shown = await get(context, GetInput(thread="build"))

    text = render_get(shown, VIEW)
    assert (shown.turn.status, shown.thread.status) == ("failed", "error")
    assert (shown.writable, shown.locked_reason) == (True, None)
    assert "try again" in shown.next
    assert shown.path == "/codex/rollout.jsonl"
    assert "broken" in text
    assert "\x1b" not in text


async def test_what_is_indexed_and_what_codex_uses_is_shown(world, context):
    async with world.running():
        thread = await world.thread()
        await world.storage.threads.update(
            thread.key,
            in_use=ModelInUse(provider="openai", model="m2", effort="high"),
            updated_at=world.clock.now(),
        )
        context.history.known[thread.native_id] = HistorySource(
            checkpoint=Checkpoint(
                path="/home/you/.codex/r.jsonl", device=1, inode=2, size=9, mtime_ns=3, offset=7
            ),
            facts=SourceFacts(native_id=thread.native_id, lines=4),
            state=SyncState.COMPLETE,
            synced_at=VIEW.now - timedelta(hours=2),
        )

        shown = await get(context, GetInput(thread=thread.ref))

    text = render_get(shown, VIEW)
    assert (shown.sync.state, shown.sync.indexed, shown.sync.lines) == ("complete", 7, 4)
    assert shown.path == "/home/you/.codex/r.jsonl"
    assert "m2, openai, high" in text
    assert "complete, 2h ago" in text
    assert "~/.codex/r.jsonl" in text


async def test_an_archived_thread_says_why_it_cannot_be_written(world, context):
    async with world.running():
        thread = await world.thread()
        await world.storage.threads.update(
            thread.key, status=ThreadStatus.ARCHIVED, updated_at=world.clock.now()
        )

        shown = await get(context, GetInput(thread=thread.ref))

    assert shown.writable is False
    assert f"dispatch restore {thread.ref}" in shown.locked_reason
    assert shown.next == f"dispatch restore {thread.ref}"


async def test_what_codex_alone_knows_is_left_out_while_it_is_down(world, context):
    async def down(params):
        raise CodexUnavailable("Codex is not running")

    async with world.running():
        thread = await world.thread()
        await world.storage.threads.update(
            thread.key, materialized=True, updated_at=world.clock.now()
        )
        world.codex.on["thread/read"] = down

        shown = await get(context, GetInput(thread=thread.ref))

    assert shown.path is None
    assert shown.materialized is True


async def test_an_unmanaged_id_says_how_to_attach_it(context):
    with pytest.raises(NotFound, match="not managed") as caught:
        await get(context, GetInput(thread=UNMANAGED.format(1)))

    assert f"dispatch attach {UNMANAGED.format(1)}" in caught.value.hint


async def test_nobody_is_found_under_an_unknown_name(context):
    with pytest.raises(ThreadNotFound):
        await get(context, GetInput(thread="@nobody"))
