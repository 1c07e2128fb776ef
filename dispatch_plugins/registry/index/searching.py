"""What a query means in SQL. Every filter is part of the statement that finds the threads.

A rare word is looked up, and the threads that have it are put in order. A common word is in nearly every thread, so the threads
are walked in order, and each is asked whether it has it, until the page is full.
"""

# ruff: noqa: S608 -- what is put into statements is our own constants

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import (
    SearchHit,
    SearchPage,
    SearchTerm,
    ValidationFailed,
    search_terms,
)
from dispatch_plugins.registry.index.facts import load_facts, microseconds
from dispatch_plugins.registry.index.layout import SOURCE_SHIFT

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from dispatch_core.api import SearchQuery

COMMON: Final = 5000  # documents with a word from which it is a common one
RANKED: Final = 2000  # matches among which the most relevant are looked for, the newest ones
LIMIT: Final = 1000  # hits on a page
INTEGERS: Final = 1 << 63  # of SQLite: from minus this to below it

_SHOWN: Final = "t.facts, t.title, s.path, d.offset"
# CROSS JOIN: what stands before it is not made a table first.
_PLACE: Final = (
    f"CROSS JOIN sources s ON s.id = h.hit >> {SOURCE_SHIFT} CROSS JOIN docs d ON d.id = h.hit"
)
_NEWEST_OF_SOURCE: Final = f"""(SELECT w.rowid FROM words w WHERE w.words MATCH :text
    AND w.rowid BETWEEN s.id << {SOURCE_SHIFT} AND s.last_id ORDER BY w.rowid DESC LIMIT 1)"""

_COUNT: Final = f"SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH :text LIMIT {COMMON})"
_LOOK_UP: Final = f"""SELECT {_SHOWN}, {{key}}, t.number
    FROM (SELECT s.thread AS thread, max(words.rowid) AS hit
          FROM words CROSS JOIN sources s ON s.id = words.rowid >> {SOURCE_SHIFT}
          WHERE words MATCH :text AND words.rowid <= s.last_id GROUP BY s.thread) h
    JOIN threads t ON t.number = h.thread {_PLACE}
    WHERE {{filters}} ORDER BY {{key}} {{way}}, t.number {{way}} LIMIT :limit"""
# The inner LIMIT keeps SQLite from merging the two levels, which would ask every thread twice.
_WALK: Final = f"""SELECT {_SHOWN}, h.key, h.number
    FROM (SELECT t.number AS number, {{key}} AS key,
              (SELECT max({_NEWEST_OF_SOURCE}) FROM sources s WHERE s.thread = t.number) AS hit
          FROM threads t WHERE {{filters}} ORDER BY {{key}} {{way}}, t.number {{way}} LIMIT -1) h
    CROSS JOIN threads t ON t.number = h.number {_PLACE}
    WHERE h.hit IS NOT NULL LIMIT :limit"""
_RANK: Final = f"""SELECT thread, hit, min(score) FROM
    (SELECT s.thread AS thread, words.rowid AS hit, bm25(words) AS score
     FROM words CROSS JOIN sources s ON s.id = words.rowid >> {SOURCE_SHIFT}
         CROSS JOIN threads t ON t.number = s.thread
     WHERE words MATCH :text AND words.rowid <= s.last_id {{range}} AND {{filters}}
     ORDER BY words.rowid DESC LIMIT {RANKED})
    GROUP BY thread ORDER BY 3 {{way}}, hit {{back}}"""
_RANGE: Final = f"""AND words.rowid BETWEEN
    (SELECT min(s.id) << {SOURCE_SHIFT} FROM sources s JOIN threads t ON t.number = s.thread
     WHERE {{filters}})
    AND (SELECT max(s.last_id) FROM sources s JOIN threads t ON t.number = s.thread
     WHERE {{filters}})"""
