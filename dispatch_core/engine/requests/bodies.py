"""What is asked, within bounds: whole if it is not too long, else shortened where it is longest, and said to be."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 64 << 10  # bytes of the body as JSON
SHORTER = (16_384, 4_096, 1_024, 256)  # characters that are left of each text, tried in this order
ENTRIES = 100  # entries that are left of each list or object
DEPTH = 12  # levels that are left


def bounded(body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the body in at most 64 KiB, and whether anything is missing from it."""
    whole = dict(body)
    if _size(whole) <= LIMIT:
        return whole, False
    for room in SHORTER:
        shorter: dict[str, Any] = _shortened(whole, room, DEPTH)
        if _size(shorter) <= LIMIT:
            return shorter, True
    return dict.fromkeys(whole), True


def digest(method: str, body: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that is asked, in hex."""
    text = json.dumps([method, body], sort_keys=True, separators=(",", ":"))
    return sha256(text.encode("ascii")).hexdigest()


def _size(body: Mapping[str, Any]) -> int:
    return len(json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"))


def _shortened(value: Any, room: int, depth: int) -> Any:
    if isinstance(value, str):
        missing = len(value) - room
        return f"{value[:room]}\n[{missing} more characters]" if missing > 0 else value
    if isinstance(value, list | dict) and not depth:
        return "[more]"
    if isinstance(value, list):
        kept = [_shortened(entry, room, depth - 1) for entry in value[:ENTRIES]]
        return [*kept, f"[{len(value) - ENTRIES} more]"] if len(value) > ENTRIES else kept
    if isinstance(value, dict):
        entries = list(value.items())[:ENTRIES]
        return {str(key)[:room]: _shortened(entry, room, depth - 1) for key, entry in entries}
    return value
