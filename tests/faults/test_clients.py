"""Clients of the control socket that are many, slow, silent, stopped or killed, against a server in a process of its own."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import statistics
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.errors import DaemonUnreachable, RemoteError
from dispatch_core.testing.daemon import eventually

from .serving import HELLO, PATIENCE, Server, ping, serving

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from dispatch_core.control.sync_client import Connection

HELLO_FRAME = json.dumps({"id": 0, "method": "$hello", "params": HELLO}).encode() + b"\n"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start a server with the limits given."""
    with serving() as start:
        yield start


def refusal(client: socket.socket) -> dict[str, Any]:
    """Return the error a client is told before its connection is closed."""
    with client.makefile("rb") as file:
        frame = json.loads(file.readline())
        assert file.readline() == b""
    assert frame["id"] is None
    error: dict[str, Any] = frame["error"]["data"]
    return error


@contextlib.contextmanager
def many(count: int) -> Iterator[list[Connection]]:
    connections: list[Connection] = []
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()
        assert len(connections) <= count


def enough_descriptors(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            pytest.skip(f"needs {count} descriptors, and {hard} are the most here")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@pytest.mark.fault("K4")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_1000_idle_and_200_active_clients_are_served_and_one_too_many_is_told(
    serve: Callable[..., Server], figures: Callable[..., None]
) -> None:
    enough_descriptors(1600)
    server = serve(descriptors=1600, connections=1200)
    warm = server.greeted()
    warm.close()
    server.idle()
    before = server.memory()

    took = []
    with many(1200) as clients:
        for _ in range(1200):
            begun = time.perf_counter()
            clients.append(server.greeted())
            took.append(time.perf_counter() - begun)
        grown = server.memory() - before
        for active in clients[::6]:
            assert active.request("echo", {"n": 1}, timeout=PATIENCE).result == {"n": 1}
        refused = []
        for _ in range(10):
            with server.raw() as late:
                refused.append(refusal(late))
        for client in clients:
            ping(client)

    for error in refused:
        assert (error["code"], error["retryable"]) == ("daemon_unreachable", True)
        assert "1200 connections" in error["message"]
    with server.greeted() as following:
        ping(following)
    figures(
        clients=len(took),
        refused_with_an_error=len(refused),
        connect_p99_ms=round(statistics.quantiles(took, n=100)[98] * 1000, 2),
        rss_per_client_kib=round(grown / len(took), 1),
    )


@pytest.mark.fault("K5")
def test_with_128_descriptors_clients_in_excess_are_told_and_no_client_is_dropped(
    serve: Callable[..., Server], tier: Any, figures: Callable[..., None]
) -> None:
    server = serve(descriptors=128)
    dropped = refused = served = 0
    rounds = tier.rounds(3, 100)

    for _ in range(rounds):
        with many(200) as clients:
            for _ in range(200):
                client = server.connect()
                try:
                    client.hello(HELLO, timeout=PATIENCE)
                except RemoteError as error:
                    client.close()
                    refused += error.code == "daemon_unreachable"
                else:
                    clients.append(client)
            for client in clients:
                try:
                    ping(client)
                except DaemonUnreachable:
                    dropped += 1
            served += len(clients)
        server.idle()

    assert dropped == 0
    assert served >= 32 * rounds
    assert served + refused == 200 * rounds
    figures(rounds=rounds, served=served, refused_with_an_error=refused, dropped=dropped)


@pytest.mark.fault("K5")
@pytest.mark.skipif(sys.platform != "linux", reason="changes the limit of a running process")
def test_when_no_descriptor_is_left_clients_stay_and_accepting_resumes(
    serve: Callable[..., Server], tier: Any, figures: Callable[..., None]
) -> None:
    server = serve(descriptors=256)
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    dropped, resumed = 0, []
    rounds = tier.rounds(5, 200)
    old = [server.greeted() for _ in range(20)]

    for _ in range(rounds):
        used = server.state()["descriptors"]
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (used, hard))
        with server.raw() as late:
            assert "cannot open another file" in refusal(late)["message"]
        with server.raw() as queued:
            for client in old:
                try:
                    ping(client)
                except DaemonUnreachable:
                    dropped += 1
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (256, hard))
            begun = time.perf_counter()
            # It is served or, when its turn came before there was a descriptor, told so.
            queued.sendall(HELLO_FRAME)
            assert queued.recv(1)
        with server.greeted() as new:
            ping(new)
        resumed.append(time.perf_counter() - begun)
        eventually(lambda: server.state()["connections"] == len(old), "only the old are left")

    assert dropped == 0
    for client in old:
        client.close()
    figures(
        rounds=rounds,
        existing=len(old) * rounds,
        dropped=dropped,
        resumed_after_s_max=round(max(resumed), 3),
    )


