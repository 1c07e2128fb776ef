"""A thread is renamed, archived, restored, attached: what is half-done heals, and what is refused changes nothing."""

from __future__ import annotations

import pytest

from dispatch_core.contracts.records import (
    Message,
    Source,
    ThreadSettings,
    ThreadStatus,
    TurnStatus,
)
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.lanes import Lanes
from dispatch_core.errors import (
    ActiveWriter,
    AuthorityDenied,
    CapabilityUnavailable,
    CodexError,
    LaneBusy,
    NotFound,
    OutcomeUnknown,
    PartialSuccess,
    StorageError,
    ThreadNotFound,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio

ELSEWHERE = "01a2024d-0000-7000-8000-000000000000"


def refuse(message):
    async def answer(params):
        raise CodexError(message)

    return answer


def say(answer):
    async def answered(params):
        return answer

    return answered


async def finished(world, thread):
    """Run one turn to its end."""
    turn = await world.send(thread, Message(text="hello"))
    world.started(thread, turn.id)
    world.completed(thread, turn.id)
    world.codex.store(thread.native_id, turn.id, "completed", turn.message_id)
    await world.lanes.settled(thread)
    return turn


def changes(world):
    return [e.data["change"] for e in world.events._ring if e.kind.value == "thread.changed"]


def another_daemon(world):
    """The lanes of a daemon that is started over the same registry."""
    return Lanes(world.storage, EventBus(world.clock), world.clock, world.codex)


# -- rename ------------------------------------------------------------------------------------------


async def test_a_renamed_thread_has_one_name_everywhere_and_is_news_once(world):
    async with world.running():
        thread = await world.thread()
        world.codex.on["thread/name/set"] = say({})

        renamed = await world.lanes.rename(thread, "@mason")
        world.say("thread/name/updated", thread, threadName="mason")
        record = await world.stored(thread)

    assert (renamed.handle, renamed.title) == ("@mason", "mason")
    assert (record.handle, record.title) == ("@mason", "mason")
    assert world.codex.calls[-1] == (
        "thread/name/set",
        {"threadId": thread.native_id, "name": "mason"},
    )
    assert changes(world) == ["renamed"]


async def test_a_name_that_codex_refuses_changes_nothing(world):
    async with world.running():
        thread = await world.thread()
        world.codex.on["thread/name/set"] = refuse("no")

        with pytest.raises(CodexError):
            await world.lanes.rename(thread, "mason")
        record = await world.stored(thread)

    assert (record.handle, record.title) == ("@builder", "builder")


@pytest.mark.parametrize("name", ["", " @ ", "a\nb", "x" * 101])
async def test_what_is_no_name_is_refused(world, name):
    async with world.running():
        thread = await world.thread()

        with pytest.raises(ValidationFailed):
            await world.lanes.rename(thread, name)


async def test_a_name_that_another_thread_has_is_refused_until_it_is_archived(world):
    world.codex.on["thread/archive"] = say({})
    async with world.running():
        first, second = await world.thread("first"), await world.thread("second")

        with pytest.raises(ValidationFailed, match="@first"):
            await world.lanes.rename(second, "first")
        await world.lanes.archive(first)
        renamed = await world.lanes.rename(second, "first")

    assert renamed.handle == "@first"


async def test_a_name_given_elsewhere_is_taken_over_and_is_news(world):
    async with world.running():
        thread = await world.thread()

        world.say("thread/name/updated", thread, threadName="elsewhere")
        record = await world.stored(thread)

    assert (record.handle, record.title) == ("@builder", "elsewhere")
    assert changes(world) == ["renamed"]


# -- archive and restore -----------------------------------------------------------------------------


async def test_archiving_waits_until_the_turn_that_it_interrupts_has_ended(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)

        async def archive(params):
            world.completed(thread, turn.id, "interrupted")
            world.say("thread/archived", thread)
            return {}

        world.codex.on["thread/archive"] = archive
        record = await world.lanes.archive(thread)
        again = await world.lanes.archive(record)
        seen = await world.seen()

    assert (record.status, record.turn.status) == (ThreadStatus.ARCHIVED, TurnStatus.INTERRUPTED)
    assert again is record
    assert world.codex.methods().count("thread/archive") == 1
    assert [kind for kind in seen if kind != "thread.status"][-2:] == [
        "turn.interrupted",
        "thread.changed",
    ]
    assert changes(world) == ["archived"]


async def test_a_thread_that_codex_does_not_have_is_archived_here(world):
    world.codex.on["thread/archive"] = refuse("no rollout found for thread id x")
    async with world.running():
        thread = await world.thread()

        record = await world.lanes.archive(thread)

    assert record.status is ThreadStatus.ARCHIVED


async def test_a_daemon_that_died_between_codex_and_registry_archives_at_the_next_try(world):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)

        async def archive(params):
            world.storage.threads.broken = True
            return {}

        world.codex.on["thread/archive"] = archive
        with pytest.raises(StorageError):
            await world.lanes.archive(thread)
        world.storage.threads.broken = False

    lanes = another_daemon(world)
    world.codex.on["thread/archive"] = refuse("no rollout found for thread id x")
    record = await lanes.archive(await world.storage.threads.get(thread.key))
    assert record.status is ThreadStatus.ARCHIVED


