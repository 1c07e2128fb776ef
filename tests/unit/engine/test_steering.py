"""What is done to a turn that runs, through every race with its beginning, its end and the end of Codex."""

from __future__ import annotations

import anyio
import pytest

from dispatch_core.contracts.records import (
    Image,
    Message,
    Source,
    ThreadSettings,
    ThreadStatus,
    TurnStatus,
)
from dispatch_core.engine.texts import IMAGE_LIMIT
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CapabilityUnavailable,
    CodexError,
    CodexTimeout,
    CodexUnavailable,
    LaneBusy,
    NoActiveTurn,
    NotFound,
    OutcomeUnknown,
    PartialSuccess,
    StorageError,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio

MORE = Message(text="more")


async def busy(world, thread, text="hello"):
    """Return the id of a turn that runs."""
    turn = await world.send(thread, Message(text=text))
    world.started(thread, turn.id)
    return turn.id


def takes_steering(world, thread):
    """Let Codex make a steered message part of the turn at once."""

    async def steer(params):
        turn_id = params["expectedTurnId"]
        world.user_message(thread, turn_id, params["clientUserMessageId"])
        return {"turnId": turn_id}

    world.codex.on["turn/steer"] = steer


def ends_when_interrupted(world, thread, status="interrupted"):
    async def interrupt(params):
        world.completed(thread, params["turnId"], status)
        return {}

    world.codex.on["turn/interrupt"] = interrupt


def runs_command(world, thread, turn_id, item):
    command = {"type": "commandExecution", "id": item, "command": "sleep", "status": "inProgress"}
    world.say("item/started", thread, turnId=turn_id, item=command)
    world.codex.commands.setdefault(thread.native_id, []).append(item)


# -- sending -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [["waitingOnApproval"], ["waitingOnUserInput"]])
async def test_who_sends_to_a_turn_that_waits_for_an_answer_is_told_where_to_give_it(world, flags):
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)
        world.status(thread, "active", flags)

        with pytest.raises(LaneBusy, match="waits for an answer") as caught:
            await world.send(thread, MORE)

    assert caught.value.hint.startswith(f"dispatch request list --thread {thread.ref} ")
    assert "--queue" in caught.value.hint


async def test_who_sends_to_a_turn_that_runs_is_told_what_else_can_be_done(world):
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)

        with pytest.raises(LaneBusy, match="a turn is running") as caught:
            await world.send(thread, MORE)

    assert "request list" not in caught.value.hint
    assert caught.value.hint.startswith("add --queue")


# -- steering ----------------------------------------------------------------------------------------


async def test_a_steered_message_is_part_of_the_running_turn(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)
        takes_steering(world, thread)

        steered = await world.lanes.steer(thread, MORE)
        stored = await world.stored(thread)

    sent = dict(world.codex.calls)["turn/steer"]
    assert (steered.id, steered.status) == (turn_id, TurnStatus.STARTED)
    assert steered.message_id == sent["clientUserMessageId"] != stored.turn.message_id
    assert sent["expectedTurnId"] == turn_id
    assert sent["input"] == ({"type": "text", "text": "more"},)
    assert (stored.turn.id, stored.status) == (turn_id, ThreadStatus.BUSY)


async def test_a_message_that_codex_holds_back_is_not_said_to_be_in_the_turn(hasty):
    async with hasty.running():
        thread = await hasty.thread()
        turn_id = await busy(hasty, thread)

        held = await hasty.lanes.steer(thread, MORE)

    assert (held.id, held.status) == (turn_id, TurnStatus.SUBMITTED)


async def test_a_turn_that_ends_without_the_message_has_not_said_it(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)

        async def steer(params):
            world.completed(thread, turn_id, "interrupted")
            return {"turnId": turn_id}

        world.codex.on["turn/steer"] = steer
        with pytest.raises(NoActiveTurn):
            await world.lanes.steer(thread, MORE)


async def test_a_message_in_a_turn_that_ended_at_once_was_said(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)

        async def steer(params):
            world.user_message(thread, turn_id, params["clientUserMessageId"])
            world.completed(thread, turn_id)
            return {"turnId": turn_id}

        world.codex.on["turn/steer"] = steer
        steered = await world.lanes.steer(thread, MORE)

    assert (steered.id, steered.status) == (turn_id, TurnStatus.STARTED)


async def test_nothing_is_steered_in_an_idle_thread(world):
    async with world.running():
        thread = await world.thread()

        with pytest.raises(NoActiveTurn):
            await world.lanes.steer(thread, MORE)

    assert "turn/steer" not in world.codex.methods()


