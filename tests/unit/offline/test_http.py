"""Whatever one client sends, it is told what is wrong, and the next client is served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from dispatch_core.offline.http import BODY_LIMIT, HEAD_LIMIT

if TYPE_CHECKING:
    from dispatch_core.offline.model import OfflineModel
    from tests.unit.offline.conftest import Web

pytestmark = pytest.mark.anyio

CONTROL = b"GET /control HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"hello\r\n\r\n", 400, id="not a request line"),
        pytest.param(b"\x16\x03\x01\x02\x00\r\n\r\n", 400, id="TLS"),
        pytest.param(b"GET http://x/control HTTP/1.1\r\n\r\n", 400, id="a proxy request"),
        pytest.param(b"GET /control HTTP/2.0\r\n\r\n", 400, id="another version"),
        pytest.param(CONTROL + b"no colon\r\n\r\n", 400, id="a header without a colon"),
        pytest.param(CONTROL + b"a: b\r\n c\r\n\r\n", 400, id="a folded header"),
        pytest.param(CONTROL + b"a : b\r\n\r\n", 400, id="space before the colon"),
        pytest.param(CONTROL + b"Content-Length: -1\r\n\r\n", 400, id="a negative length"),
        pytest.param(CONTROL + b"Content-Length: \xb2\r\n\r\n", 400, id="a superscript length"),
        pytest.param(CONTROL + b"Content-Length: 1\r\n" * 2 + b"\r\n", 400, id="two lengths"),
        pytest.param(CONTROL + b"Transfer-Encoding: chunked\r\n\r\n", 501, id="chunked"),
        pytest.param(CONTROL + b"Content-Encoding: zstd\r\n\r\n", 415, id="compressed"),
        pytest.param(b"POST /control HTTP/1.1\r\n\r\n", 411, id="a POST without a length"),
        pytest.param(
            CONTROL + b"Content-Length: %d\r\n\r\n" % (BODY_LIMIT + 1), 413, id="a huge body"
        ),
        pytest.param(b"GET /" + b"a" * (HEAD_LIMIT + 1), 431, id="a head without an end"),
    ],
)
async def test_a_malformed_request_is_refused_and_the_connection_closed(
    web: Web, data: bytes, status: int
) -> None:
    answer = await web.exchange(data)

    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in answer
    assert (await web.get("/control"))[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 200_000, b"1" * 5000, b'{"a":' * 100_000]
)
async def test_a_body_that_is_not_a_json_object_is_refused(
    web: Web, model: OfflineModel, body: bytes
) -> None:
    answer = await web.exchange(web.request("POST", "/v1/responses", body))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"JSON" in answer
    assert model.requests == 0


@pytest.mark.parametrize(
    "data", [b"", b"GET /con", b"POST /v1/responses HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"]
)
async def test_a_client_that_leaves_too_early_costs_nobody_anything(web: Web, data: bytes) -> None:
    async with await web.connect() as stream:
        await stream.send(data)

    with anyio.fail_after(5):
        assert (await web.get("/control"))[0] == 200


async def test_one_connection_carries_several_requests(web: Web) -> None:
    models = web.request("GET", "/v1/models?client_version=1", b"")
    last = web.request("GET", "/control", b"", Connection="close")

    answer = await web.exchange(models + models + last)

    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert answer.count(b'"models": []') == 2


async def test_requests_sent_ahead_of_the_reply_are_answered_in_order(web: Web) -> None:
    first = web.request("POST", "/v1/responses", b'{"input":[{"role":"user","content":"one"}]}')
    last = web.request("GET", "/control", b"", Connection="close")

    answer = await web.exchange(first + last)

    assert 0 < answer.index(b"Offline reply: one") < answer.index(b'"requests": 1')


async def test_a_client_that_asks_first_is_told_to_go_on(web: Web) -> None:
    head = b"POST /control HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\n"
    with anyio.fail_after(5):
        async with await web.connect() as stream:
            await stream.send(head + b"Content-Length: 16\r\n\r\n")
            first = await stream.receive()
            await stream.send(b'{"script": null}')
            second = await stream.receive()

    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("PUT", "/control"), ("GET", "/v1")])
async def test_what_does_not_exist_is_not_found(web: Web, method: str, path: str) -> None:
    answer = await web.exchange(web.request(method, path, b"", Connection="close"))

    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert f"has no {method} {path}".encode() in answer
