"""Words of a query and of a text, and how a match is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.api import SearchTerm, ValidationFailed, one_token_each, search_terms
from dispatch_core.contracts.search_text import SNIPPET_WIDTH, fold, snippet


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("two words", (SearchTerm(("two",)), SearchTerm(("words",)))),
        ('"two words" more', (SearchTerm(("two", "words")), SearchTerm(("more",)))),
        ('"not closed', (SearchTerm(("not", "closed")),)),
        ("pars*", (SearchTerm(("pars",), prefix=True),)),
        ('"pars*"', (SearchTerm(("pars",)),)),
        ("src/main_loop.py", (SearchTerm(("src", "main", "loop", "py")),)),
        ("Ünïcode", (SearchTerm(("unicode",)),)),
        ("世界x", (SearchTerm(("世", "界", "x")),)),
        ("re\u0301sume\u0301", (SearchTerm(("resume",)),)),
        ("- ! word ?", (SearchTerm(("word",)),)),
    ],
)
def test_a_query_is_cut_into_terms(text: str, terms: tuple[SearchTerm, ...]) -> None:
    assert search_terms(text) == terms


@given(st.text(max_size=200))
def test_folding_keeps_every_character_in_its_place(text: str) -> None:
    assert len(fold(text)) == len(text)


@given(st.text(max_size=200))
def test_what_is_indexed_can_be_encoded(text: str) -> None:
    one_token_each(text).encode()


@pytest.mark.parametrize(
    ("text", "query", "shown"),
    [
        ("Fix the parser", "parser", "Fix the [parser]"),
        ("Parsers parse", "pars*", "[Parsers] [parse]"),
        ("parsers parse", "parse", "parsers [parse]"),
        ("a\n\tb   c\x00d", "c", "a b [c] d"),
        ("main_loop runs", "main_loop", "[main_loop] runs"),
        ("main_loop runs", "loop", "main_[loop] runs"),
        ("Das Übliche", "ubliche", "Das [Übliche]"),
        ("你好世界", "世界", "你好[世界]"),
        ("서버에서 온", "서버", "[서버]에서 온"),
        ("two  words here", '"two words"', "[two words] here"),
        ("no match at all", "other", "no match at all"),
        ("", "other", ""),
    ],
)
def test_matches_are_marked(text: str, query: str, shown: str) -> None:
    marked = snippet(text, search_terms(query))

    assert marked.replace("\x02", "[").replace("\x03", "]") == shown


def test_marks_in_the_text_itself_are_not_taken_for_matches() -> None:
    marked = snippet("a \x02fake\x03 word", search_terms("word"))

    assert marked == "a fake \x02word\x03"


def test_a_long_text_is_shown_around_its_first_match() -> None:
    marked = snippet("before " * 100 + "needle " + "after " * 100, search_terms("needle"))

    assert marked.startswith("…before")
    assert marked.endswith("…")
    assert " \x02needle\x03 " in marked
    assert len(marked) <= SNIPPET_WIDTH + 4


@given(st.text(min_size=1, max_size=80), st.text(max_size=400))
def test_no_text_and_no_query_is_too_strange_to_be_shown(query: str, text: str) -> None:
    try:
        terms = search_terms(query)
    except ValidationFailed:
        return

    marked = snippet(text, terms)

    assert marked.count("\x02") == marked.count("\x03")
    assert "\n" not in marked
