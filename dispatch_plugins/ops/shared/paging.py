"""Pages out of other people's pages: rows are taken one by one, and a cursor says where to go on, without gaps.

Codex and the index page by their own cursors, at their own borders. A row may be left out by a filter of ours, and a page of ours
ends in the middle of one of theirs. A ``Feed`` hides that; its place is the cursor of their page and the last row taken of it.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from zlib import crc32

from dispatch_core.api import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")

CURSOR_LIMIT = 20_000  # characters; ours are a few hundred


@dataclass(frozen=True, slots=True)
class Row(Generic[T]):
    """One row of a feed. order: what their rows are sorted by, ascending; None when it says nothing."""

    id: str
    order: float | None
    value: T


@dataclass(frozen=True, slots=True)
class Place:
    """Where a feed stands. page: their cursor; last: the row that was taken last from that page; order: of that row."""

    page: str | None = None
    last: str | None = None
    order: float | None = None


START = Place()


class Fetch(Protocol[T]):
    """How a feed gets a page: their cursor in, the rows of it that count and the cursor of their next page out."""

    async def __call__(self, cursor: str | None, /) -> tuple[list[Row[T]], str | None]: ...


class Feed(Generic[T]):
    """Rows of one source in its own order.

    patience: how many of their pages may be asked for in one call; then the feed is ``paused``, not at its end.
    """

    def __init__(
        self,
        fetch: Fetch[T],
        place: Place | None,
        *,
        patience: int,
    ) -> None:
        self._fetch = fetch
        self._patience = patience
        self._place = place or START
        self._rows: list[Row[T]] = []
        self._next: str | None = None
        self._loaded = False
        self._ended = place is None
        self.paused = False

    async def head(self) -> Row[T] | None:
        """Return the next row without taking it, or None when there is none now. Raises as fetch."""
        while not self._rows and not self._ended:
            if self._loaded:
                if self._next is None:
                    self._ended = True
                    break
                self._place, self._loaded = Place(self._next), False
            if self._patience <= 0:
                self.paused = True
                break
            self._patience -= 1
            rows, self._next = await self._fetch(self._place.page)
            self._rows, self._loaded = _rest(rows, self._place), True
        return self._rows[0] if self._rows else None

    def take(self) -> Row[T]:
        """Take the row that ``head`` returned."""
        row = self._rows.pop(0)
        self._place = Place(self._place.page, row.id, row.order)
        return row

    def end(self) -> None:
        """Have no more rows, now and from the place on."""
        self._rows, self._ended = [], True

    @property
    def place(self) -> Place | None:
        """Where to go on, None at the end."""
        if self._ended or (self._loaded and not self._rows and self._next is None):
            return None
        if self._loaded and not self._rows:
            return Place(self._next)
        return self._place


def _rest(rows: Sequence[Row[T]], place: Place) -> list[Row[T]]:
    """Return what comes behind a place in its page.

    The row that was taken last may have moved since; then all that are not sorted before it are returned: rather a row twice
    than one never.
    """
    if place.last is None:
        return list(rows)
    for index, row in enumerate(rows):
        if row.id == place.last and row.order == place.order:
            return list(rows[index + 1 :])
    if place.order is None:
        return list(rows)
    return [row for row in rows if row.order is None or row.order >= place.order]


def fingerprint(question: Mapping[str, Any]) -> int:
    """Return what tells one question from another, so that a cursor goes with the question it came from."""
    return crc32(json.dumps(question, sort_keys=True, default=str).encode())


def to_cursor(question: int, places: Mapping[str, Place | None]) -> str | None:
    """Return the cursor for the places of feeds by name, None when all of them are at their end."""
    open_places = {n: [p.page, p.last, p.order] for n, p in places.items() if p is not None}
    if not open_places:
        return None
    data = json.dumps([question, open_places], separators=(",", ":"))
    return urlsafe_b64encode(data.encode()).decode().rstrip("=")


def from_cursor(cursor: str | None, question: int, names: Sequence[str]) -> dict[str, Place | None]:
    """Return the place of every named feed: its start without a cursor, None where the cursor says that it has ended.

    Raises ValidationFailed for a cursor that is none, or of another question.
    """
    if cursor is None:
        return dict.fromkeys(names, START)
    try:
        if len(cursor) > CURSOR_LIMIT:
            raise ValueError("too long")
        data = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        asked, places = data
        found = {name: _place(places[name]) for name in names if name in places}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValidationFailed(
            "after: that is not a cursor", hint="pass next of the page before, unchanged"
        ) from error
    if asked != question:
        raise ValidationFailed(
            "after: that cursor belongs to another question",
            hint="repeat the words of the page before, with --after",
        )
    return {name: found.get(name) for name in names}


def _place(parts: Any) -> Place:
    page, last, order = parts
    texts = isinstance(page, str | None) and isinstance(last, str | None)
    if not texts or not isinstance(order, int | float | None):
        raise TypeError("a place is two texts and a number")
    return Place(page, last, order)
