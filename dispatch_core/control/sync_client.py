"""The blocking client of the control socket, for processes that make one call and end.

Standard library only: the fast path of the CLI imports it.
"""

from __future__ import annotations

import _socket  # socket itself imports selectors and makes enums, which takes a tenth of a command
import os
import struct
from time import monotonic

from dispatch_core.control import wire
from dispatch_core.control.peer import UP, check_peer, check_socket_file
from dispatch_core.control.wire import Notification, Reply
from dispatch_core.errors import (
    DaemonUnreachable,
    OutcomeUnknown,
    ProtocolViolation,
    RemoteError,
    TimedOut,
)

TYPE_CHECKING = False  # typing costs too much
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Any, Self

CHUNK = 65536
# Events that arrive while a reply is awaited are kept; a caller that never reads them is told so.
MAX_KEPT = 4096
LOST = "dispatch daemon status says whether it runs"


class Connection:
    """A connection to the daemon: one request at a time, and the events of its subscriptions in between.

    After TimedOut, OutcomeUnknown, DaemonUnreachable or ProtocolViolation it is closed, because a late reply could be taken for
    the next one. waiting: called with the seconds that are left, None for ever, whenever something is to be read; it may wait
    until there is something (``fileno``), or raise.
    """

    def __init__(self, sock: _socket.socket) -> None:
        self._socket = sock
        self._splitter = wire.FrameSplitter()
        self._lines: Iterator[bytes | wire.Oversized] = iter(())
        self._last_id = 0
        self._events: list[Notification] = []  # collections costs a tenth of a command
        self.waiting: Callable[[float | None], None] | None = None

    @classmethod
    def connect(cls, path: str | os.PathLike[str], *, timeout: float) -> Connection:
        """Return a connection to our own user's daemon, to which nothing was sent yet.

        timeout: seconds to wait while the daemon's queue of connections is full. Raises DaemonUnreachable when nothing listens,
        AuthorityDenied when the socket or the process behind it is another user's.
        """
        name = os.fspath(path)
        check_socket_file(name)
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            _connect(sock, name, timeout)
            check_peer(sock, name)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def hello(self, params: Mapping[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Return the daemon's answer to the greeting, which must come before every other request."""
        return self.request("$hello", params, timeout=timeout).result

    def request(  # noqa: PLR0913 -- the members of a request, by keyword
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        schema: str | None = None,
        view: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        read: bool = False,
        heard: Callable[[Notification], None] | None = None,
    ) -> Reply:
        """Return the reply to one request.

        timeout: seconds for all of it, None for as long as it takes. read: whether it changes nothing; otherwise a lost reply
        means OutcomeUnknown. heard: called with each event that comes before the reply, which ``events`` does not yield then.
        Raises RemoteError for the daemon's own errors, TimedOut, DaemonUnreachable, ProtocolViolation.
        """
        request_id = self._next_id()
        frame = wire.request_frame(request_id, method, params, schema=schema, view=view)
        exchange = _Exchange(method, timeout, read=read or method.startswith("$"))
        self._send(frame, exchange)
        return self._reply(request_id, exchange, heard)

    def first_call(  # noqa: PLR0913 -- request's arguments and the greeting's
        self,
        hello_params: Mapping[str, Any],
        method: str,
        params: Mapping[str, Any],
        *,
        schema: str | None = None,
        view: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        read: bool = False,
    ) -> tuple[dict[str, Any], Reply]:
        """Return the answers to the greeting and to one request, in one round trip; arguments and errors as for ``request``.

        The daemon does not execute the request when it refuses the greeting.
        """
        hello_id, request_id = self._next_id(), self._next_id()
        frames = wire.request_frame(hello_id, "$hello", hello_params) + wire.request_frame(
            request_id, method, params, schema=schema, view=view
        )
        exchange = _Exchange(method, timeout, read=read or method.startswith("$"))
        self._send(frames, exchange)
        # The daemon looks at the request once it has answered the greeting.
        exchange.greeted = False
        greeting = self._reply(hello_id, exchange).result
        exchange.greeted = True
        return greeting, self._reply(request_id, exchange)

    def subscribe(
        self,
        *,
        after: str | None = None,
        kinds: list[str] | None = None,
        thread: str | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Return {"subscription", "cursor"}; ``events`` yields what follows."""
        params = {"after": after, "kinds": kinds, "thread": thread}
        return self.request("$subscribe", params, timeout=timeout).result

    def events(self, *, timeout: float | None = None) -> Iterator[Notification]:
        """Yield the events of every subscription of this connection; one without an event is a gap.

        timeout: seconds to wait for each, None for ever. Raises TimedOut when none came in time; the connection stays good.
        """
        while True:
            while self._events:
                yield self._events.pop(0)
            exchange = _Exchange("the next event", timeout, read=True)
            frame = self._frame(exchange, keep_open=True)
            if "id" in frame:
                raise self._broken(
                    f"the daemon answered a request that was not made: {frame['id']!r}"
                )
            self._keep(frame)

    def fileno(self) -> int:
        """Return the descriptor of the socket, to wait for it."""
        return self._socket.fileno()

    def detach(self) -> tuple[socket.socket, bytes]:
        """Return the socket, blocking, and the bytes that came after the last reply; this object is of no more use.

        For a connection that carries a session since ``request("$open", …)``.
        """
        # Imported for start-up: only a session needs more of a socket than a call does.
        import socket

        early = self._splitter.rest()
        sock = socket.socket(fileno=self._socket.detach())
        sock.settimeout(None)
        return sock, early

    def close(self) -> None:
        """Close the connection; the daemon stops the reads that still run in it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _send(self, data: bytes, exchange: _Exchange) -> None:
        if self._socket.fileno() < 0:
            raise DaemonUnreachable("the connection to the daemon is closed", hint=LOST)
        try:
            self._socket.settimeout(exchange.remaining())
            self._socket.sendall(data)
        except TimeoutError as error:
            self.close()
            # The last frame is not complete, so the daemon has not executed it.
            raise DaemonUnreachable(
                f"the daemon takes no input; {exchange.method} was not sent", hint=LOST
            ) from error
        except (BrokenPipeError, ConnectionResetError):
            # The daemon may have said why it closes the connection before it read this; the reply is in the buffer then.
            exchange.sent = False
        except OSError as error:
            self.close()
            raise DaemonUnreachable(
                f"{exchange.method} cannot be sent: {error}", hint=LOST
            ) from error
        else:
            exchange.sent = True

    def _reply(
        self,
        request_id: int,
        exchange: _Exchange,
        heard: Callable[[Notification], None] | None = None,
    ) -> Reply:
        while True:
            frame = self._frame(exchange)
            if "id" not in frame:
                self._keep(frame)
                if heard is not None:
                    heard(self._events.pop())
                continue
            answered = frame["id"]
            if answered not in (request_id, None):
                raise self._broken(f"the daemon answered another request: {answered!r}")
            error, result = frame.get("error"), frame.get("result")
            if type(error) is dict and type(error.get("data")) is dict:
                raise RemoteError(error["data"])
            if answered is None or type(result) is not dict:
                raise self._broken("the daemon sent a reply without a result")
            return Reply(result, frame.get("text"))

    def _frame(self, exchange: _Exchange, *, keep_open: bool = False) -> dict[str, Any]:
        while True:
            line = next(self._lines, None)
            if isinstance(line, wire.Oversized):
                raise self._broken(f"the daemon sent more than {wire.MAX_FRAME} bytes in one frame")
            if line is not None:
                try:
                    return wire.decode_reply(line)
                except ProtocolViolation as violation:
                    raise self._broken(
                        f"the daemon sent a malformed frame: {violation.message}"
                    ) from violation
            try:
                if self.waiting is not None:
                    self.waiting(exchange.remaining())
                self._socket.settimeout(exchange.remaining())
                data = self._socket.recv(CHUNK)
            except TimeoutError as error:
                if not keep_open:
                    self.close()
                raise exchange.late() from error
            except OSError as error:
                self.close()
                raise exchange.lost(error.strerror or str(error)) from error
            if not data:
                self.close()
                raise exchange.lost("the connection ended")
            self._lines = self._splitter.feed(data)

    def _keep(self, frame: Mapping[str, Any]) -> None:
        try:
            notification = wire.parse_notification(frame)
        except ProtocolViolation as violation:
            raise self._broken(violation.message) from violation
        if len(self._events) >= MAX_KEPT:
            raise self._broken(f"more than {MAX_KEPT} events arrived that nobody read")
        self._events.append(notification)

    def _broken(self, message: str) -> ProtocolViolation:
        self.close()
        return ProtocolViolation(message, hint="dispatch down, then dispatch up")


class _Exchange:
    """One request on its way, for the deadline and for what may be said when no reply comes."""

    __slots__ = ("_deadline", "_timeout", "greeted", "method", "read", "sent")

    def __init__(self, method: str, timeout: float | None, *, read: bool) -> None:
        self.method = method
        self.read = read
        self.sent = self.greeted = True
        self._timeout = timeout
        self._deadline = None if timeout is None else monotonic() + timeout

    def remaining(self) -> float | None:
        """Return the seconds left; never 0, which would mean that the socket does not block."""
        return None if self._deadline is None else max(0.001, self._deadline - monotonic())

    def late(self) -> TimedOut | OutcomeUnknown:
        message = f"no answer to {self.method} within {self._timeout:g} s"
        if self.read:
            return TimedOut(message, hint=LOST)
        return OutcomeUnknown(
            f"{message}; it may still happen", hint="look before you repeat it: dispatch list"
        )

    def lost(self, reason: str) -> DaemonUnreachable | OutcomeUnknown:
        if not (self.sent and self.greeted):
            what = "was not sent" if not self.sent else "was not done"
            return DaemonUnreachable(f"{self.method} {what}: {reason}", hint=UP)
        message = f"the daemon went away before it answered {self.method}: {reason}"
        if self.read:
            return DaemonUnreachable(message, hint=UP)
        return OutcomeUnknown(
            f"{message}; it may have happened", hint="look before you repeat it: dispatch list"
        )


def _connect(sock: _socket.socket, path: str, timeout: float) -> None:
    try:
        # With a timeout of Python's own the socket would not block, and a full queue would be an error at once.
        _send_timeout(sock, max(0.001, timeout))
        sock.connect(path)
        _send_timeout(sock, 0)
    except BlockingIOError as error:
        late = f"the daemon on {path} did not accept the connection within {timeout:g} s"
        raise DaemonUnreachable(late, hint=LOST) from error
    except OSError as error:
        reason = error.strerror or error
        raise DaemonUnreachable(f"no daemon answers on {path}: {reason}", hint=UP) from error


def _send_timeout(sock: _socket.socket, seconds: float) -> None:
    timeval = struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, timeval)
