"""How far an op is, on one line of the terminal that is gone when the op is done."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from dispatch_core.errors import RemoteError
from dispatch_plugins.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TextIO

    from dispatch_core.control.sync_client import Connection
    from dispatch_core.control.wire import Notification

KIND = "op.progress"
STEP = 0.05  # seconds between two paintings
WIDTH = 80


class StatusLine:
    """The last line of a terminal, painted over and over. It is left as it was found."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = 0
        self._due = 0.0

    def show(self, text: str) -> None:
        """Paint a text, cut to the width of the terminal, unless the last one is too fresh to have been read."""
        now = monotonic()
        if now < self._due:
            return
        self._due = now + STEP
        text = " ".join(printable(text).split())[: self._width() - 1]
        # Only a carriage return and blanks: every terminal understands them.
        self._write(f"\r{text.ljust(self._shown)}")
        self._shown = len(text)

    def clear(self) -> None:
        """Leave an empty line."""
        if self._shown:
            self._write(f"\r{' ' * self._shown}\r")
            self._shown = 0

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or WIDTH
        except OSError:
            return WIDTH

    def _write(self, text: str) -> None:
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "replace").decode(encoding))
        self._stream.flush()


@contextmanager
def progress_of(connection: Connection, op: str) -> Iterator[Callable[[Notification], None]]:
    """Have what the daemon says of an op's progress shown on stderr; yields what is to hear the notifications.

    The daemon's events of this op are shown whoever asked for it: of two that run at once each shows both, and where they take
    turns the one that waits shows what it waits for.
    """
    # A daemon that was busy may be of a build without these events; the op matters more.
    with suppress(RemoteError):
        connection.subscribe(kinds=[KIND])
    line = StatusLine(sys.stderr)

    def heard(notification: Notification) -> None:
        data = (notification.event or {}).get("data", {})
        if data.get("op") == op:
            line.show(described(data))

    try:
        yield heard
    finally:
        line.clear()


def described(data: Mapping[str, Any]) -> str:
    """Return the progress that an event tells, as one line: the text, then how much of how much."""
    text, done, total = str(data.get("text") or ""), data.get("done"), data.get("total")
    if done is None:
        return text
    if not total:
        return f"{text} {done}".strip()
    return f"{text} {done}/{total} ({100 * done // total}%)".strip()
