from __future__ import annotations

from contextlib import aclosing

import pytest

from dispatch_core.appserver.history import (
    find_turn,
    last_items,
    newest_first,
)
from dispatch_core.appserver.messages import ThreadStartParams, TurnStartParams, text_input
from dispatch_core.errors import CodexError

from .conftest import until

pytestmark = pytest.mark.anyio


async def start_thread(server, cwd) -> str:
    answer = await server.request("thread/start", ThreadStartParams(cwd=str(cwd)).wire())
    return answer["thread"]["id"]


async def run_turn(server, seen, thread_id: str, number: int) -> str:
    params = TurnStartParams(
        thread_id=thread_id,
        input=(text_input(f"question {number}"),),
        client_user_message_id=f"message-{number}",
    )
    before = seen.methods().count("turn/completed")
    answer = await server.request("turn/start", params.wire())
    await until(lambda: seen.methods().count("turn/completed") > before)
    return answer["turn"]["id"]


async def test_history_of_the_real_codex_is_read_page_by_page(connect_codex, seen, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        ids = [await run_turn(server, seen, thread_id, number) for number in range(3)]

        paged = [turn async for turn in newest_first(server, thread_id, page=1)]
        items = await last_items(server, thread_id, 3)
        everything = await last_items(server, thread_id, 100)

    assert [turn.id for turn in paged] == ids[::-1]
    assert {turn.status for turn in paged} == {"completed"}
    assert [item.turn_id for item in items] == [ids[1], ids[2], ids[2]]
    assert [item.type for item in items] == ["agentMessage", "userMessage", "agentMessage"]
    assert items[1].text == "question 2"
    assert all(item.item_id and item.text for item in items)
    assert [item.text for item in everything[::2]] == [f"question {n}" for n in range(3)]
    assert len(everything) == 6


async def test_a_message_is_found_by_the_id_its_sender_gave_it(connect_codex, seen, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        ids = [await run_turn(server, seen, thread_id, number) for number in range(2)]

        found = await find_turn(server, thread_id, turn_id=None, client_id="message-0")
        by_turn = await find_turn(server, thread_id, turn_id=ids[1], client_id=None)
        nothing = await find_turn(server, thread_id, turn_id=None, client_id="message-9")

    assert found is not None
    assert found.id == ids[0]
    assert by_turn is not None
    assert by_turn.holds_message("message-1")
    assert nothing is None


async def test_a_thread_without_a_turn_has_no_history(connect_codex, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)

        assert await last_items(server, thread_id, 5) == []
        assert await find_turn(server, thread_id, turn_id=None, client_id="m") is None


async def test_a_thread_nobody_knows_is_an_error(connect_codex):
    async with connect_codex() as server:
        with pytest.raises(CodexError, match="thread not loaded"):
            await last_items(server, "01a2024d-0000-7000-8000-000000000000", 5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-32601, "list_turns is not supported yet"),
        (-32600, "thread X is not materialized yet; thread/turns/list is unavailable"),
    ],
)
async def test_both_ways_of_saying_no_turn_yet_are_understood(connect_fake, code, message):
    error = {"code": code, "message": message}

    class Scripted:
        """Sends what history sends, and tells the other end what to answer."""

        def __init__(self, server):
            self.server = server

        async def request(self, method, params):
            return await self.server.request(method, {**params, "do": [["error", error]]})

    async with connect_fake() as server:
        assert await last_items(Scripted(server), "t", 5) == []


async def test_a_history_without_an_end_is_an_error_and_not_an_absence(connect_fake):
    async with connect_fake() as server:
        with pytest.raises(CodexError, match="did not end"):
            await find_turn(server, "t", turn_id=None, client_id="m")


async def test_no_more_pages_are_read_than_needed(connect_fake):
    async with connect_fake() as server:
        turns = []
        async with aclosing(newest_first(server, "t")) as stream:
            async for turn in stream:
                turns.append(turn)
                if len(turns) == 3:
                    break
        received = await server.request("any", {"do": [["received"]]})

    asked = [m for m in received["messages"] if m.get("method") == "thread/turns/list"]
    assert len(turns) == 3
    assert len(asked) == 3
    assert asked[1]["params"]["cursor"] == "more"
