"""The concurrent client of the control socket, for programs that run an event loop."""

from __future__ import annotations

import os
import socket
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.control import wire
from dispatch_core.control.peer import UP, check_peer, check_socket_file
from dispatch_core.control.stream import PEER_GONE, PeerStream
from dispatch_core.control.wire import Notification, Reply
from dispatch_core.errors import DaemonUnreachable, DispatchError, ProtocolViolation, RemoteError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

# Seconds for telling the daemon that nobody waits any more.
WITHDRAW = 2.0
MAX_KEPT = 4096


class ControlClient:
    """A connection to the daemon on which requests run concurrently. ``hello`` is what the daemon said of itself."""

    def __init__(self, stream: PeerStream) -> None:
        self._stream = stream
        self._splitter = wire.FrameSplitter()
        self._last_id = 0
        self._waiting: dict[wire.RequestId, _Waiter] = {}
        self._feeds: dict[int, _Feed] = {}
        self._failure: DispatchError | None = None
        self.hello: dict[str, Any] = {}

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, path: str | os.PathLike[str], **hello: Any
    ) -> AsyncIterator[ControlClient]:
        """Yield a client that was greeted. hello: members of the greeting; protocol, client and version have defaults.

        Raises DaemonUnreachable, AuthorityDenied for another user's daemon, and RemoteError when the greeting is refused.
        """
        stream = await _connect(os.fspath(path))
        client = cls(stream)
        greeting = {"protocol": wire.PROTOCOL, "client": "python", "version": "0", **hello}
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client._read)
                try:
                    client.hello = (await client.call("$hello", greeting)).result
                    yield client
                finally:
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The task group is an inner affair: nobody else knows that there could be several.
            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from None
        finally:
            stream.close()

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        schema: str | None = None,
        view: Mapping[str, Any] | None = None,
        request_id: wire.RequestId | None = None,
    ) -> Reply:
        """Return the reply to one request. Cancelled, it withdraws the request.

        request_id: to name the request in ``cancel``; by default a number of its own. Raises RemoteError, DaemonUnreachable when
        the connection ends first.
        """
        if request_id is None:
            request_id = self._next_id()
        frame = wire.request_frame(request_id, method, params or {}, schema=schema, view=view)
        return await self._exchange(request_id, frame, _Waiter())

    async def cancel(self, request_id: wire.RequestId) -> bool:
        """Tell the daemon to stop a request; True if it will. The request's own ``call`` says how it ended."""
        return bool((await self.call("$cancel", {"id": request_id})).result["cancelled"])

    @asynccontextmanager
    async def subscribe(
        self,
        *,
        after: str | None = None,
        kinds: Sequence[str] | None = None,
        thread: str | None = None,
    ) -> AsyncIterator[AsyncIterator[Notification]]:
        """Yield an iterator over notifications; one without an event is a gap. The end of the connection is raised."""
        params = {"after": after, "kinds": None if kinds is None else list(kinds), "thread": thread}
        request_id = self._next_id()
        frame = wire.request_frame(request_id, "$subscribe", params)
        feed = _Feed()
        number = (await self._exchange(request_id, frame, _Waiter(feed))).result["subscription"]
        try:
            yield feed
        finally:
            del self._feeds[number]
            if self._failure is None:
                with anyio.move_on_after(WITHDRAW, shield=True), suppress(DispatchError):
                    await self.call("$unsubscribe", {"subscription": number})

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    async def _exchange(self, request_id: wire.RequestId, frame: bytes, waiter: _Waiter) -> Reply:
        if self._failure is not None:
            raise self._failure
        self._waiting[request_id] = waiter
        try:
            # When the daemon is gone, its reason may still be on the way; the reader ends the wait in any case.
            with suppress(*PEER_GONE):
                await self._stream.send(frame)
            await waiter.done.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(WITHDRAW, shield=True), suppress(*PEER_GONE):
                cancel = wire.request_frame(self._next_id(), "$cancel", {"id": request_id})
                await self._stream.send(cancel)
            raise
        finally:
            del self._waiting[request_id]
        if waiter.error is not None:
            raise waiter.error
        return Reply(waiter.result, waiter.text)

    async def _read(self) -> None:
        try:
            while True:
                for line in self._splitter.feed(await self._stream.receive()):
                    if isinstance(line, wire.Oversized):
                        raise ProtocolViolation("the daemon sent a frame that is too large")
                    self._take(wire.decode_reply(line))
        except PEER_GONE:
            self._fail(DaemonUnreachable("the daemon ended the connection", hint=UP))
        except DispatchError as error:
            self._fail(error)

    def _take(self, frame: Mapping[str, Any]) -> None:
        if "id" not in frame:
            notification = wire.parse_notification(frame)
            feed = self._feeds.get(notification.subscription)
            if feed is not None:
                feed.put(notification)
            return
        error = RemoteError(frame["error"]["data"]) if "error" in frame else None
        waiter = self._waiting.get(frame["id"])
        if waiter is None:
            if error is not None and frame["id"] is None:
                raise error
            return
        waiter.error = error
        waiter.result = frame.get("result", {})
        waiter.text = frame.get("text")
        if waiter.feed is not None and error is None:
            # The first event may be in the same read; the caller of subscribe runs only after it.
            self._feeds[waiter.result["subscription"]] = waiter.feed
        waiter.done.set()

    def _fail(self, error: DispatchError) -> None:
        self._failure = error
        for waiter in self._waiting.values():
            waiter.error = error
            waiter.done.set()
        for feed in self._feeds.values():
            feed.end(error)


class _Waiter:
    __slots__ = ("done", "error", "feed", "result", "text")

    def __init__(self, feed: _Feed | None = None) -> None:
        self.done = anyio.Event()
        self.error: DispatchError | None = None
        self.feed = feed
        self.result: dict[str, Any] = {}
        self.text: str | None = None


class _Feed:
    """The notifications of one subscription, at most MAX_KEPT; a reader that is slower than that finds a gap."""

    def __init__(self) -> None:
        self._kept: deque[Notification] = deque()
        self._changed = anyio.Event()
        self._end: DispatchError | None = None

    def put(self, notification: Notification) -> None:
        if len(self._kept) >= MAX_KEPT:
            last = self._kept[-1]
            self._kept.clear()
            self._kept.append(Notification(last.subscription, last.cursor, None))
        self._kept.append(notification)
        self._changed.set()

    def end(self, error: DispatchError) -> None:
        self._end = error
        self._changed.set()

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> Notification:
        while not self._kept:
            if self._end is not None:
                raise self._end
            self._changed = anyio.Event()
            await self._changed.wait()
        return self._kept.popleft()


async def _connect(path: str) -> PeerStream:
    check_socket_file(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        try:
            # A local connect is done at once or refused; only a full queue of connections is neither.
            sock.connect(path)
        except OSError as error:
            reason = error.strerror or error
            raise DaemonUnreachable(f"no daemon answers on {path}: {reason}", hint=UP) from error
        check_peer(sock, path)
    except BaseException:
        sock.close()
        raise
    return PeerStream(sock)
