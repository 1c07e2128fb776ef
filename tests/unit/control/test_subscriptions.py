"""Events over the socket: cursors, filters, gaps and slow readers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.contracts.events import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


def subscribe(**params: Any) -> dict[str, Any]:
    return {"id": "s", "method": "$subscribe", "params": params}


def seqs(frames: list[dict[str, Any]]) -> list[int | None]:
    return [f["params"]["event"]["seq"] if f["method"] == "$event" else None for f in frames]


async def test_events_after_the_subscription_arrive_with_their_cursors(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        server.host.events.publish(EventKind.TURN_STARTED, thread="before")
        reply = await client.ask(subscribe())
        event = server.host.events.publish(
            EventKind.TURN_COMPLETED, thread="k", turn_id="t", data={"a": 1}
        )

        instance = server.host.instance
        assert reply["result"] == {"subscription": 1, "cursor": f"{instance}:1"}
        assert await client.read() == {
            "method": "$event",
            "params": {
                "subscription": 1,
                "cursor": f"{instance}:2",
                "event": {
                    "seq": 2,
                    "at": event.at.isoformat(),
                    "kind": "turn.completed",
                    "thread": "k",
                    "turn_id": "t",
                    "data": {"a": 1},
                },
            },
        }


async def test_a_cursor_resumes_without_gap_or_duplicate(serving: Callable[..., Any]) -> None:
    async with serving() as server:
        for _ in range(10):
            server.host.events.publish(EventKind.TURN_STARTED)
        async with server.greeted() as client:
            await client.ask(subscribe(after=f"{server.host.instance}:4"))

            assert seqs([await client.read() for _ in range(6)]) == [5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize("published", [0, 3])
async def test_a_cursor_of_another_instance_starts_with_a_gap(
    serving: Callable[..., Any], published: int
) -> None:
    async with serving() as server, server.greeted() as client:
        for _ in range(published):
            server.host.events.publish(EventKind.TURN_STARTED)
        await client.ask(subscribe(after="another:7"))
        server.host.events.publish(EventKind.TURN_STARTED)

        frames = [await client.read() for _ in range(published + 2)]
        assert seqs(frames) == [None, *range(1, published + 2)]
        assert frames[0]["params"]["cursor"] == f"{server.host.instance}:0"


async def test_a_cursor_that_is_too_old_starts_with_a_gap(serving: Callable[..., Any]) -> None:
    async with serving() as server, server.greeted() as client:
        for _ in range(5000):
            server.host.events.publish(EventKind.TURN_STARTED)
        await client.ask(subscribe(after=f"{server.host.instance}:1"))

        assert seqs([await client.read() for _ in range(2)]) == [None, 5000 - 4096 + 1]


async def test_kinds_and_thread_select_events(serving: Callable[..., Any]) -> None:
    async with serving() as server, server.greeted() as client:
        await client.ask(subscribe(kinds=["turn.completed", "turn.failed"], thread="k"))
        server.host.events.publish(EventKind.TURN_STARTED, thread="k")
        server.host.events.publish(EventKind.TURN_COMPLETED, thread="other")
        server.host.events.publish(EventKind.TURN_FAILED, thread="k")

        assert seqs([await client.read()]) == [3]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"after": 5}, "protocol"),
        ({"kinds": []}, "protocol"),
        ({"kinds": [1]}, "protocol"),
        ({"thread": 1}, "protocol"),
        ({"before": "x:1"}, "protocol"),
        ({"after": "nonsense"}, "validation"),
        ({"after": "x:-1"}, "validation"),
        ({"after": "x:" + "9" * 30}, "validation"),
        ({"kinds": ["turn.exploded"]}, "validation"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    serving: Callable[..., Any], params: dict[str, Any], code: str
) -> None:
    async with serving() as server, server.greeted() as client:
        reply = await client.ask(subscribe(**params))

        assert reply["error"]["data"]["code"] == code


async def test_after_unsubscribe_no_event_arrives(serving: Callable[..., Any]) -> None:
    stop = {"id": "u", "method": "$unsubscribe", "params": {"subscription": 1}}
    async with serving() as server, server.greeted() as client:
        await client.ask(subscribe())
        assert (await client.ask(stop))["result"] == {"unsubscribed": True}
        assert (await client.ask(stop))["result"] == {"unsubscribed": False}
        server.host.events.publish(EventKind.TURN_STARTED)

        assert await client.ask({"id": 1, "method": "$ping"}) == {"id": 1, "result": {}}


async def test_more_subscriptions_than_the_limit_are_refused(serving: Callable[..., Any]) -> None:
    async with serving(subscriptions=2) as server, server.greeted() as client:
        await client.ask(subscribe())
        await client.ask(subscribe())
        reply = await client.ask(subscribe())

        assert reply["error"]["data"]["code"] == "protocol"


async def test_a_stalled_subscriber_gets_a_gap_and_others_lose_nothing(
    serving: Callable[..., Any],
) -> None:
    total = 9000
    async with serving() as server, server.greeted() as stalled, server.greeted() as reader:
        await stalled.ask(subscribe())
        await reader.ask(subscribe())
        seen: list[int | None] = []
        for seq in range(1, total + 1):
            server.host.events.publish(EventKind.ITEM_COMPLETED, data={"text": "x" * 200})
            if seq % 100 == 0:
                seen += seqs([await reader.read() for _ in range(100)])

        assert seen == list(range(1, total + 1))
        late: list[int | None] = []
        while not late or late[-1] != total:
            late += seqs([await stalled.read()])
        gap = late.index(None)
        assert late[:gap] == list(range(1, gap + 1))
        after = [seq for seq in late[gap:] if seq is not None]
        assert after == list(range(after[0], total + 1))
        assert late.count(None) == 1


async def test_unsubscribing_while_an_event_is_half_written_leaves_the_frames_whole(
    serving: Callable[..., Any],
) -> None:
    stop = {"id": "u", "method": "$unsubscribe", "params": {"subscription": 1}}
    async with serving() as server, server.greeted() as client:
        await client.ask(subscribe())
        server.host.events.publish(EventKind.ITEM_COMPLETED, data={"text": "x" * 3_000_000})
        await client.write(stop)
        # The server has read the request when it has answered another client that asked later.
        async with server.greeted() as other:
            await other.ask({"id": 1, "method": "$ping"})

        assert seqs([await client.read()]) == [1]
        assert (await client.read())["result"] == {"unsubscribed": True}
        assert await client.ask({"id": 1, "method": "$ping"}) == {"id": 1, "result": {}}


async def test_a_subscriber_that_does_not_read_does_not_hold_up_the_end(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        await client.ask(subscribe())
        server.host.events.publish(EventKind.ITEM_COMPLETED, data={"text": "x" * 3_000_000})
        async with server.greeted() as other:
            await other.ask({"id": 1, "method": "$ping"})
            server.stop()

            assert await other.ended()
