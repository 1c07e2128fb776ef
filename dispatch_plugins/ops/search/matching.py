"""Where a query occurs in a text, by the rules of the index."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from dispatch_core.api import search_terms

if TYPE_CHECKING:
    from dispatch_core.api import SearchTerm

LETTER = r"[^\W_]"
WIDTH = 200  # characters of a snippet
LEAD = 60  # of them before the first match
BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


class Matcher:
    """Finds a query in texts. Raises ValidationFailed for a query without a word."""

    def __init__(self, query: str) -> None:
        terms = search_terms(query)
        self._patterns = [re.compile(_pattern(term)) for term in terms]
        self.literal = " ".join(query.replace('"', " ").replace("*", " ").split())

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where the words of the query are, in order; nothing unless all of them are there."""
        folded = _fold(text)
        found = [[match.span() for match in pattern.finditer(folded)] for pattern in self._patterns]
        return sorted(span for spans in found for span in spans) if all(found) else []

    def around(self, text: str) -> tuple[str, list[tuple[int, int]]] | None:
        """Return the text around the first match, on one line, and where in it the matches are; None without one."""
        line = BLANK.sub(" ", text).strip()
        spans = self.spans(line)
        if not spans:
            return None
        start = 0
        if spans[0][0] > LEAD:
            start = spans[0][0] - LEAD
            space = line.find(" ", start, spans[0][0])
            start = start if space < 0 else space + 1
        shown, lead = line[start : start + WIDTH], "…" if start else ""
        inside = [
            (a - start + len(lead), b - start + len(lead))
            for a, b in spans
            if a >= start and b <= start + len(shown)
        ]
        tail = "…" if start + len(shown) < len(line) else ""
        return f"{lead}{shown}{tail}", inside

    def marks(self, snippet: str) -> list[tuple[int, int]]:
        """Return where any word of the query is in a snippet that somebody else cut, or its text as it stands."""
        folded = _fold(snippet)
        spans = [m.span() for pattern in self._patterns for m in pattern.finditer(folded)]
        if not spans and self.literal:
            spans = [m.span() for m in re.finditer(re.escape(_fold(self.literal)), folded)]
        return sorted(spans)


def _pattern(term: SearchTerm) -> str:
    parts = [re.escape(word) for word in term.words]
    body = r"[\W_]*".join(parts)
    # A word of one character of a script without spaces has no borders.
    head = "" if _unspaced(term.words[0]) else rf"(?<!{LETTER})"
    tail = "" if _unspaced(term.words[-1]) else rf"(?!{LETTER})"
    return f"{head}{body}{LETTER}*" if term.prefix else f"{head}{body}{tail}"


def _unspaced(word: str) -> bool:
    return len(word) == 1 and unicodedata.east_asian_width(word) in "WF"


def _fold(text: str) -> str:
    """Return text without case and accents, character by character, so that places stay."""
    if text.isascii():
        return text.lower()
    return "".join(map(_fold_character, text))


def _fold_character(character: str) -> str:
    base = unicodedata.normalize("NFD", character)[:1]
    lower = base.lower()
    return lower if len(lower) == 1 else base