async def test_a_turn_that_ended_on_the_way_is_no_turn_to_steer(world):
    async with world.running() as tasks:
        thread = await world.thread()
        turn_id = await busy(world, thread)
        refused = anyio.Event()

        async def too_late(params):
            refused.set()
            raise CodexError("no active turn to steer")

        async def end():
            await refused.wait()
            await anyio.wait_all_tasks_blocked()
            world.completed(thread, turn_id)

        world.codex.on["turn/steer"] = too_late
        tasks.start_soon(end)
        with pytest.raises(NoActiveTurn):
            await world.lanes.steer(thread, MORE)

    assert world.codex.methods().count("turn/steer") == 1


async def test_a_message_goes_to_the_turn_that_runs_now_when_another_has_begun(world):
    async with world.running():
        thread = await world.thread()
        first = await busy(world, thread)
        asked = []

        async def steer(params):
            asked.append(params["expectedTurnId"])
            if params["expectedTurnId"] == first:
                world.completed(thread, first)
                world.started(thread, "turn-y")
                raise CodexError(f"expected active turn id `{first}` but found `turn-y`")
            world.user_message(thread, "turn-y", params["clientUserMessageId"])
            return {"turnId": "turn-y"}

        world.codex.on["turn/steer"] = steer
        steered = await world.lanes.steer(thread, MORE)

    assert (asked, steered.id) == ([first, "turn-y"], "turn-y")


async def test_a_turn_that_codex_denies_and_that_never_ends_is_given_up(hasty):
    async with hasty.running():
        thread = await hasty.thread()
        turn_id = await busy(hasty, thread)
        hasty.codex.running.clear()

        with pytest.raises(NoActiveTurn):
            await hasty.lanes.steer(thread, MORE)

    assert turn_id is not None


async def test_steering_while_a_message_is_on_its_way_waits_for_its_turn(world, gate):
    steered = []
    async with world.running() as tasks:
        thread = await world.thread()
        asked = gate()

        async def slow(params):
            await asked.wait()
            return {"turn": {"id": "turn-x"}}

        async def steer():
            steered.append(await world.lanes.steer(thread, MORE))

        world.codex.on["turn/start"] = slow
        takes_steering(world, thread)
        tasks.start_soon(world.send, thread, Message(text="hello"))
        await asked.reached.wait()
        tasks.start_soon(steer)
        await anyio.wait_all_tasks_blocked()
        before = "turn/steer" in world.codex.methods()
        asked.open()
        await anyio.wait_all_tasks_blocked()

    assert not before
    assert steered[0].id == "turn-x"


async def test_a_turn_that_takes_no_messages_is_said_to_take_none(world):
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)

        async def steer(params):
            raise CodexError("Codex refused turn/steer: cannot steer a compact turn")

        world.codex.on["turn/steer"] = steer
        with pytest.raises(CapabilityUnavailable) as caught:
            await world.lanes.steer(thread, MORE)

    assert caught.value.hint == f"dispatch wait {thread.ref}, then send it"


async def test_a_steered_message_without_answer_is_unknown_with_its_id(world, lost_answer):
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)
        sent = []

        async def die(params):
            sent.append(params["clientUserMessageId"])
            world.crash()
            raise lost_answer

        world.codex.on["turn/steer"] = die
        with pytest.raises(OutcomeUnknown) as caught:
            await world.lanes.steer(thread, MORE)

    assert caught.value.details["message_id"] == sent[0]
    assert "dispatch tail" in caught.value.hint


async def test_codex_that_dies_with_a_message_it_took_leaves_it_unknown(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)

        async def die(params):
            world.crash()
            return {"turnId": turn_id}

        world.codex.on["turn/steer"] = die
        with pytest.raises(OutcomeUnknown):
            await world.lanes.steer(thread, MORE)


# -- interrupting ------------------------------------------------------------------------------------


async def test_an_interrupt_ends_the_commands_of_the_turn(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)
        runs_command(world, thread, turn_id, "c1")
        ends_when_interrupted(world, thread)

        await world.lanes.interrupt(thread)

    assert world.codex.commands == {}
    assert "thread/backgroundTerminals/clean" in world.codex.methods()


