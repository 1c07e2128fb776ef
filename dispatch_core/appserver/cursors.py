"""Where a page of history ended, as one opaque word."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

from dispatch_core.errors import ValidationFailed

VERSION = "h1"
KINDS = {"items": 2, "turns": 3}  # the values that follow the name


@dataclass(frozen=True, slots=True)
class ByItem:
    """A place in a history that Codex gives by items.

    items: Codex's cursor of the next older items. turns: of the turns among which the one of the next older item is. None: the
    newest.
    """

    items: str | None = None
    turns: str | None = None


@dataclass(frozen=True, slots=True)
class ByTurn:
    """A place in a history that Codex gives by turns only.

    turns: Codex's cursor of the turns to go on with, None for the newest. turn: the one of them that is next, None for the first.
    left: how many of its items, from its beginning, are still to be given.
    """

    turns: str | None = None
    turn: str | None = None
    left: int = 0


def encode(place: ByItem | ByTurn) -> str:
    """Return a place as one word, of URL-safe characters."""
    if isinstance(place, ByItem):
        values: list[object] = [VERSION, "items", place.items, place.turns]
    else:
        values = [VERSION, "turns", place.turns, place.turn, place.left]
    text = json.dumps(values, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(word: str) -> ByItem | ByTurn:
    """Return the place that a word stands for. Raises ValidationFailed for a word that encode has not made."""
    try:
        padded = word.encode("ascii") + b"=" * (-len(word) % 4)
        version, kind, *values = json.loads(urlsafe_b64decode(padded))
        if version == VERSION and len(values) == KINDS[kind]:
            *texts, last = values
            if all(text is None or isinstance(text, str) for text in texts):
                if kind == "items" and (last is None or isinstance(last, str)):
                    return ByItem(texts[0], last)
                if kind == "turns" and type(last) is int and last >= 0:
                    return ByTurn(texts[0], texts[1], last)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise invalid_cursor()


def invalid_cursor() -> ValidationFailed:
    """Return the error for a cursor that leads nowhere."""
    return ValidationFailed(
        "the cursor is not one of a page of this history",
        hint="leave it out to begin with the newest items, and pass on what a page gives as older",
    )
