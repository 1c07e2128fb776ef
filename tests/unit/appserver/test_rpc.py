from __future__ import annotations

import logging
import math
import os
import signal
from contextlib import suppress

import anyio
import pytest

from dispatch_core.appserver.overload import pauses
from dispatch_core.errors import (
    CodexError,
    CodexOverloaded,
    CodexTimeout,
    CodexUnavailable,
    OutcomeUnknown,
    ValidationFailed,
)

from .conftest import until

pytestmark = pytest.mark.anyio

OVERLOADED = {"code": -32001, "message": "Server overloaded; retry later."}
BOUNDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0)


def note(number: int) -> dict:
    return {"method": "note", "params": {"n": number}}


async def test_a_request_gets_its_own_result(connect_fake):
    async with connect_fake() as server:
        result = await server.request("any", {"text": "ä€😀"})

    assert result == {"text": "ä€😀"}


async def test_answers_out_of_order_reach_their_requests(connect_fake):
    answers = {}

    async def ask(server, name, action):
        answers[name] = await server.request("any", {"do": [[action]]})

    async with connect_fake() as server, anyio.create_task_group() as tasks:
        for name in ("a", "b", "c"):
            tasks.start_soon(ask, server, name, "hold")
            await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ask, server, "d", "release_backwards")

    ids = [answers[name]["id"] for name in "abcd"]
    assert ids == sorted(ids)
    assert list(answers) == ["d", "c", "b", "a"]


async def test_an_answer_comes_before_the_notifications_that_follow_it(connect_fake, seen):
    order = []
    notified = seen.notified

    def record(method, params):
        order.append((method, params["n"]))
        notified(method, params)

    seen.notified = record
    async with connect_fake() as server:
        result = await server.request(
            "any",
            {"do": [["send", note(-1)], ["burst", [note(1), note(2)]]]},
            on_result=lambda result: order.append(("answer", result["n"])),
        )
        await until(lambda: len(order) == 4)

    assert result == {"n": 0}
    assert order == [("note", -1), ("answer", 0), ("note", 1), ("note", 2)]


async def test_what_a_handler_raises_costs_nothing_else(connect_fake, seen, caplog):
    def explode(_):
        raise LookupError("as asked")

    async with connect_fake() as server:
        bad = {"method": "note", "params": {"explode": True}}
        result = await server.request(
            "any", {"do": [["send", bad], ["burst", [note(1)]]]}, on_result=explode
        )
        await until(lambda: seen.notifications[-1:] == [("note", {"n": 1})])

        assert result == {"n": 0}
        assert server.stats.handler_errors == 2
    assert "handling note failed" in caplog.text


async def test_lines_that_are_no_messages_are_counted_and_skipped(connect_fake, seen):
    lines = [
        "nonsense\n",
        "\n",
        "[]\n",
        '"x"\n',
        "{}\n",
        '{"id": 5}\n',
        '{"method": 7}\n',
        '{"method": "m", "params": [1]}\n',
        '{"method": "m", "id": null}\n',
        '{"method": "m", "id": 1.5}\n',
        '{"method": "m", "id": true}\n',
        '{"method": "m", "params": {"x": NaN}}\n',
        '{"method": "m", "params": {"x": "\xff"}}\n',
        '{"method": "m", "params": {"x": ' + "[" * 100_000 + "\n",
        '{"method": "m", "params": {"x": ' + "9" * 5000 + "}}\n",
    ]
    actions = [["raw", line] for line in lines]

    async with connect_fake() as server:
        result = await server.request("any", {"do": [*actions, ["answer", {"ok": 1}]]})

        assert result == {"ok": 1}
        assert server.stats.invalid_lines == len(lines)
    assert seen.notifications == []


async def test_a_line_of_70_mb_is_dropped_and_the_next_one_read(connect_fake, seen):
    async with connect_fake() as server:
        result = await server.request("any", {"do": [["big", 70 << 20], ["answer", {"ok": 1}]]})

        assert result == {"ok": 1}
        assert server.stats.oversized_lines == 1
        assert server.stats.invalid_lines == 0
    assert seen.notifications == []


async def test_a_line_of_60_mb_is_read(connect_fake, seen):
    async with connect_fake() as server:
        await server.request("any", {"do": [["big", 60 << 20], ["answer", {}]]})

    assert [len(params["text"]) for _, params in seen.notifications] == [60 << 20]


async def test_repeated_and_unknown_answers_are_counted_and_dropped(connect_fake):
    actions = [
        ["answer_as", 1000, {"wrong": 1}],
        ["raw", '{"id":"7","result":{}}\n{"id":null,"error":{"code":1,"message":"x"}}\n'],
        ["answer", {"right": 1}],
        ["answer", {"wrong": 2}],
    ]

    async with connect_fake() as server:
        first = await server.request("any", {"do": actions})
        second = await server.request("any", {"do": [["answer", {"next": 1}]]})

        assert (first, second) == ({"right": 1}, {"next": 1})
        assert server.stats.unmatched_answers == 4


