"""Attaching threads that others made, and bringing the index up to date."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.history import (
    Checkpoint,
    HistorySource,
    SourceFacts,
    SyncReport,
    SyncState,
)
from dispatch_core.contracts.view import View
from dispatch_core.errors import (
    CapabilityUnavailable,
    CodexError,
    CodexUnavailable,
    NotFound,
    PartialSuccess,
    ThreadNotFound,
)
from dispatch_plugins.ops.sync import (
    AttachInput,
    SyncInput,
    attach,
    render_attach,
    render_sync,
    sync,
)

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 5, 5, tzinfo=UTC)
VIEW = View(80, color=False, now=NOW, home="/home/you")
ID = "01a08340-5251-7d23-87b0-50f6e191{:04d}".format


class Sources:
    """Histories that become complete when they are synced."""

    def __init__(self):
        self.known, self.asked, self.error = {}, [], None

    async def sync(self, *, native_ids=None, full=False, progress=None):
        self.asked.append((native_ids, full))
        if self.error:
            raise self.error
        for native_id in native_ids or ():
            self.known[native_id] = HistorySource(
                checkpoint=Checkpoint(
                    path=f"/home/you/.codex/{native_id}.jsonl",
                    device=1,
                    inode=2,
                    size=9,
                    mtime_ns=3,
                    offset=9,
                ),
                facts=SourceFacts(native_id=native_id),
                state=SyncState.COMPLETE if full else SyncState.PARTIAL,
                synced_at=NOW,
            )
        for done in range(1001) if progress else ():
            progress(done, 1000)
        return SyncReport(
            sources=1000,
            changed=3,
            new=2,
            moved=0,
            gone=1,
            documents=7,
            bytes_read=3 << 20,
            seconds=0.5,
            problems=("/x: torn",),
        )

    def sources(self, native_ids):
        return {i: self.known[i] for i in native_ids if i in self.known}


@pytest.fixture
def context(world):
    async def read(params):
        if params["threadId"] == ID(404):
            raise CodexError("thread not loaded: " + params["threadId"])
        described = {"id": params["threadId"], "name": "theirs", "cwd": "/srv", "source": "cli"}
        return {"thread": {**described, "status": {"type": "notLoaded"}, "preview": "p"}}

    world.codex.on["thread/read"] = read
    return OpContext(
        caller=HUMAN,
        deliveries=None,
        requests=None,
        lanes=world.lanes,
        codex=world.codex,
        store=world.storage,
        events=world.events,
        clock=world.clock,
        triggers=None,
        daemon=None,
        ops=None,
        history=Sources(),
    )


async def managed(world):
    return [thread.native_id for thread in await world.storage.threads.list(archived=True)]


async def test_a_thread_is_attached_from_its_metadata_and_never_resumed(world, context):
    async with world.running():
        done = await attach(context, AttachInput(thread=[ID(1)]))

        assert await managed(world) == [ID(1)]
    [attached] = done.attached
    assert (attached.thread.source, attached.new) == ("attached", True)
    assert "thread/resume" not in world.codex.methods()
    assert context.history.asked == []
    assert f"dispatch tail {attached.thread.ref}" in render_attach(done, VIEW)


async def test_what_is_managed_is_returned_unchanged(world, context):
    async with world.running():
        mine = await world.thread("mine")
        first = await attach(context, AttachInput(thread=[ID(1)]))
        before = await world.storage.threads.list()

        again = await attach(context, AttachInput(thread=["@mine", ID(1), ID(1), mine.ref]))

        assert await world.storage.threads.list() == before
    assert [(item.thread.ref, item.new) for item in again.attached] == [
        (mine.ref, False),
        (first.attached[0].thread.ref, False),
    ]


async def test_the_history_of_an_attached_thread_is_read_if_asked(world, context):
    async with world.running():
        done = await attach(context, AttachInput(thread=[ID(1)], sync=True))

    assert context.history.asked == [([ID(1)], False)]
    assert done.attached[0].sync.state is SyncState.PARTIAL


@pytest.mark.parametrize(
    ("selector", "hint"),
    [(ID(404), "list --unmanaged"), ("01a08340", "a whole one"), ("@nobody", "a whole one")],
)
async def test_what_cannot_be_attached_registers_nothing(world, context, selector, hint):
    async with world.running():
        with pytest.raises(NotFound) as caught:
            await attach(context, AttachInput(thread=[selector]))

        assert await managed(world) == []
    assert hint in caught.value.hint


async def test_nothing_is_registered_while_codex_is_down(world, context):
    async def down(params):
        raise CodexUnavailable("Codex is not running")

    world.codex.on["thread/read"] = down
    async with world.running():
        with pytest.raises(CodexUnavailable):
            await attach(context, AttachInput(thread=[ID(1)]))

        assert await managed(world) == []


async def test_of_several_threads_each_is_attached_or_not_by_itself(world, context):
    async with world.running():
        with pytest.raises(PartialSuccess) as caught:
            await attach(context, AttachInput(thread=[ID(404), ID(1), "@nobody"]))

        assert await managed(world) == [ID(1)]
    results = caught.value.details["results"]
    assert [bool(result["error"]) for result in results] == [False, True, True]
    assert results[1]["error"]["code"] == "not_found"


async def test_a_sync_of_an_unmanaged_thread_does_not_register_it(world, context):
    async with world.running():
        mine = await world.thread("mine")

        done = await sync(context, SyncInput(thread=[ID(1), "@mine"], full=True))

        assert await managed(world) == [mine.native_id]
    assert context.history.asked == [([ID(1), mine.native_id], True)]
    assert [(item.managed, item.sync.state) for item in done.threads] == [
        (False, "complete"),
        (True, "complete"),
    ]


async def test_a_sync_of_everything_names_no_thread_and_sums_up(world, context):
    async with world.running():
        done = await sync(context, SyncInput())

    text = render_sync(done, VIEW)
    assert context.history.asked == [(None, False)]
    assert (done.threads, done.sources, done.problems) == ([], 1000, ["/x: torn"])
    assert "1000 histories, 3 changed, 2 new, 1 gone: 7 texts from 3.0 MiB" in text
    assert "not read: /x: torn" in text


async def test_progress_is_told_now_and_then_and_at_the_end(world, context):
    async with world.running(), world.events.subscribe(after=0) as stream:
        await sync(context, SyncInput())

        told = []
        with anyio.move_on_after(1):
            async for event in stream:
                if event.kind is EventKind.PROGRESS:
                    told.append((event.data["op"], event.data["done"], event.data["total"]))
                if told and told[-1][1] == 1000:
                    break
    assert told[0] == ("sync", 0, 1000)
    assert told[-1] == ("sync", 1000, 1000)
    assert len(told) < 100


@pytest.mark.parametrize(("selector", "error"), [("@nobody", ThreadNotFound), (ID(404), NotFound)])
async def test_a_thread_that_is_nowhere_is_not_synced(world, context, selector, error):
    async with world.running():
        with pytest.raises(error):
            await sync(context, SyncInput(thread=[selector]))

    assert context.history.asked == []


async def test_a_backend_without_an_index_says_so(world, context):
    context.history.error = CapabilityUnavailable("there is no index")

    with pytest.raises(CapabilityUnavailable):
        await sync(context, SyncInput())


async def test_many_problems_are_counted(world, context):
    done = await sync(context, SyncInput())

    text = render_sync(
        done.model_copy(update={"problems": [f"/{number}: torn" for number in range(12)]}), VIEW
    )

    assert text.count("not read:") == 10
    assert "and 2 more" in text