async def test_a_thread_archived_while_nobody_listened_is_found_archived_on_use(world):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)
        world.crash()
        await world.restart()
        world.codex.on["thread/resume"] = refuse("session x is archived. Run `codex unarchive x`")

        with pytest.raises(AuthorityDenied) as caught:
            await world.send(thread, Message(text="hello"))
        record = await world.stored(thread)

    assert "dispatch restore" in caught.value.hint
    assert record.status is ThreadStatus.ARCHIVED
    assert changes(world) == ["archived"]


async def test_a_thread_that_another_process_holds_is_not_archived(world):
    world.codex.on["thread/archive"] = refuse("thread x already has an active writer")
    async with world.running():
        thread = await world.thread()

        with pytest.raises(ActiveWriter) as caught:
            await world.lanes.archive(thread)
        record = await world.stored(thread)

    assert thread.ref in caught.value.message
    assert record.status is ThreadStatus.IDLE


async def test_an_archive_without_an_answer_is_unknown_and_can_be_repeated(world, lost_answer):
    async def lose(params):
        raise lost_answer

    async with world.running():
        thread = await world.thread()
        world.codex.on["thread/archive"] = lose

        with pytest.raises(OutcomeUnknown, match="archived"):
            await world.lanes.archive(thread)
        before = await world.stored(thread)
        world.codex.on["thread/archive"] = refuse("no rollout found for thread id x")
        after = await world.lanes.archive(thread)

    assert (before.status, after.status) == (ThreadStatus.IDLE, ThreadStatus.ARCHIVED)


@pytest.mark.parametrize(("method", "archived"), [("archived", True), ("unarchived", False)])
async def test_what_somebody_else_archives_or_restores_is_taken_in(world, method, archived):
    world.codex.on["thread/archive"] = say({})
    async with world.running():
        thread = await world.thread()
        if not archived:
            thread = await world.lanes.archive(thread)

        world.say(f"thread/{method}", thread)
        record = await world.stored(thread)

    assert (record.status is ThreadStatus.ARCHIVED) is archived
    assert changes(world)[-1] == ("archived" if archived else "restored")


async def test_a_thread_deleted_elsewhere_is_not_started_anew(world):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)
        world.codex.stored.clear()
        world.codex.loaded.clear()
        world.say("thread/deleted", thread)
        record = await world.stored(thread)

        with pytest.raises(NotFound):
            await world.send(thread, Message(text="hello"))

    assert record.status is ThreadStatus.ERROR
    assert world.codex.methods().count("thread/start") == 1


