"""A connected socket as a byte stream whose common case takes no detour: a write that fits is done at once."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

if TYPE_CHECKING:
    ReadableBuffer = bytes | memoryview

CHUNK = 65536
PEER_GONE: Final = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


class PeerStream(ByteStream):
    """A connected socket, owned by this object.

    AnyIO's own stream passes through the event loop before every send and receive; on a local socket that is most of a round
    trip. Writers are serialised, so frames of several tasks never mix; there is one reader at a time.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self._socket = sock
        self._writing = anyio.Lock(fast_acquire=True)
        self._unread = b""

    def give_back(self, data: bytes) -> None:
        """Make data the next thing that is received."""
        self._unread = data + self._unread

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        """Return the next bytes. Raises EndOfStream when the peer has ended, BrokenResourceError when it is gone."""
        await checkpoint_if_cancelled()
        if self._unread:
            data, self._unread = self._unread[:max_bytes], self._unread[max_bytes:]
            return data
        waited = False
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await anyio.wait_readable(self._socket)
                waited = True
            except OSError as error:
                raise self._broken(error) from error
            else:
                if not waited:
                    # A peer that never pauses must not keep the loop to itself; what was read must not be lost.
                    await cancel_shielded_checkpoint()
                if not data:
                    raise anyio.EndOfStream
                return data

    async def send(self, item: bytes) -> None:
        """Write all of item. Raises BrokenResourceError when the peer is gone. Cancelled half-way, the stream is useless."""
        if self._writing.locked():
            async with self._writing:
                await self._send_rest(item)
            return
        sent = self._send_now(item)
        if sent < len(item):
            # Nobody can have come in between: there was no await since the lock was seen free.
            async with self._writing:
                await self._send_rest(memoryview(item)[sent:])

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will come."""
        await checkpoint()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._broken(error) from error

    def end_reading(self) -> None:
        """Take in nothing more; what has arrived can still be received, and then the end."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:  # the peer was faster
            return

    def hang_up(self) -> None:
        """End both directions at once: the peer reads the end, and whoever waits for this stream is woken."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the peer was faster
            return

    async def aclose(self) -> None:
        """Close the socket."""
        self.close()
        await checkpoint()

    def close(self) -> None:
        """Close the socket at once; whoever waits for it gets a ClosedResourceError."""
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
            self._socket.close()

    async def _send_rest(self, item: ReadableBuffer) -> None:
        rest = memoryview(item)
        while rest:
            sent = self._send_now(rest)
            rest = rest[sent:]
            if rest:
                await anyio.wait_writable(self._socket)

    def _send_now(self, item: ReadableBuffer) -> int:
        try:
            return self._socket.send(item)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> Exception:
        if self._socket.fileno() < 0:
            return anyio.ClosedResourceError()
        return anyio.BrokenResourceError(str(error))
