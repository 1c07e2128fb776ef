"""Which thread a selector names, step by step."""

from __future__ import annotations

import pytest

from dispatch_core.contracts.records import ThreadStatus
from dispatch_core.errors import AmbiguousSelector, ThreadNotFound, ValidationFailed

pytestmark = pytest.mark.anyio


@pytest.fixture
async def threads(world):
    async with world.running():
        return {name: await world.thread(name) for name in ("builder", "reviewer", "build logs")}


async def change(world, thread, **changes):
    return await world.storage.threads.update(thread.key, updated_at=world.clock.now(), **changes)


async def test_each_step_finds_its_thread(world, threads):
    thread = threads["builder"]
    await change(world, thread, title="The builder of things")

    for selector in (thread.ref, thread.native_id, "@builder", "builder", "The builder of things"):
        assert (await world.lanes.resolve(selector)).key == thread.key


async def test_an_earlier_step_wins_over_a_later_one(world, threads):
    builder, reviewer = threads["builder"], threads["reviewer"]
    logs = threads["build logs"]
    await change(world, reviewer, handle=builder.ref)
    await change(world, logs, title=builder.ref)

    assert (await world.lanes.resolve(builder.ref)).key == builder.key

    await change(world, reviewer, handle="@shared")
    await change(world, logs, title="@shared")
    assert (await world.lanes.resolve("@shared")).key == reviewer.key

    await change(world, logs, title=builder.native_id)
    assert (await world.lanes.resolve(builder.native_id)).key == builder.key


async def test_a_part_of_a_title_is_enough_only_where_reading_asks_for_it(world, threads):
    assert (await world.lanes.resolve("LOGS", fuzzy=True)).key == threads["build logs"].key

    with pytest.raises(ThreadNotFound):
        await world.lanes.resolve("LOGS")


async def test_a_part_that_several_threads_have_is_ambiguous_and_lists_them(world, threads):
    with pytest.raises(AmbiguousSelector) as caught:
        await world.lanes.resolve("build", fuzzy=True)

    candidates = caught.value.details["candidates"]
    assert [c["title"] for c in candidates] == ["builder", "build logs"]
    assert candidates[0] == {
        "ref": threads["builder"].ref,
        "id_prefix": threads["builder"].native_id[:8],
        "title": "builder",
        "managed": True,
        "cwd": "/",
    }
    assert all(c["ref"] in caught.value.message for c in candidates)


async def test_a_name_of_two_threads_is_ambiguous_for_writes_as_well(world, threads):
    await change(world, threads["reviewer"], handle="@builder")

    with pytest.raises(AmbiguousSelector):
        await world.lanes.writable("@builder")


async def test_an_archived_thread_gives_its_name_away(world, threads):
    await change(world, threads["builder"], status=ThreadStatus.ARCHIVED)
    await change(world, threads["reviewer"], handle="@builder")

    found = await world.lanes.resolve("@builder")
    alone = await world.lanes.resolve(threads["builder"].ref)

    assert found.key == threads["reviewer"].key
    assert alone.key == threads["builder"].key


@pytest.mark.parametrize(
    ("selector", "similar"),
    [("@buidler", "@builder"), ("reviewr", "@reviewer"), ("@zzzzzz", None)],
)
async def test_a_near_miss_says_what_was_perhaps_meant(world, threads, selector, similar):
    with pytest.raises(ThreadNotFound) as caught:
        await world.lanes.resolve(selector)

    assert (similar in caught.value.hint) if similar else "did you mean" not in caught.value.hint


@pytest.mark.parametrize("selector", ["", "x" * 501, "a\ud800"])
async def test_what_cannot_be_a_selector_is_refused(world, selector):
    with pytest.raises(ValidationFailed) as caught:
        await world.lanes.resolve(selector)

    assert caught.value.code == "validation"
    assert caught.value.hint


async def test_wildcards_stand_for_themselves(world, threads):
    for selector in ("%", "_", "b%r", "build_logs"):
        with pytest.raises(ThreadNotFound):
            await world.lanes.resolve(selector, fuzzy=True)
