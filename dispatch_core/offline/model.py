"""The offline model: a loopback HTTP server that answers Codex as the Responses API would."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
from anyio import TASK_STATUS_IGNORED, BrokenResourceError, ClosedResourceError
from anyio.abc import SocketAttribute, SocketListener

from dispatch_core.offline.conversation import read_conversation
from dispatch_core.offline.http import BadRequestError, Connection, Request
from dispatch_core.offline.responses import Ending, Pause, Reply
from dispatch_core.offline.script import Script, ScriptError, plan

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from anyio.abc import SocketStream, TaskStatus

    from dispatch_core.offline.script import Plan, Step

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
BACKLOG = 512
SEND_SIZE = 64 * 1024
ACCEPT_BACKOFF = 0.05  # seconds


class OfflineModel:
    """A stand-in for the language model, on loopback only; replies follow from the input alone.

    log: a file that gets one JSON line per request before the reply begins, control requests
    excepted. port: 0 for a free one. on_request: called when the model is asked, before it answers.
    requests, inflight, max_inflight, aborted: model requests so far, being answered now, at most at
    once, and left by the client before their end.
    """

    def __init__(
        self,
        *,
        log: Path | None = None,
        port: int = 0,
        on_request: Callable[[], None] | None = None,
    ) -> None:
        self._on_request = on_request
        self.requests = 0
        self.inflight = 0
        self.max_inflight = 0
        self.aborted = 0
        self._log = log
        self._wanted_port = port
        self._port: int | None = None
        self._script: Script | None = None
        self._faults: Counter[tuple[str | None, int, int]] = Counter()

    @property
    def base_url(self) -> str:
        """The address for Codex's provider, "http://127.0.0.1:PORT/v1".

        Raises RuntimeError while serve is not running.
        """
        if self._port is None:
            raise RuntimeError("the offline model is not serving; await serve() first")
        return f"http://{HOST}:{self._port}/v1"

    def set_script(self, script: Script | None) -> None:
        """Make this the script of every message without a directive; None for no script."""
        self._script = script
        self._faults.clear()

    async def serve(self, *, task_status: TaskStatus[int] = TASK_STATUS_IGNORED) -> None:
        """Answer requests until cancelled; started(port) once connections are accepted.

        Raises OSError if the port is taken. A connection that misbehaves ends alone.
        """
        listeners = await anyio.create_tcp_listener(
            local_host=HOST, local_port=self._wanted_port, backlog=BACKLOG
        )
        async with listeners, anyio.create_task_group() as group:
            (listener,) = listeners.listeners  # one address, so one listener
            if not isinstance(listener, SocketListener):
                raise TypeError(f"a TCP listener of type {type(listener).__name__}")
            self._port = listeners.extra_attributes[SocketAttribute.local_port]()
            try:
                task_status.started(self._port)
                while True:
                    if (stream := await _accept(listener)) is not None:
                        group.start_soon(self._serve_connection, stream)
            finally:
                self._port = None

    async def _serve_connection(self, stream: SocketStream) -> None:
        async with stream:
            connection = Connection(stream)
            try:
                while (request := await connection.read_request()) is not None:
                    if not await self._answer(connection, request) or not request.keep_alive:
                        break
            except (BrokenResourceError, ClosedResourceError):
                log.debug("a client left in the middle of a request or a reply")
            except BadRequestError as error:
                await _refuse(connection, error)
            except Exception:  # the border of one connection: the others go on
                log.exception("a connection to the offline model ended with an error")

    async def _answer(self, connection: Connection, request: Request) -> bool:
        """Answer one request and say whether the connection can carry another."""
        match request.method, request.path:
            case "POST", "/v1/responses":
                return await self._answer_as_model(connection, request)
            case "GET" | "POST", "/control":
                await self._answer_control(connection, request)
            case "GET", "/v1/models":
                self._record(request)
                await connection.send_json(200, {"object": "list", "data": [], "models": []})
            case _:
                self._record(request)
                message = f"the offline model has no {request.method} {request.path}"
                await connection.send_json(404, _error(message, "not_found"))
        return True

    async def _answer_control(self, connection: Connection, request: Request) -> None:
        if request.method == "POST":
            body = request.json()
            if set(body) != {"script"}:
                raise BadRequestError(400, 'the body is not of the form {"script": {...} or null}')
            try:
                self.set_script(None if body["script"] is None else Script.parse(body["script"]))
            except ScriptError as error:
                raise BadRequestError(400, f"script: {error}") from error
        await connection.send_json(200, self._state())

    async def _answer_as_model(self, connection: Connection, request: Request) -> bool:
        conversation = read_conversation(request.json())
        planned = plan(conversation, self._script)
        step = self._due(planned)
        self._record(
            request,
            step=planned.index,
            thread_id=conversation.thread_id,
            turn_id=conversation.turn_id,
            model=conversation.model,
            text=conversation.last_text,
        )
        if self._on_request is not None:
            self._on_request()
        reply = Reply(
            step,
            text=step.message(planned.prompt),
            model=conversation.model,
            request_size=len(request.body),
        )
        self.requests += 1
        self.inflight += 1
        self.max_inflight = max(self.max_inflight, self.inflight)
        reusable = True

        async def send() -> None:
            nonlocal reusable
            reusable = await _send(connection, step, reply)

        try:
            if not await _unless_closed(connection, send):
                self.aborted += 1
                return False
        finally:
            self.inflight -= 1
        return reusable

    def _due(self, planned: Plan) -> Step:
        """Return the step, without its fault once that has hit as often as it should."""
        if planned.step.times is None:
            return planned.step
        self._faults[planned.occasion] += 1
        used_up = self._faults[planned.occasion] > planned.step.times
        return planned.step.without_fault() if used_up else planned.step

    def _record(self, request: Request, **fields: object) -> None:
        if self._log is None:
            return
        line = json.dumps({"method": request.method, "path": request.path, **fields}) + "\n"
        # Written here and not in a worker thread: the line must be in the file before the reply
        # begins, and it is short.
        descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def _state(self) -> dict[str, Any]:
        script = self._script and self._script.model_dump(mode="json", exclude_defaults=True)
        return {
            "script": script,
            "requests": self.requests,
            "inflight": self.inflight,
            "max_inflight": self.max_inflight,
            "aborted": self.aborted,
        }


async def _accept(listener: SocketListener) -> SocketStream | None:
    """Return the next connection, or None when accepting it failed; the listener goes on."""
    try:
        return await listener.accept()
    except OSError as error:
        log.warning("the offline model could not accept a connection: %s", error)
        # Out of descriptors is the usual reason; they come back as connections end, and nothing
        # announces it.
        await anyio.sleep(ACCEPT_BACKOFF)
        return None


async def _send(connection: Connection, step: Step, reply: Reply) -> bool:
    """Send one reply as the step says, and say whether the connection can carry another request."""
    if step.delay:
        await anyio.sleep(step.delay)
    if step.http is not None:
        body = step.http.body or _error(f"scripted HTTP {step.http.status}", None)
        await connection.send_json(step.http.status, body, step.headers)
        return True
    await connection.begin_events(step.headers)
    pending = bytearray()
    for part in reply.parts():
        if isinstance(part, bytes):
            pending += part
            if len(pending) < SEND_SIZE:
                continue
        await connection.send_events(bytes(pending))
        pending.clear()
        if isinstance(part, Pause):
            await anyio.sleep(part.seconds)
        elif part is Ending.HANG:
            await anyio.sleep_forever()
        elif part is Ending.CUT:
            return False
    await connection.send_events(bytes(pending))
    await connection.end_events()
    return True


async def _unless_closed(connection: Connection, send: Callable[[], Awaitable[None]]) -> bool:
    """Run send to its end and return True; stop it if the peer closes first, and return False."""
    finished = False

    async with anyio.create_task_group() as group:

        async def run() -> None:
            nonlocal finished
            try:
                await send()
                finished = True
            except (BrokenResourceError, ClosedResourceError):
                log.debug("a client left in the middle of a reply")
            group.cancel_scope.cancel()

        group.start_soon(run)
        try:
            await connection.wait_closed()
        except (BrokenResourceError, ClosedResourceError):
            log.debug("a client reset its connection in the middle of a reply")
        group.cancel_scope.cancel()
    return finished


async def _refuse(connection: Connection, error: BadRequestError) -> None:
    try:
        body = _error(str(error), "bad_request")
        await connection.send_json(error.status, body, {"Connection": "close"})
    except (BrokenResourceError, ClosedResourceError):
        log.debug("a client left before its bad request was answered")


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "offline_model", "code": code}}
