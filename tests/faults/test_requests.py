"""What Codex asks, with everything that can go wrong with the answer. The real Codex asks; of the two methods of the first
version of the protocol, which it no longer sends, only the answers are looked at.

Whether something was done is seen from outside: files that a command, a patch and the tool of an MCP server write.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import codex_cli_bin
import pytest

from dispatch_core import appserver
from dispatch_core.api import (
    AuthorityDenied,
    Caller,
    RequestFilter,
    RequestKind,
    RequestState,
    Source,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    ValidationFailed,
)
from dispatch_core.appserver.request_answers import denial, wire_answer
from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.requests import RequestClosed
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.ids import uuid7
from dispatch_core.engine.requests.desk import Desk
from dispatch_core.engine.requests.inbox import Inbox
from dispatch_core.offline.codex_home import offline_environ, write_codex_home
from dispatch_core.offline.model import OfflineModel
from dispatch_core.settings import PolicySection
from dispatch_plugins.registry.backend import PeeweeStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from dispatch_core.contracts.requests import RequestRecord
    from tests.faults.conftest import Tier

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

DEADLINE = 60
SERVER = """
import json, pathlib, sys

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

TOOLS = [
    {"name": "act", "description": "acts", "inputSchema": {"type": "object", "properties": {"file": {"type": "string"}}}},
    {"name": "ask", "inputSchema": {"type": "object", "properties": {}}, "annotations": {"readOnlyHint": True}},
]
FORM = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
asked = {}
for line in sys.stdin:
    m = json.loads(line)
    i, method, params = m.get("id"), m.get("method"), m.get("params") or {}
    if method == "initialize":
        info = {"name": "echo", "version": "1"}
        version = params.get("protocolVersion")
        say({"id": i, "result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}})
    elif method == "tools/list":
        say({"id": i, "result": {"tools": TOOLS}})
    elif method == "tools/call" and params["name"] == "act":
        pathlib.Path(params["arguments"]["file"]).touch()
        say({"id": i, "result": {"content": [{"type": "text", "text": "acted"}]}})
    elif method == "tools/call":
        asked["e"] = i
        say({"id": "e", "method": "elicitation/create", "params": {"message": "Your name?", "requestedSchema": FORM}})
    elif method is None and i in asked:
        text = json.dumps(m.get("result"))
        say({"id": asked.pop(i), "result": {"content": [{"type": "text", "text": text}]}})
    elif i is not None:
        say({"id": i, "result": {}})
"""
QUESTION = {
    "id": "q1",
    "header": "Pick",
    "question": "Go?",
    "options": [{"label": "Yes", "description": "y"}, {"label": "No", "description": "n"}],
}
PLAN = {"mode": "plan", "settings": {"model": "offline-model", "reasoning_effort": None}}
TOOL = {
    "type": "function",
    "name": "report",
    "description": "reports",
    "inputSchema": {"type": "object", "properties": {}},
}


def asking(kind: str, file: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what makes Codex ask: the model's step, and more of thread/start and turn/start. file: what a yes writes."""
    patch = f"*** Begin Patch\n*** Add File: {file.name}\n+by a patch\n*** End Patch\n"
    untrusted = {"approvalPolicy": "untrusted", "sandbox": "read-only"}
    return {
        # Outside of its sandbox a command runs only after it has failed inside.
        "command": (
            _call("exec_command", {"cmd": f"touch {file}"}),
            {**untrusted, "sandbox": "workspace-write"},
            {},
        ),
        "file_change": ({"custom": {"name": "apply_patch", "input": patch}}, untrusted, {}),
        "permissions": (
            _call(
                "request_permissions",
                {"reason": "why not", "permissions": {"network": {"enabled": True}}},
            ),
            {},
            {},
        ),
        "user_input": (
            _call("request_user_input", {"questions": [QUESTION]}),
            {},
            {"collaborationMode": PLAN},
        ),
        "tool_call": (_call("report", {}), {"dynamicTools": [TOOL]}, {}),
        "mcp_tool": (_call("act", {"file": str(file)}, namespace="mcp__echo"), untrusted, {}),
        "elicitation": (_call("ask", {}, namespace="mcp__echo"), {"sandbox": "read-only"}, {}),
    }[kind]


def _call(name: str, arguments: dict[str, Any], **more: str) -> dict[str, Any]:
    return {"call": {"name": name, "arguments": arguments, **more}}


# How each kind is said yes to, and what is no answer to it.
YES: dict[str, tuple[str, dict[str, Any]]] = {
    "command": ("accept", {}),
    "file_change": ("accept", {}),
    "permissions": ("accept", {}),
    "user_input": ("answer", {"answers": {"q1": ["Yes"]}}),
    "tool_call": ("answer", {"content": "the result"}),
    "mcp_tool": ("accept", {}),
    "elicitation": ("answer", {"content": {"name": "Somebody"}}),
}
MALFORMED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "command": [("answer", {"content": {}}), ("accept", {"content": {}}), ("acceptForSession", {})],
    "file_change": [("acceptForSession", {}), ("accept", {"answers": {"q": ["x"]}})],
    "permissions": [("cancel", {}), ("answer", {"content": {"permissions": {}}})],
    "user_input": [
        ("accept", {}),
        ("answer", {"answers": {"q1": ["Perhaps not"], "q2": ["x"]}}),
        ("answer", {"answers": {"q1": []}}),
    ],
    "tool_call": [("accept", {}), ("answer", {"content": {"contentItems": "x", "success": True}})],
    "mcp_tool": [("answer", {"content": {"persist": "always"}})],
    "elicitation": [("accept", {}), ("answer", {"content": {"name": 7}})],
}
ACTS = ("command", "file_change", "mcp_tool")  # those of which a yes writes the file
KINDS = tuple(YES)


class Asker:
    """The real Codex, with the inbox on the other end and a registry on the disk."""

    def __init__(self, work: Path, storage: PeeweeStorage, policy: PolicySection) -> None:
        self.work, self.storage, clock = work, storage, SystemClock()
        self.keys: dict[str, str] = {}
        self.events = EventBus(clock)
        self.inbox = Inbox(storage, self.events, clock, self.keys.get, policy)
        self.desk = Desk(storage, clock, self.inbox)
        self.ended: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.resolved = 0
        self._changed = anyio.Event()
        self.codex: Any = None

    def heard(self, method: str, params: dict[str, Any]) -> None:
        self.inbox.notified(method, params)
        if method == "turn/completed":
            self.ended[params["threadId"]] = params["turn"]["status"]
        if method == "serverRequest/resolved":
            self.resolved += 1
        self._changed.set()
        self._changed = anyio.Event()

    async def ask(self, kind: str, number: int = 0) -> Asked:
        """Start a turn in a thread of its own in which Codex asks."""
        file = self.work / f"{kind}-{number}"
        step, of_thread, of_turn = asking(kind, file)
        started = await self.codex.request("thread/start", {"cwd": str(self.work), **of_thread})
        native_id = started["thread"]["id"]
        key = await self._register(native_id, of_thread.get("sandbox"))
        text = "offline:" + json.dumps({"steps": [step, {"text": "Over."}]})
        params = {"threadId": native_id, "input": [{"type": "text", "text": text}], **of_turn}
        turn = await self.codex.request("turn/start", params)
        return Asked(self, kind, key, native_id, turn["turn"]["id"], file)

    async def _register(self, native_id: str, sandbox: str | None) -> str:
        now, key = datetime.now(UTC), uuid7()
        record = ThreadRecord(
            key=key, provider="codex", native_id=native_id, ref="", handle=f"@{key}", title=None,
            source=Source.OWN, status=ThreadStatus.IDLE, cwd=str(self.work), created_at=now,
            settings=ThreadSettings(sandbox=sandbox), updated_at=now,
        )  # fmt: skip
        await self.storage.threads.add(record, [key[-6:]])
        self.keys[native_id] = key
        return key

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()


class Asked:
    """One question that Codex is going to ask."""

    def __init__(
        self, asker: Asker, kind: str, key: str, native_id: str, turn_id: str, file: Path
    ) -> None:
        self.asker, self.kind, self.key, self.file = asker, kind, key, file
        self.native_id, self.turn_id = native_id, turn_id

    async def stored(self) -> RequestRecord | None:
        found = await self.asker.storage.requests.list(RequestFilter(thread=self.key), 2)
        assert len(found) <= 1
        return found[0] if found else None

    async def request(self, *states: RequestState) -> RequestRecord:
        """Wait until it is recorded, in one of the states."""
        async with self.asker.events.subscribe(after=0) as events:
            async for _ in events:
                found = await self.stored()
                if found is not None and (not states or found.state in states):
                    return found
        raise AssertionError("the events ended")

    async def outcome(self) -> str:
        """Wait for the end of the turn."""
        await self.asker.until(lambda: self.native_id in self.asker.ended)
        return self.asker.ended[self.native_id]


@pytest.fixture
def work() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    (directory / "work").mkdir()
    yield directory / "work"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def asker(work: Path) -> Callable[..., Any]:
    home = work.parent

    @asynccontextmanager
    async def asker(**policy: Any) -> AsyncIterator[Asker]:
        """One daemon's worth: a registry, an inbox, a model and a Codex."""
        async with AsyncExitStack() as stack:
            storage = PeeweeStorage(home)
            await storage.open(stack)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            model = OfflineModel(log=home / "model.jsonl")
            await tasks.start(model.serve)
            configure(home, model.base_url)
            found = Asker(work, storage, PolicySection(**policy))
            await tasks.start(found.inbox.run)
            async with codex(home, found):
                yield found

    return asker


def configure(home: Path, base_url: str) -> None:
    write_codex_home(home / "codex", base_url)
    server = home / "server.py"
    server.write_text(SERVER)
    config = home / "codex" / "config.toml"
    text = config.read_text().replace(
        "[features]\n", "[features]\nrequest_permissions_tool = true\n"
    )
    echo = f"[mcp_servers.echo]\ncommand = {json.dumps(sys.executable)}\nargs = [{json.dumps(str(server))}]\n"
    config.write_text(text + echo)


@asynccontextmanager
async def codex(home: Path, asker: Asker) -> AsyncIterator[None]:
    env = offline_environ(home / "codex", {"PATH": os.environ["PATH"], "HOME": str(home)})
    async with appserver.client.connect(
        Path(codex_cli_bin.bundled_codex_path()),
        env=env,
        cwd=asker.work,
        on_notification=asker.heard,
        on_request=asker.inbox.asked,
        version="1",
    ) as server:
        asker.codex = server
        yield


@pytest.mark.fault("A8")
async def test_a_yes_of_every_kind_is_given_once_and_works_once(asker, figures) -> None:
    with anyio.fail_after(DEADLINE):
        async with asker() as world:
            for kind in KINDS:
                asked = await world.ask(kind)
                request = await asked.request(RequestState.OPEN)
                decision, more = YES[kind]

                done = await world.desk.respond(request, HUMAN, decision, **more)

                assert (request.kind, done.state) == (RequestKind(kind), RequestState.ANSWERED)
                assert (done.answered_by, done.decision, done.body) == ("human", decision, None)
                assert await asked.outcome() == "completed"
                assert asked.file.exists() == (kind in ACTS)
                with pytest.raises(RequestClosed, match="human said"):
                    await world.desk.respond(done, HUMAN, "decline")
            figures(kinds=len(KINDS), resolved=world.resolved)


@pytest.mark.fault("A8")
async def test_what_nobody_answers_is_declined_at_its_deadline_and_not_done(asker, figures) -> None:
    done = []
    with anyio.fail_after(DEADLINE):
        async with asker(request_timeout=1.0) as world:
            all_asked = [await world.ask(kind) for kind in KINDS]
            for asked in all_asked:
                request = await asked.request(RequestState.EXPIRED)

                assert (request.answered_by, request.decision) == ("deadline", "decline")
                assert await asked.outcome() == "completed"
                done += [asked.file] if asked.file.exists() else []
    figures(kinds=len(KINDS), done=len(done))
    assert done == []


@pytest.mark.fault("A8")
async def test_of_many_answers_at_once_exactly_one_is_given(asker, tier: Tier, figures) -> None:
    won, lost = 0, 0
    rounds = tier.rounds(2, 40)

    async def answer(world: Asker, request: RequestRecord, decision: str) -> None:
        nonlocal won, lost
        try:
            await world.desk.respond(request, HUMAN, decision)
            won += 1
        except RequestClosed as error:
            lost += error.details["answered_by"] == "human"

    with anyio.fail_after(DEADLINE if not tier.full else 600):
        async with asker() as world:
            for number in range(rounds):
                asked = await world.ask("command", number)
                request = await asked.request(RequestState.OPEN)
                decisions = ["accept", "decline"] * 8
                tier.random.shuffle(decisions)
                async with anyio.create_task_group() as tasks:
                    for decision in decisions:
                        tasks.start_soon(answer, world, request, decision)
                final = await asked.stored()
                await asked.outcome()
                assert final is not None
                assert asked.file.exists() == (final.decision == "accept")
    figures(rounds=rounds, won=won, lost=lost)
    assert (won, lost) == (rounds, rounds * 15)


@pytest.mark.fault("A8")
async def test_a_malformed_answer_is_refused_and_the_question_stays_open(asker, figures) -> None:
    refused = 0
    with anyio.fail_after(DEADLINE):
        async with asker() as world:
            for kind in KINDS:
                asked = await world.ask(kind)
                request = await asked.request(RequestState.OPEN)
                for decision, more in MALFORMED[kind]:
                    with pytest.raises(ValidationFailed):
                        await world.desk.respond(request, HUMAN, decision, **more)
                    refused += 1
                stored = await asked.stored()
                assert stored is not None
                assert stored.state is RequestState.OPEN

                await world.desk.respond(request, HUMAN, "decline")

                assert await asked.outcome() == "completed"
                assert not asked.file.exists()
    figures(refused=refused)


@pytest.mark.fault("A8")
async def test_what_a_killed_codex_had_asked_is_orphaned_and_never_done(asker, figures) -> None:
    orphaned, done = 0, []
    with anyio.fail_after(DEADLINE):
        async with asker() as world:
            all_asked = [await world.ask(kind) for kind in KINDS]
            requests = [await asked.request(RequestState.OPEN) for asked in all_asked]

            os.kill(world.codex.pid, signal.SIGKILL)
            await world.codex.closed()
            world.inbox.lost()

            for asked, request in zip(all_asked, requests, strict=True):
                gone = await asked.request(RequestState.ORPHANED)
                orphaned += 1
                assert gone.body is None
                with pytest.raises(RequestClosed, match="orphaned"):
                    await world.desk.respond(
                        request, HUMAN, *YES[asked.kind][:1], **YES[asked.kind][1]
                    )
                done += [asked.file] if asked.file.exists() else []
            async with codex(world.work.parent, world):
                for asked in all_asked:
                    await world.codex.request("thread/resume", {"threadId": asked.native_id})
                listed = await world.desk.list(HUMAN, RequestFilter(), 100)
    figures(orphaned=orphaned, done=len(done), asked_again=len(listed) - len(KINDS))
    assert (orphaned, done, len(listed)) == (len(KINDS), [], len(KINDS))


@pytest.mark.fault("A8")
async def test_nobody_but_a_person_answers_and_no_agent_sees_another_thread(asker, figures) -> None:
    refused = 0
    with anyio.fail_after(DEADLINE):
        async with asker() as world:
            mine, other = await world.ask("command", 1), await world.ask("command", 2)
            request = await mine.request(RequestState.OPEN)
            await other.request(RequestState.OPEN)
            agents = [
                Caller(
                    principal=f"agent:{asked.native_id}", surface="cli", thread_id=asked.native_id
                )
                for asked in (mine, other)
            ]
            others = [
                Caller(principal="trigger:t", surface="trigger", trigger_id="t"),
                Caller(principal="human", surface="mcp"),
                Caller(principal="surface:web", surface="web"),
            ]

            for caller in (*agents, *others):
                with pytest.raises(AuthorityDenied):
                    await world.desk.respond(request, caller, "accept")
                with pytest.raises(AuthorityDenied):
                    await world.desk.defer(request, caller, 60)
                refused += 2

            assert await world.desk.get(request.id, agents[0]) == request
            with pytest.raises(AuthorityDenied):
                await world.desk.get(request.id, agents[1])
            listed = await world.desk.list(agents[1], RequestFilter(), 100)
            assert {found.thread for found in listed} == {other.key}
            assert not mine.file.exists()
    figures(refused=refused)


@pytest.mark.fault("A8")
async def test_an_interrupted_turn_takes_its_question_with_it(asker) -> None:
    with anyio.fail_after(DEADLINE):
        async with asker() as world:
            for kind in KINDS:
                asked = await world.ask(kind)
                request = await asked.request(RequestState.OPEN)

                params = {"threadId": asked.native_id, "turnId": asked.turn_id}
                await world.codex.request("turn/interrupt", params)

                assert await asked.outcome() == "interrupted"
                await asked.request(RequestState.CANCELLED)
                with pytest.raises(RequestClosed, match="cancelled"):
                    await world.desk.respond(request, HUMAN, "decline")
                assert not asked.file.exists()


@pytest.mark.fault("A8")
async def test_a_question_that_is_sent_again_on_resume_is_the_same_one(asker) -> None:
    with anyio.fail_after(DEADLINE):
        async with asker() as world:
            asked = await world.ask("command")
            request = await asked.request(RequestState.OPEN)

            await world.codex.request("thread/resume", {"threadId": asked.native_id})

            assert await asked.stored() == request
            await world.desk.respond(request, HUMAN, "accept")
            assert await asked.outcome() == "completed"
            assert asked.file.exists()


@pytest.mark.parametrize("method", ["applyPatchApproval", "execCommandApproval"])
def test_the_methods_of_the_first_version_are_answered_in_their_own_words(method: str) -> None:
    kind = RequestKind.COMMAND if method.startswith("exec") else RequestKind.FILE_CHANGE

    assert denial(method, kind) == {"decision": {"denied": {"rejection": "declined"}}}
    assert wire_answer(method, kind, {}, "accept") == {"decision": "approved"}
    assert wire_answer(method, kind, {}, "cancel") == {"decision": "abort"}