@pytest.mark.fault("K6")
def test_slow_silent_and_half_open_clients_end_at_their_deadline_and_delay_nobody(
    serve: Callable[..., Server], tier: Any, figures: Callable[..., None]
) -> None:
    enough_descriptors(2000)
    count = tier.rounds(90, 500)
    seconds = 1.0 if not tier.full else 10.0
    server = serve(descriptors=1600, hello=seconds)
    others = server.greeted()
    alone = [_timed(lambda: ping(others)) for _ in range(200)]

    clients = [server.raw() for _ in range(count)]
    dripping, half_open = clients[::3], clients[1::3]
    for client in half_open:
        client.sendall(HELLO_FRAME[:20])
    among = []
    position = 0
    told: dict[socket.socket, bytes] = dict.fromkeys(clients, b"")
    open_ = set(clients)
    deadline = time.monotonic() + PATIENCE
    while open_ and time.monotonic() < deadline:
        if position < len(HELLO_FRAME) - 2:
            for client in dripping:
                if client in open_:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        client.sendall(HELLO_FRAME[position : position + 1])
            position += 1
        among += [_timed(lambda: ping(others)) for _ in range(5)]
        readable, _, _ = select.select(list(open_), [], [], seconds / 50)
        for client in readable:
            try:
                data = client.recv(65536)
            except ConnectionResetError:
                data = b""
            told[client] += data
            if not data:
                open_.discard(client)

    assert not open_
    assert all(b"no $hello within" in text for text in told.values())
    ping(others)
    others.close()
    for client in clients:
        client.close()
    assert server.idle()["errors"] == 0
    figures(
        clients=count,
        closed=count - len(open_),
        deadline_s=seconds,
        ping_p99_ms_alone=_p99(alone),
        ping_p99_ms_among=_p99(among),
    )


def _timed(act: Callable[[], None]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def _p99(seconds: list[float]) -> float:
    return round(statistics.quantiles(seconds, n=100)[98] * 1000, 3)


DOOMED = textwrap.dedent("""
    # Forks clients; each is killed at the moment it says that it is in the middle of something.
    import json, os, random, signal, socket, sys

    path, rounds, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    chance = random.Random(seed)
    line = lambda *frames: b"".join(json.dumps(frame).encode() + b"\\n" for frame in frames)
    request = lambda method, **params: {"id": method, "method": method, "params": params}
    hello = {"id": 0, "method": "$hello", "params": {"protocol": 1, "client": "doomed", "version": "1"}}

    def live(kind, said):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.sendall(line(hello)[: chance.randrange(60)] if kind == "greeting" else line(hello))
        if kind != "greeting":
            client.recv(4096)
        if kind == "request":
            client.sendall(line(request("wait"), {**request("wait"), "id": 2}))
        elif kind == "half":
            client.sendall(line(request("echo", x="y" * 500_000))[:chance.randrange(1, 400_000)])
        elif kind == "stream":
            client.sendall(line(request("$subscribe", after="faults:0")))
            client.recv(4096)
        elif kind == "reply":
            client.sendall(line(request("blob", size=3_000_000)))
            client.recv(10)
        elif kind == "session":
            client.sendall(line(request("$open", surface="upper")) + b"abc")
            client.recv(10)
        elif kind == "write":
            client.sendall(line(request("write")))
        os.write(said, b"x")
        signal.pause()

    kinds = ("greeting", "request", "half", "stream", "reply", "session", "write")
    writes = 0
    for number in range(rounds):
        kind = kinds[number % len(kinds)]
        writes += kind == "write"
        chance.random()
        said, say = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(kind, say)
            finally:
                os._exit(1)
        os.close(say)
        assert os.read(said, 1) == b"x", kind
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(said)
    print(json.dumps({"killed": rounds, "writes": writes}))
""")


@pytest.mark.fault("K9")
def test_a_client_killed_in_the_middle_of_anything_leaves_nothing_behind(
    serve: Callable[..., Server], tier: Any, figures: Callable[..., None]
) -> None:
    server = serve()
    server.tell("publish", count=2000)
    with server.greeted() as warm:
        ping(warm)
    before = server.idle()
    rounds = tier.rounds(105, 10_500)

    done = subprocess.run(
        [sys.executable, "-c", DOOMED, server.path, str(rounds), str(tier.seed)],
        capture_output=True,
        check=True,
        timeout=60 + rounds,
    )
    killed = json.loads(done.stdout)
    after = server.idle()

    assert killed["killed"] == rounds
    assert after["written"] == killed["writes"]
    assert {**after, "written": 0} == before
    figures(
        killed=rounds,
        descriptors_left_over=after["descriptors"] - before["descriptors"],
        tasks_left_over=after["tasks"] - before["tasks"],
        handlers_left_over=after["running"],
        writes_half_done=killed["writes"] - after["written"],
        errors=after["errors"],
    )


@pytest.mark.fault("K5")
def test_whatever_leaves_one_handler_ends_neither_the_listener_nor_another_client(
    serve: Callable[..., Server], tier: Any, figures: Callable[..., None]
) -> None:
    server = serve()
    other = server.greeted()
    rounds = tier.rounds(5, 200)
    answered = 0

    for _ in range(rounds):
        for op in ("crash", "exit", "stray", "group"):
            with server.greeted() as client:
                with pytest.raises(RemoteError) as failed:
                    client.request(op, {}, timeout=PATIENCE)
                assert failed.value.code == "internal"
                ping(client)
                answered += 1
        for surface in ("crash", "exit"):
            with server.greeted() as client:
                client.request("$open", {"surface": surface}, timeout=PATIENCE)
                session, early = client.detach()
                with session:
                    assert (early, session.recv(1)) == (b"", b"")
        with server.connect() as client, pytest.raises(DaemonUnreachable):
            client.hello({**HELLO, "client": "crash"}, timeout=PATIENCE)
        ping(other)

    other.close()
    state = server.idle()
    assert state["errors"] == 7 * rounds
    assert state["running"] == 0
    with server.greeted() as following:
        ping(following)
    figures(failures=state["errors"], answered=answered, handlers_left_over=state["running"])
