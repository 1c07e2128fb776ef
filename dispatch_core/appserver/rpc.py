"""Requests, answers and notifications over one pair of byte streams, one JSON object per line."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from pydantic_core import from_json

from dispatch_core import failpoints
from dispatch_core.appserver.lines import LineSplitter
from dispatch_core.appserver.notices import NOTICES
from dispatch_core.appserver.overload import MOST, Places, pauses
from dispatch_core.appserver.wire import Frame, Outbox, encode, lost, refusal, unavailable
from dispatch_core.errors import (
    CodexError,
    CodexOverloaded,
    CodexTimeout,
    CodexUnavailable,
    DispatchError,
    OutcomeUnknown,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio.abc import ByteReceiveStream, ByteSendStream, TaskGroup

    NotificationHandler = Callable[[str, dict[str, Any]], None]
    RequestHandler = Callable[[int | str, str, dict[str, Any]], Awaitable[Mapping[str, Any]]]
    ResultHandler = Callable[[dict[str, Any]], None]

log = logging.getLogger(__name__)

REQUEST_TIMEOUT = 30.0
DRAIN_PATIENCE = 1.0
BAD_LINES, BAD_LINES_WINDOW = 100, 60.0  # more than so many in so many seconds end the connection
OPEN_REQUESTS = 10_000  # of Codex, that wait for our answer; a person's answers take their time
NAMES, NAME_LIMIT = 20, 80  # of methods nobody knows, that are kept, and characters of each
LOGGED = 10  # of each kind of nuisance; afterwards only every thousandth
WRITTEN = "send.after_write"  # the failpoint at which Codex has been given a message
METHOD_NOT_FOUND = -32601
INTERNAL_ERROR = -32603


class RpcRefusal(Exception):
    """The error to answer a request of Codex with; by default that the method is unknown."""

    def __init__(self, code: int = METHOD_NOT_FOUND, message: str = "method not found") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(slots=True)
class RpcStats:
    """What was counted and skipped since the connection began.

    invalid_lines: not JSON, not an object, or neither request, answer nor notification.
    oversized_lines: over the line limit.
    unmatched_answers: late, repeated, or with an id nobody asked with.
    handler_errors: exceptions of on_notification, on_request and on_result.
    overloads: answers that Codex has too much to do; most requests were sent again and succeeded.
    unknown_requests, unknown_notifications: of methods that this dispatch has not heard of.
    unknown: names of such methods, at most 20.
    """

    invalid_lines: int = 0
    oversized_lines: int = 0
    unmatched_answers: int = 0
    handler_errors: int = 0
    overloads: int = 0
    unknown_requests: int = 0
    unknown_notifications: int = 0
    unknown: dict[str, int] = field(default_factory=dict)

    def note_unknown(self, method: str) -> None:
        """Count a method that is not known, by its name if there is room."""
        name = method[:NAME_LIMIT]
        if name in self.unknown or len(self.unknown) < NAMES:
            self.unknown[name] = self.unknown.get(name, 0) + 1


class Rpc:
    """One connection. ``run`` runs as long as it is used; when that ends, everything open fails.

    Order: a line is dealt with completely before the next one. An answer is stored with its
    request, and its on_result is called, before any notification that came later on the wire is
    handed to on_notification. The task that waits in ``request`` wakes after that, so later
    notifications may be handed over before it runs.

    on_notification(method, params) must not block; what it raises is logged and counted.
    on_request(id, method, params) runs in a task of its own and returns the result or raises
    RpcRefusal; without it every request is refused. Codex repeats a request that is still open,
    with the same id, when its thread is resumed: on_request is then called again, and the first
    answer counts.
    """

    def __init__(
        self,
        source: ByteReceiveStream,
        sink: ByteSendStream,
        *,
        on_notification: NotificationHandler,
        on_request: RequestHandler | None = None,
        in_flight: int = MOST,
    ) -> None:
        self._source = source
        self._outbox = Outbox(sink)
        self._on_notification = on_notification
        self._on_request = on_request
        self._ids = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._serving = 0
        self._bad: deque[float] = deque(maxlen=BAD_LINES)
        self._reading = anyio.CancelScope()
        self._open = True
        self.places = Places(in_flight)
        self.fault: str | None = None
        self.stats = RpcStats()
        self.finished = anyio.Event()

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answer."""
        return len(self._calls)

    @property
    def open(self) -> bool:
        """Whether it takes requests."""
        return self._open

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        timeout: float = REQUEST_TIMEOUT,  # noqa: ASYNC109 -- which error it is depends on it
        on_result: ResultHandler | None = None,
    ) -> dict[str, Any]:
        """Send a request and return its result.

        At most 32 are in flight; waiting for a place counts into the deadline. One that Codex did not do for being overloaded is
        sent again, up to 8 times, while the deadline allows it. timeout: seconds.
        on_result: called with the result by the reader, in the order given above; must not block.

        Raises ValidationFailed for text that is not Unicode, CodexUnavailable when nothing was
        written, OutcomeUnknown when Codex went away after it was written, CodexTimeout when it was
        written and not answered in time, CodexOverloaded when Codex did nothing for being
        overloaded, CodexError for any other refusal, with details {code, message, method, data}.
        """
        deadline = anyio.current_time() + timeout
        for pause in (*pauses(), None):
            call = self._call(method, params, on_result)
            try:
                with anyio.CancelScope(deadline=deadline):
                    return await self._ask(call)
                raise _late(call, timeout)
            except CodexOverloaded:
                self.stats.overloads += 1
                self.places.narrow()
                if pause is None or anyio.current_time() + pause >= deadline:
                    raise
            await anyio.sleep(pause)
        raise AssertionError("the last try has returned or raised")

    async def probe(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request past those that wait for a place, once, and return its result, however long that takes.

        Raises as ``request``.
        """
        return await self._exchange(self._call(method, params, None))

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        """Send a notification; on return it is written.

        Raises ValidationFailed for text that is not Unicode, CodexUnavailable if the connection
        ended.
        """
        message: dict[str, Any] = {"method": method}
        if params is not None:
            message["params"] = dict(params)
        await self._post(Frame(encode(message)), method)

    async def run(self) -> None:
        """Read and write until the other side closes; then every open request fails.

        Nothing that Codex sends makes it raise.
        """
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write)
                with self._reading:
                    await self._read(tasks)
                self._close()
                tasks.cancel_scope.cancel()
        finally:
            self._close()

    def expire(self, patience: float = DRAIN_PATIENCE) -> None:
        """Take no more requests, and end reading within patience seconds whatever the pipe does."""
        self._open = False
        self._reading.deadline = min(self._reading.deadline, anyio.current_time() + patience)

    def _call(
        self, method: str, params: Mapping[str, Any], on_result: ResultHandler | None
    ) -> _Call:
        call_id = next(self._ids)
        frame = Frame(encode({"id": call_id, "method": method, "params": dict(params)}))
        return _Call(call_id, method, frame, on_result)

    async def _ask(self, call: _Call) -> dict[str, Any]:
        await self.places.take(call)
        try:
            return await self._exchange(call)
        finally:
            self.places.give_back(call)

    async def _exchange(self, call: _Call) -> dict[str, Any]:
        if not self._open:
            raise unavailable(call.method)
        self._calls[call.id] = call
        try:
            self._outbox.put(call.frame)
            if failpoints.armed(WRITTEN) and call.method == "turn/start":
                await call.frame.done.wait()
                await failpoints.reach(WRITTEN)
            await call.answered.wait()
        finally:
            call.frame.withdrawn = True
            self._calls.pop(call.id, None)
        if call.error is not None:
            raise call.error
        return call.result

    async def _post(self, frame: Frame, what: str) -> None:
        if not self._open:
            raise unavailable(what)
        try:
            self._outbox.put(frame)
            await frame.done.wait()
        finally:
            frame.withdrawn = True
        if frame.failed:
            raise unavailable(what)

    async def _write(self) -> None:
        await self._outbox.run()
        # Codex reads no more, but answers to what it did read may still be in the other pipe.
        self.expire()

    async def _read(self, tasks: TaskGroup) -> None:
        splitter = LineSplitter()
        while True:
            try:
                chunk = await self._source.receive()
            except (
                anyio.EndOfStream,
                anyio.BrokenResourceError,
                anyio.ClosedResourceError,
                OSError,
            ):
                log.info("Codex closed the connection")
                return
            for line in splitter.feed(chunk):
                self._take(line, tasks)
            while self.stats.oversized_lines < splitter.oversized:
                self.stats.oversized_lines += 1
                self._skipped("too long", self.stats.oversized_lines)

    def _take(self, line: bytes, tasks: TaskGroup) -> None:
        try:
            message = from_json(line, allow_inf_nan=False)
        except ValueError:
            message = None
        if not isinstance(message, dict) or not self._route(message, tasks):
            self.stats.invalid_lines += 1
            self._skipped(f"no message ({len(line)} bytes)", self.stats.invalid_lines)

    def _skipped(self, what: str, count: int) -> None:
        """Note a line that was skipped; when there are too many, the connection is no use and ends."""
        if worth_a_line(count):
            log.warning("Codex sent a line that is %s; skipped, the %d. of its kind", what, count)
        now = anyio.current_time()
        if len(self._bad) == BAD_LINES and now - self._bad[0] < BAD_LINES_WINDOW:
            self._give_up(f"it sent more than {BAD_LINES} lines a minute that are no messages")
        self._bad.append(now)

    def _give_up(self, fault: str) -> None:
        if self.fault is None:
            self.fault = fault
            log.error("the connection to Codex is given up: %s", fault)
        self._open = False
        self._reading.cancel()

    def _route(self, message: dict[str, Any], tasks: TaskGroup) -> bool:
        """Deal with one message; False if it is none."""
        method, call_id = message.get("method"), message.get("id")
        if method is None and ("result" in message or "error" in message):
            self._take_answer(call_id, message)
            return True
        params = message.get("params")
        params = {} if params is None else params
        if not isinstance(method, str) or not isinstance(params, dict):
            return False
        if "id" not in message:
            self._hand_over(method, params)
            return True
        # bool is an int in Python, not in JSON.
        if not isinstance(call_id, (int, str)) or isinstance(call_id, bool):
            return False
        if self._serving >= OPEN_REQUESTS:
            self._give_up(f"it asks more than {OPEN_REQUESTS} things at once")
            return True
        self._serving += 1
        tasks.start_soon(self._serve, call_id, method, params)
        return True

    def _take_answer(self, call_id: object, message: dict[str, Any]) -> None:
        call = self._calls.pop(call_id, None) if type(call_id) is int else None
        if call is None:
            self.stats.unmatched_answers += 1
            if worth_a_line(self.stats.unmatched_answers):
                log.warning("Codex answered a request nobody waits for, id %.40r", call_id)
            return
        error, result = message.get("error"), message.get("result")
        if error is not None:
            call.settle(error=refusal(call.method, error if isinstance(error, dict) else {}))
        elif result is not None and not isinstance(result, dict):
            call.settle(
                error=OutcomeUnknown(
                    f"Codex answered {call.method} with something that is no result; it may have been done",
                    hint="look before you repeat it",
                    details={"method": call.method},
                )
            )
        else:
            call.settle(result or {})
            self._guard(call.method, call.on_result, result or {})

    def _hand_over(self, method: str, params: dict[str, Any]) -> None:
        if method not in NOTICES:
            self.stats.unknown_notifications += 1
            self.stats.note_unknown(method)
        self._guard(method, self._on_notification, method, params)

    def _guard(self, what: str, handler: Callable[..., None] | None, *arguments: object) -> None:
        """Call a handler; what it raises costs neither the connection nor the next line."""
        try:
            if handler is not None:
                handler(*arguments)
        except Exception:
            self.stats.handler_errors += 1
            log.exception("handling %s failed", what)

    async def _serve(self, call_id: int | str, method: str, params: dict[str, Any]) -> None:
        try:
            await self._post(Frame(await self._reply(call_id, method, params)), method)
        except CodexUnavailable:
            log.info("Codex went away before %s was answered", method)
        finally:
            self._serving -= 1

    async def _reply(self, call_id: int | str, method: str, params: dict[str, Any]) -> bytes:
        answer: dict[str, Any] = {"id": call_id}
        try:
            if self._on_request is None:
                raise RpcRefusal
            result = dict(await self._on_request(call_id, method, params))
            return encode(answer | {"result": result})
        except RpcRefusal as refused:
            if refused.code == METHOD_NOT_FOUND:
                self.stats.unknown_requests += 1
                self.stats.note_unknown(method)
            return encode(answer | {"error": {"code": refused.code, "message": refused.message}})
        except Exception:
            self.stats.handler_errors += 1
            log.exception("handling the request %s of Codex failed", method)
            return encode(answer | {"error": {"code": INTERNAL_ERROR, "message": "internal error"}})

    def _close(self) -> None:
        """Fail everything that is still open. Does nothing twice."""
        self._open = False
        for call in self._calls.values():
            call.settle(error=lost(call.method) if call.frame.begun else unavailable(call.method))
        self._calls.clear()
        self._outbox.abandon()
        self.finished.set()


def worth_a_line(count: int) -> bool:
    """Return whether a nuisance that has now happened count times is to be logged once more."""
    return count <= LOGGED or count % 1000 == 0


def _late(call: _Call, timeout: float) -> CodexError:
    """Return the error for a request whose deadline has passed."""
    if call.frame.begun:
        return CodexTimeout(
            f"Codex did not answer {call.method} within {timeout:g} s",
            hint="it may still be done: look at the thread before you repeat it",
            details={"method": call.method},
        )
    return CodexUnavailable(
        f"Codex took no requests for {timeout:g} s; {call.method} was not sent",
        hint="try again; dispatch daemon status shows how Codex is doing",
        details={"method": call.method},
    )


class _Call:
    """One request that waits for its answer."""

    __slots__ = ("answered", "error", "frame", "id", "method", "on_result", "result")

    def __init__(
        self, call_id: int, method: str, frame: Frame, on_result: ResultHandler | None
    ) -> None:
        self.id = call_id
        self.method = method
        self.frame = frame
        self.on_result = on_result
        self.answered = anyio.Event()
        self.result: dict[str, Any] = {}
        self.error: DispatchError | None = None

    def settle(
        self, result: dict[str, Any] | None = None, *, error: DispatchError | None = None
    ) -> None:
        self.result = result or {}
        self.error = error
        self.answered.set()
