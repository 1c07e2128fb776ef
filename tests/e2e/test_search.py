"""Find threads by what was said in them, in the index and in Codex; on the real Codex."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def told() -> Iterator[Dispatch]:
    """A home in which three threads speak of needles."""
    with temporary_home() as dispatch:
        dispatch.json("up")
        for name, text in (
            ("first", "a needle of steel"),
            ("second", "a needle of bone, and thread"),
            ("third", "no such thing"),
        ):
            dispatch.json("new", name, text, "--cwd", "/")
            dispatch.json("wait", f"@{name}", "--timeout", "60")
        yield dispatch


def handles(found: dict[str, Any]) -> list[str]:
    return [hit["handle"] for hit in found["hits"]]


def test_threads_are_found_newest_first_with_the_text_around_the_match(told: Dispatch) -> None:
    found = told.json("search", "needle")

    assert handles(found) == ["@second", "@first"]
    for hit in found["hits"]:
        [*_, (start, end)] = hit["matches"]
        assert hit["snippet"][start:end] == "needle"
    assert (found["next"], found["complete"]) == (None, True)


def test_pages_have_every_thread_once(told: Dispatch) -> None:
    first = told.json("search", "needle", "--limit", "1")
    second = told.json("search", "needle", "--limit", "1", "--cursor", first["next"])

    assert (handles(first), handles(second), second["next"]) == (["@second"], ["@first"], None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("steel",), ["@first"]),
        (('"of bone"',), ["@second"]),
        (("bone steel",), []),
        (("needle", "--ascending"), ["@first", "@second"]),
        (("needle", "--sort", "created_at"), ["@second", "@first"]),
        (("needle", "--unmanaged"), []),
        (("needle", "--managed", "--since", "1h"), ["@second", "@first"]),
        (("needle", "--until", "1h"), []),
        (("needle", "--since", "today", "--until", "today"), ["@second", "@first"]),
        (("needle", "--dir", "/tmp"), []),
        (("needle", "--dir", "/"), ["@second", "@first"]),
    ],
)
def test_filters_narrow_what_is_found(
    told: Dispatch, words: tuple[str, ...], expected: list[str]
) -> None:
    assert handles(told.json("search", *words)) == expected


def test_relevance_puts_the_better_fit_first(told: Dispatch) -> None:
    assert set(handles(told.json("search", "needle", "--sort", "relevance"))) == {
        "@first",
        "@second",
    }


def test_what_was_found_in_one_thread_is_every_item_of_it(told: Dispatch) -> None:
    found = told.json("search", "needle", "--thread", "@first")
    nothing = told.json("search", "needle", "--thread", "@third")

    assert [(hit["role"], hit["snippet"]) for hit in found["hits"]] == [
        ("agent", "Offline reply: a needle of steel"),
        ("user", "a needle of steel"),
    ]
    assert all(hit["turn_id"] and hit["item_id"] for hit in found["hits"])
    assert nothing["hits"] == []


def test_an_archived_thread_is_found_only_if_asked(told: Dispatch) -> None:
    told.json("new", "gone", "an unusual bodkin", "--cwd", "/")
    told.json("wait", "@gone", "--timeout", "60")
    told.json("archive", "@gone", "--yes")

    assert handles(told.json("search", "bodkin")) == []
    assert handles(told.json("search", "bodkin", "--archived")) == ["@gone"]


@pytest.mark.parametrize(
    "words",
    [
        ("search", ""),
        ("search", "..."),
        ("search", "x", "--since", "soon"),
        ("search", "x", "--managed", "--unmanaged"),
        ("search", "x", "--repo", "/"),
        ("search", "x", "--after", "x"),
        ("search", "x", "--thread", "@first", "--ascending"),
        ("search", "y" * 2000),
    ],
)
def test_a_question_without_sense_says_what_to_do(told: Dispatch, words: tuple[str, ...]) -> None:
    error = told.error(*words)

    assert error["code"] == "validation"
    assert error["hint"]
