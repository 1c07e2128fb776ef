"""One Codex app-server, kept alive: found, started, watched, restarted with backoff, or reported as degraded with the fix."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import appserver, failpoints
from dispatch_core.contracts.deliveries import Epoch
from dispatch_core.contracts.events import EventKind
from dispatch_core.daemon.codex_file import CodexFile
from dispatch_core.daemon.restarts import Breaker, RestartPlan, Restarts
from dispatch_core.daemon.watch import Problem, Verdict, Watch, WatchPlan
from dispatch_core.engine.clock import boot_id
from dispatch_core.errors import CodexError, CodexUnavailable, DispatchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from anyio.abc import TaskStatus

    from dispatch_core.appserver.client import AppServer
    from dispatch_core.contracts.events import Events
    from dispatch_core.daemon.health import Health

log = logging.getLogger(__name__)

START_PATIENCE = 15.0  # seconds a request waits for a Codex that is being started
NOTES, NOTE_LIMIT = 8, 500  # warnings of Codex that are kept, and characters of each
ANEW = "dispatch down and dispatch up"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodexPlan:
    """How to run Codex. configured: ``[codex] bin``. env: the environment of the app-server."""

    configured: str | None
    env: Mapping[str, str]
    cwd: Path
    pid_file: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long everything is waited for. predecessor: seconds for the app-server of a former daemon to end by itself."""

    restarts: RestartPlan = field(default_factory=RestartPlan)
    watch: WatchPlan = field(default_factory=WatchPlan)
    predecessor: float = 10.0


