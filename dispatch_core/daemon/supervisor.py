"""One Codex app-server, kept alive: found, started, watched, restarted with backoff, or reported as degraded with the fix."""

from __future__ import annotations

import json
import logging
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.appserver.binary import check_version, codex_version, find_codex
from dispatch_core.appserver.client import connect
from dispatch_core.appserver.process import kill_predecessor
from dispatch_core.contracts.events import EventKind
from dispatch_core.errors import CodexError, CodexUnavailable, DispatchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from anyio.abc import TaskStatus

    from dispatch_core.appserver.client import AppServer
    from dispatch_core.contracts.events import Events

log = logging.getLogger(__name__)

BACKOFF = (0.5, 30.0)  # seconds: the first pause and the longest
STEADY = 600.0  # seconds of uptime after which the backoff starts over
BREAKER_EXITS, BREAKER_WINDOW, BREAKER_PAUSE = 5, 60.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodexPlan:
    """How to run Codex. configured: ``[codex] bin``. env: the environment of the app-server."""

    configured: str | None
    env: Mapping[str, str]
    cwd: Path
    pid_file: Path
    version: str


@dataclass(slots=True)
class Health:
    """What is known about Codex, for ``daemon status``. state: starting, ready or degraded."""

    state: str = "starting"
    reason: str | None = None
    fix: str | None = None
    version: str | None = None
    binary: str | None = None
    source: str | None = None
    pid: int | None = None
    restarts: int = 0
    exits: deque[float] = field(default_factory=lambda: deque(maxlen=BREAKER_EXITS))


class Supervisor:
    """The connection to Codex, whichever process is behind it. It satisfies the Codex protocol of the op context."""

    def __init__(
        self,
        plan: CodexPlan,
        events: Events,
        *,
        on_notification: Callable[[str, Mapping[str, Any]], None],
        on_request: Callable[[Any, str, Mapping[str, Any]], Awaitable[dict[str, Any]]],
    ) -> None:
        self._plan = plan
        self._events = events
        self._on_notification = on_notification
        self._on_request = on_request
        self._server: AppServer | None = None
        self._settled = anyio.Event()
        self.generation = 0
        self.health = Health()

    @property
    def codex(self) -> Supervisor:
        """The client; it outlives the process."""
        return self

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request to Codex, waiting for its first start if that is still under way."""
        await self._settled.wait()
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
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep Codex running until cancelled; a cause that a restart cannot mend leaves it degraded."""
        task_status.started()
        await self._clear_predecessor()
        pause = BACKOFF[0]
        while True:
            began = anyio.current_time()
            try:
                binary = await self._find()
            except CodexUnavailable as error:
                # A missing or old binary does not mend itself, and starting it again and again would only hide that.
                self._degrade(error)
                await anyio.sleep_forever()
            try:
                await self._live(binary, on_ready, on_lost)
            except DispatchError as error:
                self._degrade(error)
            now = anyio.current_time()
            pause = BACKOFF[0] if now - began >= STEADY else min(pause * 2, BACKOFF[1])
            self.health.exits.append(now)
            self.health.restarts += 1
            await anyio.sleep(self._pause(pause, now))

    async def _find(self) -> Path:
        """Return a binary that can be used. Raises CodexUnavailable."""
        binary = find_codex(self._plan.configured, self._plan.env)
        self.health.binary, self.health.source = str(binary.path), binary.source
        version = await codex_version(binary.path)
        self.health.version = ".".join(map(str, version))
        if note := check_version(version):
            log.warning("codex: %s", note)
        return binary.path

    async def _live(
        self, binary: Path, on_ready: Callable[[], Awaitable[None]], on_lost: Callable[[], None]
    ) -> None:
        """Start one app-server and stay until it is gone."""
        async with connect(
            binary,
            env=self._plan.env,
            cwd=self._plan.cwd,
            on_notification=self._on_notification,
            on_request=self._on_request,
            version=self._plan.version,
        ) as server:
            self._server = server
            self.generation += 1
            self._record(server)
            self._set("ready", None, None)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._announce, on_ready)
                    status, stderr = await server.closed()
                    tasks.cancel_scope.cancel()
            finally:
                self._server = None
                self.health.pid = None
                on_lost()
        raise CodexError(
            f"the app-server exited with status {status}", details={"stderr": stderr[-1000:]}
        )

    async def _announce(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        try:
            await on_ready()
        except DispatchError as error:
            log.warning("after the start of Codex: %s", error)
        except Exception:
            log.exception("after the start of Codex")

    def _degrade(self, error: DispatchError) -> None:
        stderr = error.details.get("stderr")
        log.warning("codex: %s%s", error.message, f"; it said: {stderr}" if stderr else "")
        self._set("degraded", error.message, error.hint or "dispatch daemon log --daemon")

    def _set(self, state: str, reason: str | None, fix: str | None) -> None:
        self.health.state, self.health.reason, self.health.fix = state, reason, fix
        self._settled.set()
        self._events.publish(EventKind.CODEX_STATE, data={"state": state, "reason": reason})

    def _pause(self, pause: float, now: float) -> float:
        """Return the pause before the next start: full jitter, or the breaker's when Codex keeps dying."""
        exits = self.health.exits
        if len(exits) == BREAKER_EXITS and now - exits[0] < BREAKER_WINDOW:
            exits.clear()
            return BREAKER_PAUSE
        return random.uniform(0.1, pause)  # noqa: S311 -- jitter

    def _record(self, server: AppServer) -> None:
        self.health.pid = server.pid
        content = {"pid": server.pid, "start_time": server.start_time}
        self._plan.pid_file.write_text(json.dumps(content), encoding="utf-8")
        log.info(
            "codex %s runs as process %s from %s",
            self.health.version,
            server.pid,
            self.health.binary,
        )

    async def _clear_predecessor(self) -> None:
        """End the app-server of a daemon that was killed, if it outlived it: two must not hold the same threads."""
        try:
            content = json.loads(self._plan.pid_file.read_text(encoding="utf-8"))
            await kill_predecessor(int(content["pid"]), content["start_time"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            log.warning("%s is not readable and is ignored", self._plan.pid_file)
