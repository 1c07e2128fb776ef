"""Messages that wait: order, changes, expiry, keys, doubt, and what a person may decide."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN, Caller
from dispatch_core.contracts.deliveries import DeliveryState, Verdict, When
from dispatch_core.contracts.records import Message, ThreadStatus
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CodexError,
    CodexOverloaded,
    DeliveryConflict,
    DeliveryNotFound,
    LaneHeld,
    OutcomeUnknown,
    StorageError,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio

AGENT = Caller(principal="agent:somebody", surface="mcp")


async def queued(world, thread, text, caller=HUMAN, **options):
    return await world.lanes.deliveries.send(
        thread, Message(text=text), caller, when=When.IDLE, **options
    )


async def state(world, delivery):
    return (await world.delivery(delivery.id)).state


async def becomes(world, delivery, wanted):
    """Return the delivery once it is in a state."""
    async with world.events.subscribe(after=0) as events:
        async for event in events:
            if event.data.get("id") == delivery.id and event.data["state"] == wanted.value:
                break
    return await world.delivery(delivery.id)


async def runs(world, thread):
    """Return the turn that runs in a thread, once one does."""
    lane = world.lanes._lanes[thread.key]
    while lane.active is None or lane.submitting:
        await lane.change()
    return lane.active


async def busy(world):
    """Return a thread in which a turn runs, and that turn."""
    thread = await world.thread()
    turn = await world.send(thread, Message(text="first"))
    world.started(thread, turn.id)
    return thread, turn


async def end_turn(world, thread):
    """The turn of a thread that runs, or is about to, ends."""
    world.completed(thread, await runs(world, thread))
    await world.lanes.flush()


def said(world):
    return [
        params["input"][0]["text"] for method, params in world.codex.calls if method == "turn/start"
    ]


# -- order -------------------------------------------------------------------------------------------


async def test_what_waits_is_sent_in_order_and_one_turn_each(world):
    async with world.running():
        thread, _ = await busy(world)
        waiting = [await queued(world, thread, text) for text in ("one", "two", "three")]
        early = [(await world.delivery(each.id)).state for each in waiting]

        for _ in range(4):
            await end_turn(world, thread)
        await becomes(world, waiting[-1], DeliveryState.DONE)

        assert early == [DeliveryState.QUEUED] * 3
        assert said(world) == ["first", "one", "two", "three"]
        assert [await state(world, each) for each in waiting] == [DeliveryState.DONE] * 3


async def test_a_message_for_an_idle_thread_does_not_wait(world):
    async with world.running():
        thread = await world.thread()

        delivery = await queued(world, thread, "hello")

        assert await becomes(world, delivery, DeliveryState.SUBMITTED)


async def test_a_wait_lasts_until_nothing_waits_any_more(world):
    waited = []
    async with world.running() as tasks:
        thread, _ = await busy(world)
        await queued(world, thread, "last")

        async def wait():
            waited.append(await world.lanes.settled(thread))

        tasks.start_soon(wait)
        await end_turn(world, thread)
        early = list(waited)
        await end_turn(world, thread)

    assert early == []
    assert waited[0].status is ThreadStatus.IDLE


async def test_a_message_that_must_go_now_does_not_overtake_those_that_wait(world):
    async with world.running():
        thread = await world.thread()
        world.codex.up = False
        await queued(world, thread, "waits for Codex")

        with pytest.raises(LaneHeld, match="1 message waits") as held:
            await world.send(thread, Message(text="now"))

        assert "--queue" in held.value.hint


async def test_an_accepted_message_waits_for_a_codex_that_is_down(world):
    async with world.running():
        thread = await world.thread()
        world.crash()
        delivery = await queued(world, thread, "later")
        await anyio.wait_all_tasks_blocked()
        early = await state(world, delivery)

        await world.restart()

        assert early is DeliveryState.QUEUED
        assert await becomes(world, delivery, DeliveryState.SUBMITTED)


async def test_what_waits_is_sent_by_the_next_daemon(world):
    async with world.running():
        thread, turn = await busy(world)
        delivery = await queued(world, thread, "later")
    later = type(world)(world.storage)
    later.codex.generation += 1  # another process
    later.codex.store(thread.native_id, turn.id, "interrupted", turn.message_id, text="first")

    async with later.running():
        assert await becomes(later, delivery, DeliveryState.SUBMITTED)
        assert said(later) == ["later"]


async def test_a_stopping_daemon_sends_nothing_more(world):
    async with world.running():
        thread, _ = await busy(world)
        delivery = await queued(world, thread, "later")

        world.lanes.stop_sending()
        await end_turn(world, thread)

        assert await state(world, delivery) is DeliveryState.QUEUED


async def test_an_archived_thread_keeps_what_waits_until_it_is_restored(world):
    async with world.running():
        thread, _ = await busy(world)
        delivery = await queued(world, thread, "later")
        world.say("thread/archived", thread)
        await end_turn(world, thread)
        early = await state(world, delivery)

        world.say("thread/unarchived", thread)

        assert early is DeliveryState.QUEUED
        assert await becomes(world, delivery, DeliveryState.SUBMITTED)


# -- what keeps a message from being sent ------------------------------------------------------------


async def test_a_message_that_codex_is_too_busy_for_is_tried_again(world):
    async with world.running():
        thread = await world.thread()
        answers = [CodexOverloaded("overloaded"), CodexOverloaded("overloaded")]

        async def answer(params):
            if answers:
                raise answers.pop()
            return world.codex._turn_start(params)

        world.codex.on["turn/start"] = answer
        delivery = await queued(world, thread, "patient")
        sent = await becomes(world, delivery, DeliveryState.SUBMITTED)

        assert answers == []
        assert sent.attempt == 3


async def test_a_message_waits_while_another_process_holds_the_thread(world):
    async with world.running():
        thread, turn = await busy(world)
        world.codex.store(thread.native_id, turn.id, "interrupted", turn.message_id)
        tries = 0

        async def answer(params):
            nonlocal tries
            tries += 1
            if tries <= 3:
                raise ActiveWriter("the thread")
            return world.codex._thread_resume(params)

        await end_turn(world, thread)
        world.crash()
        world.codex.on["thread/resume"] = answer
        delivery = await queued(world, thread, "patient")
        await world.restart()
        sent = await becomes(world, delivery, DeliveryState.SUBMITTED)

        assert (sent.attempt, tries) == (1, 4)


async def test_a_message_that_codex_refuses_is_rejected_and_the_next_one_goes(world):
    async with world.running():
        thread = await world.thread()

        async def answer(params):
            del world.codex.on["turn/start"]
            raise CodexError("input_too_large")

        world.codex.on["turn/start"] = answer
        first = await queued(world, thread, "refused", key="k")
        second = await queued(world, thread, "fine")
        rejected = await becomes(world, first, DeliveryState.REJECTED)
        again = await queued(world, thread, "refused", key="k")

        assert "input_too_large" in rejected.reason
        assert await becomes(world, second, DeliveryState.SUBMITTED)
        assert again.id != first.id


async def test_a_message_whose_time_is_over_is_not_sent(world):
    async with world.running():
        thread, _ = await busy(world)
        soon = world.clock.now() + timedelta(minutes=1)
        delivery = await queued(world, thread, "only today", expires_at=soon)
        after = await queued(world, thread, "any time")

        world.clock.advance(minutes=2)
        await end_turn(world, thread)

        assert await becomes(world, delivery, DeliveryState.EXPIRED)
        assert await becomes(world, after, DeliveryState.SUBMITTED)
        assert said(world) == ["first", "any time"]


async def test_a_message_that_has_expired_already_is_refused(world):
    async with world.running():
        thread = await world.thread()

        with pytest.raises(ValidationFailed, match="expire"):
            await queued(world, thread, "too late", expires_at=world.clock.now())


async def test_nothing_is_accepted_that_cannot_be_kept(world):
    async with world.running():
        thread = await world.thread()
        world.storage.threads.broken = True

        with pytest.raises(StorageError):
            await queued(world, thread, "lost?")

        world.storage.threads.broken = False
        assert await world.storage.deliveries.head(thread.key) is None


# -- idempotency keys --------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_message(world):
    async with world.running():
        thread, _ = await busy(world)

        first = await queued(world, thread, "once", key="k")
        second = await queued(world, thread, "once", key="k")
        other = await queued(world, thread, "once", AGENT, key="k")

        assert first.id == second.id
        assert other.id != first.id


async def test_a_key_is_kept_after_its_message_has_been_sent(world):
    async with world.running():
        thread = await world.thread()
        first = await world.send(thread, Message(text="now"), key="k")
        world.completed(thread, first.id)
        await world.lanes.settled(thread)

        second = await world.send(thread, Message(text="now"), key="k")

        assert second.message_id == first.message_id
        assert said(world) == ["now"]


async def test_a_key_of_another_message_is_a_conflict(world):
    async with world.running():
        thread, _ = await busy(world)
        await queued(world, thread, "one", key="k")

        with pytest.raises(DeliveryConflict, match="another message"):
            await queued(world, thread, "two", key="k")


async def test_many_senders_with_one_key_start_one_turn(world):
    ids = set()
    async with world.running():
        thread = await world.thread()

        async def send():
            ids.add((await queued(world, thread, "once", key="k")).id)

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(send)
        await runs(world, thread)
        await world.lanes.flush()

    assert len(ids) == 1
    assert said(world) == ["once"]


# -- changes to what waits ---------------------------------------------------------------------------


async def test_what_waits_can_be_withdrawn_and_is_not_sent(world):
    async with world.running():
        thread, _ = await busy(world)
        delivery = await queued(world, thread, "no, wait")

        cancelled = await world.lanes.deliveries.cancel(delivery, HUMAN)
        await end_turn(world, thread)
        await anyio.wait_all_tasks_blocked()

        assert cancelled.state is DeliveryState.CANCELLED
        assert said(world) == ["first"]


async def test_what_was_sent_cannot_be_withdrawn_or_changed(world):
    async with world.running():
        thread = await world.thread()
        stale = await queued(world, thread, "gone")
        await becomes(world, stale, DeliveryState.SUBMITTED)
        desk = world.lanes.deliveries

        with pytest.raises(DeliveryConflict):
            await desk.cancel(stale, HUMAN)
        with pytest.raises(DeliveryConflict):
            await desk.edit(stale, Message(text="other"), HUMAN)
        with pytest.raises(DeliveryConflict):
            await desk.reorder(await desk.get(stale.id), before=None)

        assert await state(world, stale) is DeliveryState.SUBMITTED


async def test_what_waits_can_be_changed(world):
    async with world.running():
        thread, _ = await busy(world)
        delivery = await queued(world, thread, "typo")

        await world.lanes.deliveries.edit(delivery, Message(text="correct"), HUMAN)
        await end_turn(world, thread)
        await becomes(world, delivery, DeliveryState.SUBMITTED)

        assert said(world) == ["first", "correct"]


async def test_what_waits_can_be_put_in_another_order(world):
    async with world.running():
        thread, _ = await busy(world)
        one, two, three = [await queued(world, thread, text) for text in ("1", "2", "3")]
        desk = world.lanes.deliveries

        await desk.reorder(three, before=one)
        queue = await desk.reorder(one, before=None)
        for _ in range(3):
            await end_turn(world, thread)
        await becomes(world, one, DeliveryState.SUBMITTED)

        assert [each.id for each in queue] == [three.id, two.id, one.id]
        assert said(world) == ["first", "3", "2", "1"]


async def test_a_message_is_not_put_into_the_queue_of_another_thread(world):
    async with world.running():
        thread, _ = await busy(world)
        mine = await queued(world, thread, "mine")
        world.codex.up = False
        other = await queued(world, await _second(world), "other")

        with pytest.raises(DeliveryConflict, match="another thread"):
            await world.lanes.deliveries.reorder(mine, before=other)


async def _second(world):
    world.codex.up = True
    thread = await world.thread("second")
    world.codex.up = False
    return thread


# -- selectors ---------------------------------------------------------------------------------------


async def test_a_delivery_is_found_by_the_beginning_of_its_id(world):
    async with world.running():
        _, turn = await busy(world)
        desk = world.lanes.deliveries

        assert (await desk.get(turn.message_id[:-1])).id == turn.message_id
        with pytest.raises(DeliveryNotFound):
            await desk.get(turn.message_id[:5])
        with pytest.raises(DeliveryNotFound):
            await desk.get("nonsense")


# -- doubt -------------------------------------------------------------------------------------------


@pytest.fixture
async def doubtful(world, lost_answer):
    """Return a thread whose first message is in doubt for good, and that message; a second one waits behind it."""

    async def doubt():
        thread = await world.thread()

        async def die(params):
            del world.codex.on["turn/start"]
            world.crash()
            raise lost_answer

        world.codex.proven = False
        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="doubtful"))
        second = await queued(world, thread, "second")
        await world.restart()
        return thread, await world.delivery(caught.value.details["delivery"]), second

    return doubt


async def test_doubt_holds_its_own_thread_and_no_other(world, doubtful):
    async with world.running():
        thread, doubt, second = await doubtful()

        other = await queued(world, await world.thread("other"), "unaffected")
        sent = await becomes(world, other, DeliveryState.SUBMITTED)

        assert sent is not None
        assert doubt.state is DeliveryState.UNKNOWN
        assert await state(world, second) is DeliveryState.QUEUED
        assert (await world.lanes.settled(thread)).status is ThreadStatus.UNKNOWN


@pytest.mark.parametrize(
    ("verdict", "after", "sent"),
    [
        (Verdict.SENT, DeliveryState.DONE, ["doubtful", "second"]),
        (Verdict.DROP, DeliveryState.CANCELLED, ["doubtful", "second"]),
        (Verdict.RESEND, DeliveryState.CANCELLED, ["doubtful", "doubtful", "second"]),
    ],
)
async def test_a_person_decides_and_the_thread_goes_on(world, doubtful, verdict, after, sent):
    async with world.running():
        thread, doubt, second = await doubtful()

        await world.lanes.deliveries.resolve(doubt, verdict, HUMAN)
        await end_turn(world, await world.stored(thread))
        if verdict is Verdict.RESEND:
            await end_turn(world, await world.stored(thread))
        await becomes(world, second, DeliveryState.DONE)

        assert await state(world, doubt) is after
        assert said(world) == sent


async def test_an_agent_does_not_decide(world, doubtful):
    async with world.running():
        _, doubt, _ = await doubtful()

        with pytest.raises(AuthorityDenied, match="only a person"):
            await world.lanes.deliveries.resolve(doubt, Verdict.RESEND, AGENT)

        assert await state(world, doubt) is DeliveryState.UNKNOWN


async def test_what_is_not_in_doubt_is_not_decided(world):
    async with world.running():
        _, turn = await busy(world)
        delivery = await world.delivery(turn.message_id)

        with pytest.raises(DeliveryConflict, match="nothing about it is in doubt"):
            await world.lanes.deliveries.resolve(delivery, Verdict.DROP, HUMAN)


async def test_what_has_ended_can_be_sent_once_more_as_a_new_message(world):
    async with world.running():
        thread, turn = await busy(world)
        await end_turn(world, thread)
        done = await world.delivery(turn.message_id)

        again = await world.lanes.deliveries.requeue(done, HUMAN)
        await becomes(world, again, DeliveryState.SUBMITTED)

        assert (again.retry_of, again.id != done.id) == (done.id, True)
        assert said(world) == ["first", "first"]
        assert await state(world, done) is DeliveryState.DONE


async def test_every_change_of_a_delivery_is_told_after_it_is_recorded(world):
    told = []
    async with world.running():
        thread = await world.thread()
        delivery = await queued(world, thread, "hello")
        await becomes(world, delivery, DeliveryState.SUBMITTED)
        await end_turn(world, thread)
        await becomes(world, delivery, DeliveryState.DONE)
        told = [e.data for e in world.events._ring if e.kind.value == "delivery.changed"]

    assert [each["state"] for each in told] == ["queued", "sending", "submitted", "done"]
    assert {each["id"] for each in told} == {delivery.id}
