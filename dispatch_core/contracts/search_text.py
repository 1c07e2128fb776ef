"""How text is cut into words: in a query, in an index, and where a match is shown. All three must agree."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from dispatch_core.errors import ValidationFailed

QUERY_LIMIT: Final = 1000
TERM_LIMIT: Final = 32
SNIPPET_WIDTH: Final = 200
LEAD: Final = 60  # characters shown before the first match
MATCH_START: Final = "\x02"
MATCH_END: Final = "\x03"

# Scripts that put no space between words: each of their characters is a word of its own.
_UNSPACED = "\u2e80-\u2fdf\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_UNSPACED_CHARACTER = re.compile(f"([{_UNSPACED}])")
_LETTER = rf"[^\W_{_UNSPACED}]"
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTER}+")
_PART = re.compile(r'"([^"]*)"?|([^\s"]+)')
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class SearchTerm:
    """Words that stand together. prefix: the last one may go on."""

    words: tuple[str, ...]
    prefix: bool = False


@lru_cache(maxsize=16)
def search_terms(text: str) -> tuple[SearchTerm, ...]:
    """Return what must all occur: words, "words in quotes" that stand together, and beginnings of words with a star.

    Everything else in the text separates words, as it does in what is searched. Case and accents do not count. Raises
    ValidationFailed when there is no word in it, or too much of it.
    """
    if len(text) > QUERY_LIMIT:
        raise ValidationFailed(
            f"the search text has {len(text)} characters; at most {QUERY_LIMIT} are allowed",
            hint="search for fewer, rarer words",
        )
    terms = []
    for quoted, plain in _PART.findall(unicodedata.normalize("NFC", text)):
        words = tuple(_WORD.findall(fold(quoted or plain)))
        if words:
            terms.append(SearchTerm(words, prefix=plain.endswith("*")))
    if not terms:
        raise ValidationFailed(
            "there is no word to search for",
            hint="give at least one word; punctuation alone cannot be found",
        )
    if sum(len(term.words) for term in terms) > TERM_LIMIT:
        raise ValidationFailed(
            f"the search text has more than {TERM_LIMIT} words",
            hint="search for fewer, rarer words",
        )
    return tuple(terms)


def one_token_each(text: str) -> str:
    """Return text in which characters that are words of their own stand apart, and that can be encoded in UTF-8."""
    if text.isascii():
        return text
    if _UNSPACED_CHARACTER.search(text):
        text = _UNSPACED_CHARACTER.sub(r" \1 ", text)
    return text.encode("utf-8", "replace").decode("utf-8")


def fold(text: str) -> str:
    """Return text without case and accents, character by character: positions stay."""
    if text.isascii():
        return text.lower()
    return "".join(map(_fold, text))


def term_spans(text: str, terms: tuple[SearchTerm, ...]) -> list[tuple[int, int]]:
    """Return where in text any of the terms is, in order: [start, end) in characters, none of them within another."""
    return [match.span() for match in _pattern(terms).finditer(fold(text))]


def has_all_terms(text: str, terms: tuple[SearchTerm, ...]) -> bool:
    """Say whether every one of the terms is in text."""
    folded = fold(text)
    return all(_pattern((term,)).search(folded) for term in terms)


def snippet(text: str, terms: tuple[SearchTerm, ...]) -> str:
    """Return the text around the first match, on one line, with all matches in it marked; its beginning when there is none."""
    line = _BLANK.sub(" ", text).strip()
    spans = term_spans(line, terms)
    start = 0
    if spans and spans[0][0] > LEAD:
        start = spans[0][0] - LEAD
        space = line.find(" ", start, spans[0][0])
        start = start if space < 0 else space + 1
    end = min(len(line), start + SNIPPET_WIDTH)
    shown = []
    at = start
    for first, last in spans:
        if first < at:
            continue
        if last > end:
            break
        shown += [line[at:first], MATCH_START, line[first:last], MATCH_END]
        at = last
    shown.append(line[at:end])
    return f"{'…' if start else ''}{''.join(shown)}{'…' if end < len(line) else ''}"


def unmarked(marked: str) -> tuple[str, list[tuple[int, int]]]:
    """Return a snippet without its marks, and where they were: [start, end) in characters."""
    text, spans = "", []
    for index, part in enumerate(marked.split(MATCH_START)):
        inside, end, rest = part.partition(MATCH_END)
        if index and end:
            spans.append((len(text), len(text) + len(inside)))
        text += inside + rest
    return text, spans


@lru_cache(maxsize=64)  # a query of the most terms, each by itself, and some more
def _pattern(terms: tuple[SearchTerm, ...]) -> re.Pattern[str]:
    longest_first = sorted(terms, key=lambda term: -sum(map(len, term.words)))
    return re.compile("|".join(map(_term_pattern, longest_first)))


def _term_pattern(term: SearchTerm) -> str:
    parts = [
        word if _UNSPACED_CHARACTER.match(word) else rf"(?<!{_LETTER}){word}(?!{_LETTER})"
        for word in term.words
    ]
    if term.prefix and parts[-1].endswith(")"):
        parts[-1] = parts[-1].removesuffix(rf"(?!{_LETTER})") + rf"{_LETTER}*"
    return r"[\W_]*".join(parts)


@lru_cache(maxsize=4096)
def _fold(character: str) -> str:
    if _UNSPACED_CHARACTER.match(character):
        return character
    base = unicodedata.normalize("NFD", character)[:1]
    lower = base.lower()
    return lower if len(lower) == 1 else base
