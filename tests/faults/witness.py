"""The independent witness: the language model in a process of its own, which writes down every request before it answers.

It outlives whatever is killed, and knows nothing of dispatch: what ran is what it was asked.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MARKER = re.compile(r"\bm-\d{6,}\b")
END_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the model. marker: of the message that it answers, None when that has none."""

    marker: str | None
    thread_id: str
    turn_id: str


class Witness:
    """What the model was asked. base_url: where it is asked."""

    def __init__(self, log: Path, base_url: str) -> None:
        self.base_url = base_url
        self._log = log
        self._read = 0
        self._asked: list[Asked] = []
        self._lock = threading.Lock()

    def asked(self) -> list[Asked]:
        """Return every request so far, in order."""
        with self._lock, self._log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    break  # it is still being written
                self._read += len(line)
                if (asked := parse(line)) is not None:
                    self._asked.append(asked)
            return list(self._asked)

    def markers(self) -> set[str]:
        """Return the markers that the model has seen."""
        return {asked.marker for asked in self.asked() if asked.marker is not None}


@contextmanager
def witness(log: Path) -> Iterator[Witness]:
    """Run the model while the context lasts."""
    log.touch()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "dispatch_core.offline", "--log", str(log)],
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout is not None
    try:
        port = json.loads(process.stdout.readline())["port"]
        yield Witness(log, f"http://127.0.0.1:{port}/v1")
    finally:
        process.terminate()
        process.wait(END_PATIENCE)
        process.stdout.close()


def parse(line: bytes) -> Asked | None:
    """Return the model request of a line, None for one that is something else."""
    record = json.loads(line)
    if "turn_id" not in record:
        return None
    marker = MARKER.search(record["text"] or "")
    return Asked(
        marker=marker[0] if marker else None,
        thread_id=record["thread_id"],
        turn_id=record["turn_id"],
    )
