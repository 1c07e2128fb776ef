"""A message and its turn, through every race with Codex, the registry and other callers."""

from __future__ import annotations

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.deliveries import DeliveryState, Verdict, When
from dispatch_core.contracts.records import Message, Source, ThreadStatus, TurnStatus
from dispatch_core.errors import (
    AuthorityDenied,
    CodexError,
    CodexTimeout,
    CodexUnavailable,
    LaneBusy,
    LaneHeld,
    NotFound,
    OutcomeUnknown,
    StorageError,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio


# -- a message becomes a turn ------------------------------------------------------------------------


async def test_a_message_becomes_a_turn_that_is_recorded_to_its_end(world):
    async with world.running():
        thread = await world.thread()

        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.completed(thread, turn.id)
        done = await world.lanes.settled(thread)

    assert (turn.status, done.turn.status) == (TurnStatus.SUBMITTED, TurnStatus.COMPLETED)
    assert done.turn.id == turn.id
    assert done.turn.message_id == turn.message_id
    assert (await world.stored(thread)).turn == done.turn
    assert (await world.stored(thread)).materialized


async def test_a_turn_that_ends_before_its_sender_wakes_is_not_left_running(world):
    async with world.running():
        thread = await world.thread()

        async def answer(params):
            world.started(thread, "turn-x")
            world.user_message(thread, "turn-x", params["clientUserMessageId"])
            world.completed(thread, "turn-x")
            return {"turn": {"id": "turn-x"}}

        world.codex.on["turn/start"] = answer
        turn = await world.send(thread, Message(text="quick"))
        done = await world.lanes.settled(thread)

    assert (done.status, done.turn.status) == (ThreadStatus.IDLE, TurnStatus.COMPLETED)
    assert done.turn.message_id == turn.message_id


async def test_events_come_in_the_order_of_what_happened_and_once_each(world):
    async with world.running():
        thread = await world.thread()

        async def answer(params):
            world.started(thread, "turn-x")
            world.answer(thread, "turn-x", "done")
            world.completed(thread, "turn-x")
            return {"turn": {"id": "turn-x"}}

        world.codex.on["turn/start"] = answer
        await world.send(thread, Message(text="quick"))

    kinds = [kind for kind in await world.seen() if kind != "thread.status"]
    told = ["turn.started", "item.completed", "turn.completed"]
    assert kinds == ["thread.created", "delivery.changed", "delivery.changed", *told]


async def test_the_message_is_recorded_before_codex_is_asked(world):
    recorded = []
    async with world.running():
        thread = await world.thread()

        async def answer(params):
            recorded.append(await world.storage.deliveries.head(thread.key))
            return {"turn": {"id": "turn-x"}}

        world.codex.on["turn/start"] = answer
        turn = await world.send(thread, Message(text="hello"))

    assert recorded[0].state is DeliveryState.SENDING
    assert (recorded[0].id, recorded[0].message.text) == (turn.message_id, "hello")
    assert recorded[0].epoch == world.codex.epoch


async def test_nothing_is_sent_when_it_cannot_be_recorded(world):
    async with world.running():
        thread = await world.thread()
        world.storage.threads.broken = True

        with pytest.raises(StorageError):
            await world.send(thread, Message(text="hello"))

        world.storage.threads.broken = False
        assert "turn/start" not in world.codex.methods()
        assert (await world.lanes.settled(thread)).turn is None
        assert (await world.send(thread, Message(text="again"))).id is not None


async def test_a_state_that_could_not_be_written_is_written_later(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        await world.lanes.flush()
        world.storage.threads.broken = True
        world.completed(thread, turn.id)

        told = await world.lanes.settled(thread)
        stale = await world.stored(thread)
        world.storage.threads.broken = False
        fresh = await world.stored(thread)

    assert told.turn.status is TurnStatus.COMPLETED
    assert stale.turn.status is TurnStatus.STARTED
    assert fresh.turn.status is TurnStatus.COMPLETED


async def test_what_is_in_the_way_of_a_turn_is_recorded_until_it_is_done(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.trouble(thread, turn.id, "Reconnecting...", "Connection failed")
        running = await world.stored(thread)

        world.completed(thread, turn.id)
        done = await world.lanes.settled(thread)

    assert (running.status, running.turn.status) == (ThreadStatus.BUSY, TurnStatus.STARTED)
    assert running.turn.error == "Reconnecting...: Connection failed"
    assert done.turn.error is None


# -- a busy thread -----------------------------------------------------------------------------------


async def test_of_two_messages_at_once_one_is_refused_and_nothing_is_merged(world):
    outcomes = []
    async with world.running():
        thread = await world.thread()

        async def send():
            try:
                outcomes.append((await world.send(thread, Message(text="hello"))).status)
            except LaneBusy:
                outcomes.append("busy")

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send)

    assert sorted(outcomes) == ["busy", "busy", "submitted"]
    assert world.codex.methods().count("turn/start") == 1


async def test_a_message_that_codex_merged_into_a_running_turn_is_said_to_be(world):
    async with world.running():
        thread = await world.thread()
        first = await world.send(thread, Message(text="one"))
        world.started(thread, first.id)
        world.completed(thread, first.id)
        await world.lanes.settled(thread)

        async def same(params):
            return {"turn": {"id": first.id, "status": "inProgress"}}

        world.codex.on["turn/start"] = same
        second = await world.send(thread, Message(text="two"))
        record = await world.stored(thread)

    assert (second.id, second.status) == (first.id, TurnStatus.STARTED)
    assert second.message_id != first.message_id
    assert record.turn.message_id == first.message_id


@pytest.mark.parametrize("text", ["", " \n", "x" * 1_048_577, "a\ud800b", " /goal win"])
async def test_text_that_codex_would_swallow_is_refused_with_a_hint(world, text):
    async with world.running():
        thread = await world.thread()

        with pytest.raises(ValidationFailed) as caught:
            await world.send(thread, Message(text=text))

    assert caught.value.hint
    assert "turn/start" not in world.codex.methods()


# -- Codex goes away ---------------------------------------------------------------------------------


async def test_a_message_whose_answer_was_lost_is_found_again_in_history(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        async def die(params):
            world.codex.store(
                params["threadId"], "turn-x", "interrupted", params["clientUserMessageId"]
            )
            world.crash()
            raise lost_answer

        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="hello"))
        lost = await world.storage.deliveries.head(thread.key)
        unknown = await world.stored(thread)
        await world.restart()
        found = await world.stored(thread)
        delivery = await world.delivery(lost.id)

    assert caught.value.details["delivery"] == lost.id
    assert (lost.state, unknown.status) == (DeliveryState.SENDING, ThreadStatus.UNKNOWN)
    assert (found.turn.id, found.turn.status) == ("turn-x", TurnStatus.INTERRUPTED)
    assert found.turn.message_id == lost.id
    assert (delivery.state, delivery.evidence) == (DeliveryState.INTERRUPTED, "history")
    assert world.codex.methods().count("turn/start") == 1


async def test_a_message_that_history_does_not_have_is_sent_again(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        async def die(params):
            del world.codex.on["turn/start"]
            world.crash()
            raise lost_answer

        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="hello"))
        await world.restart()
        again = caught.value.details["delivery"]
        delivery = await world.reaches(again, DeliveryState.SUBMITTED, 2)

    assert delivery.turn_id is not None
    assert world.codex.methods().count("turn/start") == 2


