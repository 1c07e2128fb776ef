"""A byte stream as the pair of text files that the SDK's stdio transport reads and writes."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

if TYPE_CHECKING:
    from anyio.abc import ByteStream

MAX_LINE = 8 * 1024 * 1024  # bytes

log = logging.getLogger(__name__)


class LineFile:
    """Lines from a byte stream, at most MAX_LINE bytes each, and text back to it.

    A longer line is skipped without being kept and becomes an empty one, which the reader refuses
    like any malformed line.
    """

    def __init__(self, stream: ByteStream, *, max_line: int = MAX_LINE) -> None:
        self._stream = stream
        self._max_line = max_line
        self._lines: deque[str] = deque()
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = False

    def __aiter__(self) -> LineFile:
        return self

    async def __anext__(self) -> str:
        while not self._lines:
            if self._ended:
                raise StopAsyncIteration
            await self._fill()
        return self._lines.popleft()

    async def write(self, text: str) -> None:
        """Send text. Raises ClosedResourceError when the far end has gone, as the SDK expects."""
        try:
            await self._stream.send(text.encode())
        except BrokenResourceError:
            raise ClosedResourceError from None

    async def flush(self) -> None:
        """Do nothing: what was written has been sent."""

    async def _fill(self) -> None:
        try:
            data = await self._stream.receive()
        except (EndOfStream, BrokenResourceError, ClosedResourceError):
            self._ended = True
            if self._size:
                self._finish_line()
            return
        first, *others = data.split(b"\n")
        self._add(first)
        for part in others:
            self._finish_line()
            self._add(part)

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._max_line:
            self._parts.append(part)
        else:
            self._parts.clear()

    def _finish_line(self) -> None:
        if self._size > self._max_line:
            log.warning(
                "skipped a message of %d bytes; the limit is %d", self._size, self._max_line
            )
        self._lines.append(b"".join(self._parts).decode("utf-8", "replace"))
        self._parts.clear()
        self._size = 0
