"""What a client can write that is not a request, and what it is told."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
import tracemalloc
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatch_core.control import wire
from dispatch_core.errors import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


def deep(levels: int) -> bytes:
    return b'{"id":1,"method":"echo","params":{"x":' + b"[" * levels + b"]" * levels + b"}}\n"


MALFORMED = {
    "not JSON": b"hello there\n",
    "an empty line": b"\n",
    "half an object": b'{"id":1,"method":"$ping"\n',
    "two objects": b'{"id":1,"method":"$ping"}{"id":2,"method":"$ping"}\n',
    "an array": b'[{"id":1,"method":"$ping"}]\n',
    "a string": b'"$ping"\n',
    "null": b"null\n",
    "bad UTF-8": b'{"id":1,"method":"echo","params":{"x":"\xff"}}\n',
    "a surrogate in UTF-8": b'{"id":1,"method":"echo","params":{"x":"\xed\xa0\x80"}}\n',
    "a lone surrogate": b'{"id":1,"method":"echo","params":{"x":"\\ud800"}}\n',
    "a lone surrogate in a name": b'{"id":1,"method":"echo","params":{"\\uDC00":1}}\n',
    "a number of 5,000 digits": b'{"id":1,"method":"echo","params":{"x":' + b"9" * 5000 + b"}}\n",
    "an exponent out of range": b'{"id":1,"method":"echo","params":{"x":1e999}}\n',
    "100,000 levels": deep(100_000),
    "65 levels": deep(63),
    "100,000 members": b'{"id":1,"method":"echo","params":{'
    + b",".join(b'"k%d":1' % n for n in range(100_000))
    + b"}}\n",
    "100,000 empty lists": b'{"id":1,"method":"echo","params":{"x":['
    + b"[]," * 100_000
    + b"[]]}}\n",
    "100,000 numbers": b'{"id":1,"method":"echo","params":{"x":[' + b"1," * 100_000 + b"1]}}\n",
    "8,000,000 quotes": b'{"id":1,"method":"echo","params":{"x":' + b'"' * 8_000_000 + b"}}\n",
    "NaN": b'{"id":1,"method":"echo","params":{"x":NaN}}\n',
    "minus infinity": b'{"id":1,"method":"echo","params":{"x":-Infinity}}\n',
    "a member twice": b'{"id":1,"method":"echo","params":{"x":1,"x":2}}\n',
    "an id twice": b'{"id":1,"id":2,"method":"$ping"}\n',
    "a NUL": b'{"id":1,"method":"\0"}\n',
    "a byte order mark": b'\xef\xbb\xbf{"id":1,"method":"$ping"}\n',
    "UTF-16": '{"id":1,"method":"$ping"}\n'.encode("utf-16"),
    "a bare control character": b'{"id":1,"method":"echo","params":{"x":"\x01"}}\n',
}

REFUSED: dict[str, tuple[dict[str, Any], Any]] = {
    "an unknown member": ({"id": 7, "method": "$ping", "extra": 1}, 7),
    "no method": ({"id": 7}, 7),
    "no id": ({"method": "$ping"}, None),
    "an id that is true": ({"id": True, "method": "$ping"}, None),
    "an id that is a fraction": ({"id": 1.5, "method": "$ping"}, None),
    "an id that is null": ({"id": None, "method": "$ping"}, None),
    "a long id": ({"id": "x" * 65, "method": "$ping"}, None),
    "a NUL in the id": ({"id": "a\0", "method": "$ping"}, None),
    "a method that is a number": ({"id": 7, "method": 1}, 7),
    "an empty method": ({"id": "7", "method": ""}, "7"),
    "a NUL in the method": ({"id": 7, "method": "a\0"}, 7),
    "params that are a list": ({"id": 7, "method": "$ping", "params": []}, 7),
    "params that are null": ({"id": 7, "method": "$ping", "params": None}, 7),
    "a schema that is a number": ({"id": 7, "method": "echo", "schema": 1}, 7),
    "a view without colour": ({"id": 7, "method": "echo", "view": {"width": 80}}, 7),
    "a narrow view": ({"id": 7, "method": "echo", "view": {"width": 19, "color": True}}, 7),
    "a wide view": ({"id": 7, "method": "echo", "view": {"width": 1001, "color": True}}, 7),
    "a view with text_only alone": ({"id": 7, "method": "echo", "view": {"text_only": True}}, 7),
    "a view with null for text_only": (
        {"id": 7, "method": "echo", "view": {"width": 80, "color": True, "text_only": None}},
        7,
    ),
    "a view with more": (
        {"id": 7, "method": "echo", "view": {"width": 80, "color": True, "height": 24}},
        7,
    ),
    "a view with 1 for true": ({"id": 7, "method": "echo", "view": {"width": 80, "color": 1}}, 7),
    "a reply": ({"id": 7, "result": {}}, 7),
}


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_frame_is_refused_and_the_connection_stays(
    serving: Callable[..., Any], frame: bytes
) -> None:
    async with serving() as server, server.greeted() as client:
        reply = await client.ask(frame)
        if frame.startswith(
            b"\xff\xfe"
        ):  # the newline of UTF-16 is two bytes; the second begins the next line
            await client.ask(b"\n")

        assert reply["id"] is None
        assert reply["error"]["code"] == -32600
        assert reply["error"]["data"]["code"] == "protocol"
        assert (await client.ask({"id": 2, "method": "$ping"})) == {"id": 2, "result": {}}


async def test_marks_inside_texts_count_for_no_limit(serving: Callable[..., Any]) -> None:
    text = '[]{},:"\\\\' * 50_000
    async with serving() as server, server.greeted() as client:
        reply = await client.ask({"id": 1, "method": "echo", "params": {"text": text, text: 1}})

        assert reply == {"id": 1, "result": {"text": text, text: 1}}


def test_too_many_values_are_refused_before_they_take_memory() -> None:
    line = b'{"id":1,"method":"echo","params":{"x":[' + b"[]," * 2_700_000 + b"1]}}"
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolViolation, match="more than 100000 commas"):
            wire.decode(line)

        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(line)


@pytest.mark.parametrize("text", ['"a"b', '{"a"', '"', "nul", '"\\x"'])
def test_a_broken_frame_is_a_violation_where_json_was_never_imported(text: str) -> None:
    program = textwrap.dedent("""
        import sys
        from dispatch_core.control import wire
        from dispatch_core.errors import ProtocolViolation

        try:
            wire.decode_reply(sys.argv[1].encode())
        except ProtocolViolation:
            print("json" in sys.modules)
    """)
    output = subprocess.check_output([sys.executable, "-c", program, text], text=True)

    assert output == "False\n"


@pytest.mark.parametrize(("request_", "reply_id"), REFUSED.values(), ids=REFUSED)
async def test_an_invalid_request_is_refused_with_its_id_when_that_is_valid(
    serving: Callable[..., Any], request_: dict[str, Any], reply_id: object
) -> None:
    async with serving() as server, server.greeted() as client:
        reply = await client.ask(request_)

        assert reply["id"] == reply_id
        assert reply["error"]["data"]["code"] == "protocol"
        assert server.host.calls == []
        assert "result" in await client.ask({"id": 2, "method": "$ping"})


async def test_the_largest_values_that_are_allowed_are_served(serving: Callable[..., Any]) -> None:
    params = {
        "digits": int("9" * 4300),
        "members": {f"k{n}": n for n in range(9_990)},
        "text": "\0 ü 😀",
    }
    async with serving() as server, server.greeted() as client:
        await client.write({"id": "x" * 64, "method": "echo", "params": params}, deep(62))

        replies = {reply["id"]: reply for reply in [await client.read(), await client.read()]}
        assert replies["x" * 64]["result"] == params
        assert "result" in replies[1]


@pytest.mark.parametrize("more", [{}, {"text_only": True}, {"text_only": False}])
async def test_a_view_and_a_schema_reach_the_host_and_text_comes_back(
    serving: Callable[..., Any], more: dict[str, bool]
) -> None:
    view = {"width": 80, "color": False, **more}
    async with serving() as server, server.greeted() as client:
        request = {"id": 1, "method": "echo", "params": {"a": 1}, "schema": "abc", "view": view}
        reply = await client.ask(request)

        assert reply == {"id": 1, "result": {"a": 1}, "text": "seen"}
        assert server.host.calls == [("echo", {"a": 1}, "abc", view)]


async def test_a_frame_of_the_limit_is_served_and_one_byte_more_is_refused(
    serving: Callable[..., Any],
) -> None:
    empty = len(wire.request_frame(1, "echo", {"x": ""}))
    largest = wire.request_frame(1, "echo", {"x": "y" * (wire.MAX_FRAME - empty)})
    async with serving() as server:
        async with server.greeted() as client:
            reply = await client.ask(largest.replace(b'"echo"', b'"gone"'))
            assert reply["error"]["data"]["code"] == "lane_busy"
        async with server.greeted() as client:
            reply = await client.ask(largest.replace(b"yy", b"yyy", 1))

            assert reply["id"] is None
            assert reply["error"]["data"]["code"] == "protocol"
            assert await client.ended()


async def test_100_mb_without_a_newline_are_discarded_in_little_memory(
    serving: Callable[..., Any],
) -> None:
    async with serving(linger=15) as server, server.greeted() as client:
        before = resident()
        sent = 0
        piece = b"x" * 1_000_000
        for _ in range(100):
            await client.stream.send(piece)
            sent = max(sent, resident())
        reply = await client.read()

        assert reply["error"]["data"]["code"] == "protocol"
        assert sent - before < 40 * 1024 * 1024
        assert await client.ended()
        async with server.greeted() as other:
            assert "result" in await other.ask({"id": 1, "method": "$ping"})


async def test_more_than_100_malformed_frames_end_the_connection(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        await client.write(b"x\n" * 100, {"id": 1, "method": "$ping"}, b"x\n")

        codes = [(await client.read()).get("id") for _ in range(102)]
        assert codes == [None] * 100 + [1, None]
        assert await client.ended()


async def test_a_result_larger_than_a_frame_is_an_error_that_says_to_ask_for_less(
    serving: Callable[..., Any],
) -> None:
    async with serving() as server, server.greeted() as client:
        too_much = {"count": wire.MAX_FRAME}
        reply = await client.ask({"id": 1, "method": "bytes", "params": too_much})
        not_json = await client.ask({"id": 2, "method": "nan"})

        assert reply["error"]["data"]["code"] == "protocol"
        assert "limit" in reply["error"]["data"]["hint"]
        assert not_json["error"]["data"]["code"] == "protocol"


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
                lambda inner: (
                    st.lists(inner, max_size=4)
                    | st.dictionaries(st.text(max_size=8), inner, max_size=4)
                ),
                max_leaves=12,
            ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
            st.fixed_dictionaries(
                {},
                optional={
                    "id": st.integers() | st.text(max_size=70) | st.none(),
                    "method": st.sampled_from(
                        ["$ping", "$hello", "$cancel", "$subscribe", "$unsubscribe", "echo", "no"]
                    )
                    | st.text(max_size=5),
                    "params": st.dictionaries(
                        st.sampled_from(["id", "after", "kinds", "thread", "subscription"]),
                        st.integers()
                        | st.text(max_size=5)
                        | st.lists(st.text(max_size=3))
                        | st.none(),
                    )
                    | st.none(),
                    "view": st.none() | st.dictionaries(st.text(max_size=5), st.integers()),
                },
            ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
        ),
        max_size=8,
    )
)
async def test_whatever_is_written_the_server_answers_or_closes_and_lives(
    server_for_fuzz: Any, lines: list[bytes]
) -> None:
    params = {"protocol": 1, "client": "fuzz", "version": "1"}
    hello = {"id": 0, "method": "$hello", "params": params}
    async with server_for_fuzz.raw() as client:
        with anyio.fail_after(5):
            await client.write(hello, b"\n".join(lines) + b"\n", {"id": "end", "method": "$ping"})
            while (await client.read())["id"] != "end":
                pass

    async with server_for_fuzz.greeted() as other:
        assert "result" in await other.ask({"id": 1, "method": "$ping"})


@pytest.fixture
async def server_for_fuzz(serving: Callable[..., Any]) -> Any:
    async with serving() as server:
        yield server


def resident() -> int:
    """Return the bytes of memory that this process, server included, holds."""
    statm = "/proc/self/statm"
    if os.path.exists(statm):  # noqa: PTH110
        with open(statm) as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