async def test_an_interrupt_spares_the_commands_of_earlier_turns(world):
    async with world.running():
        thread = await world.thread()
        first = await busy(world, thread)
        runs_command(world, thread, first, "server")
        world.completed(thread, first)
        await world.lanes.settled(thread)
        second = await busy(world, thread)
        runs_command(world, thread, second, "c2")
        world.codex.commands[thread.native_id].append("silent")  # Codex has not told of it yet
        ends_when_interrupted(world, thread)

        await world.lanes.interrupt(thread)

    assert world.codex.commands == {thread.native_id: ["server"]}


async def test_a_turn_that_ended_by_itself_keeps_its_commands(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)
        runs_command(world, thread, turn_id, "server")
        ends_when_interrupted(world, thread, "completed")

        ended = await world.lanes.interrupt(thread)

    assert ended.status is TurnStatus.COMPLETED
    assert world.codex.commands == {thread.native_id: ["server"]}


async def test_a_stop_returns_the_turn_that_it_stopped_although_the_next_one_runs_already(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)

        async def interrupt(params):
            world.completed(thread, turn_id, "interrupted")
            world.started(thread, "turn-next")  # of a queue, or of a goal
            return {}

        world.codex.on["turn/interrupt"] = interrupt
        stopped = await world.lanes.interrupt(thread)
        now = (await world.stored(thread)).turn

    assert (stopped.id, stopped.status) == (turn_id, TurnStatus.INTERRUPTED)
    assert (now.id, now.status) == ("turn-next", TurnStatus.STARTED)


@pytest.mark.parametrize(
    "error",
    [
        CodexError(
            "Codex refused it: Invalid request: unknown variant `thread/backgroundTerminals/list`",
            details={"method": "thread/backgroundTerminals/list"},
        ),
        CodexTimeout("Codex did not answer"),
        OutcomeUnknown("Codex went away"),
    ],
)
async def test_a_codex_that_cannot_end_commands_is_tolerated(world, error):
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)
        ends_when_interrupted(world, thread)

        async def refuse(params):
            raise error

        world.codex.on["thread/backgroundTerminals/list"] = refuse
        ended = await world.lanes.interrupt(thread)

    assert ended.status is TurnStatus.INTERRUPTED


async def test_an_interrupt_waits_until_the_turn_has_the_message_it_began_with(patient):
    world, interrupted = patient, []
    async with world.running() as tasks:
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)

        async def interrupt(params):
            interrupted.append(world.lanes._lanes[thread.key].said(turn.message_id))
            world.completed(thread, params["turnId"], "interrupted")
            return {}

        world.codex.on["turn/interrupt"] = interrupt
        tasks.start_soon(world.lanes.interrupt, thread)
        await anyio.wait_all_tasks_blocked()
        before = list(interrupted)
        world.user_message(thread, turn.id, turn.message_id)
        await anyio.wait_all_tasks_blocked()

    assert (before, interrupted) == ([], [True])


async def test_a_turn_that_does_not_end_is_said_not_to(hasty):
    async with hasty.running():
        thread = await hasty.thread()
        await busy(hasty, thread)

        with pytest.raises(OutcomeUnknown, match="has not ended"):
            await hasty.lanes.interrupt(thread)


# -- interjecting ------------------------------------------------------------------------------------


async def test_an_interjection_ends_the_turn_and_then_starts_one(world):
    async with world.running():
        thread = await world.thread()
        first = await busy(world, thread)
        runs_command(world, thread, first, "c1")
        ends_when_interrupted(world, thread)

        second = await world.interject(thread, MORE)
        stored = await world.stored(thread)

    order = [m for m in world.codex.methods() if m.startswith(("turn/", "thread/background"))]
    assert order == [
        "turn/start",
        "turn/interrupt",
        "thread/backgroundTerminals/list",
        "thread/backgroundTerminals/clean",
        "turn/start",
    ]
    assert (second.status, second.id != first) == (TurnStatus.SUBMITTED, True)
    assert (stored.turn.id, stored.turn.message_id) == (second.id, second.message_id)


async def test_an_interjection_into_a_turn_that_has_just_ended_is_said(world):
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)
        ends_when_interrupted(world, thread, "completed")

        turn = await world.interject(thread, MORE)

    assert turn.status is TurnStatus.SUBMITTED


async def test_nothing_is_interjected_in_an_idle_thread(world):
    async with world.running():
        thread = await world.thread()

        with pytest.raises(NoActiveTurn):
            await world.interject(thread, MORE)

    assert "turn/start" not in world.codex.methods()


