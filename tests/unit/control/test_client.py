"""The concurrent client against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.control.client import ControlClient
from dispatch_core.errors import DaemonUnreachable, RemoteError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_requests_run_concurrently(serving: Callable[..., Any]) -> None:
    async with serving() as server, ControlClient.connect(server.path) as client:
        assert client.hello["instance"] == server.host.instance
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "slow.read")
            await server.host.until("slow.read begun")
            reply = await client.call("echo", {"a": 1}, view={"width": 80, "color": True})
            server.host.release.set()

        assert (reply.result, reply.text) == ({"a": 1}, "seen")


async def test_errors_are_raised_and_the_client_goes_on(serving: Callable[..., Any]) -> None:
    async with serving() as server, ControlClient.connect(server.path, client="mcp") as client:
        with pytest.raises(RemoteError) as busy:
            await client.call("send")

        assert busy.value.code == "lane_busy"
        assert (await client.call("$ping")).result == {}


async def test_a_refused_greeting_is_raised(serving: Callable[..., Any]) -> None:
    async with serving() as server:
        with pytest.raises(RemoteError) as stale:
            async with ControlClient.connect(server.path, protocol=7):
                pass

        assert stale.value.code == "daemon_stale"


async def test_an_exception_in_the_body_is_raised_as_it_is(serving: Callable[..., Any]) -> None:
    async with serving() as server:
        with pytest.raises(ZeroDivisionError):
            async with ControlClient.connect(server.path):
                raise ZeroDivisionError


async def test_a_request_is_cancelled_by_name(serving: Callable[..., Any]) -> None:
    async with serving() as server, ControlClient.connect(server.path) as client:

        async def wait() -> None:
            with pytest.raises(RemoteError) as cancelled:
                await client.call("slow.read", request_id="mine")
            assert cancelled.value.code == "cancelled"

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await server.host.until("slow.read begun")
            assert await client.cancel("mine")
        assert not await client.cancel("mine")


async def test_a_cancelled_call_withdraws_its_request(serving: Callable[..., Any]) -> None:
    async with serving() as server, ControlClient.connect(server.path) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call, "slow.read")
            await server.host.until("slow.read begun")
            tasks.cancel_scope.cancel()

        await server.host.until("slow.read cancelled")
        assert (await client.call("$ping")).result == {}


async def test_a_subscription_yields_events_and_ends(serving: Callable[..., Any]) -> None:
    async with serving() as server, ControlClient.connect(server.path) as client:
        server.host.events.publish(EventKind.TURN_STARTED)
        async with client.subscribe(after="old:1", kinds=["turn.started"]) as events:
            server.host.events.publish(EventKind.TURN_STARTED, thread="k")

            seen = [await anext(events) for _ in range(3)]
            assert seen[0].event is None
            assert [n.event["seq"] for n in seen[1:] if n.event] == [1, 2]
        assert (await client.call("$ping")).result == {}


async def test_a_subscriber_that_never_reads_finds_a_gap(serving: Callable[..., Any]) -> None:
    async with (
        serving() as server,
        ControlClient.connect(server.path) as client,
        client.subscribe() as events,
        client.subscribe() as reader,
    ):
        for _ in range(6):
            for _ in range(1000):
                server.host.events.publish(EventKind.TURN_STARTED)
            for _ in range(1000):
                await anext(reader)

        seqs: list[int | None] = []
        while not seqs or seqs[-1] != 6000:
            notification = await anext(events)
            seqs.append(None if notification.event is None else notification.event["seq"])
        assert seqs[0] is None
        assert seqs[1:] == list(range(6000 - len(seqs) + 2, 6001))


async def test_the_end_of_the_daemon_ends_calls_and_subscriptions(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server:
        connecting = ControlClient.connect(server.path)
        client = await connecting.__aenter__()
        subscription = client.subscribe()
        events = await subscription.__aenter__()
        server.stop()

        with pytest.raises(DaemonUnreachable):
            await anext(events)
        with pytest.raises(DaemonUnreachable):
            await client.call("$ping")
        await subscription.__aexit__(None, None, None)
        await connecting.__aexit__(None, None, None)


async def test_without_a_daemon_the_way_out_is_up(socket_path: Path) -> None:
    with pytest.raises(DaemonUnreachable) as missing:
        async with ControlClient.connect(socket_path):
            pass

    assert "dispatch up" in str(missing.value.hint)