async def test_a_message_with_which_codex_dies_again_and_again_is_given_up(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        deaths, death = anyio.create_memory_object_stream[None](3)

        async def die(params):
            world.crash()
            await deaths.send(None)
            raise lost_answer

        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="poison"))
        await death.receive()
        after = await world.lanes.deliveries.send(
            thread, Message(text="harmless"), HUMAN, when=When.IDLE
        )
        for _ in range(2):
            await world.restart()
            await death.receive()
            await anyio.wait_all_tasks_blocked()
        deaths.close()
        death.close()
        del world.codex.on["turn/start"]
        await world.restart()
        dead = await world.reaches(caught.value.details["delivery"], DeliveryState.DEAD, 3)
        next_one = await world.becomes(after, DeliveryState.SUBMITTED)

        assert dead.reason
        assert next_one.state is DeliveryState.SUBMITTED


async def test_a_version_of_codex_about_which_nothing_is_proven_leaves_it_to_a_person(
    world, lost_answer
):
    world.codex.unproven = {world.codex.version}
    async with world.running():
        thread = await world.thread()

        async def die(params):
            del world.codex.on["turn/start"]
            world.crash()
            raise lost_answer

        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="hello"))
        await world.restart()
        await anyio.wait_all_tasks_blocked()
        delivery = await world.delivery(caught.value.details["delivery"])

    assert delivery.state is DeliveryState.UNKNOWN
    assert world.codex.methods().count("turn/start") == 1


