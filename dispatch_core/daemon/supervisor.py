"""One Codex app-server, kept alive: found, started, watched, restarted with backoff, or reported as degraded with the fix."""

from __future__ import annotations

import json
import logging
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.events import EventKind
from dispatch_core.errors import CodexError, CodexUnavailable, DispatchError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from anyio.abc import TaskStatus

    from dispatch_core.appserver.client import AppServer
    from dispatch_core.contracts.events import Events
    from dispatch_core.daemon.health import Health

log = logging.getLogger(__name__)

BACKOFF = (0.5, 30.0)  # seconds: the first pause and the longest
START_PATIENCE = 15.0  # seconds a request waits for a Codex that is being started
STEADY = 600.0  # seconds of uptime after which the backoff starts over
NOTES, NOTE_LIMIT = 8, 500  # warnings of Codex that are kept, and characters of each
BREAKER_EXITS, BREAKER_WINDOW, BREAKER_PAUSE = 5, 60.0, 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodexPlan:
    """How to run Codex. configured: ``[codex] bin``. env: the environment of the app-server."""

    configured: str | None
    env: Mapping[str, str]
    cwd: Path
    pid_file: Path
    version: str


class Supervisor:
    """The connection to Codex, whichever process is behind it. It satisfies the Codex protocol of the op context."""

    def __init__(
        self,
        plan: CodexPlan,
        events: Events,
        health: Health,
        *,
        on_notification: Callable[[str, Mapping[str, Any]], None],
        on_request: Callable[[Any, str, Mapping[str, Any]], Awaitable[dict[str, Any]]],
        backoff: tuple[float, float] = BACKOFF,
    ) -> None:
        self._plan = plan
        self._events = events
        self._on_notification = on_notification
        self._on_request = on_request
        self._backoff = backoff
        self._server: AppServer | None = None
        self._settled = anyio.Event()  # set: Codex runs, or waiting for it is no use
        self.generation = 0
        self._exits: deque[float] = deque(maxlen=BREAKER_EXITS)
        self.health = health

    @property
    def codex(self) -> Supervisor:
        """The client; it outlives the process."""
        return self

    async def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request to Codex, waiting a little while it starts, or starts again."""
        with anyio.move_on_after(START_PATIENCE):
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
        on_stranded: Callable[[], None],
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep Codex running until cancelled; a cause that a restart cannot mend leaves it degraded.

        on_ready: it runs. on_lost: it ran and is gone. on_stranded: it cannot be started, or is not started again for a while.
        """
        task_status.started()
        await self._clear_predecessor()
        longest = self._backoff[0]
        while True:
            began = anyio.current_time()
            try:
                await self._live(await self._find(), on_ready, on_lost)
            except DispatchError as error:
                self._degrade(error)
                if error.details.get("permanent"):
                    self._strand(on_stranded)
                    await anyio.sleep_forever()
                if isinstance(error, CodexUnavailable):
                    self._strand(on_stranded)
            now = anyio.current_time()
            if now - began >= STEADY:
                longest = self._backoff[0]
            self._exits.append(now)
            self.health.restarts += 1
            if self._breaks(now):
                self._strand(on_stranded)
                await anyio.sleep(BREAKER_PAUSE)
            else:
                await anyio.sleep(random.uniform(longest / 5, longest))  # noqa: S311 -- jitter
                longest = min(longest * 2, self._backoff[1])

    async def _find(self) -> Path:
        """Return a binary that can be used. Raises CodexUnavailable, permanent: it does not mend itself."""
        try:
            binary = appserver.binary.find_codex(self._plan.configured, self._plan.env)
            self.health.binary, self.health.source = str(binary.path), binary.source
            version = await appserver.binary.codex_version(binary.path)
            self.health.version = ".".join(map(str, version))
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
        """Start one app-server and stay until it is gone."""
        async with appserver.client.connect(
            binary,
            env=self._plan.env,
            cwd=self._plan.cwd,
            on_notification=self._notified,
            on_request=self._on_request,
            version=self._plan.version,
        ) as server:
            self._server = server
            self.generation += 1
            self._record(server)
            self._set("ready", None, None)
            self._settled.set()
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._announce, on_ready)
                    status, stderr = await server.closed()
                    tasks.cancel_scope.cancel()
            finally:
                self._server = None
                self._settled = anyio.Event()
                self.health.pid = self.health.stats = None
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

    def _strand(self, on_stranded: Callable[[], None]) -> None:
        """Nobody is to wait any more: Codex cannot be started, or not for a while."""
        self._settled.set()
        on_stranded()

    def _degrade(self, error: DispatchError) -> None:
        stderr = error.details.get("stderr")
        log.warning("codex: %s%s", error.message, f"; it said: {stderr}" if stderr else "")
        self._set("degraded", error.message, error.hint or "dispatch daemon log --daemon")

    def _set(self, state: str, reason: str | None, fix: str | None) -> None:
        self.health.state, self.health.reason, self.health.fix = state, reason, fix
        self._events.publish(EventKind.CODEX_STATE, data={"state": state, "reason": reason})

    def _breaks(self, now: float) -> bool:
        """Return whether Codex keeps dying, so that starting it has to pause, and say so."""
        exits = self._exits
        if len(exits) < BREAKER_EXITS or now - exits[0] >= BREAKER_WINDOW:
            return False
        exits.clear()
        text = f"{self.health.reason}; it ended {BREAKER_EXITS} times, the next try is in {BREAKER_PAUSE:g} s"
        log.warning("codex: %s", text)
        self._set("degraded", text, self.health.fix)
        return True

    def _record(self, server: AppServer) -> None:
        self.health.pid, self.health.stats = server.pid, server.stats
        content = {"pid": server.pid, "start_time": server.start_time}
        try:
            self._plan.pid_file.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            # Only a daemon that finds this process orphaned would read it.
            log.warning("%s cannot be written: %s", self._plan.pid_file, error)
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
            await appserver.process.kill_predecessor(int(content["pid"]), content["start_time"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, OSError):
            log.warning("%s is not readable and is ignored", self._plan.pid_file)
