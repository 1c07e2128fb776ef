from __future__ import annotations

from contextlib import aclosing

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.appserver import threads
from dispatch_core.appserver.calls import ThreadUnknown
from dispatch_core.appserver.cursors import ByItem, ByTurn, decode, encode
from dispatch_core.appserver.history import find_turn, newest, newest_first, page
from dispatch_core.appserver.messages import TurnStartParams, text_input
from dispatch_core.contracts.records import ThreadSettings
from dispatch_core.errors import CapabilityUnavailable, CodexError, ValidationFailed

from .conftest import until

pytestmark = pytest.mark.anyio

BUSY = (
    'offline:{"steps": [{"text": "L%d", "call": [{"name": "exec_command", "arguments": {"cmd": "true"}},'
    ' {"name": "exec_command", "arguments": {"cmd": "true"}}]}, {"text": "D%d"}]}'
)


async def start_thread(server, cwd, **fields) -> str:
    answer = await server.request("thread/start", {"cwd": str(cwd), **fields})
    return answer["thread"]["id"]


async def run_turn(server, seen, thread_id: str, number: int, text: str = "") -> str:
    params = TurnStartParams(
        thread_id=thread_id,
        input=(text_input(text or f"question {number}"),),
        client_user_message_id=f"message-{number}",
    )
    before = seen.methods().count("turn/completed")
    answer = await server.request("turn/start", params.wire())
    await until(lambda: seen.methods().count("turn/completed") > before)
    return answer["turn"]["id"]


async def pages_of(server, thread_id: str, limit: int):
    """Return every page, the newest first."""
    found = [await page(server, thread_id, limit)]
    with anyio.fail_after(20):
        while found[-1].older is not None:
            found.append(await page(server, thread_id, limit, before=found[-1].older))
    return found


def told(items):
    return [(item.turn_id, item.type, item.text) for item in items]


async def test_turns_of_the_real_codex_are_read_page_by_page(connect_codex, seen, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        ids = [await run_turn(server, seen, thread_id, number) for number in range(3)]

        paged = [turn async for turn in newest_first(server, thread_id, page=1)]
        last = await newest(server, thread_id)

    assert [turn.id for turn in paged] == ids[::-1]
    assert {turn.status for turn in paged} == {"completed"}
    assert last is not None
    assert last.id == ids[2]
    assert last.holds_message("message-2")


@pytest.mark.parametrize("mode", ["paginated", "legacy"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 500])
async def test_pages_of_any_size_put_together_are_the_whole_history(
    connect_codex, seen, short_tmp, mode, limit
):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp, historyMode=mode)
        ids = [
            await run_turn(server, seen, thread_id, n, BUSY % (n, n) if n != 1 else "plain")
            for n in range(4)
        ]
        whole = [
            item
            async for turn in newest_first(server, thread_id)
            for item in reversed([(turn.id, i["type"], i.get("text")) for i in turn.items])
        ][::-1]

        found = await pages_of(server, thread_id, limit)

    items = [item for part in reversed(found) for item in part.items]
    assert [(item.turn_id, item.type) for item in items] == [entry[:2] for entry in whole]
    assert [len(part.items) for part in found[:-1]] == [limit] * (len(found) - 1)
    assert list(dict.fromkeys(item.turn_id for item in items)) == ids
    assert {item.turn_status for item in items} == {"completed"}
    assert all(item.at is not None and item.item_id and item.text for item in items)
    assert {item.type: item.role for item in items}.items() >= {
        ("userMessage", "user"),
        ("agentMessage", "agent"),
    }


@pytest.mark.parametrize("mode", ["paginated", "legacy"])
async def test_turns_that_come_between_two_pages_change_no_older_page(
    connect_codex, seen, short_tmp, mode
):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp, historyMode=mode)
        for number in range(3):
            await run_turn(server, seen, thread_id, number)
        before = [*(await page(server, thread_id, 100)).items]
        first = await page(server, thread_id, 3)
        for number in range(3, 5):
            await run_turn(server, seen, thread_id, number)

        second = await page(server, thread_id, 100, before=first.older)

    assert told([*second.items, *first.items]) == told(before)