class Supervisor:
    """The connection to Codex, whichever process is behind it. It satisfies the Codex protocol of the op context.

    generation: counts the processes; 0 before the first.
    """

    def __init__(
        self,
        plan: CodexPlan,
        events: Events,
        health: Health,
        *,
        on_notification: Callable[[str, Mapping[str, Any]], None],
        on_request: Callable[[Any, str, Mapping[str, Any]], Awaitable[dict[str, Any]]],
        patience: Patience | None = None,
    ) -> None:
        self._plan = plan
        self._events = events
        self._on_notification = on_notification
        self._on_request = on_request
        self._patience = patience or Patience()
        self._idle: Callable[[], bool] = bool
        self._file = CodexFile(plan.pid_file)
        self._server: AppServer | None = None
        self._latest: AppServer | None = None
        self._unreaped: set[int] = set()
        self._began: float | None = None
        self._verdict: Verdict | None = None
        self._settled = anyio.Event()  # set: Codex runs, or waiting for it is no use
        self._restarts = Restarts(self._patience.restarts)
        self.generation = 0
        self.health = health
        health.restarts = self._restarts

    @property
    def codex(self) -> Supervisor:
        """The client; it outlives the process."""
        return self

    @property
    def epoch(self) -> Epoch | None:
        """The process that holds the threads now; None while none runs."""
        return self.health.epoch

    def reaped(self, generation: int) -> bool:
        """Return whether that process of this daemon's life has ended and was reaped: it does nothing any more."""
        if generation == self.generation:
            return self._latest is not None and self._latest.reaped
        return 0 < generation < self.generation and generation not in self._unreaped

    def pinned(self, epoch: Epoch) -> AppServer:
        """Return the connection to this very process. Raises CodexUnavailable once it is gone; nothing reaches another one."""
        if self._server is None or self.epoch != epoch:
            raise CodexUnavailable(
                "the Codex process that the message was meant for is gone; nothing was sent",
                hint="dispatch daemon status",
            )
        return self._server

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request to Codex, waiting a little while it starts, or starts again."""
        if self._server is not None and not self._server.open:
            self._retire()  # its end is about to be noticed
        settled = None
        with anyio.move_on_after(START_PATIENCE):
            while settled is not self._settled:  # it may be gone again by the time we are woken
                settled = self._settled
                await settled.wait()
        if self._server is None:
            raise CodexUnavailable(
                f"Codex is not running: {self.health.reason or 'it is being restarted'}",
                hint=self.health.fix or "dispatch daemon status",
            )
        return await self._server.request(method, dict(params))

    async def run(
        self,
        *,
        on_ready: Callable[[], Awaitable[None]],
        on_lost: Callable[[], None],
        on_stranded: Callable[[], None],
        idle: Callable[[], bool] = bool,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep Codex running until cancelled; a cause that a restart cannot mend leaves it degraded.

        on_ready: it runs. on_lost: it ran and is gone. on_stranded: it cannot be started, or is not started again for a while.
        idle: whether nothing runs in any thread, so that a restart would cost nothing.
        """
        self._idle = idle
        task_status.started()
        await self._file.end_predecessor(self._patience.predecessor)
        while True:
            self._began = None
            try:
                self._restarts.starting()
                await self._live(await self._find(), on_ready, on_lost)
                continue  # ended on purpose
            except DispatchError as error:
                failure = error
            pause = self._pause(failure)
            if (
                isinstance(failure, CodexUnavailable)
                or self._restarts.breaker is not Breaker.CLOSED
            ):
                self._strand(on_stranded)
            if pause is None:
                await anyio.sleep_forever()
            else:
                self.health.next_try = time.monotonic() + pause
                await anyio.sleep(pause)

    async def _find(self) -> Path:
        """Return a binary that can be used. Raises CodexUnavailable, permanent: it does not mend itself."""
        try:
            binary = appserver.binary.find_codex(self._plan.configured, self._plan.env)
            self.health.binary, self.health.source = str(binary.path), binary.source
            version = await appserver.binary.codex_version(binary.path)
            self.health.version = str(version)
            note = appserver.binary.check_version(version)
        except CodexUnavailable as error:
            # To start a missing or old binary again and again would only hide that; a slow one may be faster next time.
            error.details.setdefault("permanent", not isinstance(error.__cause__, TimeoutError))
            raise
        self.health.notes = [note] if note else []
        if note:
            log.warning("codex: %s", note)
        return binary.path

    def _notified(self, method: str, params: Mapping[str, Any]) -> None:
        if method != "configWarning":
            self._on_notification(method, params)
        elif len(self.health.notes) < NOTES:
            said = [params.get("summary"), params.get("details")]
            note = ": ".join(part for part in said if isinstance(part, str) and part)
            log.warning("codex: %s", note)
            self.health.notes.append(note[:NOTE_LIMIT])

    async def _live(
        self, binary: Path, on_ready: Callable[[], Awaitable[None]], on_lost: Callable[[], None]
    ) -> None:
        """Start one app-server and stay until it is gone. Raises CodexError unless we have ended it and nothing is wrong."""
        self._verdict = None
        try:
            async with appserver.client.connect(
                binary,
                env=self._plan.env,
                cwd=self._plan.cwd,
                on_notification=self._notified,
                on_request=self._on_request,
                version=self._plan.version,
            ) as server:
                self._begin(server)
                try:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._attend, server, on_ready)
                        status, stderr = await server.closed()
                        tasks.cancel_scope.cancel()
                finally:
                    self._retire()
                    self.health.gone()
                    on_lost()
        finally:
            self._bury()
        verdict = self._verdict
        if verdict and verdict.planned:
            self._restarts.total += 1
            self._set("starting", f"it is being restarted: {verdict.reason}", None)
            return
        reason = verdict.reason if verdict else server.fault
        raise CodexError(
            f"the app-server exited with status {status}" + (f": {reason}" if reason else ""),
            details={"stderr": stderr[-1000:]},
        )

    async def _attend(self, server: AppServer, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Let requests through, tell that it is ready, and watch it until it has to be ended."""
        watch = Watch(
            server,
            self.health,
            self._patience.watch,
            retire=lambda: self._idle() and self._retire(),
            on_problem=self._problem,
        )
        await watch.check()
        self._server = server
        self._settled.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._announce, on_ready)
            self._verdict = verdict = await watch.run()
            tasks.cancel_scope.cancel()
        log.warning("codex: ending process %s: %s", server.pid, verdict.reason)
        await server.end(hung=verdict.hung)

    def _bury(self) -> None:
        """Note whether the process that was started last is known to do nothing any more."""
        if self._latest is None:
            return
        if self._latest.reaped:
            self._file.remove()
        else:
            self._unreaped.add(self.generation)

    def _begin(self, server: AppServer) -> None:
        self.generation += 1
        self._latest = server
        self._began = anyio.current_time()
        epoch = Epoch(
            boot_id=boot_id(),
            pid=server.pid,
            start_time=server.start_time,
            generation=self.generation,
            version=self.health.version,
        )
        self.health.began(server, epoch)
        self._file.write(epoch)
        failpoints.codex_pid = server.pid
        log.info(
            "codex %s runs as process %s from %s",
            self.health.version,
            server.pid,
            self.health.binary,
        )

    def _retire(self) -> bool:
        """Give the app-server nothing more to do; requests wait for the next one."""
        if self._server is not None:
            self._server = None
            self._settled = anyio.Event()
        return True

    def _problem(self, problem: Problem | None) -> None:
        if problem is None:
            self._set("ready", None, None)
        elif problem.reason != self.health.reason:
            log.warning("codex: %s", problem.reason)
            self._set("degraded", problem.reason, problem.fix)

    async def _announce(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        try:
            await on_ready()
        except DispatchError as error:
            log.warning("after the start of Codex: %s", error)
        except Exception:
            log.exception("after the start of Codex")

    def _strand(self, on_stranded: Callable[[], None]) -> None:
        """Nobody is to wait any more: Codex cannot be started, or not for a while."""
        self._settled.set()
        on_stranded()

    def _uptime(self) -> float:
        """Return for how long the app-server has run that was started last, in seconds; 0 if it did not shake hands."""
        return 0.0 if self._began is None else anyio.current_time() - self._began

    def _pause(self, error: DispatchError) -> float | None:
        """Say what went wrong, and return the seconds until the next start; None: a person must act first."""
        stderr = error.details.get("stderr")
        log.warning("codex: %s%s", error.message, f"; it said: {stderr}" if stderr else "")
        self.health.ended(error.message)
        reason, fix = error.message, error.hint or "dispatch daemon log --daemon"
        if error.details.get("permanent"):
            self._set("degraded", reason, anew(fix))
            return None
        pause = self._restarts.ended(time.monotonic(), self._uptime())
        plan = self._restarts.plan
        if pause is None:
            reason += (
                f"; it kept ending and is not started again, after {self._restarts.total} tries"
            )
            fix = anew(fix)
        elif self._restarts.breaker is Breaker.OPEN:
            reason += f"; it ended {plan.exits} times, the next try is in {pause:g} s"
        self._set("degraded", reason, fix)
        return pause

    def _set(self, state: str, reason: str | None, fix: str | None) -> None:
        self.health.state, self.health.reason, self.health.fix = state, reason, fix
        self._events.publish(EventKind.CODEX_STATE, data={"state": state, "reason": reason})


def anew(fix: str) -> str:
    """Return what to do, ending with the start of another daemon."""
    return fix if "dispatch up" in fix else f"{fix}; then {ANEW}"
