"""Messages that wait: order, changes, expiry, keys, doubt, and what a person may decide."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN, Caller
from dispatch_core.contracts.deliveries import DeliveryState, Verdict
from dispatch_core.contracts.records import Message, ThreadSettings, ThreadStatus
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CodexError,
    CodexOverloaded,
    DeliveryConflict,
    LaneHeld,
    OutcomeUnknown,
    StorageError,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio

AGENT = Caller(principal="agent:somebody", surface="mcp")


async def state(world, delivery):
    return (await world.delivery(delivery.id)).state


# -- order -------------------------------------------------------------------------------------------


async def test_what_waits_is_sent_in_order_and_one_turn_each(world):
    async with world.running():
        thread, _ = await world.busy()
        waiting = [await world.queued(thread, text) for text in ("one", "two", "three")]
        early = [(await world.delivery(each.id)).state for each in waiting]

        for _ in range(4):
            await world.end_turn(thread)
        await world.becomes(waiting[-1], DeliveryState.DONE)

        assert early == [DeliveryState.QUEUED] * 3
        assert world.said() == ["first", "one", "two", "three"]
        assert [await state(world, each) for each in waiting] == [DeliveryState.DONE] * 3


async def test_a_message_for_an_idle_thread_does_not_wait(world):
    async with world.running():
        thread = await world.thread()

        delivery = await world.queued(thread, "hello")

        assert await world.becomes(delivery, DeliveryState.SUBMITTED)


async def test_a_wait_lasts_until_nothing_waits_any_more(world):
    waited = []
    async with world.running() as tasks:
        thread, _ = await world.busy()
        await world.queued(thread, "last")

        async def wait():
            waited.append(await world.lanes.settled(thread))

        tasks.start_soon(wait)
        await world.end_turn(thread)
        early = list(waited)
        await world.end_turn(thread)

    assert early == []
    assert waited[0].status is ThreadStatus.IDLE


@pytest.mark.parametrize(
    "end", [DeliveryState.CANCELLED, DeliveryState.EXPIRED, DeliveryState.REJECTED]
)
async def test_a_wait_ends_when_the_last_message_ends_without_having_been_sent(
    world, tmp_path, end
):
    folder, ended = tmp_path / "work", anyio.Event()
    folder.mkdir()
    async with world.running() as tasks:
        thread = await world.lanes.create(name="b", cwd=str(folder), settings=ThreadSettings())
        world.crash()
        soon = world.clock.now() + timedelta(minutes=1)
        delivery = await world.queued(thread, "never", expires_at=soon)

        async def wait():
            await world.lanes.settled(thread)
            ended.set()

        async def refuse(params):
            raise CodexError("input_too_large")

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        early = ended.is_set()
        match end:
            case DeliveryState.CANCELLED:
                await world.lanes.deliveries.cancel(delivery, HUMAN)
            case DeliveryState.EXPIRED:
                world.clock.advance(minutes=2)
            case DeliveryState.REJECTED:
                world.codex.on["turn/start"] = refuse
        await world.restart()
        await world.becomes(delivery, end)
        await ended.wait()

    assert not early


async def test_a_wait_ends_when_what_waits_for_another_process_is_withdrawn(world):
    ended = anyio.Event()
    async with world.running() as tasks:
        thread = await world.thread()
        world.crash()
        delivery = await world.queued(thread, "never")
        world.lanes.stranded()

        async def wait():
            await world.lanes.settled(thread)
            ended.set()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        early = ended.is_set()
        await world.lanes.deliveries.cancel(delivery, HUMAN)
        await ended.wait()

    assert not early


async def test_a_message_that_must_go_now_does_not_overtake_those_that_wait(world):
    async with world.running():
        thread = await world.thread()
        world.codex.up = False
        await world.queued(thread, "waits for Codex")

        with pytest.raises(LaneHeld, match="1 message waits") as held:
            await world.send(thread, Message(text="now"))

        assert "--queue" in held.value.hint


async def test_an_accepted_message_waits_for_a_codex_that_is_down(world):
    async with world.running():
        thread = await world.thread()
        world.crash()
        delivery = await world.queued(thread, "later")
        await anyio.wait_all_tasks_blocked()
        early = await state(world, delivery)

        await world.restart()

        assert early is DeliveryState.QUEUED
        assert await world.becomes(delivery, DeliveryState.SUBMITTED)


async def test_what_waits_is_sent_by_the_next_daemon(world):
    async with world.running():
        thread, turn = await world.busy()
        delivery = await world.queued(thread, "later")
    later = type(world)(world.storage)
    later.codex.generation += 1  # another process
    later.codex.store(thread.native_id, turn.id, "interrupted", turn.message_id, text="first")

    async with later.running():
        assert await later.becomes(delivery, DeliveryState.SUBMITTED)
        assert later.said() == ["later"]


async def test_a_stopping_daemon_sends_nothing_more(world):
    async with world.running():
        thread, _ = await world.busy()
        delivery = await world.queued(thread, "later")

        world.lanes.stop_sending()
        await world.end_turn(thread)

        assert await state(world, delivery) is DeliveryState.QUEUED


async def test_an_archived_thread_keeps_what_waits_until_it_is_restored(world):
    async with world.running():
        thread, _ = await world.busy()
        delivery = await world.queued(thread, "later")
        world.say("thread/archived", thread)
        await world.end_turn(thread)
        early = await state(world, delivery)

        world.say("thread/unarchived", thread)

        assert early is DeliveryState.QUEUED
        assert await world.becomes(delivery, DeliveryState.SUBMITTED)


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
        delivery = await world.queued(thread, "patient")
        sent = await world.becomes(delivery, DeliveryState.SUBMITTED)

        assert answers == []
        assert sent.attempt == 1  # what Codex did not take is no attempt


async def test_a_message_waits_while_another_process_holds_the_thread(world):
    async with world.running():
        thread, turn = await world.busy()
        world.codex.store(thread.native_id, turn.id, "interrupted", turn.message_id)
        tries = 0

        async def answer(params):
            nonlocal tries
            tries += 1
            if tries <= 3:
                raise ActiveWriter("the thread")
            return world.codex._thread_resume(params)

        await world.end_turn(thread)
        world.crash()
        world.codex.on["thread/resume"] = answer
        delivery = await world.queued(thread, "patient")
        await world.restart()
        sent = await world.becomes(delivery, DeliveryState.SUBMITTED)

        assert (sent.attempt, tries) == (1, 4)


async def test_a_message_that_codex_refuses_is_rejected_and_the_next_one_goes(world):
    async with world.running():
        thread = await world.thread()

        async def answer(params):
            del world.codex.on["turn/start"]
            raise CodexError("input_too_large")

        world.codex.on["turn/start"] = answer
        first = await world.queued(thread, "refused", key="k")
        second = await world.queued(thread, "fine")
        rejected = await world.becomes(first, DeliveryState.REJECTED)
        again = await world.queued(thread, "refused", key="k")

        assert "input_too_large" in rejected.reason
        assert await world.becomes(second, DeliveryState.SUBMITTED)
        assert again.id != first.id


async def test_messages_wait_while_their_thread_cannot_be_loaded_and_say_why(world):
    async with world.running():
        thread, turn = await world.busy()
        world.codex.store(thread.native_id, turn.id, "completed", turn.message_id)
        await world.end_turn(thread)
        lane = world.lanes._lanes[thread.key]

        async def misconfigured(params):
            refused.set()
            raise CodexError("failed to load configuration")

        refused = anyio.Event()
        lane.generation, world.codex.on["thread/resume"] = None, misconfigured
        messages = [await world.queued(thread, text) for text in ("one", "two", "three")]
        await refused.wait()
        while (first := await world.delivery(messages[0].id)).reason is None:
            await anyio.lowlevel.checkpoint()
        waiting = [await state(world, message) for message in messages]
        del world.codex.on["thread/resume"]
        sent = await world.becomes(messages[0], DeliveryState.SUBMITTED)

        assert waiting == [DeliveryState.QUEUED] * 3
        assert "failed to load configuration" in first.reason
        assert sent.reason is None


async def test_what_waits_for_a_thread_that_codex_has_lost_is_rejected(world):
    async with world.running():
        thread, _ = await world.busy()
        await world.end_turn(thread)
        world.codex.loaded.clear()
        world.codex.stored.clear()
        world.lanes._lanes[thread.key].generation = None

        delivery = await world.queued(thread, "to nobody")

        rejected = await world.becomes(delivery, DeliveryState.REJECTED)
        assert "any more" in rejected.reason


async def test_a_message_whose_time_is_over_is_not_sent(world):
    async with world.running():
        thread, _ = await world.busy()
        soon = world.clock.now() + timedelta(minutes=1)
        delivery = await world.queued(thread, "only today", expires_at=soon)
        after = await world.queued(thread, "any time")

        world.clock.advance(minutes=2)
        await world.end_turn(thread)

        assert await world.becomes(delivery, DeliveryState.EXPIRED)
        assert await world.becomes(after, DeliveryState.SUBMITTED)
        assert world.said() == ["first", "any time"]


async def test_a_message_that_has_expired_already_is_refused(world):
    async with world.running():
        thread = await world.thread()

        with pytest.raises(ValidationFailed, match="expire"):
            await world.queued(thread, "too late", expires_at=world.clock.now())


async def test_nothing_is_accepted_that_cannot_be_kept(world):
    async with world.running():
        thread = await world.thread()
        world.storage.threads.broken = True

        with pytest.raises(StorageError):
            await world.queued(thread, "lost?")

        world.storage.threads.broken = False
        assert await world.storage.deliveries.head(thread.key) is None


# -- idempotency keys --------------------------------------------------------------------------------


async def test_the_same_key_is_the_same_message(world):
    async with world.running():
        thread, _ = await world.busy()

        first = await world.queued(thread, "once", key="k")
        second = await world.queued(thread, "once", key="k")
        other = await world.queued(thread, "once", AGENT, key="k")

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
        assert world.said() == ["now"]


async def test_a_key_of_another_message_is_a_conflict(world):
    async with world.running():
        thread, _ = await world.busy()
        await world.queued(thread, "one", key="k")

        with pytest.raises(DeliveryConflict, match="another message"):
            await world.queued(thread, "two", key="k")


async def test_many_senders_with_one_key_start_one_turn(world):
    ids = set()
    async with world.running():
        thread = await world.thread()

        async def send():
            ids.add((await world.queued(thread, "once", key="k")).id)

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(send)
        await world.runs(thread)
        await world.lanes.flush()

    assert len(ids) == 1
    assert world.said() == ["once"]


# -- changes to what waits ---------------------------------------------------------------------------


async def test_what_waits_can_be_withdrawn_and_is_not_sent(world):
    async with world.running():
        thread, _ = await world.busy()
        delivery = await world.queued(thread, "no, wait")

        cancelled = await world.lanes.deliveries.cancel(delivery, HUMAN)
        await world.end_turn(thread)
        await anyio.wait_all_tasks_blocked()

        assert cancelled.state is DeliveryState.CANCELLED
        assert world.said() == ["first"]


async def test_what_was_sent_cannot_be_withdrawn_or_changed(world):
    async with world.running():
        thread = await world.thread()
        stale = await world.queued(thread, "gone")
        await world.becomes(stale, DeliveryState.SUBMITTED)
        desk = world.lanes.deliveries

        with pytest.raises(DeliveryConflict):
            await desk.cancel(stale, HUMAN)
        with pytest.raises(DeliveryConflict):
            await desk.edit(stale, Message(text="other"), HUMAN)
        with pytest.raises(DeliveryConflict):
            await desk.reorder(await world.delivery(stale.id), before=None)

        assert await state(world, stale) is DeliveryState.SUBMITTED


async def test_what_waits_can_be_changed(world):
    async with world.running():
        thread, _ = await world.busy()
        delivery = await world.queued(thread, "typo")

        await world.lanes.deliveries.edit(delivery, Message(text="correct"), HUMAN)
        await world.end_turn(thread)
        await world.becomes(delivery, DeliveryState.SUBMITTED)

        assert world.said() == ["first", "correct"]


async def test_what_waits_can_be_put_in_another_order(world):
    async with world.running():
        thread, _ = await world.busy()
        one, two, three = [await world.queued(thread, text) for text in ("1", "2", "3")]
        desk = world.lanes.deliveries

        await desk.reorder(three, before=one)
        queue = await desk.reorder(one, before=None)
        for _ in range(3):
            await world.end_turn(thread)
        await world.becomes(one, DeliveryState.SUBMITTED)

        assert [each.id for each in queue] == [three.id, two.id, one.id]
        assert world.said() == ["first", "3", "2", "1"]


async def test_a_message_is_not_put_into_the_queue_of_another_thread(world):
    async with world.running():
        thread, _ = await world.busy()
        mine = await world.queued(thread, "mine")
        world.codex.up = False
        other = await world.queued(await _second(world), "other")

        with pytest.raises(DeliveryConflict, match="another thread"):
            await world.lanes.deliveries.reorder(mine, before=other)


async def _second(world):
    world.codex.up = True
    thread = await world.thread("second")
    world.codex.up = False
    return thread


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

        world.codex.unproven = {world.codex.version}
        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="doubtful"))
        second = await world.queued(thread, "second")
        await world.restart()
        return thread, await world.delivery(caught.value.details["delivery"]), second

    return doubt


async def test_doubt_holds_its_own_thread_and_no_other(world, doubtful):
    async with world.running():
        thread, doubt, second = await doubtful()

        other = await world.queued(await world.thread("other"), "unaffected")
        sent = await world.becomes(other, DeliveryState.SUBMITTED)

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
        await world.end_turn(await world.stored(thread))
        if verdict is Verdict.RESEND:
            await world.end_turn(await world.stored(thread))
        await world.becomes(second, DeliveryState.DONE)

        assert await state(world, doubt) is after
        assert world.said() == sent


async def test_two_people_decide_once(world, doubtful):
    async with world.running():
        thread, doubt, second = await doubtful()
        await world.lanes.deliveries.resolve(doubt, Verdict.SENT, HUMAN)

        with pytest.raises(DeliveryConflict, match="nothing about it is in doubt"):
            await world.lanes.deliveries.resolve(doubt, Verdict.RESEND, HUMAN)
        await world.end_turn(await world.stored(thread))
        await world.becomes(second, DeliveryState.DONE)

        assert world.said() == ["doubtful", "second"]


async def test_a_key_stands_for_the_message_as_it_was_sent_again(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        async def die(params):
            del world.codex.on["turn/start"]
            world.crash()
            raise lost_answer

        world.codex.unproven = {world.codex.version}
        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="once"), key="k")
        await world.restart()
        doubt = await world.becomes(caught.value.details["delivery"], DeliveryState.UNKNOWN)
        again = await world.lanes.deliveries.resolve(doubt, Verdict.RESEND, HUMAN)
        await world.becomes(again, DeliveryState.SUBMITTED)

        repeated = await world.queued(thread, "once", key="k")

        assert repeated.id == again.id
        assert world.said() == ["once", "once"]


async def test_what_was_sent_again_and_withdrawn_can_be_sent_again_once_more(world, doubtful):
    async with world.running():
        _, doubt, _ = await doubtful()
        store, move = world.storage.deliveries, world.storage.deliveries.move

        async def full(current, state, **changes):
            if current.id == doubt.id:
                raise StorageError("the disk is full", hint="make room")
            return await move(current, state, **changes)

        store.move = full
        with pytest.raises(StorageError):
            await world.lanes.deliveries.resolve(doubt, Verdict.RESEND, HUMAN)
        store.move = move
        [copy, _] = await store.queue(doubt.thread, 2)
        await world.lanes.deliveries.cancel(copy, HUMAN)

        again = await world.lanes.deliveries.resolve(doubt, Verdict.RESEND, HUMAN)

        assert again.id != copy.id
        assert await world.becomes(again, DeliveryState.SUBMITTED)


async def test_an_agent_does_not_decide(world, doubtful):
    async with world.running():
        _, doubt, _ = await doubtful()

        with pytest.raises(AuthorityDenied, match="only a person"):
            await world.lanes.deliveries.resolve(doubt, Verdict.RESEND, AGENT)

        assert await state(world, doubt) is DeliveryState.UNKNOWN


async def test_what_is_not_in_doubt_is_not_decided(world):
    async with world.running():
        _, turn = await world.busy()
        delivery = await world.delivery(turn.message_id)

        with pytest.raises(DeliveryConflict, match="nothing about it is in doubt"):
            await world.lanes.deliveries.resolve(delivery, Verdict.DROP, HUMAN)


async def test_what_has_ended_can_be_sent_once_more_as_a_new_message(world):
    async with world.running():
        thread, turn = await world.busy()
        await world.end_turn(thread)
        done = await world.delivery(turn.message_id)

        again = await world.lanes.deliveries.requeue(done, HUMAN)
        await world.becomes(again, DeliveryState.SUBMITTED)

        assert (again.retry_of, again.id != done.id) == (done.id, True)
        assert world.said() == ["first", "first"]
        assert await state(world, done) is DeliveryState.DONE


async def test_every_change_of_a_delivery_is_told_after_it_is_recorded(world):
    told = []
    async with world.running():
        thread = await world.thread()
        delivery = await world.queued(thread, "hello")
        await world.becomes(delivery, DeliveryState.SUBMITTED)
        await world.end_turn(thread)
        await world.becomes(delivery, DeliveryState.DONE)
        told = [e.data for e in world.events._ring if e.kind.value == "delivery.changed"]

    assert [each["state"] for each in told] == ["queued", "sending", "submitted", "done"]
    assert {each["id"] for each in told} == {delivery.id}
