"""What changes the index: documents and checkpoints, in transactions as large as they may be."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import one_token_each
from dispatch_plugins.registry.index import facts as records
from dispatch_plugins.registry.index.layout import SOURCE_SHIFT, TAIL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence

    from dispatch_core.api import Document, SourceChange, SourceFacts

TRANSACTION: Final = 50_000  # documents

log = logging.getLogger(__name__)

_UPDATE: Final = """UPDATE sources SET thread = ?, device = ?, inode = ?, size = ?, mtime_ns = ?,
    offset = ?, gap_start = ?, gap_end = ?, lines = ?, malformed = ?, facts = ?, state = ?,
    synced_at = ?, error = ?, split = ?, next_head = ?, next_tail = ? WHERE id = ?"""


class Writer:
    """One connection that writes. Nothing here is safe for two threads at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._touched: set[int] = set()  # threads whose sources have changed in this transaction
        self._full: set[int] = set()
        self._added = 0
        self._dropped = 0

    def apply(self, changes: Iterable[SourceChange]) -> int:
        """Store changes and return how many documents were in them. What was committed stays, whatever is raised."""
        total = pending = 0
        try:
            for change in changes:
                if not self._db.in_transaction:
                    self._db.execute("BEGIN IMMEDIATE")
                count = self._apply(change)
                total += count
                pending += count
                if pending >= TRANSACTION:
                    self._commit()
                    pending = 0
            self._commit()
        except BaseException:
            self._abandon()
            raise
        return total

    def expect(self, paths: Sequence[str]) -> None:
        """Give new sources their ids, in this order."""
        with self._transaction():
            for path in paths:
                if self._one("SELECT 1 FROM sources WHERE path = ?", (path,)) is None:
                    self._new_source(path)

    def forget(self, paths: Sequence[str]) -> None:
        """Drop sources; their words stay behind, where nothing finds them."""
        with self._transaction():
            for path in paths:
                self._drop(path)

    def moved(self, before: str, after: str, *, archived: bool) -> None:
        """Give a source another path."""
        with self._transaction():
            row = self._one("SELECT id, thread, facts FROM sources WHERE path = ?", (before,))
            if row is None:
                return
            self._drop(after)
            values = records.load_facts(row[2])
            moved = replace(values, archived=archived)
            self._db.execute(
                "UPDATE sources SET path = ?, facts = ? WHERE id = ?",
                (after, records.dump_facts(moved), row[0]),
            )
            self._touched.add(row[1])

    def name(self, titles: Iterable[tuple[str, str]]) -> None:
        """Set the titles of threads that are known."""
        with self._transaction():
            self._db.executemany(
                "UPDATE threads SET title = ?2 WHERE native_id = ?1 AND title IS NOT ?2", titles
            )

    def _apply(self, change: SourceChange) -> int:
        source = change.source
        checkpoint = source.checkpoint
        if change.replace:
            self._drop(checkpoint.path)
        thread = self._thread(source.facts)
        number, split, heads, tails = self._place(checkpoint.path)
        if split is None and checkpoint.gap is not None:
            split = checkpoint.gap[1]
        heads, tails, count = self._add(change.documents, number, split, heads, tails)
        gap_start, gap_end = checkpoint.gap or (None, None)
        self._db.execute(
            _UPDATE,
            (
                thread,
                checkpoint.device,
                checkpoint.inode,
                checkpoint.size,
                checkpoint.mtime_ns,
                checkpoint.offset,
                gap_start,
                gap_end,
                checkpoint.lines,
                checkpoint.malformed,
                records.dump_facts(source.facts),
                source.state.value,
                source.synced_at.isoformat(),
                source.error,
                split,
                heads,
                tails,
                number,
            ),
        )
        self._touched.add(thread)
        return count

    def _add(
        self, documents: Iterable[Document], number: int, split: int | None, heads: int, tails: int
    ) -> tuple[int, int, int]:
        """Store documents; returns the next numbers before and behind the gap, and how many there were."""
        base = number << SOURCE_SHIFT
        words: list[tuple[int, str]] = []
        places: list[tuple[int, int]] = []
        limit = TAIL if split is not None else 2 * TAIL
        for document in documents:
            if split is None or document.offset < split:
                place, heads = heads, heads + 1
                full = place >= limit
            else:
                place, tails = tails, tails + 1
                full = place >= 2 * TAIL
            if full:
                self._overflow(number)
                break
            words.append((base + place, one_token_each(document.text)))
            places.append((base + place, document.offset))
        # A row at a time: a statement of several rows makes FTS5 write down its hash table every time.
        self._db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", words)
        self._db.executemany("INSERT INTO docs (id, offset) VALUES (?, ?)", places)
        self._added += len(places)
        return heads, tails, len(places)

    def _overflow(self, number: int) -> None:
        if number not in self._full:
            self._full.add(number)
            log.warning("source %d has too many texts: the rest of it is not in the index", number)

    def _place(self, path: str) -> tuple[int, int | None, int, int]:
        """Return a source's id, the offset behind its gap, and the next numbers before and behind it."""
        row = self._one(
            "SELECT id, split, next_head, next_tail FROM sources WHERE path = ?", (path,)
        )
        if row is not None:
            return row[0], row[1], row[2], row[3]
        return self._new_source(path), None, 0, TAIL

    def _new_source(self, path: str) -> int:
        """Return the id of a new source; one that was given to another source is never used again."""
        row = self._one("SELECT ifnull(max(id), 0) + 1 FROM sources", ())
        number = int(row[0]) if row is not None else 1
        self._db.execute(
            "INSERT INTO sources (id, path, next_head, next_tail, last_id) VALUES (?, ?, 0, ?, ?)",
            (number, path, TAIL, ((number + 1) << SOURCE_SHIFT) - 1),
        )
        return number

    def _thread(self, facts: SourceFacts) -> int:
        row = self._one("SELECT number FROM threads WHERE native_id = ?", (facts.native_id,))
        if row is not None:
            return int(row[0])
        cursor = self._db.execute(
            "INSERT INTO threads (native_id, archived, facts) VALUES (?, 0, '')", (facts.native_id,)
        )
        return int(cursor.lastrowid or 0)

    def _drop(self, path: str) -> None:
        """Forget a source. Its id is kept, and never given to another one: its words are still there."""
        row = self._one(
            "SELECT id, thread FROM sources WHERE path = ? AND state IS NOT NULL", (path,)
        )
        if row is None:
            return
        number, thread = row
        first = number << SOURCE_SHIFT
        dropped = self._db.execute(
            "DELETE FROM docs WHERE id BETWEEN ? AND ?", (first, first + (1 << SOURCE_SHIFT) - 1)
        )
        self._dropped += dropped.rowcount
        self._db.execute(
            "UPDATE sources SET thread = NULL, path = NULL, state = NULL, facts = NULL, last_id = -1 "
            "WHERE id = ?",
            (number,),
        )
        self._touched.add(thread)

    def _summarise(self, thread: int) -> None:
        """Bring a thread up to date with its sources, or drop it with the last one."""
        rows = self._db.execute(
            "SELECT id, facts FROM sources WHERE thread = ?", (thread,)
        ).fetchall()
        if not rows:
            self._db.execute("DELETE FROM threads WHERE number = ?", (thread,))
            return
        segments = sorted(
            ((records.load_facts(text), number) for number, text in rows),
            key=lambda pair: (pair[0].segment or "", pair[1]),
        )
        all_facts = [facts for facts, _ in segments]
        facts = records.together(all_facts)
        if len(segments) > 1:
            self._hide(segments, records.visible(all_facts))
        cwd = None if facts.cwd is None else facts.cwd.rstrip("/") or "/"
        self._db.execute(
            "UPDATE threads SET cwd = ?, created_at = ?, updated_at = ?, archived = ?, facts = ? "
            "WHERE number = ?",
            (
                cwd,
                records.microseconds(facts.created_at) or 0,
                records.microseconds(facts.latest_event_at) or 0,
                int(facts.archived),
                records.dump_facts(facts),
                thread,
            ),
        )

    def _hide(
        self, segments: Sequence[tuple[SourceFacts, int]], shown: dict[str, int | None]
    ) -> None:
        """Let a search see what was not reverted: a range of each source, because documents are in the order of the file."""
        for facts, number in segments:
            first = number << SOURCE_SHIFT
            last = first + (1 << SOURCE_SHIFT) - 1
            name = facts.segment or ""
            if name not in shown:
                last = -1
            elif (end := shown[name]) is not None:
                row = self._one(
                    "SELECT max(id) FROM docs WHERE id BETWEEN ? AND ? AND offset < ?",
                    (first, last, end),
                )
                last = row[0] if row is not None and row[0] is not None else -1
            self._db.execute("UPDATE sources SET last_id = ? WHERE id = ?", (last, number))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._commit()
        except BaseException:
            self._abandon()
            raise

    def _commit(self) -> None:
        if not self._db.in_transaction:
            return
        for thread in self._touched:
            self._summarise(thread)
        if self._added or self._dropped:
            self._db.execute(
                "UPDATE counts SET live = live + ? - ?, dead = dead + ?",
                (self._added, self._dropped, self._dropped),
            )
        self._db.execute("COMMIT")
        self._forget_transaction()

    def _abandon(self) -> None:
        self._forget_transaction()
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _forget_transaction(self) -> None:
        self._touched.clear()
        self._added = self._dropped = 0

    def _one(self, sql: str, parameters: Sequence[object]) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(sql, parameters).fetchone()
        return row