async def test_no_answer_by_the_deadline_is_a_timeout_and_a_late_one_is_dropped(connect_fake):
    async with connect_fake() as server:
        with pytest.raises(CodexTimeout, match=r"turn/start within 0\.1 s") as caught:
            await server.request("turn/start", {"do": [["hold"]]}, timeout=0.1)
        await server.request("any", {"do": [["release_backwards"]]})

        await until(lambda: server.stats.unmatched_answers == 1)
    assert caught.value.hint
    assert caught.value.details == {"method": "turn/start"}


async def test_a_caller_that_gives_up_leaves_nothing_behind(connect_fake):
    async with connect_fake() as server:
        with anyio.move_on_after(0.1) as scope:
            await server.request("any", {"do": [["hold"]]})
        result = await server.request("any", {"do": [["release_backwards"]]})

        assert scope.cancelled_caught
        assert result
        await until(lambda: server.stats.unmatched_answers == 1)


async def test_at_most_32_requests_are_in_flight_and_waiting_counts_into_the_deadline(connect_fake):
    async with connect_fake() as server, anyio.create_task_group() as tasks:
        for _ in range(32):
            tasks.start_soon(server.request, "any", {"do": [["hold"]]})
        await anyio.wait_all_tasks_blocked()

        with pytest.raises(CodexUnavailable, match="was not sent"):
            await server.request("turn/start", {"do": [["answer", {}]]}, timeout=0.1)
        tasks.cancel_scope.cancel()


async def test_places_are_given_back(connect_fake):
    done = []

    async def ask(server, number):
        done.append((await server.request("any", {"n": number}))["n"])

    async with connect_fake() as server, anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(ask, server, number)

    assert sorted(done) == list(range(200))


@pytest.mark.parametrize("value", ["a \ud800 b", "\udc00", "\ud83d\ude00", math.nan])
async def test_what_codex_would_swallow_is_refused_before_anything_is_written(connect_fake, value):
    async with connect_fake() as server:
        with pytest.raises(ValidationFailed):
            await server.request("turn/start", {"text": value})
        received = await server.request("any", {"do": [["received"]]})

    assert [message["method"] for message in received["messages"]] == [
        "initialize",
        "initialized",
        "any",
    ]


async def test_overload_is_an_error_of_its_own(connect_fake):
    async with connect_fake() as server:
        with pytest.raises(CodexOverloaded) as caught:
            await server.request("thread/list", {"do": [["error", OVERLOADED]]}, timeout=2.0)

        assert server.stats.overloads > 0
        assert server.in_flight == 0
    assert caught.value.projection.retryable
    assert caught.value.details["code"] == -32001


async def test_a_request_that_codex_was_too_busy_for_is_sent_again(connect_fake, seen):
    results = []

    async with connect_fake() as server:
        params = {"do": [["overloaded", 3]]}
        results.append(await server.request("turn/start", params))
        received = await server.request("any", {"do": [["received"]]})

        assert server.stats.overloads == 3
    sent = [m for m in received["messages"] if m["method"] == "turn/start"]
    assert results == [{"tries": 4}]
    assert [m["params"] for m in sent] == [params] * 4
    assert len({m["id"] for m in sent}) == 4


def test_an_overloaded_codex_is_asked_eight_times_with_growing_pauses():
    drawn = [list(pauses()) for _ in range(200)]
    longest = [max(nth) for nth in zip(*drawn, strict=True)]

    assert len(longest) == 7
    assert all(most <= bound for most, bound in zip(longest, BOUNDS, strict=True))
    assert longest[-1] > 1
    assert min(min(each) for each in drawn) < 0.05


async def test_less_is_asked_at_a_time_of_an_overloaded_codex_and_more_again_later(connect_fake):
    async with connect_fake() as server:
        await server.request("any", {"do": [["overloaded", 1]]})
        narrowed = server.places.limit
        for _ in range(10):
            server.places.widen()

        assert (narrowed, server.places.limit) == (16, 32)


async def test_a_probe_does_not_wait_for_a_place(connect_fake):
    async with connect_fake() as server, anyio.create_task_group() as tasks:
        for _ in range(33):
            tasks.start_soon(server.request, "any", {"do": [["hold"]]})
        await anyio.wait_all_tasks_blocked()

        assert await server.probe("server/diagnostics", {"n": 1}) == {"n": 1}
        assert server.in_flight == 32
        tasks.cancel_scope.cancel()


async def test_more_than_a_hundred_bad_lines_a_minute_end_the_connection(connect_fake):
    async with connect_fake() as server:
        await server.request("any", {"do": [["raw", "bad\n" * 100], ["answer", {}]]})
        still = server.open
        with pytest.raises(OutcomeUnknown):
            await server.request("any", {"do": [["raw", "bad\n"]]})
        await server.closed()

    assert still
    assert "100 lines a minute" in server.fault
    assert server.reaped


