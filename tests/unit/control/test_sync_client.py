"""The blocking client against a real server in a thread, and against peers that misbehave."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread
import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.control import wire
from dispatch_core.control.sync_client import Connection
from dispatch_core.errors import (
    AuthorityDenied,
    DaemonUnreachable,
    OutcomeUnknown,
    ProtocolViolation,
    RemoteError,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HELLO = {"protocol": 1, "client": "cli", "version": "1", "manifest": None, "thread_id": None}


@pytest.fixture
def server(serving: Callable[..., Any]) -> Iterator[Any]:
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving()) as running,
    ):
        yield running, portal


@contextmanager
def peer(path: Path, answer: bytes, *, read_first: bool = True) -> Iterator[None]:
    """Listen, and say ``answer`` to the first client whatever it writes, then close."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            if read_first:
                sock.recv(65536)
            sock.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(5)


def test_one_round_trip_greets_and_calls(server: Any) -> None:
    running, _ = server
    with Connection.connect(running.path, timeout=5) as connection:
        view = {"width": 80, "color": False}
        hello, reply = connection.first_call(
            HELLO, "echo", {"a": "ü"}, schema="s", view=view, timeout=5, read=True
        )

    assert hello["instance"] == running.host.instance
    assert reply == wire.Reply({"a": "ü"}, "seen")
    assert running.host.calls == [("echo", {"a": "ü"}, "s", view)]


def test_several_requests_on_one_connection(server: Any) -> None:
    running, _ = server
    with Connection.connect(str(running.path), timeout=5) as connection:
        connection.hello(HELLO, timeout=5)

        assert connection.request("$ping", {}, timeout=5).result == {}
        assert connection.request("echo", {"n": 1}, timeout=5).result == {"n": 1}


def test_the_daemons_errors_are_raised_with_their_code(server: Any) -> None:
    running, _ = server
    with Connection.connect(running.path, timeout=5) as connection:
        connection.hello(HELLO)
        with pytest.raises(RemoteError, match="a turn is running") as busy:
            connection.request("send", {}, timeout=5)

        assert busy.value.code == "lane_busy"
        assert connection.request("$ping", {}).result == {}


def test_a_refused_greeting_executes_nothing(server: Any) -> None:
    running, _ = server
    with (
        Connection.connect(running.path, timeout=5) as connection,
        pytest.raises(RemoteError) as stale,
    ):
        connection.first_call({**HELLO, "protocol": 9}, "echo", {}, timeout=5)

    assert stale.value.code == "daemon_stale"
    assert running.host.calls == []


def test_events_are_iterated(server: Any) -> None:
    running, portal = server
    with Connection.connect(running.path, timeout=5) as connection:
        connection.hello(HELLO)
        position = connection.subscribe(kinds=["turn.started"], timeout=5)
        for thread in ("a", "b"):
            portal.call(
                lambda t=thread: running.host.events.publish(EventKind.TURN_STARTED, thread=t)
            )
        connection.request("$ping", {}, timeout=5)
        events = connection.events(timeout=5)

        seen = [next(events), next(events)]
        assert [n.event["thread"] for n in seen if n.event] == ["a", "b"]
        assert seen[1].cursor == f"{running.host.instance}:2"
        assert position["cursor"] == f"{running.host.instance}:0"
        with pytest.raises(TimedOut):
            next(connection.events(timeout=0.05))
        assert connection.request("$ping", {}, timeout=5).result == {}


def test_an_open_session_is_detached_with_its_early_bytes(server: Any) -> None:
    running, _ = server
    connection = Connection.connect(running.path, timeout=5)
    opening = {"surface": "upper", "options": {"prefix": "early "}}
    connection.first_call(HELLO, "$open", opening, timeout=5)
    assert connection.fileno() >= 0
    sock, early = connection.detach()

    with sock:
        sock.sendall(b"late")
        received = early
        while len(received) < len(b"early LATE"):
            received += sock.recv(100)
    assert received == b"early LATE"


@pytest.mark.parametrize(("read", "error"), [(True, TimedOut), (False, OutcomeUnknown)])
def test_no_answer_in_time_says_what_is_known(
    server: Any, read: bool, error: type[Exception]
) -> None:
    running, _ = server
    with Connection.connect(running.path, timeout=5) as connection:
        connection.hello(HELLO)
        with pytest.raises(error):
            connection.request("slow.read", {}, timeout=0.05, read=read)
        with pytest.raises(DaemonUnreachable, match="closed"):
            connection.request("$ping", {}, timeout=5)


