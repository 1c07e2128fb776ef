"""Two callers on one thread, a caller that gives up, a Codex that dies between its answer and the registry write."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.op import Example, Intent, Op, OpInput, OpOutput
from dispatch_core.contracts.records import (
    Message,
    Source,
    ThreadSettings,
    ThreadStatus,
    TurnStatus,
)
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.dispatcher import Dispatcher
from dispatch_core.errors import (
    AuthorityDenied,
    CodexError,
    CodexTimeout,
    CodexUnavailable,
    DispatchError,
    LaneBusy,
    NotFound,
    OutcomeUnknown,
    PartialSuccess,
    StorageError,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio

PLAIN = ThreadSettings()
HELLO = Message(text="hello")


def answer(result):
    async def answered(params):
        return result

    return answered


def refuse(error):
    async def answered(params):
        raise error

    return answered


async def finished(world, thread):
    """Run one turn to its end."""
    turn = await world.send(thread, HELLO)
    world.started(thread, turn.id)
    world.completed(thread, turn.id)
    world.codex.store(thread.native_id, turn.id, "completed", turn.message_id)
    await world.lanes.settled(thread)
    return turn


def fork(world, thread, name="copy", **fields):
    return world.lanes.fork(thread, name=name, settings=PLAIN, **fields)


@pytest.fixture
def forks(world):
    """Codex forks, and the fork has the turns of its source."""

    async def forked(params):
        native_id = world.codex.new_id("fork")
        world.codex.stored[native_id] = list(world.codex.stored[params["threadId"]])
        world.codex.loaded.add(native_id)
        return {"thread": {"id": native_id, "cwd": "/"}}

    world.codex.on["thread/fork"] = forked


class Outcomes(dict):
    """What came of each of several calls at once: a value, or the error it raised."""

    def start(self, tasks, name, call):
        async def run():
            try:
                self[name] = await call()
            except DispatchError as error:
                self[name] = error

        tasks.start_soon(run)


# -- two callers -------------------------------------------------------------------------------------


async def test_two_names_at_once_leave_the_one_that_came_last_everywhere(world, gate):
    first = gate()
    names = []

    async def named(params):
        names.append(params["name"])
        if len(names) == 1:
            await first.wait()
            raise CodexError("the first is refused")
        return {}

    async with world.running() as tasks:
        thread = await world.thread()
        world.codex.on["thread/name/set"] = named
        outcomes = Outcomes()
        outcomes.start(tasks, "a", lambda: world.lanes.rename(thread, "a"))
        await first.reached.wait()
        outcomes.start(tasks, "b", lambda: world.lanes.rename(thread, "b"))
        await anyio.wait_all_tasks_blocked()

        first.open()
        await anyio.wait_all_tasks_blocked()
        record = await world.stored(thread)

    assert isinstance(outcomes["a"], CodexError)
    assert (record.handle, record.title) == ("@b", "b")
    assert world.lanes._lanes[thread.key].title == "b"


async def test_the_same_name_given_twice_at_once_is_no_conflict_with_itself(world, gate):
    there = gate()

    async def named(params):
        await there.wait()
        return {}

    async with world.running() as tasks:
        thread = await world.thread()
        world.codex.on["thread/name/set"] = named
        outcomes = Outcomes()
        for caller in "ab":
            outcomes.start(tasks, caller, lambda: world.lanes.rename(thread, "mason"))
        await there.reached.wait()

        there.open()
        await anyio.wait_all_tasks_blocked()

    assert [outcomes[caller].handle for caller in "ab"] == ["@mason", "@mason"]
    assert world.codex.methods().count("thread/name/set") == 2  # one of them when it was made


@pytest.mark.parametrize("has", [True, False])
async def test_a_message_behind_an_archive_is_refused_and_starts_nothing(world, gate, has):
    there = gate()

    async def archived(params):
        await there.wait()
        if has:
            return {}
        raise CodexError("no rollout found for thread id x")

    async with world.running() as tasks:
        thread = await world.thread()
        world.codex.on["thread/archive"] = archived
        outcomes = Outcomes()
        outcomes.start(tasks, "archive", lambda: world.lanes.archive(thread))
        await there.reached.wait()
        for name, call in (
            ("send", lambda: world.send(thread, HELLO)),
            ("context", lambda: world.lanes.inject(thread, "hello")),
            ("load", lambda: world.lanes.load(thread)),
        ):
            outcomes.start(tasks, name, call)
        await anyio.wait_all_tasks_blocked()

        there.open()
        await anyio.wait_all_tasks_blocked()
        record = await world.stored(thread)

    assert outcomes["archive"].status is record.status is ThreadStatus.ARCHIVED
    for name in ("send", "context", "load"):
        assert isinstance(outcomes[name], AuthorityDenied), name
        assert outcomes[name].hint == f"dispatch restore {thread.ref}"
    assert {"thread/resume", "turn/start", "thread/inject_items"}.isdisjoint(world.codex.methods())
    assert world.codex.methods().count("thread/start") == 1
    assert record.turn is None


async def test_two_archives_at_once_ask_codex_once(world, gate):
    there = gate()

    async def archived(params):
        await there.wait()
        return {}

    world.codex.on["thread/archive"] = archived
    async with world.running() as tasks:
        thread = await world.thread()
        outcomes = Outcomes()
        for caller in "ab":
            outcomes.start(tasks, caller, lambda: world.lanes.archive(thread))
        await there.reached.wait()

        there.open()
        await anyio.wait_all_tasks_blocked()

    assert [outcomes[caller].status for caller in "ab"] == [ThreadStatus.ARCHIVED] * 2
    assert world.codex.methods().count("thread/archive") == 1


async def test_a_thread_is_not_restored_under_a_name_that_is_taken_at_the_same_moment(world, gate):
    there = gate()
    world.codex.on["thread/archive"] = answer({})

    async def start(params):
        await there.wait()
        return {"thread": {"id": "late"}}

    async with world.running() as tasks:
        thread = await world.lanes.archive(await world.thread("mason"))
        world.codex.on["thread/start"] = start
        outcomes = Outcomes()
        outcomes.start(tasks, "new", lambda: world.thread("mason"))
        await there.reached.wait()

        with pytest.raises(ValidationFailed, match="@mason"):
            await world.lanes.restore(thread)
        there.open()
        await anyio.wait_all_tasks_blocked()
        record = await world.stored(thread)

    assert outcomes["new"].handle == "@mason"
    assert record.status is ThreadStatus.ARCHIVED
    assert "thread/unarchive" not in world.codex.methods()


async def test_a_message_during_a_revert_is_told_that_the_thread_is_busy(world, gate):
    there = gate()

    async def revert(params):
        await there.wait()
        world.codex.stored[params["threadId"]].clear()
        return {}

    world.codex.on["thread/revert"] = revert
    async with world.running() as tasks:
        thread = await world.thread()
        turn = await finished(world, thread)
        outcomes = Outcomes()
        outcomes.start(tasks, "revert", lambda: world.lanes.revert(thread, before_turn=turn.id))
        await there.reached.wait()

        with pytest.raises(LaneBusy):
            await world.send(thread, HELLO)
        there.open()
        await anyio.wait_all_tasks_blocked()
        record = await world.stored(thread)

    assert outcomes["revert"].turn is record.turn is None
    assert record.status is ThreadStatus.IDLE


# -- all turns taken back ----------------------------------------------------------------------------


async def test_a_thread_of_which_all_was_taken_back_has_no_turn_and_takes_messages(world):
    async with world.running():
        thread = await world.thread()
        turn = await finished(world, thread)

        async def revert(params):
            world.codex.stored[thread.native_id].clear()
            world.say("thread/reverted", thread)
            return {}

        world.codex.on["thread/revert"] = revert
        reverted = await world.lanes.revert(thread, before_turn=turn.id)
        settled = await world.lanes.settled(thread)
        following = await world.send(thread, HELLO)
        record = await world.stored(thread)

    assert reverted.turn is settled.turn is None
    assert (reverted.status, reverted.materialized) == (ThreadStatus.IDLE, True)
    assert (record.turn.id, record.turn.message_id) == (following.id, following.message_id)


async def test_a_revert_of_all_turns_by_somebody_else_leaves_none(world):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)
        world.codex.stored[thread.native_id].clear()
        world.say("thread/reverted", thread)

        settled = await world.lanes.settled(thread)
        record = await world.stored(thread)

    assert settled.turn is record.turn is None


# -- a codex that dies, unloads or does not answer ----------------------------------------------------


async def test_a_revert_whose_newest_turn_cannot_be_looked_up_is_done_and_not_an_error(world):
    async with world.running():
        thread = await world.thread()
        first, second = await finished(world, thread), await finished(world, thread)
        world.codex.on["thread/revert"] = answer({})
        world.codex.on["thread/turns/list"] = refuse(CodexUnavailable("it went away"))

        reverted = await world.lanes.revert(thread, before_turn=second.id)
        world.codex.stored[thread.native_id].pop(0)
        del world.codex.on["thread/turns/list"]
        settled = await world.lanes.settled(thread)

    assert reverted.turn.status is TurnStatus.UNKNOWN
    assert (settled.turn.id, settled.turn.status) == (first.id, TurnStatus.COMPLETED)


@pytest.mark.parametrize("method", ["thread/revert", "thread/compact/start"])
async def test_a_thread_that_codex_unloaded_meanwhile_is_loaded_again(world, method):
    asked = []

    async def unloaded_first(params):
        asked.append(params["threadId"])
        if len(asked) == 1:
            raise CodexError(f"thread not found: {params['threadId']}")
        world.started(thread, "turn-x")
        return {}

    world.codex.on[method] = unloaded_first
    async with world.running():
        thread = await world.thread()
        turn = await finished(world, thread)
        before = world.codex.methods().count("thread/resume")

        if method == "thread/revert":
            await world.lanes.revert(thread, before_turn=turn.id)
        else:
            await world.lanes.compact(thread)

    assert asked == [thread.native_id] * 2
    assert world.codex.methods().count("thread/resume") == before + 1


@pytest.mark.parametrize("lost", [CodexTimeout("no answer"), OutcomeUnknown("it went away")])
async def test_what_was_only_prepared_is_not_said_to_be_unknown(world, lost):
    async with world.running():
        thread = await world.thread()
        turn = await finished(world, thread)
        world.crash()
        await world.restart()
        world.codex.on["thread/resume"] = refuse(lost)

        for call in (
            lambda: world.lanes.revert(thread, before_turn=turn.id),
            lambda: world.lanes.compact(thread),
            lambda: world.lanes.load(thread),
        ):
            with pytest.raises(CodexUnavailable, match="nothing was done"):
                await call()
        record = await world.stored(thread)

    assert record.turn.status is TurnStatus.COMPLETED


async def test_a_fork_whose_newest_turn_cannot_be_looked_up_is_registered(world, forks):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)
        world.codex.on["thread/turns/list"] = refuse(CodexUnavailable("it went away"))

        record = await fork(world, thread)

    assert (record.handle, record.turn, record.materialized) == ("@copy", None, True)
    assert await world.storage.threads.get(record.key) == record


async def test_a_fork_that_codex_made_before_it_died_is_loaded_by_the_next_codex(world, forks):
    made = world.codex.on["thread/fork"]

    async def die(params):
        result = await made(params)
        world.crash()
        await world.restart()
        return result

    async with world.running():
        thread = await world.thread()
        await finished(world, thread)
        world.codex.on["thread/fork"] = die

        record = await fork(world, thread)
        await world.send(record, HELLO)

    assert ("thread/resume", record.native_id) in [
        (method, params.get("threadId")) for method, params in world.codex.calls
    ]


@pytest.mark.parametrize(
    ("source", "error"), [(Source.OWN, ValidationFailed), (Source.ATTACHED, NotFound)]
)
async def test_a_thread_without_a_history_on_disk_is_not_forked_and_says_why(world, source, error):
    world.codex.on["thread/fork"] = refuse(CodexError("no rollout found for thread id x"))
    async with world.running():
        thread = await world.thread()
        await world.send(thread, HELLO)  # Codex stores a thread with the end of its first turn
        thread = await world.storage.threads.update(
            thread.key, source=source, updated_at=world.clock.now()
        )

        with pytest.raises(error) as caught:
            await fork(world, thread)

    assert caught.value.hint
    assert len(await world.storage.threads.list()) == 1


# -- a caller that gives up, a registry that cannot be written ----------------------------------------


@pytest.mark.parametrize("verb", ["create", "fork", "archive", "restore", "revert"])
async def test_a_caller_that_gives_up_behind_codexs_answer_leaves_nothing_half_done(
    world, forks, verb
):
    """The scope is cancelled the moment Codex has done its part."""
    scope = anyio.CancelScope()
    methods = {
        "create": "thread/start",
        "fork": "thread/fork",
        "archive": "thread/archive",
        "restore": "thread/unarchive",
        "revert": "thread/revert",
    }

    async def give_up(params):
        result = await before(params)
        scope.cancel()
        return result

    async with world.running():
        thread = await world.thread()
        turn = await finished(world, thread)
        if verb == "restore":
            world.codex.on["thread/archive"] = answer({})
            thread = await world.lanes.archive(thread)
        usual = {"thread/start": answer({"thread": {"id": "late"}})}
        before = world.codex.on.get(methods[verb]) or usual.get(
            methods[verb], answer({"thread": {"id": thread.native_id}})
        )
        world.codex.on[methods[verb]] = give_up
        calls = {
            "create": lambda: world.thread("late"),
            "fork": lambda: fork(world, thread, "late"),
            "archive": lambda: world.lanes.archive(thread),
            "restore": lambda: world.lanes.restore(thread),
            "revert": lambda: world.lanes.revert(thread, before_turn=turn.id),
        }

        with scope:
            await calls[verb]()
        await world.lanes.flush()
        records = {t.handle: t for t in await world.storage.threads.list(archived=True)}
        settled = await world.lanes.settled(thread)

    mine = records["@builder"]
    if verb in ("create", "fork"):
        assert records["@late"].native_id in ("late", "fork-3")
    elif verb == "archive":
        assert mine.status is ThreadStatus.ARCHIVED
    elif verb == "restore":
        assert mine.status is ThreadStatus.IDLE
    else:
        assert settled.turn.id == turn.id  # history still has it: this Codex takes nothing back
    assert {t.handle for t in records.values()} <= {"@builder", "@late"}


@pytest.mark.parametrize("verb", ["archive", "restore"])
async def test_what_the_registry_refused_to_write_is_done_by_the_next_try(world, verb):
    world.codex.on["thread/archive"] = answer({})
    world.codex.on["thread/unarchive"] = answer({"thread": {"id": "thread-1"}})
    async with world.running():
        thread = await world.thread()
        act = world.lanes.archive
        if verb == "restore":
            thread, act = await world.lanes.archive(thread), world.lanes.restore
        world.storage.threads.broken = True
        with pytest.raises(StorageError):
            await act(thread)
        world.storage.threads.broken = False
        stale = await world.storage.threads.get(thread.key)

        again = await act(stale)
        stored = await world.stored(thread)

    wanted = ThreadStatus.ARCHIVED if verb == "archive" else ThreadStatus.IDLE
    assert stale.status is not wanted
    assert again.status is wanted
    assert replace(stored, updated_at=again.updated_at) == again


async def test_what_the_registry_refused_to_write_is_written_once_it_can_be(world):
    world.codex.on["thread/archive"] = answer({})
    async with world.running():
        thread = await world.thread()
        world.storage.threads.broken = True
        with pytest.raises(StorageError):
            await world.lanes.archive(thread)

        world.storage.threads.broken = False
        record = await world.stored(thread)

    assert record.status is ThreadStatus.ARCHIVED


async def test_a_fork_that_cannot_be_registered_says_which_thread_codex_has_made(world, forks):
    async with world.running():
        thread = await world.thread()
        await finished(world, thread)

        world.storage.threads.broken = True
        with pytest.raises(PartialSuccess) as caught:
            await fork(world, thread)

    assert caught.value.details["id"] in caught.value.hint
    assert caught.value.details["id"] in world.codex.stored


async def test_a_revert_that_the_registry_cannot_announce_is_not_begun(world):
    async with world.running():
        thread = await world.thread()
        turn = await finished(world, thread)
        world.storage.threads.broken = True

        with pytest.raises(StorageError):
            await world.lanes.revert(thread, before_turn=turn.id)
        world.storage.threads.broken = False
        record = await world.stored(thread)

    assert "thread/revert" not in world.codex.methods()
    assert record.turn.status is TurnStatus.COMPLETED


# -- ephemeral threads and directories ----------------------------------------------------------------


async def test_the_turn_of_an_ephemeral_thread_is_interrupted_when_it_is_archived(world):
    async with world.running():
        thread = await world.lanes.create(name="spark", cwd="/", settings=PLAIN, ephemeral=True)
        turn = await world.send(thread, HELLO)
        world.started(thread, turn.id)

        async def interrupt(params):
            world.completed(thread, params["turnId"], "interrupted")
            return {}

        world.codex.on["turn/interrupt"] = interrupt
        record = await world.lanes.archive(thread)

    assert (record.status, record.turn.status) == (ThreadStatus.ARCHIVED, TurnStatus.INTERRUPTED)
    assert "thread/archive" not in world.codex.methods()


async def test_an_archived_ephemeral_thread_is_not_said_to_be_restorable(world):
    async with world.running():
        thread = await world.lanes.create(name="spark", cwd="/", settings=PLAIN, ephemeral=True)
        await world.lanes.archive(thread)

        with pytest.raises(AuthorityDenied) as caught:
            await world.lanes.writable(thread.ref)

    assert "restore" not in caught.value.hint
    assert caught.value.hint.startswith("dispatch new")


async def test_no_turn_is_started_in_a_directory_that_is_gone(world, forks, tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    async with world.running():
        thread = await world.lanes.create(name="lost", cwd=str(place), settings=PLAIN)
        turn = await finished(world, thread)
        thread = await world.stored(thread)
        place.rmdir()
        asked = len(world.codex.calls)

        for call in (
            lambda: world.send(thread, HELLO),
            lambda: world.interject(thread, HELLO),
            lambda: world.lanes.load(thread),
            lambda: fork(world, thread),
        ):
            with pytest.raises(ValidationFailed, match="not a directory any more") as caught:
                await call()
            assert f"dispatch fork {thread.ref} NAME --cwd" in caught.value.hint
        nothing = world.codex.calls[asked:]
        moved = await fork(world, thread, cwd=str(tmp_path))
        place.mkdir()
        again = await world.send(thread, HELLO)

    assert nothing == []
    assert (moved.cwd, moved.turn.id) == (str(tmp_path), turn.id)
    assert again.status is TurnStatus.SUBMITTED


async def test_a_loaded_thread_is_loaded_once_and_one_never_stored_is_started_anew(world):
    async with world.running():
        thread = await world.thread()

        same = await world.lanes.load(thread)
        world.crash()
        await world.restart()
        anew = await world.lanes.load(thread)

    assert same == thread
    assert (anew.ref, anew.key) == (thread.ref, thread.key)
    assert anew.native_id != thread.native_id
    assert world.lanes.holds(thread.key)
    assert not world.lanes.holds("nobody")


# -- a daemon that stops ------------------------------------------------------------------------------


async def test_a_dispatcher_is_quiet_once_no_op_runs_that_changes_something(gate):
    there = {"read": gate(), "write": gate()}
    over = anyio.Event()

    def op(intent):
        async def handler(context, request):
            await there[intent].wait()
            return OpOutput()

        return Op(
            name=f"test.{intent}",
            summary="Wait",
            noun="test",
            input=OpInput,
            output=OpOutput,
            handler=handler,
            intent=Intent(intent),
            idempotent=True,
            examples=(Example(input={}, output={}),),
        )

    found = {one.name: one for one in map(op, there)}
    owner = SimpleNamespace(name="test", dist="test", first_party=True)
    actions = SimpleNamespace(append=lambda action: anyio.lowlevel.checkpoint())
    context = SimpleNamespace(
        caller=HUMAN, clock=SystemClock(), store=SimpleNamespace(actions=actions)
    )
    dispatcher = Dispatcher(
        SimpleNamespace(ops=found, owners=dict.fromkeys(found, owner)),
        [{"name": name} for name in found],
        lambda caller: context,
    )

    async def wait():
        await dispatcher.quiet()
        over.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for name in found:
                tasks.start_soon(dispatcher.call, name, {}, HUMAN)
            await there["write"].reached.wait()
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            waited = not over.is_set()
            there["write"].open()
            await over.wait()
            there["read"].open()

    assert waited