async def test_what_nobody_has_heard_of_is_counted_by_name(connect_fake):
    notes = [["send", {"method": f"strange/{n % 30}", "params": {}}] for n in range(90)]
    asked = [["send", {"id": 7, "method": "item/sing", "params": {}}], ["await_answers", 1]]

    async with connect_fake() as server:
        await server.request("any", {"do": [["send", {"method": "turn/started"}], *notes, *asked]})
        stats = server.stats

    assert (stats.unknown_notifications, stats.unknown_requests) == (90, 1)
    assert len(stats.unknown) == 20
    assert stats.unknown["strange/1"] == 3
    assert "turn/started" not in stats.unknown


async def test_a_refusal_carries_what_codex_said(connect_fake):
    error = {"code": -32602, "message": "Input exceeds " + "x" * 5000, "data": {"max_chars": 9}}

    async with connect_fake() as server:
        with pytest.raises(CodexError) as caught:
            await server.request("turn/start", {"do": [["error", error]]})

    assert type(caught.value) is CodexError
    assert caught.value.details == {**error, "method": "turn/start"}
    assert len(caught.value.message) < 500


@pytest.mark.parametrize("error", [7, "no", {}, {"message": None}])
async def test_a_malformed_refusal_is_still_a_refusal(connect_fake, error):
    async with connect_fake() as server:
        with pytest.raises(CodexError, match="Codex refused any"):
            await server.request("any", {"do": [["error", error]]})


async def test_no_result_is_an_empty_one(connect_fake):
    async with connect_fake() as server:
        assert await server.request("any", {"do": [["answer", None]]}) == {}


async def test_after_a_result_that_is_none_it_may_have_been_done(connect_fake):
    async with connect_fake() as server:
        with pytest.raises(OutcomeUnknown, match="no result"):
            await server.request("any", {"do": [["answer", 3]]})


async def test_requests_of_codex_are_answered(connect_fake, seen, caplog):
    caplog.set_level(logging.ERROR)
    asked = [
        {"id": 0, "method": "item/known", "params": {"x": 1}},
        {"id": "s", "method": "item/unknown"},
        {"id": 2, "method": "item/broken", "params": {}},
    ]
    actions = [["send", message] for message in asked]

    async with connect_fake() as server:
        received = await server.request("any", {"do": [*actions, ["await_answers", 3]]})

    answers = {m["id"]: m for m in received["messages"] if "method" not in m}
    assert answers[0] == {"id": 0, "result": {"decision": "accept"}}
    assert answers["s"]["error"]["code"] == -32601
    assert answers[2]["error"]["code"] == -32603
    assert ("s", "item/unknown", {}) in seen.requests


async def test_without_a_handler_every_request_of_codex_is_refused(connect_fake):
    asked = {"id": 0, "method": "item/known", "params": {}}

    async with connect_fake(on_request=None) as server:
        received = await server.request("any", {"do": [["send", asked], ["await_answers", 1]]})

    assert received["messages"][-1]["error"]["code"] == -32601


async def test_a_request_of_codex_that_waits_holds_up_nothing(connect_fake, seen):
    asked = {"id": 0, "method": "item/waiting", "params": {}}

    async with connect_fake() as server:
        result = await server.request("any", {"do": [["send", asked], ["answer", {"ok": 1}]]})
        await until(lambda: seen.requests)

    assert result == {"ok": 1}


@pytest.mark.parametrize("end", [["exit", 3], ["die"]])
async def test_the_outcome_is_unknown_when_codex_goes_away_after_reading(connect_fake, end):
    async with connect_fake() as server:
        with pytest.raises(OutcomeUnknown, match="turn/start") as caught:
            await server.request("turn/start", {"do": [end]})
        with pytest.raises(CodexUnavailable, match="was not sent"):
            await server.request("turn/start", {})
        with pytest.raises(CodexUnavailable):
            await server.notify("initialized")

    assert caught.value.projection.exit_code == 10


async def test_a_codex_that_stops_reading_ends_the_connection(connect_fake):
    async def ask_for_ever(server):
        while True:
            with suppress(CodexTimeout):
                await server.request("any", {}, timeout=0.2)

    async with connect_fake() as server:
        with pytest.raises(CodexTimeout):
            await server.request("any", {"do": [["stop_reading"]]}, timeout=0.2)
        with pytest.raises((OutcomeUnknown, CodexUnavailable)):
            await ask_for_ever(server)


async def test_a_frame_is_never_cut_when_its_caller_gives_up(connect_fake):
    async with connect_fake() as server:
        os.kill(server.pid, signal.SIGSTOP)
        with anyio.move_on_after(0.1):
            await server.request("any", {"text": "x" * 5_000_000})
        with pytest.raises(CodexUnavailable, match="was not sent"):
            await server.request("never", {}, timeout=0.1)
        os.kill(server.pid, signal.SIGCONT)
        received = await server.request("any", {"do": [["received"]]})

    lengths = [len(message["params"].get("text", "")) for message in received["messages"][2:]]
    assert lengths == [5_000_000, 0]


async def test_a_flood_on_stderr_does_not_hold_up_the_answers(connect_fake):
    async with connect_fake() as server:
        result = await server.request("any", {"do": [["stderr", 50_000], ["answer", {"ok": 1}]]})

    assert result == {"ok": 1}
