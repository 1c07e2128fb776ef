"""What is looked at while an app-server runs: its heartbeat, its memory, and what a person must put right."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import appserver
from dispatch_core.daemon.heartbeat import Heartbeat, HeartbeatPlan
from dispatch_core.errors import CapabilityUnavailable, CodexError, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatch_core.appserver.client import AppServer
    from dispatch_core.daemon.health import Health

log = logging.getLogger(__name__)

GIB = 1 << 30
SLOW = 2.0  # seconds for the answer to a heartbeat, after which less is asked at a time
CHECK_PATIENCE = 5.0
NOT_LOGGED_IN = "Codex is not logged in"
LOGIN = "codex login, then dispatch down and dispatch up"
CORRECT = "correct Codex's config.toml; it is read again by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPlan:
    """memory: bytes that the app-server may hold before it is started again once nothing runs; memory_hard: at once."""

    heartbeat: HeartbeatPlan = field(default_factory=HeartbeatPlan)
    memory: int = 2 * GIB
    memory_hard: int = 4 * GIB


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a running Codex is of no use, and what a person does about it."""

    reason: str
    fix: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a running app-server has to be ended. hung: it does not react. planned: nothing is lost by it."""

    reason: str
    hung: bool = False
    planned: bool = False


class Watch:
    """Looks after one running app-server until it has to be ended.

    retire: gives it nothing more to do if nothing runs in any thread, and returns whether that is so. on_problem: is told of each
    problem, and with None that there is none any more.
    """

    def __init__(
        self,
        server: AppServer,
        health: Health,
        plan: WatchPlan,
        *,
        retire: Callable[[], bool],
        on_problem: Callable[[Problem | None], None],
    ) -> None:
        self._server = server
        self._health = health
        self._plan = plan
        self._retire = retire
        self._on_problem = on_problem
        self._problem: Problem | None = None
        self._verdict: Verdict | None = None
        self._stop = anyio.CancelScope()
        self._method = "server/diagnostics"
        self._heartbeat = Heartbeat(self._probe, self._on_beat, plan.heartbeat)
        health.pulse = self._heartbeat.pulse

    async def check(self) -> None:
        """Find out whether it can work, and tell on_problem."""
        with anyio.move_on_after(CHECK_PATIENCE):
            self._problem = await find_problem(self._server)
        self._on_problem(self._problem)

    async def run(self) -> Verdict:
        """Return once the app-server has to be ended."""
        with self._stop:
            await self._heartbeat.run()
        return self._verdict or self._hang()

    async def _probe(self) -> dict[str, Any]:
        try:
            return await self._server.probe(self._method, {})
        except CodexError as error:
            if isinstance(appserver.calls.typed(error), CapabilityUnavailable):
                self._method = "thread/loaded/list"  # the other one is experimental
            raise

    async def _on_beat(self, answer: dict[str, Any]) -> None:
        latency = self._health.pulse.latency if self._health.pulse else None
        if latency is not None and latency > SLOW:
            self._server.places.narrow()
        else:
            self._server.places.widen()
        self._weigh(answer)
        if self._problem is not None:
            await self.check()

    def _weigh(self, answer: dict[str, Any]) -> None:
        """Compare the memory it holds with the limits."""
        process = answer.get("process")
        held = process.get("residentMemoryBytes") if isinstance(process, dict) else None
        if type(held) is not int:
            held = appserver.process.resident_bytes(self._server.pid)
        self._health.beat(held)
        if held is None or held <= self._plan.memory:
            return
        reason = f"it held {held / GIB:.1f} GiB of memory"
        if held > self._plan.memory_hard:
            self._end(Verdict(reason, hung=True))
        elif not self._server.in_flight and self._retire():
            self._end(Verdict(reason, planned=True))

    def _end(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._stop.cancel()

    def _hang(self) -> Verdict:
        state = appserver.process.state_of(self._server.pid)
        log.error(
            "codex hangs: process %s in state %s, %s bytes, %d requests open",
            self._server.pid,
            state,
            appserver.process.resident_bytes(self._server.pid),
            self._server.in_flight,
        )
        what = "it was stopped and" if state == "T" else "it"
        return Verdict(f"{what} did not answer {self._plan.heartbeat.misses} heartbeats", hung=True)


async def find_problem(server: AppServer) -> Problem | None:
    """Return what keeps a running Codex from working, if there is such a thing: it runs on, and refuses every turn."""
    try:
        await server.probe("config/read", {})
    except CodexError as error:
        said = str(error.details.get("message", ""))
        if not isinstance(appserver.calls.typed(error), CapabilityUnavailable) and "config" in said:
            return Problem(f"Codex cannot use its configuration: {' '.join(said.split())}", CORRECT)
    except OutcomeUnknown:
        return None
    try:
        account = await server.probe("account/read", {})
    except (CodexError, OutcomeUnknown):
        return None
    if account.get("requiresOpenaiAuth") is True and account.get("account") is None:
        return Problem(NOT_LOGGED_IN, LOGIN)
    return None