def test_without_a_socket_the_way_out_is_up(socket_path: Path) -> None:
    with pytest.raises(DaemonUnreachable) as missing:
        Connection.connect(socket_path, timeout=1)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path))
    with pytest.raises(DaemonUnreachable) as refused:
        Connection.connect(socket_path, timeout=1)

    assert "dispatch up" in str(missing.value.hint)
    assert "dispatch up" in str(refused.value.hint)


def test_a_file_that_is_not_a_socket_is_refused(socket_path: Path) -> None:
    socket_path.write_text("")

    with pytest.raises(DaemonUnreachable, match="not a socket"):
        Connection.connect(socket_path, timeout=1)


def test_a_full_queue_of_connections_is_an_error_after_the_timeout(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path))
        listener.listen(0)
        with (
            Connection.connect(socket_path, timeout=1),
            pytest.raises(DaemonUnreachable, match="did not accept"),
        ):
            Connection.connect(socket_path, timeout=0.05)


BROKEN = {
    "nothing": b"",
    "half a reply": b'{"id":1,"resu',
    "not JSON": b"hello\n",
    "an array": b"[]\n",
    "no result": b'{"id":1}\n',
    "an error without data": b'{"id":1,"error":{"code":1}}\n',
    "another id": b'{"id":5,"result":{}}\n',
    "a strange notification": b'{"method":"$surprise","params":{}}\n',
    "an event without cursor": b'{"method":"$event","params":{"subscription":1}}\n',
    "too much": b"x" * (wire.MAX_FRAME + 1),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_a_broken_reply_is_an_error_and_never_a_hang(socket_path: Path, answer: bytes) -> None:
    with (
        peer(socket_path, answer),
        Connection.connect(socket_path, timeout=5) as connection,
        pytest.raises((ProtocolViolation, DaemonUnreachable)),
    ):
        connection.hello(HELLO, timeout=5)


def test_a_connection_lost_after_a_write_was_sent_leaves_the_outcome_unknown(
    socket_path: Path,
) -> None:
    answer = b'{"id":1,"result":{}}\n'
    with (
        peer(socket_path, answer),
        Connection.connect(socket_path, timeout=5) as connection,
        pytest.raises(OutcomeUnknown),
    ):
        connection.first_call(HELLO, "send", {}, timeout=5)


def test_a_connection_lost_before_the_greeting_was_answered_has_done_nothing(
    socket_path: Path,
) -> None:
    with (
        peer(socket_path, b""),
        Connection.connect(socket_path, timeout=5) as connection,
        pytest.raises(DaemonUnreachable, match="send was not done"),
    ):
        connection.first_call(HELLO, "send", {}, timeout=5)


def test_a_refusal_before_the_request_was_written_is_still_read(socket_path: Path) -> None:
    error = DaemonUnreachable("full", hint="later")
    with peer(socket_path, wire.error_frame(None, error), read_first=False):
        connection = Connection.connect(socket_path, timeout=5)
    with connection, pytest.raises(RemoteError, match="full") as refused:
        connection.first_call(HELLO, "send", {}, timeout=5)

    assert refused.value.code == "daemon_unreachable"


def test_a_request_that_is_too_large_is_not_sent(server: Any) -> None:
    running, _ = server
    with Connection.connect(running.path, timeout=5) as connection:
        connection.hello(HELLO)
        with pytest.raises(ProtocolViolation, match="at most"):
            connection.request("echo", {"x": "y" * wire.MAX_FRAME}, timeout=5)

        assert connection.request("$ping", {}, timeout=5).result == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user to listen as")
def test_nothing_is_sent_to_a_daemon_of_another_user(home: Path) -> None:
    path = home / "control.sock"
    program = textwrap.dedent("""
        import os, socket, sys
        os.umask(0)
        os.setuid(65534)
        s = socket.socket(socket.AF_UNIX)
        s.bind(sys.argv[1]); s.listen(); print("ready", flush=True)
        c, _ = s.accept()
        print(c.recv(100), flush=True)
    """)
    home.chmod(0o777)
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(AuthorityDenied, match="user 65534"):
            Connection.connect(path, timeout=1)
        os.chown(path, os.geteuid(), -1)
        with pytest.raises(AuthorityDenied, match="user 65534"):
            Connection.connect(path, timeout=1)

        assert process.stdout.readline() == "b''\n"


def test_the_client_imports_nothing_heavy() -> None:
    program = (
        "import dispatch_core.control.sync_client, sys, json; print(json.dumps(list(sys.modules)))"
    )
    output = subprocess.check_output([sys.executable, "-c", program])

    heavy = {
        "asyncio",
        "anyio",
        "pydantic",
        "pluggy",
        "stevedore",
        "click",
        "dataclasses",
        "inspect",
    }
    assert heavy.isdisjoint(json.loads(output))
