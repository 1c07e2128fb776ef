"""Sending and stopping, as a caller sees them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dispatch_core.contracts.view import View
from dispatch_core.errors import ValidationFailed
from dispatch_plugins.ops import daemon, send
from dispatch_plugins.ops.daemon import CodexStatus
from dispatch_plugins.ops.send import SendInput, StopInput

pytestmark = pytest.mark.anyio

VIEW = View(100, color=False, now=datetime(2026, 5, 5, tzinfo=UTC))


async def test_a_receipt_names_message_and_turn(world, context):
    async with world.running():
        thread = await world.thread()

        sent = await send.send(context, SendInput(thread="@builder", text="hello"))

    assert sent.receipt.state == "submitted"
    assert sent.receipt.id == (await world.stored(thread)).turn.message_id
    assert "accepted by @builder" in send.render_send(sent, VIEW)


async def test_a_receipt_says_when_the_message_was_merged(world, context):
    async with world.running():
        thread = await world.thread()
        first = await send.send(context, SendInput(thread="@builder", text="one"))
        world.started(thread, first.receipt.turn_id)
        world.completed(thread, first.receipt.turn_id)

        async def same(params):
            return {"turn": {"id": first.receipt.turn_id}}

        world.codex.on["turn/start"] = same
        second = await send.send(context, SendInput(thread="@builder", text="two"))

    assert second.receipt.state == "merged"
    assert second.receipt.turn_id == first.receipt.turn_id
    assert "joined a running turn" in send.render_send(second, VIEW)


async def test_a_stopped_turn_is_returned_after_its_end(world, context):
    async with world.running():
        thread = await world.thread()
        sent = await send.send(context, SendInput(thread="@builder", text="hello"))
        world.started(thread, sent.receipt.turn_id)

        async def interrupt(params):
            world.completed(thread, params["turnId"], "interrupted")
            return {}

        world.codex.on["turn/interrupt"] = interrupt
        stopped = await send.stop(context, StopInput(thread="@builder"))
        with pytest.raises(ValidationFailed):
            await send.stop(context, StopInput(thread="@builder"))

    assert (stopped.turn.id, stopped.turn.status) == (sent.receipt.turn_id, "interrupted")
    assert stopped.thread.status == "idle"


async def test_the_status_shows_what_is_wrong_and_nothing_that_controls_the_terminal(
    world, context
):
    async with world.running():
        await world.thread()
        status = await daemon.status(context, daemon.StatusInput())
        log = await daemon.log(context, daemon.LogInput(daemon=True, limit=2))

    text = daemon.render_status(status, VIEW)
    assert isinstance(status.codex, CodexStatus)
    assert status.threads == {"idle": 1}
    assert "Invalid configuration; using defaults." in text
    assert "acme (dispatch plugins)" in text
    assert "\x1b" not in text
    assert daemon.render_log(log, VIEW) == "l \nl "
