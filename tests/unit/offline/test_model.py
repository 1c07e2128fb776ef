"""The offline model as a client of the Responses API sees it."""

from __future__ import annotations

import json
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from dispatch_core.offline.model import OfflineModel

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.offline.conftest import Web

pytestmark = pytest.mark.anyio


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def said(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"].endswith("text.delta"))


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def is_private(log: Path) -> bool:
    return log.stat().st_mode & 0o777 == 0o600


async def gone(model: OfflineModel, web: Web) -> None:
    """Wait until nobody is being answered; each look is a round trip, so that the server runs too."""
    with anyio.fail_after(5):
        while model.inflight:
            await web.get("/control")


async def test_the_same_input_gets_the_same_text(web: Web) -> None:
    first = await web.say("Say hello")
    second = await web.say("Say hello")

    assert said(first[1]) == said(second[1]) == "Offline reply: Say hello"
    assert kinds(first[1]) == [
        "created",
        "output_item.added",
        "output_text.delta",
        "output_item.done",
        "completed",
    ]


async def test_a_text_is_split_into_the_chunks_asked_for(web: Web) -> None:
    _, events = await web.say(
        'offline:{"text": "ab", "repeat": 5, "chunks": 4, "chunk_delay": 0.01}'
    )

    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert deltas == ["aba", "bab", "aba", "b"]


async def test_reasoning_text_and_calls_come_in_order_with_indexes(web: Web) -> None:
    _, events = await web.say(
        'offline:{"reasoning": "hm", "text": "t", "call": {"name": "a", "namespace": "n"},'
        ' "custom": {"name": "b", "input": "i"}, "usage": {"input_tokens": 7, "output_tokens": 5}}'
    )

    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    assert [event["item"]["type"] for event in done] == [
        "reasoning",
        "message",
        "function_call",
        "custom_tool_call",
    ]
    assert (done[2]["item"]["arguments"], done[2]["item"]["namespace"]) == ("{}", "n")
    completed = events[-1]["response"]
    assert completed["output"] == [event["item"] for event in done]
    assert completed["usage"]["total_tokens"] == 12


@pytest.mark.parametrize(
    ("directive", "last", "key", "value"),
    [
        (
            '{"failed": {"code": "c", "message": "m"}}',
            "failed",
            "error",
            {"code": "c", "message": "m"},
        ),
        (
            '{"incomplete": "max_output_tokens"}',
            "incomplete",
            "incomplete_details",
            {"reason": "max_output_tokens"},
        ),
    ],
)
async def test_a_reply_can_end_badly(
    web: Web, directive: str, last: str, key: str, value: object
) -> None:
    status, events = await web.say(f"offline:{directive}")

    assert status == 200
    assert kinds(events)[-1] == last
    assert events[-1]["response"][key] == value


async def test_an_http_error_carries_the_status_body_and_headers_of_the_script(web: Web) -> None:
    text = 'offline:{"http": {"status": 429, "body": {"error": {"code": "x"}}}, "headers": {"x-a": "1"}}'
    body = json.dumps(web.body(text)).encode()

    answer = await web.exchange(web.request("POST", "/v1/responses", body, Connection="close"))

    assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\nx-a: 1\r\n")
    assert answer.endswith(b'\r\n\r\n{"error": {"code": "x"}}')


async def test_a_fault_with_times_hits_that_often_in_each_conversation(web: Web) -> None:
    text = 'offline:{"http": 500, "times": 2, "text": "there"}'

    statuses = [(await web.say(text))[0] for _ in range(3)]
    other, _ = await web.say(text, thread="t2")

    assert (statuses, other) == ([500, 500, 200], 500)


async def test_a_cut_reply_ends_without_its_last_chunk(web: Web) -> None:
    body = json.dumps(web.body('offline:{"text": "half", "cut": true}')).encode()

    answer = await web.exchange(web.request("POST", "/v1/responses", body))

    assert b"half" in answer
    assert b"response.completed" not in answer
    assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "directive",
    [
        '{"hang": true}',
        '{"delay": 600}',
        '{"first_delay": 600}',
        '{"chunk_delay": 600, "chunks": 2}',
    ],
)
async def test_a_client_that_leaves_ends_its_reply(
    web: Web, model: OfflineModel, log: Path, directive: str
) -> None:
    body = json.dumps(web.body(f"offline:{directive}")).encode()
    async with await web.connect() as stream:
        await stream.send(web.request("POST", "/v1/responses", body))
        with anyio.fail_after(5):
            while not model.inflight:
                await web.get("/control")

    await gone(model, web)

    assert (model.requests, model.aborted, model.max_inflight) == (1, 1, 1)
    assert len(lines(log)) == 1


async def test_a_finished_reply_is_not_aborted(web: Web, model: OfflineModel) -> None:
    await web.say("one")
    await gone(model, web)

    assert (model.requests, model.inflight, model.aborted) == (1, 0, 0)


