"""What only a scripted Codex does: races on the wire, a registry that fails, methods that nobody knows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from dispatch_core.appserver.request_answers import denial
from dispatch_core.appserver.requests import METHODS, FileChanges, read_request
from dispatch_core.appserver.rpc import RpcRefusal
from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.events import EventKind
from dispatch_core.contracts.requests import RequestClosed, RequestFilter, RequestState
from dispatch_core.engine.requests.bodies import LIMIT, bounded
from dispatch_core.engine.requests.desk import Desk
from dispatch_core.engine.requests.inbox import Inbox
from dispatch_core.errors import StorageError, ValidationFailed
from dispatch_core.settings import AllowRule, PolicySection

pytestmark = pytest.mark.anyio

COMMAND = "item/commandExecution/requestApproval"
ASKED = {
    "turnId": "turn-1",
    "itemId": "item-1",
    "command": "/bin/bash -lc 'git status'",
    "cwd": "/",
    "commandActions": [{"type": "unknown", "command": "git status"}],
    "environmentId": "local",
}
FOR_THE_HOST = ["account/chatgptAuthTokens/refresh", "attestation/generate", "item/none/such"]


class BreakableRequests:
    """The requests of a real backend, with methods that can be made to fail."""

    def __init__(self, requests):
        self._requests, self.broken = requests, set()

    def __getattr__(self, name):
        if name in self.broken:
            return self._fail
        return getattr(self._requests, name)

    async def _fail(self, *args, **kwargs):
        await anyio.lowlevel.checkpoint()
        raise StorageError("the disk is full", hint="make room")


class Setup:
    """An inbox over the world's registry, with a thread in it and a clock that can be moved."""

    def __init__(self, world, **policy):
        self.world, self.storage = world, world.storage
        self.storage.requests = BreakableRequests(world.storage.requests)
        self._now = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
        self.inbox = Inbox(
            self.storage,
            world.events,
            self,
            world.lanes.key_of,
            PolicySection(**policy),
            sleep=self._sleep,
        )
        self.desk = Desk(self.storage, self, self.inbox)
        self.answers, self._moved, self.slept = {}, anyio.Event(), []

    def now(self):
        return self._now

    def move(self, seconds):
        self._now += timedelta(seconds=seconds)
        self._moved.set()
        self._moved = anyio.Event()

    async def _sleep(self, seconds):
        self.slept.append(seconds)
        await self._moved.wait()

    def ask(self, tasks, request_id=0, method=COMMAND, **more):
        """Let Codex ask, and keep what it is told."""
        params = {"threadId": self.native_id, **ASKED, **more}

        async def asking():
            try:
                answer = dict(await self.inbox.asked(request_id, method, params))
            except RpcRefusal as refused:
                answer = refused.code
            self.answers.setdefault(request_id, []).append(answer)

        tasks.start_soon(asking)

    async def begin(self, tasks, **settings):
        self.thread = await self.world.thread()
        if settings:
            changed = self.thread.settings.__class__(**settings)
            await self.storage.threads.update(
                self.thread.key, settings=changed, updated_at=self._now
            )
        self.native_id = self.world.lanes._lanes[self.thread.key].native_id
        await tasks.start(self.inbox.run)

    async def only(self, *states):
        await anyio.wait_all_tasks_blocked()
        [found] = await self.storage.requests.list(RequestFilter(), 9)
        assert not states or found.state in states
        return found

    def seen(self, kind):
        return [event.data for event in self.world.events._ring if event.kind is kind]


@pytest.fixture
def setup(world):
    return lambda **policy: Setup(world, **policy)


@pytest.fixture
async def tasks():
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            yield tasks
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("method", FOR_THE_HOST)
async def test_what_is_not_for_a_person_is_refused_at_once(setup, tasks, method):
    found = setup()
    await found.begin(tasks)

    found.ask(tasks, method=method)
    await anyio.wait_all_tasks_blocked()

    assert found.answers == {0: [-32601]}
    assert await found.storage.requests.list(RequestFilter(), 9) == ()


async def test_the_time_is_told(setup, tasks):
    found = setup()
    await found.begin(tasks)

    found.ask(tasks, method="currentTime/read")
    await anyio.wait_all_tasks_blocked()

    assert found.answers == {0: [{"currentTimeAt": int(found.now().timestamp())}]}


async def test_a_thread_that_is_not_managed_gets_a_no(setup, tasks):
    found = setup()
    await found.begin(tasks)

    found.ask(tasks, threadId="somebody else's")
    await anyio.wait_all_tasks_blocked()

    assert found.answers == {0: [{"decision": "decline"}]}
    assert await found.storage.requests.list(RequestFilter(), 9) == ()


