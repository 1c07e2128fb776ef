"""Where a query occurs in a text, by the rules of the index."""

from __future__ import annotations

import re

from dispatch_core.api import fold, has_all_terms, search_terms, snippet, term_spans, unmarked


class Matcher:
    """Finds a query in texts. Raises ValidationFailed for a query without a word.

    literal: the query as Codex looks for it.
    """

    def __init__(self, query: str) -> None:
        self._terms = search_terms(query)
        self.literal = " ".join(query.replace('"', " ").replace("*", " ").split())

    def fits(self, text: str) -> bool:
        """Say whether all words of the query are in a text."""
        return has_all_terms(text, self._terms)

    def around(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """Return the text around the first match, on one line, and where in it the matches are."""
        return unmarked(snippet(text, self._terms))

    def marks(self, shown: str) -> list[tuple[int, int]]:
        """Return where any word of the query is in a snippet that somebody else cut, or its text as it stands."""
        spans = term_spans(shown, self._terms)
        if not spans and self.literal:
            spans = [m.span() for m in re.finditer(re.escape(fold(self.literal)), fold(shown))]
        return spans