_SHOW: Final = f"""SELECT {_SHOWN}, h.hit FROM
    (SELECT value AS hit, key AS place FROM json_each(:hits)) h {_PLACE}
    CROSS JOIN threads t ON t.number = s.thread ORDER BY h.place"""


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions on a thread ``t``, and the values in them."""

    sql: str
    values: dict[str, Any]


def search(db: sqlite3.Connection, query: SearchQuery) -> SearchPage:
    """Return a page of hits. db: with the registry attached if the query asks what is managed.

    Raises ValidationFailed for a query or cursor that makes no sense.
    """
    if not 1 <= query.limit <= LIMIT:
        raise ValidationFailed(
            f"limit is {query.limit}; it must be from 1 to {LIMIT}", hint="use the cursor for more"
        )
    text = match_expression(search_terms(query.text))
    place = None if query.cursor is None else _Cursor.of(query).decode(query.cursor)
    filters = conditions(query)
    if query.sort == "relevance":
        return _most_relevant(
            db, query, Filters(filters.sql, {**filters.values, "text": text}), place
        )
    return _in_order(db, query, Filters(filters.sql, {**filters.values, "text": text}), place)


def match_expression(terms: Sequence[SearchTerm]) -> str:
    """Return the full-text expression for terms that must all occur. It is made of words alone, so it is always valid."""
    return " AND ".join(f'"{" ".join(term.words)}"{"*" if term.prefix else ""}' for term in terms)


def conditions(query: SearchQuery) -> Filters:
    """Return the filters of a query."""
    parts: list[str] = []
    values: dict[str, Any] = {}
    if query.archived is not None:
        parts.append("t.archived = :archived")
        values["archived"] = int(query.archived)
    if query.managed is not None:
        parts.append(
            f"{'' if query.managed else 'NOT '}EXISTS (SELECT 1 FROM registry.threads r "
            "WHERE r.native_id = t.native_id AND r.provider = 'codex')"
        )
    if query.native_ids is not None:
        parts.append("t.native_id IN (SELECT value FROM json_each(:native_ids))")
        values["native_ids"] = json.dumps(list(query.native_ids))
    column = _column(query.date_field)
    if query.since is not None or query.until is not None:
        parts.append(f"{column} > 0")
    for name, sign, moment in (("since", ">=", query.since), ("until", "<=", query.until)):
        if moment is not None:
            parts.append(f"{column} {sign} :{name}")
            values[name] = microseconds(moment)
    if query.under:
        parts.append(f"({' OR '.join(_below(n, d, values) for n, d in enumerate(query.under))})")
    return Filters(" AND ".join(parts) or "1", values)


def _below(number: int, directory: str, values: dict[str, Any]) -> str:
    """Return the condition for a directory and what is below it; ``0`` is the character after the slash."""
    path = directory.rstrip("/")
    values |= {f"at{number}": path or "/", f"in{number}": f"{path}/", f"out{number}": f"{path}0"}
    return f"(t.cwd = :at{number} OR (t.cwd >= :in{number} AND t.cwd < :out{number}))"


def _column(name: str) -> str:
    return "t.created_at" if name == "created_at" else "t.updated_at"


def _in_order(
    db: sqlite3.Connection, query: SearchQuery, filters: Filters, place: list[int] | None
) -> SearchPage:
    key = _column(query.sort)
    where, values = filters.sql, {**filters.values, "limit": query.limit + 1}
    if place is not None:
        sign = ">" if query.ascending else "<"
        where += f" AND ({key}, t.number) {sign} (:key, :number)"
        values |= {"key": place[0], "number": place[1]}
    (found,) = db.execute(_COUNT, filters.values).fetchone()
    statement = _LOOK_UP if found < COMMON else _WALK
    sql = statement.format(key=key, filters=where, way="ASC" if query.ascending else "DESC")
    rows = db.execute(sql, values).fetchall()
    return _page(query, rows, lambda row: list(row[-2:]))


def _most_relevant(
    db: sqlite3.Connection, query: SearchQuery, filters: Filters, place: list[Any] | None
) -> SearchPage:
    narrow = _RANGE.format(filters=filters.sql) if query.native_ids is not None else ""
    way, back = ("DESC", "ASC") if query.ascending else ("ASC", "DESC")
    sql = _RANK.format(range=narrow, filters=filters.sql, way=way, back=back)
    ranked = db.execute(sql, filters.values).fetchall()
    first = 0 if place is None else _behind(ranked, place, ascending=query.ascending)
    part = ranked[first : first + query.limit + 1]
    scores = {hit: score for _, hit, score in part}
    rows = db.execute(_SHOW, {"hits": json.dumps([hit for _, hit, _ in part])}).fetchall()
    return _page(query, rows, lambda row: [row[-1], scores[row[-1]]])


def _behind(ranked: list[Any], place: list[Any], *, ascending: bool) -> int:
    """Return where a page goes on: behind the last hit, whatever has come before it meanwhile.

    Its score drifts as documents are added, together with all others; only if it is not ranked any more, its old score counts.
    """
    hit, score = place
    for number, (_, other, _) in enumerate(ranked):
        if other == hit:
            return number + 1
    better = (s > score if ascending else s < score for _, _, s in ranked)
    return sum(better)


def _page(query: SearchQuery, rows: list[Any], place: Any) -> SearchPage:
    more = len(rows) > query.limit
    rows = rows[: query.limit]
    hits = tuple(
        SearchHit(facts=load_facts(facts, title), path=path, offset=offset)
        for facts, title, path, offset, *_ in rows
    )
    return SearchPage(hits=hits, next=_Cursor.of(query).encode(place(rows[-1])) if more else None)


@dataclass(frozen=True, slots=True)
class _Cursor:
    """Where a page ended, for one query only."""

    digest: str

    @classmethod
    def of(cls, query: SearchQuery) -> _Cursor:
        """Return the cursor of a query, whatever its page."""
        plain = repr(replace(query, cursor=None, limit=1))
        return cls(hashlib.blake2s(plain.encode("utf-8", "replace"), digest_size=6).hexdigest())

    def encode(self, place: list[Any]) -> str:
        data = json.dumps([self.digest, *place], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    def decode(self, text: str) -> list[Any]:
        """Return the place. Raises ValidationFailed unless it was made for the same query."""
        try:
            data = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
            digest, first, second = json.loads(data)
        except (binascii.Error, ValueError, TypeError) as error:
            raise _no_cursor("it is not one") from error
        numbers = isinstance(first, int) and isinstance(second, (int, float))
        numbers = numbers and all(-INTEGERS <= number < INTEGERS for number in (first, second))
        if not numbers or digest != self.digest:
            raise _no_cursor("it belongs to another search")
        return [first, second]


def _no_cursor(reason: str) -> ValidationFailed:
    return ValidationFailed(
        f"the cursor makes no sense: {reason}",
        hint="repeat the search it came from with the same options, and use the cursor of its answer",
    )
