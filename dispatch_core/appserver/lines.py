"""Byte chunks in, complete lines out."""

from __future__ import annotations

LINE_LIMIT = 64 * 1024 * 1024


class LineSplitter:
    """Cuts a stream of chunks into lines; one over the limit is dropped as it streams by, counted.

    limit: the most bytes a line may have, without its newline. Work is linear in the bytes fed,
    however the chunks fall: an unfinished line is kept as a list of chunks and joined once.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._dropping = False
        self.oversized = 0

    @property
    def pending(self) -> int:
        """The number of bytes kept of a line that has not ended."""
        return self._size

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that this chunk completes, without their newlines."""
        *ends, tail = chunk.split(b"\n")
        lines: list[bytes] = []
        for end in ends:
            self._keep(end)
            if not self._dropping:
                lines.append(end if len(self._parts) == 1 else b"".join(self._parts))
            self._dropping = False
            self._forget()
        if tail:
            self._keep(tail)
        return lines

    def _keep(self, part: bytes) -> None:
        if self._dropping:
            return
        if self._size + len(part) > self._limit:
            self.oversized += 1
            self._dropping = True
            self._forget()
            return
        self._parts.append(part)
        self._size += len(part)

    def _forget(self) -> None:
        self._parts = []
        self._size = 0
