"""The daemon's log: one rotating file, private, without message bodies."""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
BACKUPS = 3
LINE_LIMIT = 2000  # characters of a line that ``daemon log`` shows


class LogFile(RotatingFileHandler):
    """A log whose last words may be lost on a full disk; why the daemon ends is said elsewhere as well."""

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            super().close()


def configure(path: str, *, max_bytes: int) -> logging.Handler:
    """Send every log record to the file at path, rotated at max_bytes, three old files kept. Returns the handler."""
    handler = LogFile(path, maxBytes=max_bytes, backupCount=BACKUPS, encoding="utf-8")
    Path(path).chmod(0o600)
    handler.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    wanted = os.environ.get("DISPATCH_LOG_LEVEL", "").upper()
    root.setLevel(logging.getLevelNamesMapping().get(wanted, logging.INFO))
    return handler


def tail(path: str, limit: int) -> list[str]:
    """Return the last lines of the log, oldest first; none when there is no log."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n")[:LINE_LIMIT] for line in deque(file, maxlen=limit)]
    except FileNotFoundError:
        return []
