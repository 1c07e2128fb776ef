"""Subscribers that are stopped, slow or gone, against a control server in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from .serving import PATIENCE, Server, serving

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from dispatch_core.control.sync_client import Connection

KIB = 1024


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start a server with the limits given."""
    with serving() as start:
        yield start


SUBSCRIBER = textwrap.dedent("""
    # Says when it has subscribed, then reads until the event with the seq that it is told on its standard input.
    import json, select, sys
    from dispatch_core.control.sync_client import Connection

    seqs, gaps, last = [], 0, None
    with Connection.connect(sys.argv[1], timeout=30) as connection:
        connection.hello({"protocol": 1, "client": "stalled", "version": "1"}, timeout=30)
        cursor = connection.subscribe(timeout=30)["cursor"]
        print(cursor, flush=True)
        for notification in connection.events(timeout=60):
            if notification.event is None:
                gaps += 1
                seqs.append(None)
                continue
            seqs.append(notification.event["seq"])
            if last is None and select.select([sys.stdin], [], [], 0)[0]:
                last = int(sys.stdin.readline())
            if seqs[-1] == last:
                break
    print(json.dumps({"seqs": seqs, "gaps": gaps}))
""")


@pytest.mark.fault("K10")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_a_stopped_subscriber_finds_a_gap_and_nobody_else_loses_an_event(
    serve: Callable[..., Server], tier: Any, figures: Callable[..., None]
) -> None:
    server = serve()
    last = server.tell("publish", count=6000)["last_seq"]  # the ring is full from here on
    other = server.greeted()
    other.subscribe(timeout=PATIENCE)
    heard = 0
    batches = tier.rounds(15, 200)
    with subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBER, server.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as stalled:
        assert stalled.stdin is not None
        assert stalled.stdout is not None
        try:
            assert stalled.stdout.readline() == f"faults:{last}\n"
            before = server.memory()
            stalled.send_signal(signal.SIGSTOP)
            for _ in range(batches):
                server.tell("publish", count=1000)
                heard += _read_events(other, last + heard + 1, 1000)
            grown = server.memory() - before
            end = last + batches * 1000 + 1
            stalled.stdin.write(f"{end}\n")
            stalled.stdin.flush()
            stalled.send_signal(signal.SIGCONT)
            server.tell("publish", count=1)
            heard += _read_events(other, end, 1)
            found = json.loads(stalled.stdout.readline())
        finally:
            stalled.kill()

    assert heard == batches * 1000 + 1
    assert found["gaps"] >= 1
    assert found["seqs"][-1] == end
    _check_gaps_are_marked(found["seqs"], last)
    assert grown < 8 * KIB
    other.close()
    figures(
        published=heard,
        heard_by_others=heard,
        heard_by_the_stopped=len(found["seqs"]) - found["gaps"],
        gaps=found["gaps"],
        rss_grown_kib=grown,
    )


def _read_events(connection: Connection, first: int, count: int) -> int:
    """Return how many events came in unbroken order from the seq ``first`` on; all of them, or it fails."""
    events = connection.events(timeout=PATIENCE)
    for expected in range(first, first + count):
        event = next(events).event
        assert event is not None
        assert event["seq"] == expected
    return count


def _check_gaps_are_marked(seqs: list[int | None], after: int) -> None:
    marked = False
    for seq in seqs:
        if seq is None:
            marked = True
        else:
            assert seq > after + 1 if marked else seq == after + 1
            after, marked = seq, False


@pytest.mark.fault("K11")
def test_a_slow_consumer_that_resumes_by_cursor_finds_neither_gap_nor_duplicate(
    serve: Callable[..., Server], tier: Any, figures: Callable[..., None]
) -> None:
    server = serve()
    chance: random.Random = tier.random
    total = tier.rounds(2000, 100_000)
    seqs: list[int] = []
    gaps = connections = published = 0
    cursor = "faults:0"

    while len(seqs) < total:
        while published < total and published - len(seqs) < 3000:
            published = server.tell("publish", count=min(500, total - published))["last_seq"]
        connections += 1
        with server.greeted() as connection:
            connection.subscribe(after=cursor, timeout=PATIENCE)
            events = connection.events(timeout=PATIENCE)
            for _ in range(min(chance.randrange(1, 400), published - len(seqs))):
                notification = next(events)
                cursor = notification.cursor
                if notification.event is None:
                    gaps += 1
                else:
                    seqs.append(notification.event["seq"])

    assert seqs == list(range(1, total + 1))
    assert gaps == 0
    figures(
        events=len(seqs),
        connections=connections,
        gaps=gaps,
        duplicates=len(seqs) - len(set(seqs)),
        missing=total - len(set(seqs)),
    )
