"""Waiting for threads, as a caller sees it."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from dispatch_core.contracts.requests import RequestState
from dispatch_core.contracts.view import View
from dispatch_core.errors import TimedOut
from dispatch_core.testing.storage.samples import a_request
from dispatch_plugins.ops import send, wait
from dispatch_plugins.ops.send import SendInput
from dispatch_plugins.ops.wait import WaitInput

pytestmark = pytest.mark.anyio

VIEW = View(100, color=False, now=datetime(2026, 5, 5, tzinfo=UTC))


async def say(context, thread="@builder", text="hello"):
    return (await send.send(context, SendInput(thread=thread, text=text))).receipt


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("completed", "done"), ("failed", "failed"), ("interrupted", "interrupted")],
)
async def test_a_wait_says_how_the_turn_ended(world, context, status, outcome):
    async with world.running():
        thread = await world.thread()
        sent = await say(context)
        world.codex.store(thread.native_id, sent.turn_id, status, sent.id)
        world.codex.stored[thread.native_id][0]["items"].append(
            {"type": "agentMessage", "id": "m", "text": "the answer"}
        )
        world.started(thread, sent.turn_id)
        world.completed(thread, sent.turn_id, status)

        output = await wait.wait(context, WaitInput(thread=["@builder"]))

    [done] = output.results
    assert done.outcome == outcome
    assert done.text == ("the answer" if outcome == "done" else None)
    assert (done.text or "builder") in wait.render_wait(output, VIEW)


async def test_a_turn_that_is_done_is_done_although_codex_is_down(world, context):
    async with world.running():
        thread = await world.thread()
        sent = await say(context)
        world.started(thread, sent.turn_id)
        world.completed(thread, sent.turn_id)
        world.crash()

        [done] = (await wait.wait(context, WaitInput(thread=["@builder"]))).results

    assert (done.outcome, done.text) == ("done", None)


async def test_a_wait_ends_at_its_timeout_with_what_is_known_and_what_is_in_the_way(world, context):
    async with world.running():
        thread = await world.thread()
        await world.thread("idle")
        sent = await say(context)
        world.started(thread, sent.turn_id)
        world.trouble(thread, sent.turn_id, "Reconnecting...\x1b[2J")
        await world.lanes.flush()

        with pytest.raises(TimedOut, match="Codex says: Reconnecting") as caught:
            await wait.wait(context, WaitInput(thread=["@idle", "@builder"], timeout=0.01))

        assert world.lanes.active() == [thread.key]
    found = caught.value.details["results"]
    assert [result["outcome"] for result in found] == ["nothing", "running"]
    assert "\x1b" not in caught.value.message
    assert thread.ref in caught.value.hint


async def test_a_timeout_of_nothing_looks_once(world, context):
    async with world.running():
        thread = await world.thread()
        await world.thread("idle")
        sent = await say(context)
        world.started(thread, sent.turn_id)
        await world.lanes.flush()

        found = await wait.wait(context, WaitInput(thread=["@idle"], timeout=0))
        with pytest.raises(TimedOut, match="1 of 2 threads still run") as caught:
            await wait.wait(context, WaitInput(thread=["@idle", "@builder"], timeout=0))

    assert [result.outcome for result in found.results] == ["nothing"]
    outcomes = [result["outcome"] for result in caught.value.details["results"]]
    assert outcomes == ["nothing", "running"]


async def test_one_thread_can_be_given_without_a_list(world, context):
    async with world.running():
        await world.thread()

        output = await wait.wait(context, WaitInput(thread="@builder"))

    assert [result.outcome for result in output.results] == ["nothing"]


async def ask(world, context, thread):
    """Let Codex ask something in the middle of a turn; return the turn."""
    sent = await say(context)
    world.started(thread, sent.turn_id)
    for number, state in ((1, RequestState.OPEN), (2, RequestState.CANCELLED)):
        request = a_request(number, thread=thread.key, summary=f"question {number}", state=state)
        await world.storage.requests.add(request)
    world.status(thread, "active", ["waitingOnUserInput"])
    return sent.turn_id


@pytest.mark.parametrize("until", ["any", "needs-attention"])
async def test_a_question_ends_the_wait_and_is_named(world, context, until):
    async with world.running():
        thread = await world.thread()
        await ask(world, context, thread)

        output = await wait.wait(context, WaitInput(thread="@builder", until=until))

    [result] = output.results
    assert result.outcome == "needs_attention"
    assert (result.asks.id, result.asks.summary) == ("request-0001", "question 1")
    text = wait.render_wait(output, VIEW)
    assert "Codex asks: question 1" in text
    assert "dispatch request show est-0001" in text


async def test_a_question_does_not_end_the_wait_for_the_turn(world, context):
    async with world.running() as tasks:
        thread = await world.thread()
        turn_id = await ask(world, context, thread)
        found = []

        async def waiting():
            found.append(await wait.wait(context, WaitInput(thread="@builder", until="done")))

        with pytest.raises(TimedOut):
            await wait.wait(context, WaitInput(thread="@builder", until="done", timeout=0.1))
        tasks.start_soon(waiting)
        await anyio.wait_all_tasks_blocked()
        world.completed(thread, turn_id)
        with anyio.fail_after(5):
            while not found:
                await anyio.lowlevel.checkpoint()

    assert found[0].results[0].outcome == "done"
