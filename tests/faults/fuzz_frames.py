"""Mutates valid frames and gives them to the real decoder, and some of them to a daemon; says what came of it as one JSON line.

``fuzz_frames.py SEED COUNT SOCKET SHARE``: COUNT frames for the decoder, SHARE frames for the daemon that listens on SOCKET.
It is a process of its own, so that a crash, a hang or what it takes of memory can be seen from outside. Frames that take much too
long end it with status 1 and the stack on standard error.
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.control import wire
from dispatch_core.control.params import (
    parse_cancel,
    parse_hello,
    parse_open,
    parse_shutdown,
    parse_unsubscribe,
)
from dispatch_core.control.subscriptions import parse_subscription
from dispatch_core.control.sync_client import Connection
from dispatch_core.errors import DispatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HANG = 10.0  # seconds
WATCHED = 256  # frames between two turns of the watchdog
BATCH = 40  # lines on one connection; it takes a hundred malformed ones
PATIENCE = 60.0
LARGEST = 20_000  # bytes of a mutated frame

HELLO = {"protocol": 1, "client": "fuzz", "version": "1"}
SEEDS = [
    {"id": 1, "method": "$ping"},
    {"id": "a-1", "method": "$ping", "params": {}},
    {"id": 2, "method": "$hello", "params": {**HELLO, "manifest": None, "thread_id": None}},
    {"id": 3, "method": "$cancel", "params": {"id": "a-1"}},
    {"id": 4, "method": "$subscribe", "params": {"after": None, "kinds": None, "thread": None}},
    {"id": 5, "method": "$subscribe", "params": {"after": "b41f:18", "kinds": ["turn.completed"]}},
    {"id": 6, "method": "$unsubscribe", "params": {"subscription": 1}},
    {"id": 7, "method": "$open", "params": {"surface": "none", "options": {"a": [1, 2.5, "x"]}}},
    {"id": 8, "method": "no.such.op", "params": {"text": 'ä 😀 " \\ \n', "deep": [[[{"a": []}]]]}},
    {
        "id": 9,
        "method": "daemon.status",
        "params": {},
        "schema": "9f2c",
        "view": {"width": 100, "color": True, "text_only": True},
    },
]
TOKENS = [
    *(b"NaN", b"-Infinity", b"1e999", b"-0", b"0.1e-400", b"9" * 5000, b"9" * 70, b"1.", b"01"),
    *(b"\\ud800", b"\\udc00\\ud800", b"\\u0000", b"\\x", b"\\", b'"', b'\\"', b"\\\\"),
    *(b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc0\x80", b"\xf4\x90\x80\x80"),
    *(b"\x00", b"\x1f", b"\x7f", b"\r", b"\t", b"\xe2\x80\xa8", b"//", b"/**/", b"'"),
    *(b"[" * 70, b"[" * 3000, b"]" * 70, b'{"a":' * 70, b"{}", b"[]", b",", b":", b"null", b"true"),
    *(b'"id":1,', b'"id":2,"id":3,', b'"method":"$ping",', b'"params":{},', b'"__proto__":1,'),
    b",".join(b'"k%d":1' % number for number in range(1200)) + b",",
]


class Fuzzer:
    """Frames that are nearly valid, always the same for one seed."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._seeds = [json.dumps(seed, ensure_ascii=False).encode() for seed in SEEDS]

    def frame(self) -> bytes:
        """Return one line without its newline."""
        line = self._random.choice(self._seeds)
        for _ in range(self._random.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
            line = self._mutated(line)
        return line[:LARGEST].replace(b"\n", b" ")

    def pieces(self, data: bytes) -> list[bytes]:
        """Return the data cut where a socket might cut it."""
        size = self._random.choice((1, 7, 100, 4096, 65536, 65536))
        return [data[at : at + size] for at in range(0, len(data), size)]

    def _mutated(self, line: bytes) -> bytes:
        chance = self._random
        start = chance.randrange(len(line) + 1)
        end = min(len(line), start + chance.choice((0, 1, 1, 2, 5, 20)))
        other = chance.choice(self._seeds)
        forms = (
            line[:start] + chance.randbytes(chance.randrange(1, 5)) + line[end:],
            line[:start] + line[end:],
            line[:end] + line[start:],
            line[:start],
            line[:start] + other[chance.randrange(len(other)) :],
            line[:start] + chance.choice(TOKENS) + line[end:],
            line[:start] + chance.choice(TOKENS) + line[start:],
        )
        if chance.random() < 0.02:
            return chance.choice((line.decode("utf-8", "replace").encode("utf-16"), b"", line * 2))
        return chance.choice(forms)


PARSERS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "$hello": parse_hello,
    "$cancel": parse_cancel,
    "$unsubscribe": parse_unsubscribe,
    "$shutdown": parse_shutdown,
    "$open": parse_open,
    "$subscribe": lambda params: parse_subscription(params, number=1, instance="b41f", last_seq=20),
}


