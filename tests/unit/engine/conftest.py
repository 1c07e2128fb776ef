"""Lanes over a registry in memory and a Codex that follows a script at its protocol's border."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.deliveries import Epoch, When
from dispatch_core.contracts.records import Message, ThreadSettings, TurnRecord, TurnStatus
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.lanes import Lanes
from dispatch_core.engine.steering import Patience
from dispatch_core.errors import CodexError, CodexUnavailable, OutcomeUnknown, StorageError

EXAMPLES = Path(__file__).parents[3] / "plugins" / "examples"
START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)


BOOT = "this-boot"


class Ticks:
    """A clock that moves on by a second whenever it is read."""

    def __init__(self):
        self._now = START

    def now(self):
        self._now += timedelta(seconds=1)
        return self._now

    def advance(self, **time):
        self._now += timedelta(**time)


# A scripted turn has its message only in the tests that are about it.
QUICK = Patience(hearing=0, finding_out=0)


class ScriptedCodex:
    """What Codex does with threads and turns, by its documented answers. on: method → coroutine function that answers instead."""

    def __init__(self):
        self.generation = 1
        self.version, self.unproven = "1", set()
        self.up = True
        self.loaded, self.stored, self.running = set(), {}, {}
        self.injected, self.commands = {}, {}
        self.calls, self.on = [], {}
        self._count = 0

    @property
    def codex(self):
        return self

    @property
    def epoch(self):
        process = Epoch(
            boot_id=BOOT,
            pid=1000 + self.generation,
            start_time=1,
            generation=self.generation,
            version=self.version,
        )
        return process if self.up else None

    def pinned(self, epoch):
        if epoch != self.epoch:
            raise CodexUnavailable("that Codex is gone")
        return self

    def proven(self, epoch):
        return epoch.version not in self.unproven

    def gone(self, epoch):
        return epoch != self.epoch

    async def request(self, method, params):
        self.calls.append((method, dict(params)))
        await anyio.lowlevel.checkpoint()
        if not self.up:
            raise CodexUnavailable("Codex is not running")
        if method in self.on:
            return await self.on[method](params)
        return getattr(self, "_" + method.replace("/", "_").lower())(params)

    def methods(self):
        return [method for method, _ in self.calls]

    def store(self, thread_id, turn_id, status, client_id=None, error=None, text=None):
        """Put a turn into the history on disk."""
        item = {"type": "userMessage", "id": "u", "clientId": client_id}
        said = [{"type": "text", "text": text}] if text else self._said(client_id)
        item["content"] = said
        turn = {"id": turn_id, "status": status, "error": error, "items": [item]}
        self.stored.setdefault(thread_id, []).insert(0, turn)

    def _said(self, client_id):
        """Return what the message was that was given to us under this id."""
        for method, params in self.calls:
            if method == "turn/start" and params.get("clientUserMessageId") == client_id:
                return list(params["input"])
        return []

    def new_id(self, word):
        self._count += 1
        return f"{word}-{self._count}"

    def _thread_start(self, params):
        thread_id = self.new_id("thread")
        self.loaded.add(thread_id)
        return {"thread": {"id": thread_id, "status": {"type": "idle"}}, "model": "m"}

    def _thread_resume(self, params):
        thread_id = params["threadId"]
        if thread_id not in self.loaded and thread_id not in self.stored:
            raise CodexError(f"no rollout found for thread id {thread_id}")
        self.loaded.add(thread_id)
        return {"thread": {"id": thread_id}}

    def _thread_read(self, params):
        return {"thread": {"id": params["threadId"]}}

    def _thread_name_set(self, params):
        return {}

    def _turn_start(self, params):
        thread_id = params["threadId"]
        if thread_id not in self.loaded:
            raise CodexError(f"thread not found: {thread_id}")
        turn_id = self.running.setdefault(thread_id, self.new_id("turn"))
        return {"turn": {"id": turn_id, "items": [], "status": "inProgress", "error": None}}

    def _turn_interrupt(self, params):
        return {}

    def _turn_steer(self, params):
        running = self.running.get(params["threadId"])
        if running is None:
            raise CodexError("no active turn to steer")
        if running != params["expectedTurnId"]:
            raise CodexError(
                f"expected active turn id `{params['expectedTurnId']}` but found `{running}`"
            )
        return {"turnId": running}

    def _thread_inject_items(self, params):
        thread_id = params["threadId"]
        if thread_id not in self.loaded:
            raise CodexError(f"thread not found: {thread_id}")
        self.stored.setdefault(thread_id, [])
        self.injected.setdefault(thread_id, []).extend(params["items"])
        return {}

    def _thread_backgroundterminals_list(self, params):
        running = self.commands.get(params["threadId"], [])
        return {"data": [{"itemId": c, "processId": f"p-{c}"} for c in running], "nextCursor": None}

    def _thread_backgroundterminals_clean(self, params):
        self.commands.pop(params["threadId"], None)
        return {}

    def _thread_backgroundterminals_terminate(self, params):
        self.commands[params["threadId"]].remove(params["processId"].removeprefix("p-"))
        return {"terminated": True}

    def _thread_items_list(self, params):
        raise CodexError("thread/items/list is not supported yet")

    def _thread_turns_list(self, params):
        return {"data": self.stored.get(params["threadId"], []), "nextCursor": None}


class World:
    """Lanes, what stands behind them, and Codex's voice."""

    def __init__(self, storage, *, attention=5.0, booted_at=None, boot=BOOT, patience=QUICK):
        self.storage, self.clock = storage, Ticks()
        self.events = EventBus(self.clock)
        self.codex = ScriptedCodex()
        self.lanes = Lanes(
            storage,
            self.events,
            self.clock,
            self.codex,
            attention=attention,
            booted_at=booted_at,
            boot=boot,
            pauses=(0.01, 0.02),
            patience=patience,
        )

    @asynccontextmanager
    async def running(self):
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                await tasks.start(self.lanes.run)
                await self.lanes.recover()
                yield tasks
                tasks.cancel_scope.cancel()

    async def thread(self, name="builder"):
        return await self.lanes.create(name=name, cwd="/", settings=ThreadSettings())

    async def send(self, thread, message, when=When.NOW, caller=HUMAN, **options):
        """Send a message and return the turn that it is in."""
        sent = await self.lanes.deliveries.send(thread, message, caller, when=when, **options)
        status = TurnStatus.STARTED if sent.merged else TurnStatus.SUBMITTED
        return TurnRecord(
            message_id=sent.id, id=sent.turn_id, status=status, started_at=sent.created_at
        )

    def __getattr__(self, act):
        return getattr(self.lanes, act)

    async def interject(self, thread, message):
        return await self.send(thread, message, When.INTERJECT)

    async def queued(self, thread, text, caller=HUMAN, **options):
        """Accept a message that may wait."""
        return await self.lanes.deliveries.send(
            thread, Message(text=text), caller, when=When.IDLE, **options
        )

    async def becomes(self, delivery, wanted):
        """Return a delivery, given as a record or an id, once it is in a state."""
        delivery_id = getattr(delivery, "id", delivery)
        async with self.events.subscribe(after=0) as events:
            async for event in events:
                if event.data.get("id") == delivery_id and event.data["state"] == wanted.value:
                    break
        return await self.delivery(delivery_id)

    async def reaches(self, delivery_id, state, attempt):
        """Return a delivery once it is in a state at its nth attempt."""
        async with self.events.subscribe(after=0) as events:
            async for _ in events:
                record = await self.delivery(delivery_id)
                if record is not None and (record.state, record.attempt) == (state, attempt):
                    break
        return record

    async def runs(self, thread):
        """Return the turn that runs in a thread, once one does."""
        lane = self.lanes._lanes[thread.key]
        while lane.active is None or lane.submitting:
            await lane.change()
        return lane.active

    async def busy(self):
        """Return a thread in which a turn runs, and that turn."""
        thread = await self.thread()
        turn = await self.send(thread, Message(text="first"))
        self.started(thread, turn.id)
        return thread, turn

    async def end_turn(self, thread):
        """The turn of a thread that runs, or is about to, ends."""
        self.completed(thread, await self.runs(thread))
        await self.lanes.flush()

    def said(self):
        """Return the texts with which Codex was asked to start turns."""
        return [
            params["input"][0]["text"]
            for method, params in self.codex.calls
            if method == "turn/start"
        ]

    async def delivery(self, delivery_id):
        await self.lanes.flush()
        return await self.storage.deliveries.get(delivery_id)

    async def stored(self, thread):
        await self.lanes.flush()
        return await self.storage.threads.get(thread.key)

    async def seen(self):
        """Return the kinds of events so far."""
        await self.lanes.flush()
        return [event.kind.value for event in self.events._ring]

    def say(self, method, thread, **params):
        thread_id = self.lanes._lanes[thread.key].native_id
        self.lanes.notified(method, {"threadId": thread_id, **params, "emittedAtMs": 1795329388778})

    def started(self, thread, turn_id):
        turn = {"id": turn_id, "items": [], "itemsView": "notLoaded", "status": "inProgress"}
        self.status(thread, "active", [])
        self.say("turn/started", thread, turn=turn)

    def user_message(self, thread, turn_id, client_id):
        item = {"type": "userMessage", "id": "u1", "clientId": client_id, "content": []}
        self.say("item/started", thread, turnId=turn_id, item=item)
        self.say("item/completed", thread, turnId=turn_id, item=item)

    def answer(self, thread, turn_id, text):
        item = {"type": "agentMessage", "id": "m1", "text": text}
        self.say("item/completed", thread, turnId=turn_id, item=item)

    def completed(self, thread, turn_id, status="completed", error=None):
        self.codex.running.pop(self.lanes._lanes[thread.key].native_id, None)
        self.status(thread, "idle")
        turn = {"id": turn_id, "items": [], "status": status, "error": error, "durationMs": 88}
        self.say("turn/completed", thread, turn=turn)

    def trouble(self, thread, turn_id, message, details=None):
        error = {"message": message, "additionalDetails": details, "codexErrorInfo": "other"}
        self.say("error", thread, turnId=turn_id, error=error, willRetry=True)

    def status(self, thread, kind, flags=None):
        status = {"type": kind} if flags is None else {"type": kind, "activeFlags": flags}
        self.say("thread/status/changed", thread, status=status)

    def crash(self):
        self.codex.up = False
        self.codex.loaded.clear()
        self.codex.running.clear()
        self.lanes.lost()

    async def restart(self):
        self.codex.up = True
        self.codex.generation += 1
        await self.lanes.recover()