async def test_after_a_reboot_history_without_a_trace_proves_nothing(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        async def die(params):
            world.crash()
            raise lost_answer

        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="hello"))
        await world.stored(thread)
    rebooted = type(world)(world.storage, boot="another boot")
    rebooted.codex.stored[thread.native_id] = []

    async with rebooted.running():
        delivery = await rebooted.delivery(caught.value.details["delivery"])
        found = await rebooted.stored(thread)
        with pytest.raises(LaneHeld) as held:
            await rebooted.send(found, Message(text="once more"))
        await rebooted.lanes.deliveries.resolve(delivery, Verdict.DROP, HUMAN)
        again = await rebooted.send(found, Message(text="once more"))

    assert (delivery.state, found.status) == (DeliveryState.UNKNOWN, ThreadStatus.UNKNOWN)
    assert "it may have run" in delivery.reason
    assert delivery.id in held.value.hint
    assert again.id is not None


async def test_a_turn_that_was_cut_off_before_it_had_its_message_did_not_run(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.codex.store(thread.native_id, turn.id, "interrupted")
        world.crash()

        await world.restart()
        delivery = await world.reaches(turn.message_id, DeliveryState.SUBMITTED, 2)

        assert delivery.turn_id != turn.id


async def test_a_late_turn_that_was_cut_off_before_its_message_was_seen_did_not_run(world):
    async with world.running():
        thread = await world.thread()

        async def late(params):
            raise CodexTimeout("Codex did not answer turn/start within 30 s")

        world.codex.on["turn/start"] = late
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="hello"))
        world.started(thread, "turn-x")
        world.codex.store(thread.native_id, "turn-x", "interrupted")
        world.crash()
        del world.codex.on["turn/start"]
        await world.restart()
        again = caught.value.details["delivery"]
        delivery = await world.reaches(again, DeliveryState.SUBMITTED, 2)

    assert delivery.turn_id != "turn-x"


async def test_codex_dying_between_its_answer_and_the_senders_waking_leaves_no_busy_thread(world):
    async with world.running():
        thread = await world.thread()

        async def answer(params):
            world.started(thread, "turn-x")
            world.crash()
            return {"turn": {"id": "turn-x"}}

        world.codex.on["turn/start"] = answer
        first = await world.send(thread, Message(text="hello"))
        lost = await world.stored(thread)
        del world.codex.on["turn/start"]
        await world.restart()
        again = await world.reaches(first.message_id, DeliveryState.SUBMITTED, 2)

    assert lost.turn.status is TurnStatus.UNKNOWN
    assert again.turn_id != lost.turn.id


async def test_a_wait_spans_the_restart_of_codex(world):
    waited = []
    async with world.running() as tasks:
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.codex.store(thread.native_id, turn.id, "interrupted", turn.message_id)

        ended = anyio.Event()

        async def wait():
            waited.append(await world.lanes.settled(thread))
            ended.set()

        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        world.crash()
        await anyio.wait_all_tasks_blocked()
        early = list(waited)
        await world.restart()
        await ended.wait()

    assert early == []
    assert waited[0].turn.status is TurnStatus.INTERRUPTED
    assert "turn.unknown" in await world.seen()


