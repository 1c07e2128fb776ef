"""Whether a Codex stores a message before it asks the model: tried out on the real binary, by killing it.

dispatch sends a message again by itself only if it is proven that it did not run, and the proof is a history without the message.
That holds for a version of Codex which has stored the message by the time the model is asked. Here the model is the offline one,
and it kills the app-server at the instant its request arrives; every other message is killed at a random moment instead.
"""

from __future__ import annotations

import os
import random
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from dispatch_core import __version__, appserver
from dispatch_core.contracts.records import Message, ThreadSettings
from dispatch_core.engine.ids import uuid7
from dispatch_core.errors import CodexError, OutcomeUnknown
from dispatch_core.offline.codex_home import offline_environ, write_codex_home
from dispatch_core.offline.model import OfflineModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from dispatch_core.appserver.client import AppServer

LONGEST = 0.06  # seconds after which a message that is killed at random is killed
ROUND_DEADLINE = 60.0
SETTINGS = ThreadSettings()


@dataclass(slots=True)
class Conformance:
    """What came of it. asked: rounds in which the model was asked; stored: of those, how many had the message in the history.

    absent: rounds in which the model was not asked and the history has no message, which is what dispatch sends again.
    """

    rounds: int = 0
    asked: int = 0
    stored: int = 0
    absent: int = 0

    @property
    def passed(self) -> bool:
        """Whether the model was asked at all, and never for a message that was not stored."""
        return 0 < self.asked == self.stored


@dataclass(frozen=True, slots=True)
class _Killed:
    """One message. asked: whether the model had been asked for it."""

    thread_id: str
    message_id: str
    asked: bool


class _Trap:
    """The model's side: counts requests, and kills the app-server when it is asked, if that is wanted. ended: a turn has."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.asked = 0
        self.ended = anyio.Event()

    def heard(self, method: str, _params: Mapping[str, object]) -> None:
        if method == "turn/completed":
            self.ended.set()

    def spring(self) -> None:
        self.asked += 1
        if self.pid is not None:
            kill(self.pid)


async def try_codex(
    binary: Path,
    home: Path,
    env: Mapping[str, str],
    *,
    rounds: int,
    seed: int,
    on_round: Callable[[Conformance], None],
) -> Conformance:
    """Kill an app-server once in each round and return what its history had afterwards.

    home: an empty directory for its Codex home. env: the environment to run it in. Raises CodexError when it cannot be run.
    """
    chance = random.Random(seed)  # noqa: S311 -- reproducible, not secret
    result, trap = Conformance(), _Trap()
    model = OfflineModel(on_request=trap.spring)
    async with anyio.create_task_group() as tasks:
        await tasks.start(model.serve)
        write_codex_home(home, model.base_url)
        killed: _Killed | None = None
        for number in range(rounds + 1):
            with anyio.fail_after(ROUND_DEADLINE):
                async with _server(binary, home, env, trap) as server:
                    if killed is not None:
                        await _judge(server, killed, result)
                        on_round(result)
                    if number < rounds:
                        at_once = number % 2 == 0
                        delay = None if at_once else chance.uniform(0, LONGEST)
                        killed = await _kill_one(server, trap, home, delay, warm=number % 4 < 2)
        tasks.cancel_scope.cancel()
    return result


@asynccontextmanager
async def _server(
    binary: Path, home: Path, env: Mapping[str, str], trap: _Trap
) -> AsyncIterator[AppServer]:
    async with appserver.client.connect(
        binary,
        env=offline_environ(home, env),
        cwd=home,
        on_notification=trap.heard,
        on_request=None,
        version=__version__,
    ) as server:
        yield server


async def _kill_one(
    server: AppServer, trap: _Trap, home: Path, delay: float | None, *, warm: bool
) -> _Killed:
    """Give the app-server a message and kill it: when it asks the model, or delay seconds after.

    warm: the thread has had a turn before.
    """
    trap.pid = None
    started = await appserver.threads.start(server, cwd=str(home), settings=SETTINGS)
    if warm:
        trap.ended = anyio.Event()
        await appserver.turns.start(
            server, started.id, Message(text="Say hello"), uuid7(), SETTINGS
        )
        await trap.ended.wait()  # history may call a turn interrupted that has only just begun
    before = trap.asked
    message_id = uuid7()
    trap.pid = server.pid if delay is None else None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_send, server, started.id, message_id)
        if delay is not None:
            await anyio.sleep(delay)
            kill(server.pid)
        await server.closed()
    return _Killed(started.id, message_id, trap.asked > before)


async def _send(server: AppServer, thread_id: str, message_id: str) -> None:
    with suppress(CodexError, OutcomeUnknown):  # it is about to be killed
        await appserver.turns.start(
            server, thread_id, Message(text="Say hello"), message_id, SETTINGS
        )


async def _judge(server: AppServer, killed: _Killed, result: Conformance) -> None:
    """Look into the history of a message whose app-server was killed."""
    try:
        await appserver.threads.resume(server, killed.thread_id)
        search = await appserver.evidence.find_message(
            server, killed.thread_id, killed.message_id, since=None
        )
        stored = bool(search.found)
    except appserver.calls.ThreadUnknown:
        stored = False
    result.rounds += 1
    result.asked += killed.asked
    result.stored += killed.asked and stored
    result.absent += not killed.asked and not stored


def kill(pid: int) -> None:
    """Kill a process, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
