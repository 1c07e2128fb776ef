"""Frames that are too large, broken, hostile or random, against a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatch_core.control import wire
from dispatch_core.control.sync_client import Connection
from dispatch_core.errors import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dispatch_core.testing.daemon import Dispatch

HELLO = {"protocol": 1, "client": "test", "version": "1"}
PATIENCE = 60.0  # seconds for anything that must happen
MIB = 1024  # KiB
FULL = os.environ.get("DISPATCH_FAULTS_TIER") == "full"  # the decorators below cannot ask a fixture
needs_proc = pytest.mark.skipif(
    sys.platform != "linux", reason="reads the memory of a process from /proc"
)


class Daemon:
    """A daemon that runs, its memory and what it logged."""

    def __init__(self, home: Dispatch) -> None:
        self.home = home
        self.pid = int(home.json("up", "--offline")["pid"])

    @contextlib.contextmanager
    def greeted(self) -> Iterator[socket.socket]:
        connection = Connection.connect(self.home.socket, timeout=PATIENCE)
        connection.hello(HELLO, timeout=PATIENCE)
        client, _ = connection.detach()
        with client:
            client.settimeout(PATIENCE)
            yield client

    def memory(self, what: str = "VmRSS") -> int:
        """Return KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1])
        raise AssertionError(what)

    def forget_peak(self) -> None:
        """Let VmHWM begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def unhandled(self) -> int:
        """Return how many exceptions nobody had foreseen."""
        return (self.home.home / "dispatchd.log").read_text().count("Traceback")


@pytest.fixture
def daemon(home: Dispatch) -> Daemon:
    return Daemon(home)


def frames(client: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield what the daemon writes, until it ends the connection."""
    with client.makefile("rb") as file:
        for line in file:
            yield json.loads(line)


def write(client: socket.socket, piece: bytes, times: int) -> None:
    # A daemon that has read enough may end the connection; its reason can be read all the same.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(times):
            client.sendall(piece)


def filled(size: int) -> bytes:
    """Return the frame of a request for an op that does not exist, of so many bytes."""
    empty = len(wire.request_frame(1, "no.such.op", {"x": ""}))
    return b'{"id":1,"method":"no.such.op","params":{"x":"' + b"y" * (size - empty) + b'"}}\n'