async def test_a_thread_whose_name_was_taken_meanwhile_is_restored_after_a_rename(world):
    world.codex.on["thread/archive"] = say({})
    world.codex.on["thread/unarchive"] = say({"thread": {"id": "thread-1", "name": "builder"}})
    async with world.running():
        old = await world.thread()
        old = await world.lanes.archive(old)
        await world.thread()

        with pytest.raises(ValidationFailed) as caught:
            await world.lanes.restore(old)
        renamed = await world.lanes.rename(old, "elder")
        restored = await world.lanes.restore(renamed)

    assert f"dispatch rename {old.ref}" in caught.value.hint
    assert (restored.handle, restored.status) == ("@elder", ThreadStatus.IDLE)
    assert world.codex.calls[-1] == ("thread/name/set", {"threadId": "thread-1", "name": "elder"})


async def test_a_thread_that_codex_never_stored_is_restored_and_started_anew(world):
    world.codex.on["thread/archive"] = refuse("no rollout found for thread id x")
    world.codex.on["thread/unarchive"] = refuse("no archived rollout found for thread id x")
    async with world.running():
        thread = await world.thread()
        world.codex.loaded.clear()
        await world.lanes.archive(thread)

        restored = await world.lanes.restore(await world.stored(thread))
        turn = await world.send(restored, Message(text="hello"))

    assert restored.status is ThreadStatus.IDLE
    assert turn.id is not None
    assert world.codex.methods().count("thread/start") == 2


async def test_a_thread_that_is_not_archived_is_left_as_it_is(world):
    world.codex.on["thread/read"] = say({"thread": {"id": "thread-1", "path": "/s/sessions/a"}})
    async with world.running():
        thread = await world.thread()

        restored = await world.lanes.restore(thread)

    assert restored is thread
    assert "thread/unarchive" not in world.codex.methods()


# -- attach ------------------------------------------------------------------------------------------


def described(**fields):
    return {
        "thread": {
            "id": ELSEWHERE,
            "path": "/c/sessions/r.jsonl",
            "preview": "Fix it",
            "cwd": "/w",
            "status": {"type": "notLoaded"},
            "model": "m",
            **fields,
        }
    }


async def test_an_attached_thread_is_registered_from_what_codex_says(world):
    world.codex.on["thread/read"] = say(described(name="the  parser\x1b"))
    async with world.running():
        thread = await world.lanes.attach(ELSEWHERE)
        again = await world.lanes.attach(ELSEWHERE.upper())

    assert (thread.source, thread.handle) == (Source.ATTACHED, "@the parser")
    assert (thread.cwd, thread.in_use.model, thread.materialized) == ("/w", "m", True)
    assert again == thread
    assert world.codex.methods() == ["thread/read"]
    assert changes(world) == ["attached"]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({}, ThreadStatus.UNKNOWN),
        ({"status": {"type": "active", "activeFlags": []}}, ThreadStatus.BUSY),
        (
            {"status": {"type": "active", "activeFlags": ["waitingOnApproval"]}},
            ThreadStatus.WAITING_APPROVAL,
        ),
        ({"status": {"type": "idle"}}, ThreadStatus.IDLE),
        ({"status": {"type": "systemError"}}, ThreadStatus.ERROR),
        ({"path": "/c/archived_sessions/r.jsonl"}, ThreadStatus.ARCHIVED),
        ({"status": 7, "path": None, "cwd": None}, ThreadStatus.UNKNOWN),
    ],
)
async def test_an_attached_thread_has_the_status_that_codex_says(world, said, status):
    world.codex.on["thread/read"] = say(described(**said))
    async with world.running():
        thread = await world.lanes.attach(ELSEWHERE)

    assert thread.status is status
    assert thread.handle == "@01a2024d"


async def test_attached_threads_may_share_a_name_and_take_none_away(world):
    world.codex.on["thread/read"] = say(described(name="builder"))
    async with world.running():
        await world.lanes.attach(ELSEWHERE)
        own = await world.thread("builder")

    assert own.handle == "@builder"