async def test_interjections_at_once_come_one_after_the_other(world):
    turns = []
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)
        ends_when_interrupted(world, thread)

        async def interject(text):
            turn = await world.interject(thread, Message(text=text))
            turns.append(turn.id)
            world.started(thread, turn.id)

        async with anyio.create_task_group() as tasks:
            for text in ("a", "b", "c"):
                tasks.start_soon(interject, text)

    assert len(set(turns)) == 3
    assert world.codex.methods().count("turn/interrupt") == 3


@pytest.mark.parametrize(
    "refusal", [CodexError("no"), CodexUnavailable("gone"), StorageError("the disk is full")]
)
async def test_a_message_that_could_not_follow_the_interrupt_is_half_done(world, refusal):
    async with world.running():
        thread = await world.thread()
        first = await busy(world, thread)
        ends_when_interrupted(world, thread)

        async def refuse(params):
            raise refusal

        world.codex.on["turn/start"] = refuse
        with pytest.raises(
            PartialSuccess, match="was interrupted, and the message was not sent"
        ) as caught:
            await world.interject(thread, MORE)

    assert caught.value.details["interrupted"] == first
    assert caught.value.details["error"]["code"] == refusal.code
    assert f"dispatch send {thread.ref}" in caught.value.hint


async def test_an_interjection_whose_answer_was_lost_is_unknown(world, lost_answer):
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)
        ends_when_interrupted(world, thread)

        async def die(params):
            world.crash()
            raise lost_answer

        world.codex.on["turn/start"] = die
        with pytest.raises(OutcomeUnknown, match="started a turn"):
            await world.interject(thread, MORE)


async def test_a_turn_that_does_not_end_is_not_followed_by_the_message(hasty):
    async with hasty.running():
        thread = await hasty.thread()
        await busy(hasty, thread)

        with pytest.raises(OutcomeUnknown, match="message was not sent"):
            await hasty.interject(thread, MORE)

    assert hasty.codex.methods().count("turn/start") == 1


# -- context -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [True, False])
async def test_context_is_put_beside_the_turns(world, running):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread) if running else None

        await world.lanes.inject(thread, "know this")
        stored = await world.stored(thread)

    (item,) = world.codex.injected[thread.native_id]
    assert item["content"] == [{"type": "input_text", "text": "know this"}]
    assert (item["type"], item["role"]) == ("message", "user")
    assert (stored.turn and stored.turn.id) == turn_id
    assert stored.materialized


async def test_context_loads_a_thread_that_was_unloaded(world):
    async with world.running():
        thread = await world.thread()
        turn_id = await busy(world, thread)
        world.codex.store(thread.native_id, turn_id, "completed")
        world.completed(thread, turn_id)
        world.codex.loaded.clear()  # and its notification is not here yet

        await world.lanes.inject(thread, "know this")

    assert world.codex.methods().count("thread/inject_items") == 2
    assert len(world.codex.injected[thread.native_id]) == 1


async def test_context_whose_answer_was_lost_is_unknown(world, lost_answer):
    async with world.running():
        thread = await world.thread()

        async def die(params):
            raise lost_answer

        world.codex.on["thread/inject_items"] = die
        with pytest.raises(OutcomeUnknown, match="in its context"):
            await world.lanes.inject(thread, "know this")


# -- threads of others, and threads that are no more -------------------------------------------------


async def attached(world):
    thread = await world.thread("attached")
    world.codex.store(thread.native_id, "turn-0", "completed")
    now = world.clock.now()
    await world.storage.threads.update(
        thread.key, source=Source.ATTACHED, materialized=True, updated_at=now
    )
    lane = world.lanes._lanes[thread.key]
    lane.generation, lane.materialized = None, True
    return await world.storage.threads.get(thread.key)


@pytest.mark.parametrize("act", ["send", "steer", "interject"])
async def test_a_thread_that_another_process_holds_is_named_with_the_way_out(world, act):
    async with world.running():
        thread = await attached(world)

        async def held(params):
            raise CodexError(f"thread {params['threadId']} already has an active writer")

        world.codex.on["thread/resume"] = held
        with pytest.raises(ActiveWriter) as caught:
            await getattr(world, act)(thread, MORE)

    assert caught.value.details == {"thread": thread.ref}
    assert f"dispatch fork {thread.ref}" in caught.value.hint
    assert not {"turn/start", "turn/steer"} & set(world.codex.methods())


async def test_an_attached_thread_is_loaded_before_it_is_written(world):
    async with world.running():
        thread = await attached(world)

        await world.send(thread, MORE)

    assert world.codex.methods()[-2:] == ["thread/resume", "turn/start"]


