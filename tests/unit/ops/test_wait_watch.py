"""Watching: cursors, gaps, and what belongs into one answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import anyio
import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.view import View
from dispatch_core.engine.events import EventBus
from dispatch_core.errors import ValidationFailed
from dispatch_plugins.ops import watch
from dispatch_plugins.ops.watch import WatchInput

pytestmark = pytest.mark.anyio

VIEW = View(60, color=False, now=datetime(2026, 5, 5, tzinfo=UTC))


@pytest.fixture
def small(world, context):
    """A context whose ring holds four events."""
    return replace(context, events=EventBus(world.clock, capacity=4))


def happen(context, *numbers, kind=EventKind.CODEX_STATE, **data):
    for number in numbers:
        context.events.publish(kind, data={"n": number, **data})


async def look(context, **asked):
    with anyio.fail_after(5):
        return await watch.watch(context, WatchInput(**asked))


def numbers(output):
    return [event.data["n"] for event in output.events]


async def test_without_a_cursor_it_begins_now(small):
    happen(small, 1, 2)

    before = await look(small, timeout=0)
    happen(small, 3)
    after = await look(small, after=before.cursor)

    assert (numbers(before), before.cursor, before.gap) == ([], "i:2", False)
    assert (numbers(after), after.gap) == ([3], False)


async def test_an_unbounded_call_waits_for_the_first_event(small):
    found = []

    async with anyio.create_task_group() as tasks:

        async def waiting():
            found.append(await look(small, after="i:0"))

        tasks.start_soon(waiting)
        await anyio.wait_all_tasks_blocked()
        happen(small, 1, 2)

    assert numbers(found[0]) == [1, 2]


async def test_what_was_overwritten_is_a_gap(small):
    happen(small, *range(1, 10))

    late = await look(small, after="i:2")

    assert (late.gap, numbers(late)) == (True, [6, 7, 8, 9])
    assert "may be missing" in watch.render_watch(late, VIEW)


async def test_the_cursor_of_another_run_gets_all_there_is_and_a_gap(small):
    happen(small, 1, 2)

    other = await look(small, after="j:77")

    assert (other.gap, numbers(other)) == (True, [1, 2])


async def test_a_limit_collects_so_many_and_the_next_call_goes_on(small):
    happen(small, 1, 2, 3)

    first = await look(small, after="i:0", limit=2)
    second = await look(small, after=first.cursor, timeout=0)

    assert (numbers(first), numbers(second)) == ([1, 2], [3])


async def test_progress_is_shown_only_when_asked_for(small):
    happen(small, 1, kind=EventKind.PROGRESS)
    happen(small, 2)

    everything = await look(small, after="i:0")
    progress = await look(small, after="i:0", kinds=["op.progress"])

    assert (numbers(everything), numbers(progress)) == ([2], [1])


async def test_an_answer_is_never_too_large_for_a_frame(small):
    happen(small, 1, 2, 3, text="x" * 700_000)

    first = await look(small, after="i:0")
    second = await look(small, after=first.cursor)

    assert (numbers(first), numbers(second)) == ([1, 2], [3])


@pytest.mark.parametrize("cursor", ["yesterday", "i:", "i:-1", "i:٣", f"i:{'9' * 30}"])
async def test_what_is_no_cursor_is_refused(small, cursor):
    with pytest.raises(ValidationFailed, match="not a cursor") as caught:
        await look(small, after=cursor)

    assert caught.value.hint


async def test_only_the_threads_asked_for_are_watched_and_named(world, context):
    async with world.running():
        one, other = await world.thread("one"), await world.thread("other")
        for thread in (one, other):
            context.events.publish(
                EventKind.ITEM_COMPLETED,
                thread=thread.key,
                data={"type": "agentMessage", "text": "long\x1b[2J " * 30},
            )

        seen = await look(context, after="i:0", thread="@one", kinds=["item.completed"])

    [event] = seen.events
    assert (event.thread.ref, event.thread.handle) == (one.ref, "@one")
    [line] = watch.render_watch(seen, VIEW).splitlines()
    assert len(line) <= VIEW.width
    assert "codex: long" in line
    assert "\x1b" not in line
