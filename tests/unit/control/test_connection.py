"""The conversation: greeting, concurrency, cancelling, leaving, and raw sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

PARAMS = {"protocol": 1, "client": "test", "version": "1"}
HELLO = {"id": 0, "method": "$hello", "params": PARAMS}
PING = {"id": "ping", "method": "$ping"}
PONG = {"id": "ping", "result": {}}


async def test_hello_returns_what_the_host_says(serving: Callable[..., Any]) -> None:
    async with serving() as server, server.raw() as client:
        reply = await client.ask(HELLO)

        assert reply == {"id": 0, "result": {"protocol": 1, "instance": server.host.instance}}


async def test_a_caller_is_a_human_unless_it_names_a_thread(serving: Callable[..., Any]) -> None:
    async with serving() as server:
        async with server.greeted() as client:
            await client.ask({"id": 1, "method": "echo"})
        async with server.greeted(thread_id="t-1", client="mcp") as client:
            await client.ask({"id": 1, "method": "echo"})

        human, agent = server.host.callers
        assert (human.principal, human.surface, human.thread_id) == ("human", "test", None)
        assert (agent.principal, agent.surface, agent.thread_id) == ("agent:t-1", "mcp", "t-1")


@pytest.mark.parametrize(
    "first",
    [
        PING,
        {"id": 1, "method": "echo"},
        {"method": "$hello", "params": PARAMS},
        b"not JSON\n",
        {"id": 1, "method": "$hello", "params": {**PARAMS, "colour": "red"}},
        {"id": 1, "method": "$hello", "params": {"protocol": 1, "client": "x"}},
        {"id": 1, "method": "$hello", "params": {**PARAMS, "protocol": "1"}},
        {"id": 1, "method": "$hello", "params": {**PARAMS, "client": "x" * 65}},
        {"id": 1, "method": "$hello", "params": {**PARAMS, "thread_id": ""}},
        {"id": 1, "method": "$hello", "params": {**PARAMS, "manifest": 5}},
    ],
)
async def test_anything_but_a_valid_hello_first_is_refused_and_ends_the_connection(
    serving: Callable[..., Any], first: Any
) -> None:
    async with serving() as server, server.raw() as client:
        reply = await client.ask(first)

        assert reply["error"]["data"]["code"] == "protocol"
        assert await client.ended()


async def test_another_protocol_is_stale_and_names_both_numbers(
    serving: Callable[..., Any],
) -> None:
    future = {"protocol": 2, "client": "x", "version": "9", "something": "new"}
    async with serving() as server, server.raw() as client:
        reply = await client.ask({"id": 1, "method": "$hello", "params": future})

        assert reply["id"] == 1
        assert reply["error"]["data"]["code"] == "daemon_stale"
        assert reply["error"]["data"]["details"] == {"daemon": 1, "client": 2}
        assert await client.ended()


async def test_a_late_hello_ends_the_connection(serving: Callable[..., Any]) -> None:
    async with serving(hello=0.05) as server, server.raw() as client:
        await client.write(b'{"id":0,"meth')

        reply = await client.read()
        assert reply["error"]["data"]["code"] == "protocol"
        assert await client.ended()


async def test_a_second_hello_is_refused_and_the_connection_stays(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        reply = await client.ask(HELLO)

        assert reply["error"]["data"]["code"] == "protocol"
        assert await client.ask(PING) == PONG


async def test_hello_and_a_request_in_one_write_are_both_answered(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.raw() as client:
        await client.write(HELLO, {"id": 1, "method": "echo", "params": {"a": 1}})

        assert (await client.read())["id"] == 0
        assert await client.read() == {"id": 1, "result": {"a": 1}}


@pytest.mark.parametrize("wrong", [{"protocol": 2}, {"client": "unwanted"}])
async def test_a_request_behind_a_refused_hello_is_not_executed(
    serving: Callable[..., Any], wrong: dict[str, Any]
) -> None:
    async with serving() as server, server.raw() as client:
        hello = {**HELLO, "params": {**PARAMS, **wrong}}
        reply = await client.ask(hello, {"id": 1, "method": "echo"})

        assert "error" in reply
        assert await client.ended()
        assert server.host.calls == []


async def test_a_slow_op_delays_neither_a_ping_nor_another_op(serving: Callable[..., Any]) -> None:
    async with serving() as server, server.greeted() as client:
        await client.write({"id": 1, "method": "slow.read"}, PING, {"id": 2, "method": "echo"})

        assert await client.read() == PONG
        assert (await client.read())["id"] == 2
        server.host.release.set()
        assert await client.read() == {"id": 1, "result": {"slow": True}}


async def test_errors_of_an_op_keep_their_code_and_a_crash_is_internal(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        busy = await client.ask({"id": 1, "method": "send"})
        crash = await client.ask({"id": 2, "method": "crash"})

        assert busy["error"]["code"] == 1005
        assert busy["error"]["data"]["code"] == "lane_busy"
        assert crash["error"]["data"]["code"] == "internal"
        assert await client.ask(PING) == PONG


@pytest.mark.parametrize("op", ["crash", "exit", "stray"])
async def test_whatever_an_op_lets_out_its_neighbours_go_on(
    serving: Callable[..., Any], op: str
) -> None:
    async with serving() as server, server.greeted() as client:
        await client.write({"id": 1, "method": "slow.write"})
        await server.host.until("slow.write begun")

        failed = await client.ask({"id": 2, "method": op})

        assert failed["error"]["data"]["code"] == "internal"
        assert "dispatch daemon log" in failed["error"]["data"]["hint"]
        server.host.release.set()
        assert await client.read() == {"id": 1, "result": {"slow": True}}


async def test_an_unknown_control_method_and_wrong_parameters_are_refused(
    serving: Callable[..., Any],
) -> None:
    wrong = {
        "$nothing": {},
        "$ping": {"x": 1},
        "$cancel": {},
        "$unsubscribe": {"subscription": "1"},
        "$shutdown": {"grace": -1},
        "$open": {"surface": "upper", "options": []},
        "$subscribe": {"kinds": "all"},
    }
    async with serving() as server, server.greeted() as client:
        codes = {}
        for method, params in wrong.items():
            reply = await client.ask({"id": method, "method": method, "params": params})
            codes[reply["id"]] = reply["error"]["data"]["code"]

        assert codes == dict.fromkeys(wrong, "protocol") | {"$nothing": "unknown_op"}
        assert server.host.graces == []


async def test_an_id_that_is_in_use_is_refused_and_the_first_request_goes_on(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        reply = await client.ask({"id": 1, "method": "slow.read"}, {"id": 1, "method": "echo"})

        assert reply["id"] is None
        assert reply["error"]["data"]["code"] == "protocol"
        server.host.release.set()
        assert (await client.read()) == {"id": 1, "result": {"slow": True}}


async def test_a_cancelled_read_answers_cancelled(serving: Callable[..., Any]) -> None:
    async with serving() as server, server.greeted() as client:
        await client.write({"id": "w", "method": "slow.read"})
        await server.host.until("slow.read begun")
        reply = await client.ask({"id": 2, "method": "$cancel", "params": {"id": "w"}})

        assert reply == {"id": 2, "result": {"cancelled": True}}
        cancelled = await client.read()
        assert cancelled["id"] == "w"
        assert cancelled["error"]["data"]["code"] == "cancelled"


async def test_a_running_write_and_an_unknown_request_are_not_cancelled(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        await client.write({"id": 1, "method": "slow.write"})
        await server.host.until("slow.write begun")
        running = await client.ask({"id": 2, "method": "$cancel", "params": {"id": 1}})
        unknown = await client.ask({"id": 3, "method": "$cancel", "params": {"id": 99}})
        server.host.release.set()

        assert running["result"] == unknown["result"] == {"cancelled": False}
        assert (await client.read())["result"] == {"slow": True}


async def test_a_client_that_leaves_ends_its_reads_and_not_its_writes(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server:
        async with server.greeted() as client:
            await client.write({"id": 1, "method": "slow.read"}, {"id": 2, "method": "slow.write"})
            await server.host.until("slow.write begun")
        await server.host.until("slow.read cancelled")
        server.host.release.set()

        await server.host.until("slow.write done")
        async with server.greeted() as other:
            assert await other.ask(PING) == PONG
        assert "slow.write cancelled" not in server.host.log


async def test_requests_beyond_the_limit_wait_while_pings_and_cancels_pass(
    serving: Callable[..., Any],
) -> None:
    async with serving(in_flight=2) as server, server.greeted() as client:
        slow = [{"id": n, "method": "slow.read"} for n in range(1, 5)]
        await client.write(*slow, PING, {"id": "c", "method": "$cancel", "params": {"id": 3}})

        assert await client.read() == PONG
        assert await client.read() == {"id": "c", "result": {"cancelled": True}}
        assert (await client.read())["error"]["data"]["code"] == "cancelled"
        assert server.host.log.count("slow.read begun") == 2
        server.host.release.set()
        assert {(await client.read())["id"] for _ in range(3)} == {1, 2, 4}


async def test_reading_pauses_when_too_much_waits_and_goes_on_afterwards(
    serving: Callable[..., Any],
) -> None:
    async with serving(in_flight=1, read_ahead=10) as server, server.greeted() as client:
        slow = [{"id": n, "method": "slow.write"} for n in range(3)]
        await client.write(*slow, PING)
        await server.host.until("slow.write begun")
        server.host.release.set()

        replies = [await client.read() for _ in range(4)]
        assert sorted(str(reply["id"]) for reply in replies) == ["0", "1", "2", "ping"]


async def test_shutdown_is_accepted_and_reaches_the_host(serving: Callable[..., Any]) -> None:
    async with serving() as server, server.greeted() as client:
        first = await client.ask({"id": 1, "method": "$shutdown", "params": {"grace": 2}})
        await client.ask({"id": 2, "method": "$shutdown"})

        assert first == {"id": 1, "result": {"accepted": True}}
        assert server.host.graces == [2.0, None]


async def test_open_hands_the_bytes_to_the_session_none_lost(serving: Callable[..., Any]) -> None:
    params = {"surface": "upper", "options": {"prefix": "> "}}
    async with serving() as server, server.raw() as client:
        await client.write(HELLO, {"id": 1, "method": "$open", "params": params}, b"early\nand ")
        assert (await client.read())["id"] == 0
        assert await client.read() == {"id": 1, "result": {}}
        await client.stream.send(b"late\xff")

        received = client.rest()
        while len(received) < len(b"> EARLY\nAND LATE\xff"):
            received += await client.stream.receive()
        assert received == b"> EARLY\nAND LATE\xff"
        await client.stream.send_eof()
        assert await client.ended()
        await server.host.until("session over")


@pytest.mark.parametrize(("surface", "code"), [("none", "not_found"), ("silent", "internal")])
async def test_a_session_that_does_not_begin_is_an_error_and_the_connection_stays(
    serving: Callable[..., Any], surface: str, code: str
) -> None:
    async with serving() as server, server.greeted() as client:
        opening = {"id": 1, "method": "$open", "params": {"surface": surface}}
        reply = await client.ask(opening, PING)

        assert reply["id"] == 1
        assert reply["error"]["data"]["code"] == code
        assert await client.read() == PONG


async def test_open_is_refused_while_requests_run(serving: Callable[..., Any]) -> None:
    opening = {"id": 2, "method": "$open", "params": {"surface": "upper"}}
    async with serving() as server, server.greeted() as client:
        reply = await client.ask({"id": 1, "method": "slow.read"}, opening)

        assert reply["error"]["data"]["code"] == "protocol"


async def test_a_session_that_fails_ends_its_connection_alone(serving: Callable[..., Any]) -> None:
    opening = {"id": 1, "method": "$open", "params": {"surface": "faulty"}}
    async with serving() as server, server.greeted() as other, server.greeted() as client:
        assert "result" in await client.ask(opening)

        assert await client.ended()
        assert await other.ask(PING) == PONG


async def test_a_client_that_does_not_read_delays_nobody(serving: Callable[..., Any]) -> None:
    async with serving() as server, server.greeted() as deaf, server.greeted() as other:
        large = {"method": "bytes", "params": {"count": 4_000_000}}
        await deaf.write(*({**large, "id": n} for n in range(8)))
        with anyio.fail_after(10):
            for _ in range(50):
                assert await other.ask(PING) == PONG

        replies = {(await deaf.read())["id"] for _ in range(8)}
        assert replies == set(range(8))