@pytest.mark.parametrize("act", ["send", "inject"])
async def test_a_thread_that_codex_archived_names_its_restoration(world, act):
    async with world.running():
        thread = await attached(world)

        async def archived(params):
            raise CodexError(f"session {params['threadId']} is archived. Run 'codex unarchive'")

        world.codex.on["thread/resume"] = archived
        with pytest.raises(AuthorityDenied) as caught:
            await getattr(world, act)(thread, MORE if act == "send" else "text")

    assert caught.value.hint == f"dispatch restore {thread.ref}"


@pytest.mark.parametrize("act", ["send", "inject"])
async def test_an_attached_thread_that_vanished_is_not_replaced_by_an_empty_one(world, act):
    async with world.running():
        thread = await attached(world)
        world.codex.stored.clear()
        world.codex.loaded.clear()

        with pytest.raises(NotFound):
            await getattr(world, act)(thread, MORE if act == "send" else "text")

    assert world.codex.methods().count("thread/start") == 1


# -- what a turn and a message consist of ------------------------------------------------------------


async def test_all_settings_of_the_thread_but_the_sandbox_go_with_every_turn(world):
    settings = ThreadSettings(
        sandbox="read-only",
        approval_policy="never",
        approvals_reviewer="auto_review",
        model="m",
        effort="high",
        summary="concise",
        personality="friendly",
        service_tier="flex",
        output_schema={"type": "object"},
    )
    async with world.running():
        thread = await world.lanes.create(name="set", cwd="/", settings=settings)

        await world.send(thread, MORE)

    sent = dict(world.codex.calls)["turn/start"]
    assert (
        sent.items()
        >= {
            "approvalPolicy": "never",
            "approvalsReviewer": "auto_review",
            "model": "m",
            "effort": "high",
            "summary": "concise",
            "personality": "friendly",
            "serviceTier": "flex",
            "outputSchema": {"type": "object"},
        }.items()
    )
    assert "sandboxPolicy" not in sent


async def test_a_permission_profile_goes_without_a_sandbox(world):
    settings = ThreadSettings(permissions=":workspace")
    async with world.running():
        thread = await world.lanes.create(name="set", cwd="/", settings=settings)

        await world.send(thread, MORE)

    sent = dict(world.codex.calls)["turn/start"]
    assert sent["permissions"] == ":workspace"
    assert "sandboxPolicy" not in sent


HEADS = {
    "a.png": b"\x89PNG\r\n\x1a\n....",
    "a.jpg": b"\xff\xd8\xff\xe0",
    "a.gif": b"GIF89a",
    "b.gif": b"GIF87a..........",
    "a.webp": b"RIFF\x10\0\0\0WEBPVP8 ",
}


@pytest.mark.parametrize("name", HEADS)
async def test_a_picture_goes_as_a_path_with_its_detail(world, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(HEADS[name])
    async with world.running():
        thread = await world.thread()

        await world.send(
            thread, Message(text="look", images=(Image(path=str(path), detail="high"),))
        )

    sent = dict(world.codex.calls)["turn/start"]
    assert sent["input"] == (
        {"type": "text", "text": "look"},
        {"type": "localImage", "path": str(path), "detail": "high"},
    )


@pytest.mark.parametrize(
    ("head", "size", "detail"),
    [
        (b"RIFF\x10\0\0\0WAVEfmt ", None, None),
        (b"%PDF-1.7", None, None),
        (b"", None, None),
        (HEADS["a.png"], IMAGE_LIMIT + 1, None),
        (HEADS["a.png"], None, "low"),
        (HEADS["a.png"], None, "best"),
    ],
)
@pytest.mark.parametrize("act", ["send", "steer", "interject"])
async def test_what_is_no_picture_is_refused_before_anything_is_said(
    world, tmp_path, act, head, size, detail
):
    path = tmp_path / "picture"
    path.write_bytes(head)
    if size is not None:
        with path.open("r+b") as file:
            file.truncate(size)
    async with world.running():
        thread = await world.thread()
        await busy(world, thread)
        before = len(world.codex.calls)

        with pytest.raises(ValidationFailed) as caught:
            await getattr(world, act)(
                thread, Message(text="look", images=(Image(path=str(path), detail=detail),))
            )

    assert caught.value.hint
    assert len(world.codex.calls) == before


@pytest.mark.parametrize("path", ["relative.png", "/no/such.png", "/", "/dev/null", "/a\0b"])
async def test_a_picture_is_a_plain_file_with_an_absolute_path(world, path):
    with pytest.raises(ValidationFailed):
        world.lanes.check_message(Message(text="look", images=(Image(path=path),)))