async def test_the_end_of_a_turn_is_in_the_history_when_its_end_is_said(
    connect_codex, seen, short_tmp
):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        last = []
        for number in range(20):
            turn_id = await run_turn(server, seen, thread_id, number)
            item = (await page(server, thread_id, 1)).items[0]
            last.append((item.turn_id == turn_id, item.type, item.turn_status))

    assert set(last) == {(True, "agentMessage", "completed")}


async def test_the_items_of_a_running_turn_are_there_already(connect_codex, seen, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        await run_turn(server, seen, thread_id, 0)
        params = TurnStartParams(thread_id=thread_id, input=(text_input('offline:{"delay": 30}'),))
        answer = await server.request("turn/start", params.wire())
        await until(lambda: seen.methods().count("item/completed") >= 3)

        item = (await page(server, thread_id, 1)).items[0]

    assert (item.turn_id, item.role) == (answer["turn"]["id"], "user")
    assert item.turn_status == "started"


async def test_more_items_than_codex_gives_at_once_are_on_one_page(connect_codex, seen, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        for number in range(52):
            await run_turn(server, seen, thread_id, number)

        whole = await page(server, thread_id, 500)
        part = await page(server, thread_id, 103)

    assert (len(whole.items), whole.older) == (104, None)
    assert len(part.items) == 103
    assert part.older is not None


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

        empty = await page(server, thread_id, 5)

        assert (empty.items, empty.older) == ((), None)
        assert await newest(server, thread_id) is None
        assert await find_turn(server, thread_id, turn_id=None, client_id="m") is None


async def test_an_archived_thread_can_still_be_read(connect_codex, seen, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        await run_turn(server, seen, thread_id, 0)
        await threads.archive(server, thread_id)

        found = await page(server, thread_id, 5)

    assert [item.role for item in found.items] == ["user", "agent"]


async def test_an_ephemeral_thread_has_no_history_to_read(connect_codex, seen, short_tmp):
    async with connect_codex() as server:
        settings = ThreadSettings()
        started = await threads.start(server, cwd=str(short_tmp), settings=settings, ephemeral=True)
        await run_turn(server, seen, started.id, 0)

        with pytest.raises(CapabilityUnavailable):
            await page(server, started.id, 5)


async def test_a_thread_nobody_knows_is_an_error(connect_codex):
    async with connect_codex() as server:
        with pytest.raises(ThreadUnknown, match="thread not loaded"):
            await page(server, "01a2024d-0000-7000-8000-000000000000", 5)


@pytest.mark.parametrize("mode", ["paginated", "legacy"])
async def test_a_cursor_that_leads_nowhere_is_refused(connect_codex, seen, short_tmp, mode):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp, historyMode=mode)
        await run_turn(server, seen, thread_id, 0)

        for word in (
            "",
            "bogus",
            "é",
            encode(ByItem("bogus")),
            encode(ByTurn("bogus")),
            encode(ByTurn(None, "no-such-turn", 1)),
        ):
            with pytest.raises(ValidationFailed, match="cursor"):
                await page(server, thread_id, 5, before=word)


WORDS = st.none() | st.text(max_size=8)


@given(st.builds(ByItem, WORDS, WORDS) | st.builds(ByTurn, WORDS, WORDS, st.integers(0, 9)))
def test_a_cursor_means_what_it_was_made_of(place):
    assert decode(encode(place)) == place


@given(st.text(max_size=40))
def test_any_other_word_is_no_cursor(word):
    try:
        place = decode(word)
    except ValidationFailed:
        return
    assert decode(encode(place)) == place


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
        assert await newest(Scripted(server), "t") is None


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