async def test_replies_run_side_by_side(web: Web, model: OfflineModel) -> None:
    body = json.dumps(web.body('offline:{"hang": true}')).encode()
    async with await web.connect() as one, await web.connect() as two:
        await one.send(web.request("POST", "/v1/responses", body))
        await two.send(web.request("POST", "/v1/responses", body))
        with anyio.fail_after(5):
            while model.inflight < 2:
                await web.get("/control")

        _, events = await web.say("third")

    assert said(events) == "Offline reply: third"
    assert model.max_inflight == 3


async def test_the_log_has_every_request_and_no_header(web: Web, log: Path) -> None:
    body = json.dumps(web.body("first line\nsecond \ud800", thread="t9")).encode()
    sent = web.request("POST", "/v1/responses", body, Authorization="secret", Connection="close")

    await web.exchange(sent)
    await web.get("/v1/models")
    await web.get("/nowhere")
    await web.get("/control")

    assert is_private(log)
    assert lines(log) == [
        {
            "method": "POST",
            "path": "/v1/responses",
            "step": 0,
            "thread_id": "t9",
            "turn_id": "u1",
            "model": "offline-model",
            "text": "first line\nsecond \ud800",
        },
        {"method": "GET", "path": "/v1/models"},
        {"method": "GET", "path": "/nowhere"},
    ]


async def test_the_default_script_is_set_and_cleared(web: Web) -> None:
    status, state = await web.post("/control", {"script": {"text": "scripted"}})
    scripted = await web.say("a")
    await web.post("/control", {"script": None})
    plain = await web.say("a")

    assert (status, said(scripted[1]), said(plain[1])) == (200, "scripted", "Offline reply: a")
    assert json.loads(state) == {
        "script": {"steps": [{"text": "scripted"}]},
        "requests": 0,
        "inflight": 0,
        "max_inflight": 0,
        "aborted": 0,
    }


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"script": {"tetx": 1}}, "script: tetx: Extra inputs"),
        ({"script": []}, "script: the step: Input should be"),
        ({}, "the body is not of the form"),
        ({"script": None, "requests": 0}, "the body is not of the form"),
    ],
)
async def test_a_bad_default_script_is_refused_and_the_old_one_stays(
    web: Web, body: object, reason: str
) -> None:
    await web.post("/control", {"script": {"text": "old"}})

    status, text = await web.post("/control", body)

    assert status == 400
    assert json.loads(text)["error"]["message"].startswith(reason)
    assert said((await web.say("a"))[1]) == "old"


async def test_a_port_in_use_is_an_error_and_not_another_port(web: Web) -> None:
    second = OfflineModel(port=web.port)

    with pytest.raises(OSError, match="in use"):
        await second.serve()


async def test_the_address_is_known_only_while_serving() -> None:
    model = OfflineModel()
    async with anyio.create_task_group() as group:
        port = await group.start(model.serve)
        served = model.base_url
        group.cancel_scope.cancel()

    assert served == f"http://127.0.0.1:{port}/v1"
    with pytest.raises(RuntimeError, match="is not serving"):
        _ = model.base_url


async def test_the_port_accepts_loopback_only(model: OfflineModel, web: Web) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        own = probe.getsockname()[0]

    with anyio.fail_after(5), pytest.raises(OSError):  # noqa: PT011 -- each system refuses in its own words
        await anyio.connect_tcp(own, web.port)


async def test_it_runs_alone_until_a_signal(log: Path) -> None:
    command = [sys.executable, "-m", "dispatch_core.offline", "--port", "0", "--log", str(log)]
    with anyio.fail_after(20):
        async with await anyio.open_process(command) as process:
            assert process.stdout is not None
            line = await BufferedByteReceiveStream(process.stdout).receive_until(b"\n", 1000)
            async with await anyio.connect_tcp("127.0.0.1", json.loads(line)["port"]) as stream:
                await stream.send(b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n")
                answer = await stream.receive()

            process.send_signal(signal.SIGTERM)
            status = await process.wait()

    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert (status, lines(log)) == (0, [{"method": "GET", "path": "/v1/models"}])


async def test_alone_on_a_port_in_use_it_says_so(web: Web) -> None:
    command = [sys.executable, "-m", "dispatch_core.offline", "--port", str(web.port)]

    with anyio.fail_after(20):
        ended = await anyio.run_process(command, check=False)

    assert ended.returncode == 1
    assert f"cannot listen on 127.0.0.1:{web.port}".encode() in ended.stderr
    assert b"try --port 0" in ended.stderr


@pytest.mark.parametrize("port", ["70000", "-1", "many"])
async def test_alone_a_port_that_cannot_be_is_a_usage_error(port: str) -> None:
    command = [sys.executable, "-m", "dispatch_core.offline", f"--port={port}"]

    with anyio.fail_after(20):
        ended = await anyio.run_process(command, check=False)

    assert ended.returncode == 2
    assert b"argument --port: " in ended.stderr
