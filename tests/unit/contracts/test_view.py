"""Text for people stays within its place, whatever it is made of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.contracts.view import (
    COLORS,
    View,
    columns_of,
    glyph,
    pad,
    printable,
    safe_block,
    shorten,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
TEXT = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("漢字テスト\u0301\u0302\x1b\x07\u202e\u2028\r\n\t\ud800e\U0001f600"),
    ),
    max_size=60,
)


@given(TEXT)
def test_nothing_that_moves_the_cursor_is_printable(text):
    shown = printable(text)

    assert len(shown) == len(text)
    assert not any(category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    shown.encode("utf-8")


@given(TEXT)
def test_a_block_keeps_its_lines_and_nothing_else_that_controls(text):
    shown = safe_block(text)

    assert shown.count("\n") == text.count("\n")
    assert not any(c not in "\n\t" and category(c) in ("Cc", "Cf", "Cs") for c in shown)
    shown.encode("utf-8")


@given(TEXT.map(printable), st.integers(1, 80))
def test_a_shortened_text_fits_and_a_short_one_is_unchanged(text, width):
    cut = shorten(text, width)

    assert columns_of(cut) <= width
    assert (cut == text) == (columns_of(text) <= width)
    assert cut == text or cut.endswith("…")
    assert columns_of(pad(cut, width)) == width


@given(
    st.lists(st.lists(TEXT, min_size=4, max_size=4), max_size=5),
    st.integers(4 * 9 + 6, 200),
    st.integers(0, 3),
)
def test_a_table_never_exceeds_its_width(rows, width, flexible):
    view = View(width, color=False, now=NOW)

    table = view.table(["REF", "NAME", "STATE", "DIRECTORY"], rows, flexible=flexible)

    lines = table.split("\n")
    assert len(lines) == len(rows) + 1
    assert all(columns_of(line) <= width for line in lines)


def test_the_flexible_column_gives_way_before_the_others():
    view = View(40, color=False, now=NOW)

    table = view.table(["NAME", "DIRECTORY"], [["x" * 20, "/very/long/" + "d" * 60]], flexible=1)

    [_, row] = table.split("\n")
    assert row == "x" * 20 + "  /very/long/dddddd…"


def test_columns_are_aligned_behind_wide_and_combining_characters():
    view = View(80, color=False, now=NOW)

    table = view.table(["A", "B"], [["漢字", "x"], ["e\u0301", "y"]], flexible=1)

    assert [
        columns_of(line[: line.index(mark)])
        for line, mark in zip(table.split("\n"), "Bxy", strict=True)
    ] == [6, 6, 6]


def test_colours_appear_only_when_asked_for_and_do_not_count():
    plain, coloured = View(80, color=False, now=NOW), View(80, color=True, now=NOW)
    rows = [["0AAAA1", glyph("busy")]]

    assert "\x1b" not in plain.table(["REF", "STATE"], rows, flexible=1)
    shown = coloured.table(["REF", "STATE"], rows, flexible=1)
    assert f"\x1b[{COLORS['cyan']}m● busy\x1b[0m" in shown
    assert coloured.paint("", "red") == ""
    assert coloured.paint("x", "no such colour") == "x"


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(-5, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")],
)
def test_an_age_has_one_unit(seconds, age):
    assert View(80, color=False, now=NOW).age(NOW - timedelta(seconds=seconds)) == age


def test_fields_without_a_value_are_left_out():
    text = View(80, color=False, now=NOW).fields(
        [("a", "1"), ("bb", None), ("ccc", "3"), ("d", "")]
    )

    assert text == "a    1\nccc  3"
