"""Lines, paths and marks for people: they fit, whatever they are made of."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.contracts.view import (
    PAINT,
    View,
    broken,
    columns_of,
    glyph,
    printable,
    shorten_left,
    wrapped,
)

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
TEXT = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from("漢字テスト\u0301\u0302\x1b\x07\u202e\u2028\r\n\t\ud800e\U0001f600 / "),
    ),
    max_size=60,
)


def view(width: int = 40, *, color: bool = False) -> View:
    return View(width, color, NOW, home="/home/you")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/you", "~"),
        ("/home/you/src", "~/src"),
        ("/home/youm/src", "/home/youm/src"),
        ("/a\x1b[2Jb", "/a [2Jb"),
        ("", "-"),
        (None, "-"),
    ],
)
def test_the_home_directory_is_written_short(path: str | None, shown: str) -> None:
    assert view().directory(path) == shown


def test_nothing_is_the_home_directory_of_somebody_who_lives_in_the_root() -> None:
    assert View(40, color=False, now=NOW, home="/").directory("/srv") == "/srv"


@given(TEXT.map(printable), st.integers(1, 80))
def test_a_text_that_loses_its_beginning_fits_and_keeps_its_end(text: str, width: int) -> None:
    cut = shorten_left(text, width)

    assert columns_of(cut) <= width
    assert (cut == text) == (columns_of(text) <= width)
    assert cut == text or (cut.startswith("…") and text.endswith(cut[1:]))


def test_a_path_is_cut_between_its_names() -> None:
    assert shorten_left("~/src/very/deep/project-name", 18) == "…/project-name"
    assert shorten_left("~/src/very/deep/project-name", 9) == "…ect-name"


@given(TEXT.map(printable), st.integers(2, 30))
def test_a_wrapped_line_loses_nothing_but_the_spaces_it_is_broken_at(text: str, width: int) -> None:
    parts = wrapped(text, width)

    assert all(columns_of(part) <= width for part in parts)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "")


@given(TEXT, st.sampled_from(["", "  ", "    "]), st.integers(20, 60))
def test_a_block_stays_within_the_width(text: str, indent: str, width: int) -> None:
    lines = view(width).block(text, indent=indent)

    assert all(columns_of(line) <= width for line in lines)
    assert all(line.startswith(indent) or not line for line in lines)
    assert len(lines) >= text.count("\n") + 1


@given(TEXT, st.integers(10, 60))
def test_a_line_and_a_rule_stay_within_the_width(text: str, width: int) -> None:
    assert columns_of(view(width).fit(text, indent="  ")) <= max(width, 11)
    assert columns_of(view(width).rule(text)) <= width


@given(
    TEXT,
    st.lists(st.tuples(st.integers(-5, 70), st.integers(-5, 70)), max_size=4),
    st.integers(4, 60),
)
def test_marks_fit_wherever_they_are(text: str, ranges: list[tuple[int, int]], width: int) -> None:
    assert columns_of(view(width).marked(text, ranges, width)) <= width


def test_the_first_mark_is_in_sight_and_stands_out() -> None:
    text = "x" * 100 + " needle in the hay"

    shown = view(color=True).marked(text, [(101, 107)], 30)

    assert "\x1b[1;33mneedle\x1b[0m" in shown
    assert shown.startswith("…")


def test_a_table_shortens_the_widest_of_its_flexible_columns_and_never_what_must_be_whole() -> None:
    rows = [["0" * 20, "a name of some length", "/a/long/path/to/the/end"]]

    table = view(50).table(["ID", "NAME", "DIR"], rows, flexible=(1, 2), from_left={2}, whole={0})

    assert table.split("\n")[1] == f"{'0' * 20}  a name of so…  …/to/the/end"


def test_a_status_that_is_shortened_from_neither_side_is_coloured() -> None:
    table = view(color=True).table(["S"], [[glyph("not_loaded")]], flexible=0)

    assert "\x1b[2m· not_loaded\x1b[0m" in table


def test_a_sentence_is_broken_between_words_and_colours_take_no_room() -> None:
    painted = view(color=True).paint("@builder", "bold")

    text = view(24).wrap(f"{painted} is thread 0BGeK1 and accepted", indent="  ")

    assert PAINT.sub("", text) == "@builder is thread\n  0BGeK1 and accepted"


def test_a_path_is_never_broken_for_it_is_there_to_be_copied() -> None:
    path = "/home/you/.codex/sessions/2026/05/04/rollout.jsonl"

    text = view(30).fields([("codex", f"0.163.0 {path} (from wheel)"), ("log", path)])

    assert text == f"codex  0.163.0\n       {path}\n       (from wheel)\nlog    {path}"


@given(st.lists(st.text("ab漢 ", max_size=9), max_size=20), st.integers(20, 60))
def test_breaking_loses_nothing_but_the_space_at_the_break(words: list[str], width: int) -> None:
    line = " ".join(words)

    text = broken(line, width)

    assert text.split() == line.split()
    assert all(columns_of(part) <= width for part in text.split("\n"))