class Gate:
    """A point at which a request waits. reached: it is there. open(): it goes on."""

    def __init__(self):
        self.reached, self._opened = anyio.Event(), anyio.Event()

    async def wait(self):
        self.reached.set()
        await self._opened.wait()

    def open(self):
        self._opened.set()


class BreakableDeliveries:
    """The deliveries of a real backend, with writes that fail when those of the threads do."""

    def __init__(self, deliveries, threads):
        self._deliveries, self._threads = deliveries, threads

    def __getattr__(self, name):
        return getattr(self._deliveries, name)

    async def add(self, *args):
        self._threads._check()
        return await self._deliveries.add(*args)

    async def move(self, *args, **changes):
        self._threads._check()
        return await self._deliveries.move(*args, **changes)


class BreakableThreads:
    """The threads of a real backend, with writes that can be made to fail. writes: the status of each turn written."""

    def __init__(self, threads):
        self._threads, self.broken = threads, False
        self.writes = []

    def __getattr__(self, name):
        return getattr(self._threads, name)

    async def add(self, *args):
        await anyio.lowlevel.checkpoint()
        self._check()
        return await self._threads.add(*args)

    async def set_turn(self, *args, **changes):
        await anyio.lowlevel.checkpoint()
        self._check()
        if args[1] is not None:
            self.writes.append(args[1].status)
        return await self._threads.set_turn(*args, **changes)

    async def update(self, *args, **changes):
        self._check()
        return await self._threads.update(*args, **changes)

    def _check(self):
        if self.broken:
            raise StorageError("the disk is full", hint="make room")


@pytest.fixture
def storage(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "dispatch-memory-storage"))
    from dispatch_memory_storage import MemoryStorage

    storage = MemoryStorage()
    storage.threads = BreakableThreads(storage.threads)
    storage.deliveries = BreakableDeliveries(storage.deliveries, storage.threads)
    return storage


@pytest.fixture
def world(storage):
    return World(storage)


@pytest.fixture
def hasty(storage):
    """A world that waits for nothing."""
    return World(storage, patience=Patience(interrupt=0.05, hearing=0, news=0.01, placing=0.01))


@pytest.fixture
def patient(storage):
    return World(storage, patience=Patience())


@pytest.fixture
def gate():
    return Gate


@pytest.fixture
def lost_answer():
    return OutcomeUnknown("Codex went away before it answered turn/start")