@pytest.mark.fault("K7")
@needs_proc
def test_frames_of_100_mb_are_discarded_as_they_come_and_the_limit_is_exact(
    daemon: Daemon, tier: Any, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(2, 50)
    cold = daemon.memory()
    daemon.forget_peak()

    refused = discard_100_mb(daemon, b"")
    peak = daemon.memory("VmHWM") - cold
    codes = []
    for size in (wire.MAX_FRAME - 1, wire.MAX_FRAME, wire.MAX_FRAME + 1):
        with daemon.greeted() as client:
            write(client, filled(size), 1)
            codes.append(next(frames(client))["error"]["data"]["code"])
    for _ in range(rounds):
        refused += discard_100_mb(daemon, b"")
        refused += discard_100_mb(daemon, b'{"id":1,"method":"send","params":{"text":"')
    grown = daemon.memory() - cold

    assert codes == ["unknown_op", "unknown_op", "protocol"]
    assert refused == 1 + 2 * rounds
    # 8 MiB may be a frame, so they are kept until there is one byte more; what is taken beyond them is less than 8 MiB.
    assert peak < (8 + 8) * MIB
    assert grown < (8 + 8) * MIB
    assert daemon.unhandled() == 0
    figures(frames=refused, mb_each=100, rss_grown_kib=grown, first_peak_kib=peak)


def discard_100_mb(daemon: Daemon, head: bytes) -> int:
    """Write 100 MB after the head, with a newline only if there is a head; return whether it was refused as it should be."""
    with daemon.greeted() as client:
        write(client, head or b"x", 1)
        write(client, b"x" * 1_000_000, 100)
        write(client, b'"}}\n', 1 if head else 0)
        # The daemon stops to listen some seconds after its answer; on this side the end of the frame ends that.
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        replies = list(frames(client))
    return [(reply["id"], reply["error"]["data"]["code"]) for reply in replies] == [
        (None, "protocol")
    ]


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def params(value: bytes) -> bytes:
    return b'{"id":1,"method":"no.such.op","params":{"x":' + value + b"}}"


HOSTILE = {
    "bytes that are not UTF-8": params(b'"\xff\xfe"'),
    "an overlong NUL": params(b'"\xc0\x80"'),
    "a surrogate in UTF-8": params(b'"\xed\xa0\x80"'),
    "a lone surrogate": params(b'"\\ud800"'),
    "surrogates the wrong way round": params(b'"\\udc00\\ud800"'),
    "a lone surrogate as a name": params(b'{"\\uDfff":1}'),
    "a byte order mark": b"\xef\xbb\xbf" + params(b"1"),
    "UTF-16": params(b"1").decode().encode("utf-16-be"),
    "a NUL": params(b'"\x00"'),
    "100,000 levels": params(nested(100_000)),
    "65 levels": params(nested(63)),
    "a million members": params(b"{" + b",".join(b'"%d":1' % n for n in range(600_000)) + b"}"),
    "2,700,000 empty lists": params(b"[" + b"[]," * 2_700_000 + b"1]"),
    "4,000,000 numbers": params(b"[" + b"1," * 4_000_000 + b"1]"),
    "8,000,000 quotes": params(b'"' * 8_000_000),
    "8,000,000 backslashes": params(b'"' + b"\\" * 8_000_001),
    "NaN": params(b"NaN"),
    "infinity": params(b"-Infinity"),
    "a number out of range": params(b"1e999"),
    "5,000 digits": params(b"9" * 5000),
    "a member twice": params(b'{"a":1,"a":2}'),
    "an id twice": b'{"id":1,"id":1,"method":"$ping"}',
    "nothing": b"",
    "half a frame": params(b"1")[:-5],
    "two in one line": params(b"1") * 2,
    "a list": b"[" + params(b"1") + b"]",
}


@pytest.mark.fault("K8")
@needs_proc
def test_each_hostile_frame_gets_a_typed_error_and_its_connection_goes_on(
    daemon: Daemon, tier: Any, figures: Callable[..., None]
) -> None:
    answered = 0
    rounds = tier.rounds(1, 20)
    before = daemon.memory()
    daemon.forget_peak()

    with daemon.greeted() as client:
        replies = frames(client)
        for name, line in list(HOSTILE.items()):
            client.sendall(line + b"\n")
            refused = next(replies)
            assert refused["id"] is None, name
            assert refused["error"]["data"]["code"] == "protocol", name
            assert refused["error"]["code"] == -32600, name
            client.sendall(b'{"id":2,"method":"$ping"}\n')
            assert next(replies) == {"id": 2, "result": {}}, name
            answered += 1
    for _ in range(rounds - 1):
        with daemon.greeted() as client:
            replies = frames(client)
            for line in HOSTILE.values():
                client.sendall(line + b"\n")
                answered += next(replies)["error"]["data"]["code"] == "protocol"

    assert answered == rounds * len(HOSTILE)
    assert daemon.unhandled() == 0
    peak = daemon.memory("VmHWM") - before
    assert peak < 64 * MIB
    figures(
        kinds=len(HOSTILE),
        frames=rounds * len(HOSTILE),
        typed_errors=answered,
        unhandled=daemon.unhandled(),
        peak_kib=peak,
    )


@pytest.mark.fault("K8")
@needs_proc
def test_mutated_frames_neither_crash_nor_hang_nor_swell_the_decoder_or_the_daemon(
    daemon: Daemon, tier: Any, figures: Callable[..., None]
) -> None:
    count, share = tier.rounds(5_000, 1_000_000), tier.rounds(400, 20_000)
    script = Path(__file__).with_name("fuzz_frames.py")
    before = daemon.memory()

    done = subprocess.run(
        [sys.executable, str(script), str(tier.seed), str(count), daemon.home.socket, str(share)],
        capture_output=True,
        text=True,
        timeout=120 + count / 500,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found.pop("failures") == []
    assert found["frames"] == count
    assert found["accepted"] > 0 < found["refused"]
    assert (found["unhandled"], found["hangs"]) == (0, 0)
    assert found["rss_grown_kib"] < 64 * MIB
    assert found["answered"] == found["written"] == share
    grown = daemon.memory() - before
    assert grown < 64 * MIB
    assert daemon.unhandled() == 0
    figures(
        **found,
        daemon_rss_grown_kib=grown,
        daemon_unhandled=daemon.unhandled(),
        crashes=done.returncode,
    )


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)


@pytest.mark.fault("K8")
@settings(max_examples=100_000 if FULL else 100, suppress_health_check=list(HealthCheck))
@given(members=st.dictionaries(st.text(), values, max_size=6))
def test_what_can_be_written_is_read_as_it_was(members: dict[str, Any]) -> None:
    line = wire.request_frame("x", "send", members)

    assert line.index(b"\n") == len(line) - 1
    assert wire.parse_request(wire.decode(line[:-1])).params == members


ascii_json = st.text(alphabet='{}[]",:\\u0d8e1-. \x00é😀', max_size=60).map(str.encode)


@pytest.mark.fault("K8")
@settings(max_examples=100_000 if FULL else 100, suppress_health_check=list(HealthCheck))
@given(line=st.binary(max_size=60) | ascii_json | ascii_json.map(params))
def test_what_is_read_is_an_object_or_a_violation_and_nothing_else(line: bytes) -> None:
    try:
        frame = wire.decode(line)
    except ProtocolViolation:
        return

    assert frame == json.loads(line)
    assert wire.decode(wire.encode(frame)) == frame
