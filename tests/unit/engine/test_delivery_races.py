"""Interleavings in which a message could be lost, said twice, or told about wrongly."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.deliveries import DeliveryState, When
from dispatch_core.contracts.records import Image, Message, ThreadSettings, ThreadStatus
from dispatch_core.errors import (
    ActiveWriter,
    CodexError,
    CodexTimeout,
    DeliveryConflict,
    LaneHeld,
    OutcomeUnknown,
    StorageError,
)

pytestmark = pytest.mark.anyio


def lane_of(world, thread):
    return world.lanes._lanes[thread.key]


async def in_doubt(world, thread, text="doubtful", **options):
    """Send a message that a Codex that lives on does not answer; return its id."""

    async def silence(params):
        del world.codex.on["turn/start"]
        raise CodexTimeout("Codex did not answer turn/start within 30 s")

    world.codex.on["turn/start"] = silence
    with pytest.raises(OutcomeUnknown) as caught:
        await world.send(thread, Message(text=text), **options)
    return caught.value.details["delivery"]


# -- what waits is changed while its thread is being loaded --------------------------------------------


async def loading(world, gate, *texts):
    """Queue messages for a thread that Codex takes its time to load; return thread, messages and the gate it waits at."""
    thread, turn = await world.busy()
    world.codex.store(thread.native_id, turn.id, "completed", turn.message_id, text="first")
    await world.end_turn(thread)
    lane_of(world, thread).generation = None  # Codex has unloaded it
    hold = gate()

    async def load(params):
        await hold.wait()
        return world.codex._thread_resume(params)

    world.codex.on["thread/resume"] = load
    messages = [await world.queued(thread, text) for text in texts]
    await hold.reached.wait()
    return thread, messages, hold


async def test_the_text_that_is_sent_is_the_one_it_was_changed_to(world, gate):
    async with world.running():
        _, [delivery], hold = await loading(world, gate, "typo")

        await world.lanes.deliveries.edit(delivery, Message(text="correct"), HUMAN)
        hold.open()
        sent = await world.becomes(delivery.id, DeliveryState.SUBMITTED)

        assert world.said() == ["first", "correct"]
        assert sent.message == Message(text="correct")


async def test_the_order_that_was_given_last_is_the_one_that_is_kept(world, gate):
    async with world.running():
        thread, [one, two], hold = await loading(world, gate, "one", "two")

        await world.lanes.deliveries.reorder(one, before=None)
        hold.open()
        await world.becomes(two.id, DeliveryState.SUBMITTED)
        await world.end_turn(thread)
        await world.becomes(one.id, DeliveryState.SUBMITTED)

        assert world.said() == ["first", "two", "one"]


async def test_a_message_whose_time_is_over_when_its_thread_is_loaded_is_not_sent(world, gate):
    async with world.running():
        thread, turn = await world.busy()
        await world.end_turn(thread)
        world.codex.store(thread.native_id, turn.id, "completed", turn.message_id, text="first")
        lane_of(world, thread).generation = None
        hold = gate()

        async def load(params):
            await hold.wait()
            return world.codex._thread_resume(params)

        world.codex.on["thread/resume"] = load
        soon = world.clock.now() + timedelta(minutes=1)
        delivery = await world.queued(thread, "only now", expires_at=soon)
        await hold.reached.wait()

        world.clock.advance(minutes=2)
        hold.open()

        assert await world.becomes(delivery.id, DeliveryState.EXPIRED)
        assert world.said() == ["first"]


async def test_a_message_that_was_accepted_before_is_not_overtaken(world, gate):
    async with world.running() as tasks:
        thread, turn = await world.busy()
        await world.end_turn(thread)
        world.codex.store(thread.native_id, turn.id, "completed", turn.message_id, text="first")
        lane_of(world, thread).generation = None
        hold, refused = gate(), []

        async def load(params):
            await hold.wait()
            return world.codex._thread_resume(params)

        async def send_now():
            try:
                await world.send(thread, Message(text="now"))
            except LaneHeld as error:
                refused.append(error)

        world.codex.on["thread/resume"] = load
        tasks.start_soon(send_now)
        await hold.reached.wait()
        delivery = await world.queued(thread, "accepted first")
        hold.open()
        await world.becomes(delivery.id, DeliveryState.SUBMITTED)

        assert world.said() == ["first", "accepted first"]
        assert len(refused) == 1


async def test_a_stopping_daemon_does_not_send_what_it_was_about_to_send(world, gate):
    async with world.running():
        _, [delivery], hold = await loading(world, gate, "later")

        world.lanes.stop_sending()
        hold.open()
        await anyio.wait_all_tasks_blocked()

        assert (await world.delivery(delivery.id)).state is DeliveryState.QUEUED
        assert world.said() == ["first"]


# -- the courier goes on -------------------------------------------------------------------------------


class Meddling:
    """Deliveries of which the first moves to a state are preceded by something else."""

    def __init__(self, deliveries, state, act, times):
        self._deliveries, self._state, self._act, self._times = deliveries, state, act, times

    def __getattr__(self, name):
        return getattr(self._deliveries, name)

    async def move(self, current, state, **changes):
        if state is self._state and self._times:
            self._times -= 1
            await self._act(current)
        return await self._deliveries.move(current, state, **changes)


async def test_a_message_that_is_withdrawn_as_it_expires_does_not_stop_the_others(world):
    async with world.running():
        thread, _ = await world.busy()
        soon = world.clock.now() + timedelta(minutes=1)
        short = [await world.queued(thread, "only today", expires_at=soon) for _ in range(3)]
        after = await world.queued(thread, "any time")

        async def withdraw(current):
            await world.lanes.deliveries.cancel(current, HUMAN)

        meddling = Meddling(world.storage.deliveries, DeliveryState.EXPIRED, withdraw, 3)
        world.lanes._ledger._store = meddling
        world.clock.advance(minutes=2)
        await world.end_turn(thread)

        assert await world.becomes(after.id, DeliveryState.SUBMITTED)
        states = {(await world.delivery(each.id)).state for each in short}
        assert states == {DeliveryState.CANCELLED}


async def test_a_registry_that_cannot_be_written_for_a_moment_stops_nobody(world):
    async with world.running():
        thread, _ = await world.busy()
        soon = world.clock.now() + timedelta(minutes=1)
        short = await world.queued(thread, "only today", expires_at=soon)
        after = await world.queued(thread, "any time")

        async def fail(current):
            raise StorageError("the disk is full", hint="make room")

        meddling = Meddling(world.storage.deliveries, DeliveryState.EXPIRED, fail, 3)
        world.lanes._ledger._store = meddling
        world.clock.advance(minutes=2)
        await world.end_turn(thread)

        assert await world.becomes(short.id, DeliveryState.EXPIRED)
        assert await world.becomes(after.id, DeliveryState.SUBMITTED)


async def test_a_write_that_failed_and_was_durable_costs_nothing(world):
    async with world.running():
        thread, turn = await world.busy()
        after = await world.queued(thread, "next")

        class Lying:
            def __getattr__(self, name):
                return getattr(world.storage.deliveries, name)

            async def move(self, *args, **changes):
                world.lanes._ledger._store = world.storage.deliveries
                await world.storage.deliveries.move(*args, **changes)
                raise StorageError("it is not known whether it was written", hint="look")

        world.lanes._registrar._retry = 0.01
        world.lanes._ledger._store = Lying()
        await world.end_turn(thread)

        assert await world.becomes(after.id, DeliveryState.SUBMITTED)
        assert (await world.delivery(turn.message_id)).state is DeliveryState.DONE


# -- doubt ends ----------------------------------------------------------------------------------------


async def test_doubt_is_settled_without_anybody_asking(world):
    async with world.running():
        thread = await world.thread()
        doubtful = await in_doubt(world, thread)

        world.codex.store(thread.native_id, "turn-x", "completed", doubtful, text="doubtful")
        await world.lanes._recovery.look_again()

        assert (await world.delivery(doubtful)).state is DeliveryState.DONE


async def test_a_message_that_codex_never_answers_is_parked_in_the_end(world):
    async with world.running():
        thread = await world.thread()
        doubtful = await in_doubt(world, thread)

        world.clock.advance(minutes=5)
        await world.lanes._recovery.look_again()

        assert (await world.delivery(doubtful)).state is DeliveryState.UNKNOWN
        assert (await world.stored(thread)).status is ThreadStatus.UNKNOWN


async def test_doubt_outlives_a_turn_of_somebody_else(world):
    async with world.running():
        thread = await world.thread()
        doubtful = await in_doubt(world, thread)
        world.started(thread, "goal-1")
        world.completed(thread, "goal-1")
        world.codex.store(thread.native_id, "goal-1", "completed")

        world.crash()
        await world.restart()
        sent = await world.becomes(doubtful, DeliveryState.SUBMITTED)

        assert sent.attempt == 2
        assert world.said() == ["doubtful", "doubtful"]


async def test_a_message_in_doubt_is_found_before_a_turn_of_somebody_else(world):
    async with world.running():
        thread = await world.thread()
        doubtful = await in_doubt(world, thread)
        world.codex.store(thread.native_id, "turn-x", "completed", doubtful, text="doubtful")
        world.started(thread, "goal-1")
        world.completed(thread, "goal-1")
        world.codex.store(thread.native_id, "goal-1", "completed")

        await world.lanes._recovery.look_again()
        found = await world.delivery(doubtful)

        assert (found.state, found.turn_id) == (DeliveryState.DONE, "turn-x")
        assert (await world.stored(thread)).turn.id == "goal-1"


async def test_the_next_daemon_finds_it_there_as_well(world):
    async with world.running():
        thread = await world.thread()
        doubtful = await in_doubt(world, thread)
        world.started(thread, "goal-1")
        world.completed(thread, "goal-1")
        await world.lanes.flush()
    later = type(world)(world.storage)
    later.codex.generation += 1  # another process
    later.codex.store(thread.native_id, "turn-x", "completed", doubtful, text="doubtful")
    later.codex.store(thread.native_id, "goal-1", "completed")

    async with later.running():
        found = await later.delivery(doubtful)

    assert (found.state, found.turn_id) == (DeliveryState.DONE, "turn-x")
    assert later.said() == []


async def test_a_turn_that_begins_while_history_is_read_is_not_forgotten(world, gate):
    async with world.running() as tasks:
        thread = await world.thread()
        doubtful = await in_doubt(world, thread)
        world.crash()
        hold = gate()

        async def read(params):
            await hold.wait()
            return world.codex._thread_turns_list(params)

        world.codex.on["thread/turns/list"] = read
        world.codex.store(thread.native_id, "before", "completed")
        tasks.start_soon(world.restart)
        await hold.reached.wait()
        world.started(thread, "goal-1")  # an active goal goes on as soon as its thread is loaded
        hold.open()
        await world.becomes(doubtful, DeliveryState.QUEUED)
        await anyio.wait_all_tasks_blocked()
        early = world.said()

        world.completed(thread, "goal-1")
        await world.becomes(doubtful, DeliveryState.SUBMITTED)

        assert early == ["doubtful"]
        assert world.said() == ["doubtful", "doubtful"]


async def test_what_was_heard_to_run_is_not_repeated_when_its_history_is_lost(world):
    async with world.running():
        thread, turn = await world.busy()
        world.user_message(thread, turn.id, turn.message_id)
        world.answer(thread, turn.id, "on it")

        world.crash()
        await world.restart()

        assert (await world.delivery(turn.message_id)).state is DeliveryState.UNKNOWN
        assert world.said() == ["first"]


async def test_an_ephemeral_thread_takes_what_is_in_doubt_with_it(world):
    async with world.running():
        thread = await world.lanes.create(
            name="brief", cwd="/", settings=ThreadSettings(), ephemeral=True
        )
        doubtful = await in_doubt(world, thread)
        world.say("thread/deleted", thread)

        world.crash()
        await world.restart()

        assert (await world.delivery(doubtful)).state is DeliveryState.FAILED


async def test_a_recovery_that_fails_leaves_nobody_waiting(world):
    async with world.running():
        thread = await world.thread()
        world.crash()
        delivery = await world.queued(thread, "later")
        await anyio.wait_all_tasks_blocked()

        async def fail(**_):
            raise StorageError("the registry cannot be read", hint="dispatch registry check")

        world.storage.threads.list = fail
        with pytest.raises(StorageError):
            await world.restart()

        assert await world.becomes(delivery.id, DeliveryState.SUBMITTED)


# -- answers -------------------------------------------------------------------------------------------


async def test_an_answer_that_makes_no_sense_leaves_doubt_and_no_loss(world):
    async with world.running():
        thread = await world.thread()

        async def nonsense(params):
            del world.codex.on["turn/start"]
            return {"turn": None}

        world.codex.on["turn/start"] = nonsense
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="hello"))
        delivery = caught.value.details["delivery"]
        world.started(thread, "turn-x")
        world.user_message(thread, "turn-x", delivery)
        world.completed(thread, "turn-x")

        assert (await world.delivery(delivery)).state is DeliveryState.DONE


@pytest.mark.parametrize("error", [ActiveWriter("the thread"), CodexError("thread is archived")])
async def test_what_may_be_possible_later_is_not_refused_for_good(world, error):
    async with world.running():
        thread = await world.thread()
        answers = [CodexError("thread not found: it"), error]

        async def answer(params):
            if answers:
                raise answers.pop(0)
            return world.codex._turn_start(params)

        async def load(params):
            if answers:
                raise answers.pop(0)
            world.codex.loaded.add(params["threadId"])
            return {"thread": {"id": params["threadId"]}}

        world.codex.on |= {"turn/start": answer, "thread/resume": load}
        delivery = await world.queued(thread, "patient")
        lane = lane_of(world, thread)
        while not isinstance(error, ActiveWriter) and not lane.archived:
            await lane.change()
        world.say("thread/unarchived", thread)
        await world.becomes(delivery.id, DeliveryState.SUBMITTED)

        assert world.said()[-1] == "patient"


# -- interjections and keys ----------------------------------------------------------------------------


async def test_an_interjection_passes_those_that_wait(world):
    async with world.running() as tasks:
        thread, first = await world.busy()
        waiting = await world.queued(thread, "waits")

        async def interrupt(params):
            world.completed(thread, params["turnId"], "interrupted")
            return {}

        world.codex.on["turn/interrupt"] = interrupt
        second = await world.interject(thread, Message(text="at once"))
        tasks.start_soon(world.end_turn, thread)
        await world.becomes(second.message_id, DeliveryState.DONE)
        await world.becomes(waiting.id, DeliveryState.SUBMITTED)

        assert world.said() == ["first", "at once", "waits"]
        assert (await world.delivery(first.message_id)).state is DeliveryState.INTERRUPTED


async def test_an_interjection_that_is_repeated_does_not_interrupt_itself(world, gate):
    async with world.running():
        thread, _ = await world.busy()
        hold, ids = gate(), []

        async def interrupt(params):
            await hold.wait()
            world.completed(thread, params["turnId"], "interrupted")
            return {}

        async def interject():
            turn = await world.send(thread, Message(text="stop"), When.INTERJECT, key="k")
            ids.append(turn.message_id)
            world.started(thread, turn.id)

        world.codex.on["turn/interrupt"] = interrupt
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interject)
            await hold.reached.wait()
            tasks.start_soon(interject)
            await anyio.wait_all_tasks_blocked()
            hold.open()

        assert len(ids) == 2
        assert len(set(ids)) == 1
        assert world.codex.methods().count("turn/interrupt") == 1


async def test_a_message_that_is_repeated_while_it_is_sent_is_the_same_message(world, gate):
    async with world.running():
        thread = await world.thread()
        hold, ids = gate(), []

        async def start(params):
            await hold.wait()
            return world.codex._turn_start(params)

        async def send():
            ids.append((await world.send(thread, Message(text="once"), key="k")).message_id)

        world.codex.on["turn/start"] = start
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(send)
            await hold.reached.wait()
            hold.open()

        assert len(ids) == 5
        assert len(set(ids)) == 1
        assert world.said() == ["once"]


async def test_a_key_of_a_message_with_other_pictures_is_a_conflict(world, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    async with world.running():
        thread, _ = await world.busy()
        picture = Message(text="what is this?", images=(Image(path=str(tmp_path / "a.png")),))
        other = Message(text="what is this?", images=(Image(path=str(tmp_path / "b.png")),))
        await world.send(thread, picture, When.IDLE, key="k")

        with pytest.raises(DeliveryConflict, match="another message"):
            await world.send(thread, other, When.IDLE, key="k")


# -- what proves that a message has not run --------------------------------------------------------


async def test_a_history_read_while_the_process_still_lived_proves_nothing(world):
    async with world.running():
        thread = await world.thread()
        doubtful = await in_doubt(world, thread)

        async def stored_and_died_behind_our_back(params):
            del world.codex.on["thread/read"]
            seen = world.codex._thread_read(params)
            world.codex.store(thread.native_id, "turn-x", "interrupted", doubtful)
            world.crash()
            return seen

        world.codex.on["thread/read"] = stored_and_died_behind_our_back
        await world.lanes._recovery.look_again()
        early = await world.delivery(doubtful)
        await world.restart()
        found = await world.becomes(doubtful, DeliveryState.INTERRUPTED)

        assert early.state is DeliveryState.SENDING
        assert found.turn_id == "turn-x"
        assert world.said() == ["doubtful"]


async def test_what_is_proven_of_another_version_of_codex_proves_nothing(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        async def die(params):
            del world.codex.on["turn/start"]
            world.crash()
            raise lost_answer

        world.codex.on["turn/start"] = die
        world.codex.unproven = {"1"}
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="once"))
        world.codex.version = "2"
        await world.restart()
        doubt = await world.becomes(caught.value.details["delivery"], DeliveryState.UNKNOWN)

        assert "not known of this version" in doubt.reason
        assert world.said() == ["once"]


# -- the end of a turn is not heard -----------------------------------------------------------------


async def test_a_turn_whose_end_was_a_damaged_line_ends_as_history_says(world):
    async with world.running():
        thread, turn = await world.busy()
        second = await world.queued(thread, "second")
        world.codex.store(thread.native_id, turn.id, "completed", turn.message_id)
        world.codex.running.clear()

        world.status(thread, "idle")
        await world.lanes._recovery.look_again()
        early = await world.delivery(turn.message_id)
        world.clock.advance(seconds=10)
        await world.lanes._recovery.look_again()
        done = await world.becomes(turn.message_id, DeliveryState.DONE)
        sent = await world.becomes(second, DeliveryState.SUBMITTED)

        assert early.state is DeliveryState.RUNNING
        assert done.evidence == "history"
        assert sent.turn_id != turn.id


async def test_a_turn_that_goes_on_although_its_thread_was_said_to_be_idle_goes_on(world):
    async with world.running():
        thread, turn = await world.busy()
        world.codex.store(thread.native_id, turn.id, "inProgress", turn.message_id)

        world.status(thread, "idle")
        world.clock.advance(seconds=10)
        await world.lanes._recovery.look_again()
        running = await world.delivery(turn.message_id)
        world.completed(thread, turn.id)
        done = await world.becomes(turn.message_id, DeliveryState.DONE)

        assert running.state is DeliveryState.RUNNING
        assert done.evidence == "event"


async def test_an_end_of_a_turn_that_has_no_word_here_is_left_to_a_person(world):
    async with world.running():
        thread, turn = await world.busy()
        world.codex.store(thread.native_id, turn.id, "evaporated", turn.message_id)

        world.completed(thread, turn.id, "evaporated")
        await world.lanes._recovery.look_again()
        doubt = await world.becomes(turn.message_id, DeliveryState.UNKNOWN)

        assert turn.id in doubt.reason
        assert lane_of(world, thread).active is None