async def test_a_wait_ends_with_unknown_when_codex_does_not_come_back(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.crash()

        world.lanes.stranded()
        told = await world.lanes.settled(thread)

    assert (told.status, told.turn.status) == (ThreadStatus.UNKNOWN, TurnStatus.UNKNOWN)


async def test_a_recovery_that_failed_is_tried_again_before_the_next_message(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="one"))
        world.started(thread, turn.id)
        world.codex.store(thread.native_id, turn.id, "interrupted", turn.message_id)
        world.crash()

        async def overloaded(params):
            raise CodexUnavailable("not now")

        world.codex.on["thread/turns/list"] = overloaded
        await world.restart()
        unknown = await world.stored(thread)
        with pytest.raises(CodexUnavailable):
            await world.send(thread, Message(text="two"))
        del world.codex.on["thread/turns/list"]
        second = await world.send(thread, Message(text="two"))

        assert unknown.turn.status is TurnStatus.UNKNOWN
        assert world.codex.methods().count("turn/start") == 2
        assert "turn.interrupted" in await world.seen()
        assert (await world.stored(thread)).turn.message_id == second.message_id


async def test_history_that_codex_refuses_to_give_holds_the_thread_until_a_person_decides(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="one"))
        world.codex.store(thread.native_id, "other", "completed")
        world.crash()

        async def damaged(params):
            raise CodexError("the history is damaged")

        world.codex.on["thread/turns/list"] = damaged
        await world.restart()

        delivery = await world.delivery(turn.message_id)
        assert delivery.state is DeliveryState.UNKNOWN
        assert "the history is damaged" in delivery.reason
        with pytest.raises(LaneHeld, match="not known what became"):
            await world.send(thread, Message(text="two"))
        waiting = await world.lanes.deliveries.send(
            thread, Message(text="three"), HUMAN, when=When.IDLE
        )
        await world.lanes.deliveries.resolve(delivery, Verdict.SENT, HUMAN)
        sent = await world.becomes(waiting, DeliveryState.SUBMITTED)

    assert sent.state is DeliveryState.SUBMITTED


async def test_a_recovery_does_not_touch_a_message_that_is_sent_meanwhile(world, gate):
    async with world.running() as tasks:
        thread = await world.thread()
        first = await world.send(thread, Message(text="one"))
        world.codex.store(thread.native_id, first.id, "interrupted", first.message_id)
        world.crash()
        reading = gate()

        async def slow(params):
            await reading.wait()
            return world.codex._thread_turns_list(params)

        world.codex.on["thread/turns/list"] = slow
        tasks.start_soon(world.restart)
        await reading.reached.wait()
        sent = []

        async def send():
            sent.append(await world.send(thread, Message(text="two")))

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        reading.open()
        await anyio.wait_all_tasks_blocked()
        record = await world.stored(thread)

    assert record.turn.message_id == sent[0].message_id
    assert record.status is ThreadStatus.BUSY
    assert (await world.seen()).count("turn.interrupted") == 1


async def test_a_damaged_thread_of_which_codex_has_no_trace_stays_unknown(world):
    async with world.running():
        thread = await world.thread()
        first = await world.send(thread, Message(text="one"))
        world.completed(thread, first.id)
        await world.lanes.settled(thread)
        second = await world.send(thread, Message(text="two"))
        world.crash()
        world.codex.stored.clear()

        await world.restart()

        delivery = await world.delivery(second.message_id)
        assert delivery.state is DeliveryState.UNKNOWN
        assert (await world.stored(thread)).status is ThreadStatus.UNKNOWN
        await world.lanes.deliveries.resolve(delivery, Verdict.DROP, HUMAN)
        with pytest.raises(NotFound, match="has no thread"):
            await world.send(thread, Message(text="three"))


# -- Codex does not answer ---------------------------------------------------------------------------