@pytest.mark.parametrize("word", ["", "builder", "01a2024d", "x" * 36])
async def test_what_is_no_id_is_not_attached(world, word):
    async with world.running():
        with pytest.raises(ValidationFailed):
            await world.lanes.attach(word)

    assert world.codex.methods() == []


async def test_nothing_is_registered_of_a_thread_that_codex_does_not_have(world):
    world.codex.on["thread/read"] = refuse(f"thread not loaded: {ELSEWHERE}")
    async with world.running():
        with pytest.raises(ThreadNotFound):
            await world.lanes.attach(ELSEWHERE)

    assert await world.storage.threads.list() == ()


# -- an ephemeral thread -----------------------------------------------------------------------------


async def ephemeral(world):
    return await world.lanes.create(
        name="spark", cwd="/", settings=ThreadSettings(), ephemeral=True
    )


async def test_an_ephemeral_thread_ends_with_its_codex_and_says_so(world):
    async with world.running():
        thread = await ephemeral(world)
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)
        world.crash()
        await world.restart()
        record = await world.stored(thread)

        with pytest.raises(NotFound, match="ephemeral"):
            await world.send(thread, Message(text="again"))

    assert (record.status, record.turn.status) == (ThreadStatus.ERROR, TurnStatus.FAILED)
    assert world.codex.methods().count("thread/start") == 1
    assert "thread/resume" not in world.codex.methods()


async def test_an_ephemeral_thread_has_no_history_and_no_name_in_codex(world):
    async with world.running():
        thread = await ephemeral(world)

        with pytest.raises(CapabilityUnavailable):
            await world.lanes.history(thread, 5)
        with pytest.raises(CapabilityUnavailable):
            await world.lanes.fork(thread, name="copy", settings=ThreadSettings())
        with pytest.raises(CapabilityUnavailable):
            await world.lanes.revert(thread, before_turn="t")
        renamed = await world.lanes.rename(thread, "ember")
        archived = await world.lanes.archive(renamed)
        with pytest.raises(NotFound):
            await world.lanes.restore(archived)

    assert (archived.handle, archived.status) == ("@ember", ThreadStatus.ARCHIVED)
    assert world.codex.methods() == ["thread/start"]


# -- revert and compact ------------------------------------------------------------------------------


async def test_a_revert_is_recorded_before_codex_is_asked_and_ends_at_the_turn_that_is_left(world):
    recorded = []
    async with world.running():
        thread = await world.thread()
        first, second = await finished(world, thread), await finished(world, thread)

        async def revert(params):
            recorded.append((await world.storage.threads.get(thread.key)).turn.status)
            world.codex.stored[thread.native_id].pop(0)
            world.say("thread/reverted", thread)
            return {}

        world.codex.on["thread/revert"] = revert
        record = await world.lanes.revert(thread, before_turn=second.id)
        await world.lanes.flush()

    assert recorded == [TurnStatus.UNKNOWN]
    assert (record.turn.id, record.turn.message_id) == (first.id, first.message_id)
    assert record.turn.status is TurnStatus.COMPLETED
    assert changes(world) == ["reverted"]


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("turn not found: x", ValidationFailed),
        ("thread/revert only supports paginated threads", CapabilityUnavailable),
        ("something else", CodexError),
    ],
)
async def test_a_revert_that_codex_refuses_changes_nothing(world, message, error):
    world.codex.on["thread/revert"] = refuse(message)
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)
        before = await world.stored(thread)

        with pytest.raises(error):
            await world.lanes.revert(thread, before_turn="x")
        after = await world.stored(thread)

    assert after.turn == before.turn
    assert changes(world) == []


async def test_a_codex_without_the_method_is_said_to_lack_it(world):
    async def lack(params):
        raise CodexError(
            "Invalid request: unknown variant `thread/revert`, expected one of …",
            details={"method": "thread/revert"},
        )

    world.codex.on["thread/revert"] = lack
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)

        with pytest.raises(CapabilityUnavailable, match="thread/revert"):
            await world.lanes.revert(thread, before_turn="x")


