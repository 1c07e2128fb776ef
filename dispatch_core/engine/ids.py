"""Identifiers: uuid7 keys and the six-character refs people type."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from uuid import UUID

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
CODEX_SOURCE = "0"
PAYLOAD_LENGTH = 4


def uuid7() -> str:
    """Return a new UUID version 7 (RFC 9562): 48 bits of Unix milliseconds, then random bits, so that ids sort by creation."""
    millis = time.time_ns() // 1_000_000
    value = (millis & ((1 << 48) - 1)) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def base58(data: bytes) -> str:
    """Return data as base58btc: one big-endian integer, with a leading ``1`` for each leading zero byte."""
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = BASE58[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def ref_candidates(thread_id: str) -> tuple[str, ...]:
    """Return the 58 refs a Codex thread may get, in order of preference.

    Source ``0``, the first four characters of base58(SHA-256("codex:" + id)), and a mixer that settles collisions.
    """
    payload = base58(sha256(f"codex:{thread_id}".encode()).digest())[:PAYLOAD_LENGTH]
    return tuple(CODEX_SOURCE + payload + mixer for mixer in BASE58)
