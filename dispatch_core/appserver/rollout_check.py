"""Whether the file in which Codex keeps a thread is whole: only then does what is not in it prove anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BUDGET = 64 * 1024 * 1024  # bytes, from the end, that are looked at


def damage(path: Path) -> str | None:
    """Return what is wrong with a rollout file, None if nothing is. Blocking.

    A line that is no JSON and a gap in the ordinals of the paginated format are somebody else's doing. A torn line may be a
    kill's: the kernel can stop a write between two pages when the process is killed, and Codex goes on below it. A file that was
    cut looks the same, so it proves nothing either. Of a file over 64 MiB only the end is looked at.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - BUDGET))
            if size > BUDGET:
                file.readline()
            return _first_wrong(file.read())
    except FileNotFoundError:
        return None  # a thread has none before its first turn; one that had a turn is told apart by Codex
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def _first_wrong(content: bytes) -> str | None:
    if content and not content.endswith(b"\n"):
        return "the last line of its file is torn"
    expected: int | None = None
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return f"line {number} of its file is damaged"
        ordinal = entry.get("ordinal") if isinstance(entry, dict) else None
        if not isinstance(ordinal, int):
            continue
        if expected is not None and ordinal != expected:
            return f"lines are missing before line {number} of its file"
        expected = ordinal + 1
    return None