async def test_a_turn_that_shows_up_after_its_deadline_is_the_messages_turn(world):
    async with world.running():
        thread = await world.thread()

        async def late(params):
            raise CodexTimeout("Codex did not answer turn/start within 30 s")

        world.codex.on["turn/start"] = late
        with pytest.raises(OutcomeUnknown) as caught:
            await world.send(thread, Message(text="hello"))
        message_id = caught.value.details["message_id"]
        world.started(thread, "turn-x")
        world.user_message(thread, "turn-x", message_id)
        running = await world.stored(thread)
        world.completed(thread, "turn-x")
        done = await world.lanes.settled(thread)

    assert (running.status, running.turn.message_id) == (ThreadStatus.BUSY, message_id)
    assert (done.turn.id, done.turn.status) == ("turn-x", TurnStatus.COMPLETED)


async def test_a_message_without_answer_is_not_called_failed_while_its_process_lives(world):
    async with world.running():
        thread = await world.thread()

        async def late(params):
            raise CodexTimeout("Codex did not answer turn/start within 30 s")

        world.codex.on["turn/start"] = late
        with pytest.raises(OutcomeUnknown):
            await world.send(thread, Message(text="hello"))
        told = await world.lanes.settled(thread)
        del world.codex.on["turn/start"]
        with pytest.raises(LaneBusy):
            await world.send(thread, Message(text="again"))
        early = await world.storage.deliveries.head(thread.key)
        world.clock.advance(seconds=300)
        with pytest.raises(LaneHeld):
            await world.send(thread, Message(text="again"))
        late = await world.delivery(early.id)

    assert told.turn.status is TurnStatus.UNKNOWN
    assert (early.state, late.state) == (DeliveryState.SENDING, DeliveryState.UNKNOWN)
    assert "has not answered" in late.reason


async def test_a_lost_turn_that_still_runs_makes_the_thread_busy_again(world):
    async with world.running():
        thread = await world.thread()

        async def late(params):
            world.codex.store(
                params["threadId"], "turn-x", "inProgress", params["clientUserMessageId"]
            )
            raise CodexTimeout("Codex did not answer turn/start within 30 s")

        world.codex.on["turn/start"] = late
        with pytest.raises(OutcomeUnknown):
            await world.send(thread, Message(text="hello"))

        with pytest.raises(LaneBusy):
            await world.send(thread, Message(text="again"))

        assert (await world.stored(thread)).status is ThreadStatus.BUSY


async def test_a_sender_that_is_cancelled_leaves_an_unknown_message_behind(world, gate):
    async with world.running() as tasks:
        thread = await world.thread()
        asked = gate()

        async def hang(params):
            await asked.wait()

        world.codex.on["turn/start"] = hang
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when, asked.reached, scope)
            await world.send(thread, Message(text="hello"))
        left = await world.storage.deliveries.head(thread.key)
        world.started(thread, "turn-x")
        world.user_message(thread, "turn-x", left.id)

        assert left.state is DeliveryState.SENDING
        assert (await world.stored(thread)).turn.message_id == left.id
        assert (await world.delivery(left.id)).state is DeliveryState.RUNNING
        assert "turn.unknown" in await world.seen()


async def test_a_message_is_not_unknown_when_only_the_preparation_was_cut_off(world, lost_answer):
    async with world.running():
        thread = await world.thread()
        world.crash()
        await world.restart()

        async def die(params):
            raise lost_answer

        world.codex.on["thread/resume"] = die
        with pytest.raises(CodexUnavailable, match="was not sent"):
            await world.send(thread, Message(text="hello"))

    assert (await world.stored(thread)).turn is None


async def _cancel_when(event, scope):
    await event.wait()
    scope.cancel()


# -- loading -----------------------------------------------------------------------------------------


async def test_a_thread_that_codex_unloaded_is_loaded_again(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="one"))
        world.codex.store(thread.native_id, turn.id, "completed", turn.message_id)
        world.completed(thread, turn.id)
        world.codex.loaded.clear()
        world.status(thread, "notLoaded")

        await world.send(thread, Message(text="two"))

    assert world.codex.methods()[-2:] == ["thread/resume", "turn/start"]


