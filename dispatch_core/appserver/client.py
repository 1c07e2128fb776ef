"""One running app-server: the process, the connection and the handshake."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.messages import Capabilities, ClientInfo, InitializeParams
from dispatch_core.appserver.process import EXIT_GRACE, background, spawn
from dispatch_core.appserver.rpc import REQUEST_TIMEOUT, Rpc
from dispatch_core.errors import CodexError, CodexUnavailable, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dispatch_core.appserver.overload import Places
    from dispatch_core.appserver.process import CodexProcess
    from dispatch_core.appserver.rpc import (
        NotificationHandler,
        RequestHandler,
        ResultHandler,
        RpcStats,
    )

HANDSHAKE_DEADLINE = 20.0
CLIENT_NAME = "dispatch"
SHOWN_STDERR = 2000
# What Codex says on stderr when another start cannot help before somebody has done something, and what that is.
PERMANENT = (
    (re.compile("CODEX_HOME points to"), "create that directory or unset CODEX_HOME"),
    (
        re.compile("(?:error|failed) (?:loading|to load) config", re.IGNORECASE),
        "correct Codex's config.toml",
    ),
    (re.compile("not logged in|login required", re.IGNORECASE), "codex login"),
)
REASON = re.compile(r"^(?:Error: |cannot |error: ).+", re.MULTILINE)

# Sent many times per turn, or with the whole diff each time; the completed item says it all again.
OPT_OUT = (
    "command/exec/outputDelta",
    "item/agentMessage/delta",
    "item/commandExecution/outputDelta",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "item/fileChange/patchUpdated",
    "item/mcpToolCall/progress",
    "item/plan/delta",
    "item/reasoning/summaryPartAdded",
    "item/reasoning/summaryTextDelta",
    "item/reasoning/textDelta",
    "process/outputDelta",
    "turn/diff/updated",
)


class AppServer:
    """A connection that is ready for requests; made by ``connect``. It satisfies the Codex protocol of ops.

    user_agent and codex_home: what Codex said of itself. pid and start_time: see CodexProcess.
    """

    def __init__(self, process: CodexProcess, rpc: Rpc, hello: Mapping[str, Any]) -> None:
        self._process = process
        self._rpc = rpc
        home = hello.get("codexHome")
        self.codex_home: Path | None = Path(home) if isinstance(home, str) else None
        self.user_agent: str = str(hello.get("userAgent", ""))
        self.pid: int = process.pid
        self.start_time: int | None = process.start_time

    @property
    def stats(self) -> RpcStats:
        """What was counted and skipped on this connection."""
        return self._rpc.stats

    @property
    def places(self) -> Places:
        """How many requests may be in flight."""
        return self._rpc.places

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answer."""
        return self._rpc.in_flight

    @property
    def open(self) -> bool:
        """Whether it takes requests; not any more once it ends."""
        return self._rpc.open

    @property
    def fault(self) -> str | None:
        """Why we gave the connection up, if we did."""
        return self._rpc.fault

    @property
    def reaped(self) -> bool:
        """Whether the process has ended and was reaped."""
        return self._process.returncode is not None

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float = REQUEST_TIMEOUT,  # noqa: ASYNC109 -- which error it is depends on it
        on_result: ResultHandler | None = None,
    ) -> dict[str, Any]:
        """Send one request and return its result; see ``Rpc.request``, also for the errors."""
        return await self._rpc.request(method, params, timeout=timeout, on_result=on_result)

    async def probe(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request past those that wait, and return its result, however long that takes; see ``Rpc.probe``."""
        return await self._rpc.probe(method, params)

    async def end(self, *, hung: bool) -> None:
        """End the process and reap it; ``closed`` returns then. hung: see ``CodexProcess.terminate``."""
        await self._process.terminate(EXIT_GRACE, hung=hung)

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification; on return it is written. Raises as ``Rpc.notify``."""
        await self._rpc.notify(method, params)

    async def closed(self) -> tuple[int | None, str]:
        """Wait until the connection has ended, and return the exit status and the end of stderr.

        A process that closed its stdout and still runs is ended. The status is negative for a
        signal, and None only for a process that SIGKILL did not end.
        """
        await self._rpc.finished.wait()
        return await _ended(self._process)


@asynccontextmanager
async def connect(
    binary: Path,
    *,
    env: Mapping[str, str],
    cwd: Path,
    on_notification: NotificationHandler,
    on_request: RequestHandler | None,
    version: str,
) -> AsyncIterator[AppServer]:
    """Run an app-server while the context lasts and yield it once it has shaken hands.

    env: its whole environment, with CODEX_HOME. cwd: what it resolves relative paths against. The
    handlers: see ``Rpc``. version: ours. Raises CodexUnavailable if it cannot be started, ends,
    refuses or says nothing within 20 s; details: stderr, returncode, and permanent when another try
    cannot succeed.
    """
    async with AsyncExitStack() as stack:
        command = [str(binary), "app-server"]
        try:
            process = await stack.enter_async_context(spawn(command, env=env, cwd=cwd))
        except OSError as error:
            raise CodexUnavailable(
                f"{binary} cannot be started in {cwd}: {error.strerror or error}",
                hint="set [codex] bin to a codex that can be run",
            ) from error
        tasks = await stack.enter_async_context(background())
        rpc = Rpc(
            process.stdout, process.stdin, on_notification=on_notification, on_request=on_request
        )
        tasks.start_soon(rpc.run)
        tasks.start_soon(_watch, process, rpc)
        try:
            hello = await _shake_hands(rpc, version)
        except (CodexError, OutcomeUnknown) as error:
            raise await _unstartable(process, binary, error) from error
        yield AppServer(process, rpc, hello)


async def _shake_hands(rpc: Rpc, version: str) -> dict[str, Any]:
    params = InitializeParams(
        client_info=ClientInfo(name=CLIENT_NAME, title=CLIENT_NAME, version=version),
        capabilities=Capabilities(experimental_api=True, opt_out_notification_methods=OPT_OUT),
    )
    hello = await rpc.request("initialize", params.wire(), timeout=HANDSHAKE_DEADLINE)
    await rpc.notify("initialized")
    return hello


async def _watch(process: CodexProcess, rpc: Rpc) -> None:
    """End the connection soon after the process, also when a child of it keeps the pipes open."""
    await process.wait()
    rpc.expire()


async def _ended(process: CodexProcess) -> tuple[int | None, str]:
    await process.terminate(EXIT_GRACE)
    return process.returncode, "\n".join(process.stderr_tail)[-SHOWN_STDERR:]


async def _unstartable(
    process: CodexProcess, binary: Path, error: CodexError | OutcomeUnknown
) -> CodexUnavailable:
    """End the process and return why there is no connection to it."""
    status, stderr = await _ended(process)
    details: dict[str, Any] = {"stderr": stderr, "returncode": status}
    reason, hint = error.message, f"run {binary} app-server in a terminal to see what it says"
    if isinstance(error, (CodexUnavailable, OutcomeUnknown)):
        said = REASON.search(stderr)
        reason = f"it ended with status {status}" + (f": {said[0]}" if said else "")
    for cause, fix in PERMANENT:
        if cause.search(stderr):
            details["permanent"] = True
            hint = f"{fix}, then dispatch down and dispatch up"
            break
    return CodexUnavailable(f"Codex did not start: {reason}", hint=hint, details=details)
