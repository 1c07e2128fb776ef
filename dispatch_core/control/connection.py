"""One client's connection: the greeting, its requests, its subscriptions, and its end."""

from __future__ import annotations

import logging
import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from dispatch_core.control import wire
from dispatch_core.control.params import (
    parse_cancel,
    parse_hello,
    parse_open,
    parse_shutdown,
    parse_unsubscribe,
)
from dispatch_core.control.stream import PEER_GONE, PeerStream
from dispatch_core.control.subscriptions import Subscription, parse_subscription, pump
from dispatch_core.errors import (
    Cancelled,
    DaemonUnreachable,
    DispatchError,
    ProtocolViolation,
    UnknownOp,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anyio.abc import TaskGroup

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.control.host import Host, Limits

log = logging.getLogger(__name__)


class _EndOfSession(Exception):
    """The connection was a session's, and the session is over."""


class _HangUp(Exception):
    def __init__(
        self, request_id: wire.RequestId | None, error: DispatchError, *, linger: bool = True
    ) -> None:
        super().__init__(error.message)
        self.request_id = request_id
        self.error = error
        self.linger = linger


@dataclass(slots=True, eq=False)
class _Call:
    request: wire.Request
    size: int
    started: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Connection:
    """One accepted socket from its greeting to its end."""

    def __init__(self, host: Host, stream: PeerStream, limits: Limits) -> None:
        self._host = host
        self._stream = stream
        self._limits = limits
        self._splitter = wire.FrameSplitter()
        self._lines: Iterator[bytes | wire.Oversized] = iter(())
        self._malformed = 0
        self._calls: dict[wire.RequestId, _Call] = {}
        self._waiting: deque[_Call] = deque()
        self._waiting_bytes = 0
        self._active = 0
        self._room = anyio.Event()
        self._retired = False
        self._subscriptions: dict[int, Subscription] = {}
        self._last_subscription = 0
        self._tasks: TaskGroup
        self._caller: Caller

    async def run(self) -> None:
        """Serve the client until either side ends; return once the requests that must not be cut short are done."""
        async with anyio.create_task_group() as self._tasks:
            try:
                await self._greet()
                while True:
                    await self._serve(await self._next_line())
            except PEER_GONE:
                self._drop_work()
                if self._retired:
                    await self._answered()
            except _HangUp as end:
                self._drop_work()
                await self._part(end)
            except _EndOfSession:
                pass
            finally:
                # Also when the server ends: it wakes whoever waits for a peer that does not read.
                self._stream.hang_up()

    def retire(self) -> None:
        """Take no more requests; ``run`` returns once what has arrived is answered, which is a refusal for what can wait.

        The client knows then of each request whether it was done.
        """
        self._retired = True
        self._stream.end_reading()

    # Reading

    async def _next_line(self) -> bytes:
        while True:
            line = next(self._lines, None)
            if line is None:
                self._lines = self._splitter.feed(await self._stream.receive())
            elif isinstance(line, wire.Oversized):
                raise _HangUp(
                    None,
                    ProtocolViolation(f"a frame is at most {wire.MAX_FRAME} bytes"),
                )
            else:
                return line

    async def _greet(self) -> None:
        with anyio.move_on_after(self._limits.hello) as deadline:
            line = await self._next_line()
        if deadline.cancelled_caught:
            late = ProtocolViolation(f"no $hello within {self._limits.hello:g} seconds")
            raise _HangUp(None, late, linger=False)
        frame: dict[str, Any] = {}
        try:
            frame = wire.decode(line)
            request = wire.parse_request(frame)
            if request.method != "$hello":
                raise ProtocolViolation("the first request must be $hello")
            self._caller = parse_hello(request.params)
            reply = wire.result_frame(request.id, self._host.hello(request.params))
        except DispatchError as error:
            raise _HangUp(wire.valid_id(frame), error) from error
        await self._stream.send(reply)

    async def _serve(self, line: bytes) -> None:
        try:
            frame = wire.decode(line)
        except ProtocolViolation as violation:
            self._malformed += 1
            if self._malformed > self._limits.malformed:
                many = f"more than {self._limits.malformed} malformed frames, the last because {violation.message}"
                raise _HangUp(None, ProtocolViolation(many)) from violation
            await self._stream.send(wire.error_frame(None, violation))
            return
        try:
            request = wire.parse_request(frame)
        except ProtocolViolation as violation:
            await self._stream.send(wire.error_frame(wire.valid_id(frame), violation))
            return
        if request.method.startswith("$"):
            await self._control(request)
        else:
            await self._admit(request, len(line))

    # Control requests are answered at once by the reader: no task, and they pass the ops that wait for a slot.

    async def _control(self, request: wire.Request) -> None:
        method = request.method
        try:
            if method == "$subscribe":
                await self._subscribe(request)
                return
            if method == "$open":
                await self._open(request)
                return
            handler = _CONTROL.get(method)
            if handler is None:
                raise UnknownOp(method)
            reply = wire.result_frame(request.id, handler(self, request.params))
        except DispatchError as error:
            reply = wire.error_frame(request.id, error)
        await self._stream.send(reply)

    def _hello_again(self, _params: Mapping[str, Any]) -> NoReturn:
        raise ProtocolViolation("$hello is the first request of a connection, and only the first")

    def _ping(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if params:
            raise ProtocolViolation("$ping takes no parameters")
        return {}

    def _cancel(self, params: Mapping[str, Any]) -> dict[str, Any]:
        call = self._calls.get(parse_cancel(params))
        if call is None:
            return {"cancelled": False}
        if call.started and not self._host.cancellable(call.request.method):
            return {"cancelled": False}
        call.scope.cancel()
        if not call.started:
            # It has no slot and needs none: its task does nothing but answer.
            self._waiting.remove(call)
            self._waiting_bytes -= call.size
            self._start(call)
        return {"cancelled": True}

    def _unsubscribe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        number = parse_unsubscribe(params)
        subscription = self._subscriptions.get(number)
        if subscription is not None:
            subscription.scope.cancel()
            del self._subscriptions[number]
        return {"unsubscribed": subscription is not None}

    def _shutdown(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._host.shutdown(parse_shutdown(params))
        return {"accepted": True}

    async def _subscribe(self, request: wire.Request) -> None:
        if len(self._subscriptions) >= self._limits.subscriptions:
            raise ProtocolViolation(
                f"this connection has {self._limits.subscriptions} subscriptions already",
                hint="end one with $unsubscribe",
            )
        subscription = parse_subscription(
            request.params,
            number=self._last_subscription + 1,
            instance=self._host.instance,
            last_seq=self._host.events.last_seq,
        )
        self._last_subscription = subscription.number
        self._subscriptions[subscription.number] = subscription
        position = {
            "subscription": subscription.number,
            "cursor": subscription.cursor(subscription.after),
        }
        await self._stream.send(wire.result_frame(request.id, position))
        self._tasks.start_soon(self._pump, subscription)

    async def _pump(self, subscription: Subscription) -> None:
        try:
            await pump(subscription, self._host.events, self._stream.send)
        except PEER_GONE:
            return
        except Exception:
            log.exception("a subscription failed; its connection is closed")
            self._stream.hang_up()

    async def _open(self, request: wire.Request) -> None:
        surface, options = parse_open(request.params)
        if self._calls or self._subscriptions:
            raise ProtocolViolation(
                "$open needs a connection without running requests and subscriptions"
            )
        begun = False

        async def started() -> None:
            nonlocal begun
            begun = True
            await self._stream.send(wire.result_frame(request.id, {}))
            self._stream.give_back(self._splitter.rest())

        try:
            await self._host.open_session(surface, self._stream, self._caller, options, started)
        except PEER_GONE:
            raise
        except (Exception, SystemExit) as error:
            if not begun and isinstance(error, DispatchError):
                raise
            log.exception("a session of the surface %s failed", surface)
        if not begun:
            raise DispatchError(
                f"the surface {surface} ended before its session began",
                hint="dispatch daemon log --daemon",
            )
        raise _EndOfSession

    # Ops

    async def _admit(self, request: wire.Request, size: int) -> None:
        if request.id in self._calls:
            # The reply has no id, because the one it would have belongs to the request that runs.
            twice = ProtocolViolation(
                f"a request with the id {request.id!r} is running on this connection"
            )
            await self._stream.send(wire.error_frame(None, twice))
            return
        call = self._calls[request.id] = _Call(request, size)
        if self._active < self._limits.in_flight:
            self._start(call)
            return
        self._waiting.append(call)
        self._waiting_bytes += size
        while self._waiting_bytes > self._limits.read_ahead:
            self._room = anyio.Event()
            await self._room.wait()

    def _start(self, call: _Call) -> None:
        call.started = True
        self._active += 1
        self._tasks.start_soon(self._run, call)

    async def _run(self, call: _Call) -> None:
        try:
            reply = await self._answer(call)
            # The id is free before the client can know that it is.
            del self._calls[call.request.id]
            with suppress(*PEER_GONE):
                await self._stream.send(reply)
        finally:
            self._active -= 1
            while self._waiting and self._active < self._limits.in_flight:
                following = self._waiting.popleft()
                self._waiting_bytes -= following.size
                self._start(following)
            self._room.set()

    async def _answer(self, call: _Call) -> bytes:
        """Return the reply to one request, whatever happens to it."""
        request = call.request
        try:
            # A scope cancelled beforehand would still let the op run up to its first wait.
            if not call.scope.cancel_called:
                with call.scope:
                    reply = await self._host.call(
                        request.method,
                        request.params,
                        self._caller,
                        schema=request.schema,
                        view=request.view,
                    )
                    return wire.result_frame(request.id, reply.result, reply.text)
            raise self._given_up(request.method)
        except DispatchError as error:
            return wire.error_frame(request.id, error)
        except (Exception, SystemExit):
            log.exception("the request %s failed", request.method)
            return wire.error_frame(request.id, _unforeseen(request.method))
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # Nobody cancelled us: the op let out the end of something it waited for. In the task group it would end its siblings.
            log.exception(
                "the request %s ended by a cancellation that was not its own", request.method
            )
            return wire.error_frame(request.id, _unforeseen(request.method))

    # The end

    def _drop_work(self) -> None:
        """Forget what was not begun, and stop what may be stopped."""
        if not self._retired:
            for call in self._waiting:
                del self._calls[call.request.id]
            self._waiting.clear()
        for call in self._calls.values():
            if not call.started or self._host.cancellable(call.request.method):
                call.scope.cancel()
        for subscription in self._subscriptions.values():
            subscription.scope.cancel()

    async def _answered(self) -> None:
        """Return once every request that was taken in has had its answer."""
        while self._active:
            self._room = anyio.Event()
            await self._room.wait()

    def _given_up(self, method: str) -> DispatchError:
        if self._retired:
            return DaemonUnreachable(
                f"the daemon has stopped; {method} was not done", hint="dispatch up starts it again"
            )
        return Cancelled(f"the request {method} was cancelled by its client")

    async def _part(self, end: _HangUp) -> None:
        """Tell the client why, and read on for a moment: closed at once, a client that still writes would not see the reason."""
        with anyio.move_on_after(self._limits.linger), suppress(*PEER_GONE):
            await self._stream.send(wire.error_frame(end.request_id, end.error))
            if end.linger:
                await self._stream.send_eof()
                while True:
                    await self._stream.receive()


def _unforeseen(method: str) -> DispatchError:
    return DispatchError(
        f"{method} failed in a way nobody foresaw", hint="dispatch daemon log --daemon"
    )


_CONTROL: dict[str, Callable[[Connection, Mapping[str, Any]], dict[str, Any]]] = {
    "$hello": Connection._hello_again,
    "$ping": Connection._ping,
    "$cancel": Connection._cancel,
    "$unsubscribe": Connection._unsubscribe,
    "$shutdown": Connection._shutdown,
}