async def test_a_thread_unloaded_in_the_last_moment_is_loaded_again(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="one"))
        world.codex.store(thread.native_id, turn.id, "completed", turn.message_id)
        world.completed(thread, turn.id)
        world.codex.loaded.clear()

        sent = await world.send(thread, Message(text="two"))

    assert sent.status is TurnStatus.SUBMITTED
    assert world.codex.methods()[-3:] == ["turn/start", "thread/resume", "turn/start"]


async def test_a_thread_that_codex_never_stored_is_started_anew_under_its_ref(world):
    async with world.running():
        thread = await world.thread()
        world.crash()
        await world.restart()

        await world.send(thread, Message(text="hello"))
        record = await world.stored(thread)

        assert record.ref == thread.ref
        assert record.native_id != thread.native_id
        assert (await world.lanes.history(thread, 5)).items == ()


async def test_the_history_of_a_message_that_never_ran_is_empty(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        async def die(params):
            world.crash()
            raise lost_answer

        async def unknown(params):
            raise CodexError(f"thread not loaded: {params['threadId']}")

        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown):
            await world.send(thread, Message(text="hello"))
        await world.restart()
        world.codex.on["thread/turns/list"] = unknown

        assert (await world.lanes.history(await world.stored(thread), 5)).items == ()


# -- making a thread ---------------------------------------------------------------------------------


async def test_a_name_that_codex_does_not_take_costs_nothing(world, lost_answer):
    async def die(params):
        raise lost_answer

    world.codex.on["thread/name/set"] = die
    async with world.running():
        thread = await world.thread()

    assert await world.storage.threads.get(thread.key) == thread


async def test_of_two_threads_of_one_name_at_once_one_is_refused(world):
    outcomes = []

    async def make():
        try:
            outcomes.append((await world.thread("twin")).handle)
        except ValidationFailed:
            outcomes.append("refused")

    async with world.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(make)
        tasks.start_soon(make)

    assert sorted(outcomes) == ["@twin", "refused"]


async def test_a_thread_whose_making_was_cancelled_leaves_its_name_free(world, gate):
    async with world.running() as tasks:
        asked = gate()

        async def hang(params):
            await asked.wait()

        world.codex.on["thread/start"] = hang
        with anyio.CancelScope() as scope:
            tasks.start_soon(_cancel_when, asked.reached, scope)
            await world.thread()
        del world.codex.on["thread/start"]

        assert (await world.thread()).handle == "@builder"
        assert len(await world.storage.threads.list()) == 1


async def test_attached_and_archived_threads_cannot_be_written(world):
    async with world.running():
        attached = await world.thread("attached")
        archived = await world.thread("archived")
        now = world.clock.now()
        await world.storage.threads.update(attached.key, source=Source.ATTACHED, updated_at=now)
        await world.storage.threads.update(
            archived.key, status=ThreadStatus.ARCHIVED, updated_at=now
        )

        for name in ("@attached", "@archived"):
            with pytest.raises(AuthorityDenied):
                await world.lanes.writable(name)


# -- stopping and waiting ----------------------------------------------------------------------------


async def test_a_stop_while_a_message_is_on_its_way_waits_until_the_turn_has_started(world, gate):
    stopped = []
    async with world.running() as tasks:
        thread = await world.thread()
        asked = gate()

        async def slow(params):
            await asked.wait()
            return {"turn": {"id": "turn-x"}}

        async def interrupt(params):
            world.completed(thread, params["turnId"], "interrupted")
            return {}

        async def stop():
            stopped.append(await world.lanes.interrupt(thread))

        world.codex.on |= {"turn/start": slow, "turn/interrupt": interrupt}
        tasks.start_soon(world.send, thread, Message(text="hello"))
        await asked.reached.wait()
        tasks.start_soon(stop)
        await anyio.wait_all_tasks_blocked()
        asked.open()
        await anyio.wait_all_tasks_blocked()
        before = "turn/interrupt" in world.codex.methods()
        world.started(thread, "turn-x")
        await anyio.wait_all_tasks_blocked()

    assert not before
    assert (stopped[0].id, stopped[0].status) == ("turn-x", TurnStatus.INTERRUPTED)