def decode(fuzzer: Fuzzer, count: int) -> dict[str, Any]:
    """Give count frames to the splitter, the decoder and the parsers, and count what came of them."""
    splitter = wire.FrameSplitter()
    counted = {"frames": 0, "accepted": 0, "refused": 0, "unhandled": 0}
    failures: list[str] = []
    slowest = 0.0
    settled = 0
    for number in range(count):
        if number % WATCHED == 0:
            faulthandler.dump_traceback_later(HANG * WATCHED, exit=True)
        if number == count // 10:
            settled = resident()
        begun = time.perf_counter()
        for piece in fuzzer.pieces(fuzzer.frame() + b"\n"):
            for line in splitter.feed(piece):
                counted["frames"] += 1
                try:
                    _take(line)
                except DispatchError:
                    counted["refused"] += 1
                except Exception as error:  # noqa: BLE001 -- whatever it is, it is what this looks for
                    counted["unhandled"] += 1
                    failures.append(f"{error!r:.200} for {line!r:.300}")
                else:
                    counted["accepted"] += 1
        slowest = max(slowest, time.perf_counter() - begun)
    faulthandler.cancel_dump_traceback_later()
    return {
        **counted,
        "failures": failures[:5],
        "hangs": int(slowest > HANG),
        "slowest_ms": round(slowest * 1000, 1),
        "rss_grown_kib": resident() - settled,
    }


def _take(line: bytes | wire.Oversized) -> None:
    if isinstance(line, wire.Oversized):
        raise TypeError("no frame here is that large")
    request = wire.parse_request(wire.decode(line))
    if request.method in PARSERS:
        PARSERS[request.method](request.params)
    # What was understood can be said again, and means the same.
    again = wire.parse_request(
        wire.decode(wire.request_frame(request.id, request.method, request.params)[:-1])
    )
    if again.params != request.params:
        raise ValueError("another meaning")


def converse(fuzzer: Fuzzer, path: str, share: int) -> dict[str, int]:
    """Write share frames to the daemon, a batch to a connection; each line must be answered, and the connection must go on."""
    written = answered = 0
    faulthandler.dump_traceback_later(PATIENCE + share / 50, exit=True)
    while written < share:
        lines = [fuzzer.frame() for _ in range(min(BATCH, share - written))]
        connection = Connection.connect(path, timeout=PATIENCE)
        connection.hello(HELLO, timeout=PATIENCE)
        sock, _ = connection.detach()
        with sock:
            sock.settimeout(PATIENCE)
            for piece in fuzzer.pieces(b"\n".join(lines) + b'\n{"id":"end","method":"$ping"}\n'):
                sock.sendall(piece)
            answered += _replies(sock, len(lines) + 1) - 1
        written += len(lines)
    faulthandler.cancel_dump_traceback_later()
    return {"written": written, "answered": answered}


def _replies(sock: Any, expected: int) -> int:
    """Return how many replies came, one of them to the last request."""
    splitter = wire.FrameSplitter()
    ids: list[object] = []
    while len(ids) < expected:
        data = sock.recv(65536)
        if not data:
            break
        for line in splitter.feed(data):
            frame = json.loads(line)  # type: ignore[arg-type]
            if "id" in frame:
                ids.append(frame["id"])
    if "end" not in ids:
        raise ConnectionError(f"the connection ended after {len(ids)} of {expected} replies")
    return len(ids)


def resident() -> int:
    """Return the most memory this process has taken so far, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return 0


async def main(seed: str, count: str, path: str, share: str) -> None:
    # Asynchronous only because a subscription has a cancel scope, which needs an event loop.
    result = decode(Fuzzer(seed), int(count))
    print(json.dumps({**result, **converse(Fuzzer(f"{seed} socket"), path, int(share))}))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
