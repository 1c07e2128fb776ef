from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.appserver.lines import LineSplitter


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(
    st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))),
    st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
    st.lists(st.integers(0, 10_000)),
)
def test_lines_come_out_whole_however_the_chunks_fall(lines, tail, places):
    splitter = LineSplitter()
    data = b"".join(line + b"\n" for line in lines) + tail

    found = [line for chunk in cut(data, places) for line in splitter.feed(chunk)]

    assert found == lines
    assert splitter.pending == len(tail)
    assert splitter.oversized == 0


@given(
    st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))),
    st.lists(st.integers(0, 10_000)),
    st.integers(0, 30),
)
def test_a_line_over_the_limit_is_dropped_and_counted_and_costs_no_other(lines, places, limit):
    splitter = LineSplitter(limit)
    data = b"".join(line + b"\n" for line in lines)

    found = [line for chunk in cut(data, places) for line in splitter.feed(chunk)]

    assert found == [line for line in lines if len(line) <= limit]
    assert splitter.oversized == sum(len(line) > limit for line in lines)
    assert splitter.pending == 0


def test_text_cut_within_a_character_is_whole_again():
    splitter = LineSplitter()
    data = "ä€😀\n".encode()

    found = [line for byte in data for line in splitter.feed(bytes([byte]))]

    assert found == ["ä€😀".encode()]


def test_nothing_is_kept_of_a_line_over_the_limit():
    splitter = LineSplitter(1000)

    for _ in range(50):
        splitter.feed(b"x" * 400)

    assert splitter.pending == 0
    assert splitter.oversized == 1
    assert splitter.feed(b"\nnext\n") == [b"next"]