async def test_a_stop_of_a_turn_that_has_just_ended_is_no_error(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)

        async def too_late(params):
            world.completed(thread, turn.id)
            raise CodexError("no active turn to interrupt")

        world.codex.on["turn/interrupt"] = too_late
        stopped = await world.lanes.interrupt(thread)

    assert stopped.status is TurnStatus.COMPLETED


async def test_there_is_nothing_to_stop_in_an_idle_thread(world):
    async with world.running():
        thread = await world.thread()

        with pytest.raises(ValidationFailed, match="no turn runs"):
            await world.lanes.interrupt(thread)


async def test_a_question_that_is_answered_at_once_does_not_end_a_wait(world):
    waited = []
    async with world.running() as tasks:
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)

        async def wait():
            waited.append(await world.lanes.settled(thread))

        tasks.start_soon(wait)
        world.status(thread, "active", ["waitingOnApproval"])
        await anyio.wait_all_tasks_blocked()
        world.status(thread, "active", [])
        await anyio.wait_all_tasks_blocked()
        world.completed(thread, turn.id)
        await anyio.wait_all_tasks_blocked()

    assert waited[0].turn.status is TurnStatus.COMPLETED


async def test_a_question_that_stands_ends_a_wait(world):
    world = type(world)(world.storage, attention=0.01)
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.status(thread, "active", ["waitingOnApproval"])

        told = await world.lanes.settled(thread)

    assert told.status is ThreadStatus.WAITING_APPROVAL


async def test_all_running_turns_are_interrupted_at_once_and_then_it_is_quiet(world):
    async with world.running():
        threads = [await world.thread(name) for name in ("one", "two")]
        for thread in threads:
            turn = await world.send(thread, Message(text="hello"))
            world.started(thread, turn.id)

        async def interrupt(params):
            thread = next(t for t in threads if world.lanes.key_of(params["threadId"]) == t.key)
            world.completed(thread, params["turnId"], "interrupted")
            return {}

        world.codex.on["turn/interrupt"] = interrupt
        await world.lanes.interrupt_all()
        await world.lanes.quiet()

    records = [await world.stored(thread) for thread in threads]
    assert [record.turn.status.value for record in records] == ["interrupted"] * 2


async def test_a_failed_turn_is_an_error_until_the_next_one(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.status(thread, "systemError")
        world.completed(thread, turn.id, "failed", {"message": "no such model"})
        failed = await world.lanes.settled(thread)

        await world.send(thread, Message(text="again"))

        assert (failed.status, failed.turn.error) == (ThreadStatus.ERROR, "no such model")
        assert (await world.stored(thread)).status is ThreadStatus.BUSY


async def test_a_daemon_that_died_before_it_wrote_the_turns_id_finds_it_by_its_message(world):
    async with world.running():
        thread = await world.thread()

        async def answer(params):
            world.storage.threads.broken = True  # nothing that comes later is written
            return world.codex._turn_start(params)

        world.codex.on["turn/start"] = answer
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        left = await world.stored(thread)
    world.storage.threads.broken = False
    later = type(world)(world.storage)
    later.codex.store(thread.native_id, turn.id, "completed", turn.message_id, text="hello")

    async with later.running():
        found = await later.stored(thread)

    assert (left.status, left.turn) == (ThreadStatus.IDLE, None)
    assert (found.turn.id, found.turn.status) == (turn.id, TurnStatus.COMPLETED)
    assert found.turn.message_id == turn.message_id


async def test_a_daemon_that_starts_settles_what_the_last_one_left_open(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        left = await world.stored(thread)
    later = type(world)(world.storage)
    later.codex.store(thread.native_id, turn.id, "completed", turn.message_id, text="hello")

    async with later.running():
        found = await later.stored(thread)
        delivery = await later.delivery(turn.message_id)

    assert left.turn.status is TurnStatus.SUBMITTED
    assert (found.turn.id, found.turn.status) == (turn.id, TurnStatus.COMPLETED)
    assert found.turn.message_id == turn.message_id
    assert (delivery.state, delivery.evidence) == (DeliveryState.DONE, "history")