async def test_a_revert_without_an_answer_is_found_out_from_history(world, lost_answer):
    async with world.running():
        thread = await world.thread()
        first, second = await finished(world, thread), await finished(world, thread)

        async def lose(params):
            world.codex.stored[thread.native_id].pop(0)
            raise lost_answer

        world.codex.on["thread/revert"] = lose
        with pytest.raises(OutcomeUnknown):
            await world.lanes.revert(thread, before_turn=second.id)
        settled = await world.lanes.settled(thread)

    assert (settled.turn.id, settled.turn.status) == (first.id, TurnStatus.COMPLETED)


@pytest.mark.parametrize("done", [True, False])
async def test_a_daemon_that_died_in_a_revert_finds_the_newest_turn_when_it_is_back(world, done):
    async with world.running():
        thread = await world.thread()
        turns = [await finished(world, thread), await finished(world, thread)]

        async def die(params):
            if done:
                world.codex.stored[thread.native_id].pop(0)
            world.storage.threads.broken = True
            return {}

        world.codex.on["thread/revert"] = die
        with pytest.raises(PartialSuccess, match="taken back in Codex"):
            await world.lanes.revert(thread, before_turn=turns[1].id)
        world.storage.threads.broken = False
        stale = await world.storage.threads.get(thread.key)
        lanes = another_daemon(world)

        await lanes.recover()
        await lanes.flush()
        record = await world.storage.threads.get(thread.key)

    assert stale.turn.status is TurnStatus.UNKNOWN
    assert record.turn.id == turns[0 if done else 1].id
    assert record.turn.status is TurnStatus.COMPLETED


async def test_turns_taken_back_by_somebody_else_are_noticed(world):
    async with world.running():
        thread = await world.thread()
        first, _ = await finished(world, thread), await finished(world, thread)

        world.codex.stored[thread.native_id].pop(0)
        world.say("thread/reverted", thread)
        settled = await world.lanes.settled(thread)

    assert settled.turn.id == first.id
    assert changes(world) == ["reverted"]


async def test_nothing_is_taken_back_or_summarised_while_a_turn_runs(world):
    async with world.running():
        thread = await world.thread()
        turn = await world.send(thread, Message(text="hello"))
        world.started(thread, turn.id)

        with pytest.raises(LaneBusy):
            await world.lanes.revert(thread, before_turn=turn.id)
        with pytest.raises(LaneBusy):
            await world.lanes.compact(thread)

    assert not {"thread/revert", "thread/compact/start"} & {*world.codex.methods()}


async def test_a_compaction_is_a_turn_that_can_be_waited_for(world):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)

        async def begin(params):
            world.started(thread, "turn-c")
            return {}

        world.codex.on["thread/compact/start"] = begin
        turn = await world.lanes.compact(thread)
        running = await world.stored(thread)
        world.completed(thread, "turn-c")
        settled = await world.lanes.settled(thread)

    assert (turn.id, turn.status) == ("turn-c", TurnStatus.STARTED)
    assert running.status is ThreadStatus.BUSY
    assert (settled.turn.id, settled.turn.status) == ("turn-c", TurnStatus.COMPLETED)


async def test_a_compaction_that_codex_took_with_it_is_unknown(world):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)

        async def die(params):
            world.crash()
            return {}

        world.codex.on["thread/compact/start"] = die
        with pytest.raises(OutcomeUnknown, match="summarise"):
            await world.lanes.compact(thread)


async def test_a_thread_before_its_first_turn_has_nothing_to_fork_or_summarise(world):
    async with world.running():
        thread = await world.thread()

        for call in (
            world.lanes.fork(thread, name="copy", settings=ThreadSettings()),
            world.lanes.revert(thread, before_turn="x"),
            world.lanes.compact(thread),
        ):
            with pytest.raises(ValidationFailed, match="no history"):
                await call

    assert await world.storage.threads.find("handle", "@copy") == ()