async def test_deny_declines_at_once_and_keeps_a_record(setup, tasks):
    found = setup(requests="deny")
    await found.begin(tasks)

    found.ask(tasks)
    request = await found.only()
    found.inbox.notified("serverRequest/resolved", {"threadId": found.native_id, "requestId": 0})

    assert found.answers == {0: [{"decision": "decline"}]}
    closed = await found.only(RequestState.DECLINED)
    assert (closed.answered_by, closed.decision, request.deadline > found.now()) == (
        "policy",
        "decline",
        True,
    )
    [action] = [a for a in await found.storage.actions.latest(9) if a.op == "request.respond"]
    assert (action.principal, action.thread) == ("policy", found.thread.ref)
    assert [d["state"] for d in found.seen(EventKind.REQUEST_CLOSED)] == ["declined"]


@pytest.mark.parametrize(
    ("sandbox", "accepted"),
    [("danger-full-access", True), ("workspace-write", False), (None, False)],
)
async def test_a_rule_lets_a_command_run_only_where_there_is_no_sandbox(
    setup, tasks, sandbox, accepted
):
    rule = AllowRule(argv=("git", "status"), cwd="/", expires=datetime(2026, 6, 1, tzinfo=UTC))
    found = setup(allow=(rule,))
    await found.begin(tasks, sandbox=sandbox)

    found.ask(tasks)
    request = await found.only()

    assert found.answers == ({0: [{"decision": "accept"}]} if accepted else {})
    assert request.answered_by == ("policy" if accepted else None)


async def test_a_request_nobody_answers_is_declined_at_its_deadline(setup, tasks):
    found = setup(request_timeout=300.0)
    await found.begin(tasks)
    found.ask(tasks)
    await found.only(RequestState.OPEN)

    found.move(299)
    await found.only(RequestState.OPEN)
    found.move(1)
    await found.only(RequestState.ANSWERING)
    found.inbox.notified("serverRequest/resolved", {"threadId": found.native_id, "requestId": 0})

    assert (await found.only()).state is RequestState.EXPIRED
    assert found.answers == {0: [{"decision": "decline"}]}


async def test_a_deferred_request_waits_longer(setup, tasks):
    found = setup(request_timeout=300.0)
    await found.begin(tasks)
    found.ask(tasks)
    request = await found.only(RequestState.OPEN)

    await found.desk.defer(request, HUMAN, 3600)
    found.move(3599)

    await found.only(RequestState.OPEN)
    found.move(1)
    await found.only(RequestState.ANSWERING)
    with pytest.raises(RequestClosed, match="deadline said decline") as caught:
        await found.desk.defer(request, HUMAN, 60)
    assert (caught.value.code, caught.value.projection.exit_code) == ("request_closed", 5)


async def test_a_question_that_went_away_before_its_task_ran_is_not_left_open(setup, tasks):
    found = setup()
    await found.begin(tasks)

    found.inbox.notified("serverRequest/resolved", {"threadId": found.native_id, "requestId": 0})
    found.ask(tasks)

    assert (await found.only()).state is RequestState.CANCELLED
    assert found.answers == {0: [{"decision": "decline"}]}


async def test_a_question_of_a_turn_that_has_ended_is_not_left_open(setup, tasks):
    found = setup()
    await found.begin(tasks)
    turn = {"id": "turn-1", "status": "interrupted", "items": []}

    found.inbox.notified("turn/completed", {"threadId": found.native_id, "turn": turn})
    found.ask(tasks)

    assert (await found.only()).state is RequestState.CANCELLED


async def test_a_repeated_question_has_one_row_and_one_answer(setup, tasks):
    found = setup()
    await found.begin(tasks)
    found.ask(tasks)
    found.ask(tasks)
    found.ask(tasks, request_id="0")
    await anyio.wait_all_tasks_blocked()
    rows = await found.storage.requests.list(RequestFilter(), 9)
    [request] = [row for row in rows if row.rpc_id == "0"]

    with anyio.move_on_after(0.01):
        await found.desk.respond(request, HUMAN, "accept")
    await anyio.wait_all_tasks_blocked()

    assert {row.rpc_id for row in rows} == {'"0"', "0"}
    assert found.answers == {0: [{"decision": "accept"}] * 2}


@pytest.mark.parametrize("broken", ["add", "claim"])
async def test_what_cannot_be_recorded_is_declined(setup, tasks, broken):
    found = setup(requests="deny")
    found.storage.requests.broken = {broken}
    await found.begin(tasks)

    found.ask(tasks)
    await anyio.wait_all_tasks_blocked()

    assert found.answers == {0: [{"decision": "decline"}]}


