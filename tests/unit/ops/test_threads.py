"""Making, listing and reading threads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dispatch_core.contracts.view import View
from dispatch_core.errors import (
    CodexError,
    OutcomeUnknown,
    PartialSuccess,
    ThreadNotFound,
    ValidationFailed,
)
from dispatch_plugins.ops import threads
from dispatch_plugins.ops.threads import GetInput, ListInput, NewInput, TailInput

pytestmark = pytest.mark.anyio

VIEW = View(100, color=False, now=datetime(2026, 5, 5, tzinfo=UTC))


async def test_a_new_thread_gets_its_first_message(world, context):
    async with world.running():
        made = await threads.new(context, NewInput(name=" @builder ", text="hello", cwd="/"))

    assert made.thread.handle == "@builder"
    assert (made.message_accepted, made.turn.id) == (True, "turn-2")
    assert "dispatch wait" in threads.render_new(made, VIEW)


async def test_settings_of_a_thread_reach_codex_and_what_was_left_out_does_not(world, context):
    async with world.running():
        await threads.new(
            context, NewInput(name="x", text="hello", cwd="/", sandbox="read-only", model="m1")
        )

    start = dict(world.codex.calls)["thread/start"]
    turn = dict(world.codex.calls)["turn/start"]
    assert (start["sandbox"], start["model"]) == ("read-only", "m1")
    assert turn["model"] == "m1"
    assert "approvalPolicy" not in start | turn


@pytest.mark.parametrize("text", [" ", "/goal win", "x" * 1_048_577])
async def test_text_that_would_be_refused_leaves_no_thread_behind(world, context, text):
    async with world.running():
        with pytest.raises(ValidationFailed):
            await threads.new(context, NewInput(name="x", text=text, cwd="/"))

        assert await world.storage.threads.list() == ()
        kept = await threads.new(context, NewInput(name="x", text=text, cwd="/", send=False))
    assert kept.message_accepted is False


async def test_a_thread_without_its_first_message_is_a_partial_success(world, context):
    async def refuse(params):
        raise CodexError("no such model", details={"code": -32600})

    world.codex.on["turn/start"] = refuse
    async with world.running():
        with pytest.raises(PartialSuccess) as caught:
            await threads.new(context, NewInput(name="x", text="hello", cwd="/"))
        [thread] = await world.storage.threads.list()

    assert caught.value.details["thread"] == thread.ref
    assert caught.value.details["error"]["code"] == "app_server"
    assert "no such model" in caught.value.message


async def test_a_first_message_of_unknown_fate_stays_unknown(world, context, lost_answer):
    async def die(params):
        raise lost_answer

    world.codex.on["turn/start"] = die
    async with world.running():
        with pytest.raises(OutcomeUnknown) as caught:
            await threads.new(context, NewInput(name="x", text="hello", cwd="/"))
        [thread] = await world.storage.threads.list()

    assert caught.value.details["thread"] == thread.ref


@pytest.mark.parametrize("name", ["@", " @ ", "a\nb", "a\x1b[31m", "a\u202eb"])
async def test_a_name_that_cannot_be_printed_is_refused(world, context, name):
    async with world.running():
        with pytest.raises(ValidationFailed, match="new: name"):
            await threads.new(context, NewInput(name=name, cwd="/"))

    assert world.codex.calls == []


@pytest.mark.parametrize("cwd", ["relative", "/no/such", "/etc/passwd"])
async def test_a_directory_that_is_none_is_refused(world, context, cwd):
    async with world.running():
        with pytest.raises(ValidationFailed, match="new: cwd"):
            await threads.new(context, NewInput(name="x", cwd=cwd))


async def test_pages_of_the_list_follow_each_other(world, context):
    async with world.running():
        made = [(await world.thread(name)).ref for name in ("a", "b", "c")]

        first = await threads.list_threads(context, ListInput(limit=2))
        second = await threads.list_threads(context, ListInput(limit=2, after=first.next))

    assert sorted(row.thread.ref for row in [*first.threads, *second.threads]) == sorted(made)
    assert (len(first.threads), second.next) == (2, None)
    assert f"--after {first.next}" in threads.render_list(first, VIEW)


async def test_a_thread_is_shown_with_its_turn(world, context):
    async with world.running():
        thread = await world.thread()
        turn = await world.lanes.send(thread, "hello")
        world.started(thread, turn.id)
        world.completed(thread, turn.id, "failed", {"message": "broken\x1b[2J"})
        await world.lanes.settled(thread)

        shown = await threads.get(context, GetInput(thread="build"))

    text = threads.render_get(shown, VIEW)
    assert (shown.turn.status, shown.thread.status) == ("failed", "error")
    assert "broken" in text
    assert "\x1b" not in text


async def test_history_is_shown_as_a_conversation(world, context):
    async with world.running():
        thread = await world.thread()
        world.codex.store(thread.native_id, "t", "completed")
        items = world.codex.stored[thread.native_id][0]["items"]
        items[0]["content"] = [{"type": "text", "text": "hi\x07"}]
        items.append({"type": "agentMessage", "id": "m", "text": "yes\nno"})
        await world.storage.threads.update(
            thread.key, materialized=True, updated_at=world.clock.now()
        )
        world.lanes._lanes.clear()

        told = await threads.tail(context, TailInput(thread="@builder"))

    assert [item.type for item in told.items] == ["userMessage", "agentMessage"]
    assert threads.render_tail(told, VIEW) == "you: hi\ncodex: yes\nno"


async def test_nobody_is_found_under_an_unknown_name(world, context):
    async with world.running():
        with pytest.raises(ThreadNotFound):
            await threads.tail(context, TailInput(thread="@nobody"))