async def test_a_deadline_is_kept_while_the_registry_fails_and_recorded_afterwards(setup, tasks):
    found = setup(request_timeout=300.0)
    await found.begin(tasks)
    found.ask(tasks)
    request = await found.only()
    found.storage.requests.broken = {"claim", "close"}

    found.move(300)
    await anyio.wait_all_tasks_blocked()
    found.inbox.notified("serverRequest/resolved", {"threadId": found.native_id, "requestId": 0})
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(RequestClosed, match="deadline said decline"):
        await found.desk.respond(request, HUMAN, "accept")
    found.storage.requests.broken = set()
    found.move(1)

    assert found.answers == {0: [{"decision": "decline"}]}
    closed = await found.only(RequestState.EXPIRED)
    assert (closed.answered_by, closed.decision) == ("deadline", "decline")


async def test_an_answer_that_cannot_be_recorded_is_not_given(setup, tasks):
    found = setup()
    await found.begin(tasks)
    found.ask(tasks)
    request = await found.only()
    found.storage.requests.broken = {"claim"}

    with pytest.raises(StorageError):
        await found.desk.respond(request, HUMAN, "accept")

    found.storage.requests.broken = set()
    assert found.answers == {}
    assert (await found.only()).state is RequestState.OPEN


async def test_a_person_who_goes_away_in_the_middle_has_answered(setup, tasks):
    found = setup()
    await found.begin(tasks)
    found.ask(tasks)
    request = await found.only()

    with anyio.CancelScope() as gone:
        gone.cancel()
        await found.desk.respond(request, HUMAN, "accept")
    await anyio.wait_all_tasks_blocked()

    stored = await found.only()
    given = {RequestState.OPEN: {}, RequestState.ANSWERING: {0: [{"decision": "accept"}]}}
    assert found.answers == given[stored.state]


async def test_what_an_earlier_daemon_left_open_is_orphaned_at_the_start(setup, tasks, world):
    first = setup()
    await first.begin(tasks)
    first.ask(tasks)
    await first.only(RequestState.OPEN)

    second = Setup(world)
    await tasks.start(second.inbox.run)

    assert (await second.only()).state is RequestState.ORPHANED


async def test_the_answer_of_a_codex_that_went_away_is_not_said_to_have_arrived(setup, tasks):
    found = setup()
    await found.begin(tasks)
    found.ask(tasks)
    request = await found.only()
    with anyio.move_on_after(0.01):
        await found.desk.respond(request, HUMAN, "accept")

    found.inbox.lost()

    orphaned = await found.only(RequestState.ORPHANED)
    assert (orphaned.decision, orphaned.answered_by) == ("accept", "human")
    assert "had not said that it took the answer" in orphaned.detail


async def test_what_is_too_long_to_be_shown_is_not_accepted_unless_that_is_meant(setup, tasks):
    found = setup()
    await found.begin(tasks)
    found.ask(tasks, command="touch " + "x" * LIMIT)
    request = await found.only()

    with pytest.raises(ValidationFailed, match="not seen"):
        await found.desk.respond(request, HUMAN, "accept")
    with anyio.move_on_after(0.01):
        await found.desk.respond(request, HUMAN, "accept", unseen=True)

    await anyio.wait_all_tasks_blocked()
    assert request.cut
    assert found.answers == {0: [{"decision": "accept"}]}


@pytest.mark.parametrize(
    "body",
    [
        {"a": "x" * 10**6},
        {"changes": [{"diff": "ü" * 5000}] * 200},
        {"a": {str(i): {str(j): "v" * 50 for j in range(200)} for i in range(200)}},
        {"deep": json.loads("[" * 300 + "]" * 300), "long": "x" * LIMIT},
        {"a": [list(range(1000))] * 1000},
    ],
)
def test_a_body_is_kept_within_its_limit_and_said_to_be_cut(body):
    kept, cut = bounded(body)

    assert cut
    assert len(json.dumps(kept, ensure_ascii=False).encode()) <= LIMIT
    assert kept.keys() == body.keys()


def test_the_changes_that_a_request_names_are_those_announced_last():
    changes = FileChanges()
    for diff in ("first", "second"):
        change = {"path": "/a", "kind": {"type": "add"}, "diff": diff}
        item = {"type": "fileChange", "id": "i", "changes": [change]}
        changes.notified("item/started", {"threadId": "t", "item": item})
    params = {"threadId": "t", "itemId": "i", "turnId": "u"}

    asked = read_request("item/fileChange/requestApproval", params, changes)
    changes.notified("item/completed", {"threadId": "t", "item": item})
    after = read_request("item/fileChange/requestApproval", params, changes)

    [shown] = asked.body["changes"]
    assert (shown["path"], shown["change"], shown["diff"]) == ("/a", "add", "second")
    assert after.body["changes"] is None


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize(
    "params", [{}, {"threadId": 7, "questions": "x", "permissions": [], "_meta": 1, "command": {}}]
)
def test_a_request_without_anything_in_it_is_read_and_declined(method, params):
    asked = read_request(method, params, FileChanges())

    assert asked.summary
    assert denial(method, asked.kind)
