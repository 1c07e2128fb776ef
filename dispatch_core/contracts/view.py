"""Text for people: tables, glyphs and colours within a given width. Rendering runs in the daemon, so the CLI stays thin."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import category, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from datetime import datetime

GAP = 2
NARROWEST = 9  # columns below which no column is shortened
PAINT = re.compile(r"\x1b\[[0-9;]*m")  # what paint puts around a text
HIDDEN = frozenset(
    {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}
)  # act on a terminal, or are not to be seen
UNSAFE = frozenset(
    {"Cc", "Cf", "Cs", "Zl", "Zp"}
)  # categories that move the cursor or cannot be written
COLORS = {
    "green": "32",
    "yellow": "33",
    "red": "31",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
    "match": "1;33",
}
STATUS = {
    "idle": ("○", "green"),
    "busy": ("●", "cyan"),
    "waiting_approval": ("?", "yellow"),
    "archived": ("▫", "dim"),
    "error": ("✗", "red"),
    "unknown": ("~", "yellow"),
    "not_loaded": ("·", "dim"),
    "complete": ("✓", "green"),
    "partial": ("◐", "yellow"),
    "metadata": ("○", "dim"),
    "queued": ("◦", "cyan"),
    "sending": ("●", "cyan"),
    "submitted": ("●", "cyan"),
    "started": ("●", "cyan"),
    "completed": ("✓", "green"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "interrupted": ("■", "yellow"),
    "rejected": ("✗", "red"),
    "dead": ("✗", "red"),
    "cancelled": ("▫", "dim"),
    "expired": ("▫", "dim"),
    "open": ("?", "yellow"),
    "answering": ("●", "cyan"),
    "answered": ("✓", "green"),
    "declined": ("■", "yellow"),
    "orphaned": ("✗", "red"),
    "ready": ("✓", "green"),
    "degraded": ("✗", "red"),
    "starting": ("●", "cyan"),
    "draining": ("■", "yellow"),
    "needs_attention": ("?", "yellow"),
    "running": ("●", "cyan"),
    "nothing": ("·", "dim"),
    "claimed": ("●", "cyan"),
    "on": ("✓", "green"),
    "paused": ("■", "yellow"),
}


@dataclass(frozen=True, slots=True)
class View:
    """Where text is going to be shown. width: terminal columns. now: for ages. home: the directory that is written ``~``."""

    width: int
    color: bool
    now: datetime
    home: str = field(default_factory=lambda: str(Path.home()))

    def paint(self, text: str, color: str) -> str:
        """Return text in a colour of COLORS, or unchanged when colours are off."""
        if not self.color or color not in COLORS or not text:
            return text
        return f"\x1b[{COLORS[color]}m{text}\x1b[0m"

    def status(self, word: str) -> str:
        """Return a glyph and the word, coloured."""
        glyph, color = STATUS.get(word, ("·", ""))
        return self.paint(f"{glyph} {word}", color)

    def age(self, moment: datetime | None) -> str:
        """Return how long ago, in one unit: 12s, 5m, 3h, 8d."""
        if moment is None:
            return "-"
        seconds = max(0, int((self.now - moment).total_seconds()))
        for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
            if seconds >= size:
                return f"{seconds // size}{unit}"
        return f"{seconds}s"

    def directory(self, path: str | None) -> str:
        """Return a path on one line, with ``~`` for the home directory."""
        if not path:
            return "-"
        home = self.home.rstrip("/")
        if home and (path == home or path.startswith(home + "/")):
            path = "~" + path[len(home) :]
        return printable(path)

    def block(self, text: str, *, indent: str = "") -> list[str]:
        """Return text as lines that fit the width, broken between words where there are any; line breaks are kept."""
        room = max(NARROWEST, self.width - columns_of(indent))
        lines = safe_block(text).expandtabs(4).split("\n")
        return [f"{indent}{part}".rstrip() for line in lines for part in wrapped(line, room)]

    def wrap(self, text: str, *, indent: str = "", first: int = 0) -> str:
        """Return a line, painted or not, as ``broken`` to the width."""
        return broken(text, self.width, indent=indent, first=first)

    def fit(self, text: str, *, indent: str = "", reserve: int = 0) -> str:
        """Return text as one line behind an indent, shortened to the width less ``reserve`` columns."""
        room = max(NARROWEST, self.width - columns_of(indent) - reserve)
        return indent + shorten(printable(text), room)

    def columns(self, text: str) -> int:
        """Return how many columns an unpainted text takes."""
        return columns_of(text)

    def rule(self, text: str) -> str:
        """Return a line across the width with a text near its beginning."""
        head = f"── {shorten(printable(text), max(1, self.width - 4))} "
        return self.paint(head + "─" * max(0, self.width - columns_of(head)), "dim")

    def marked(self, text: str, ranges: Iterable[Sequence[int]], width: int) -> str:
        """Return one line of at most width columns in which the ranges, [start, end), stand out; the first is kept in sight."""
        text, spans = printable(text), sorted((max(0, r[0]), r[1]) for r in ranges)
        if columns_of(text) > width and spans and columns_of(text[: spans[0][1]]) > width - 1:
            cut = max(0, spans[0][0] - width // 3)
            text = "…" + text[cut:]
            spans = [(start - cut + 1, end - cut + 1) for start, end in spans]
        text = shorten(text, width)
        shown, at = "", 0
        for start, end in spans:
            if start >= at and end > start and start < len(text):
                shown += text[at:start] + self.paint(text[start:end], "match")
                at = end
        return shown + text[at:]

    def table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        flexible: int | Sequence[int],
        from_left: Collection[int] = (),
        whole: Collection[int] = (),
    ) -> str:
        """Return rows in aligned columns.

        To fit the width the columns numbered ``flexible`` are shortened first, the widest of them at a time, then whichever is
        widest; none below 9 columns. from_left: columns that lose their beginning and keep their end, as paths should. whole:
        columns that are never shortened.
        """
        cells = [[printable(cell) for cell in row] for row in rows]
        columns = range(len(header))
        widths = [max(columns_of(row[c]) for row in [list(header), *cells]) for c in columns]
        first = [flexible] if isinstance(flexible, int) else list(flexible)
        excess = sum(widths) + GAP * (len(header) - 1) - self.width
        for group in (first, [c for c in columns if c not in whole]):
            excess = _narrow(widths, group, excess)
        names = [pad(shorten(header[c], widths[c]), widths[c]) for c in columns]
        lines = [self.paint("  ".join(names).rstrip(), "dim")]
        lines += [
            "  ".join(
                self._cell(row[c], widths[c], shorten_left if c in from_left else shorten)
                for c in columns
            ).rstrip()
            for row in cells
        ]
        return "\n".join(lines)

    def fields(self, pairs: Sequence[tuple[str, str | None]]) -> str:
        """Return name and value lines, aligned, long values in several lines; pairs without a value are left out."""
        shown = [(name, value) for name, value in pairs if value]
        width = max((columns_of(name) for name, _ in shown), default=0)
        room = width + GAP
        return "\n".join(
            f"{self.paint(pad(name, width), 'dim')}{' ' * GAP}"
            f"{self.wrap(value, indent=' ' * room, first=room)}"
            for name, value in shown
        )

    def _cell(self, text: str, width: int, fit: Callable[[str, int], str]) -> str:
        cell = pad(fit(text, width), width)
        word = text.partition(" ")[2]
        return (
            self.paint(cell, STATUS[word][1])
            if word in STATUS and text.startswith(STATUS[word][0])
            else cell
        )


def glyph(word: str) -> str:
    """Return a status as glyph and word, uncoloured, for a table cell; the table colours it."""
    return f"{STATUS.get(word, ('·', ''))[0]} {word}"


def printable(text: str) -> str:
    """Return text on one line with control characters shown as spaces, so that no title can move the cursor."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if category(char) in UNSAFE else char for char in text)


def visible(text: str) -> str:
    """Return text on one line, with what cannot be seen, or moves what can, written as Python escapes it."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(char) if category(char) in HIDDEN else char for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def safe_block(text: str) -> str:
    """Return text with line breaks and tabs kept and every other control character removed."""
    return "".join(c for c in text if c in "\n\t" or category(c) not in UNSAFE)


def columns_of(text: str) -> int:
    """Return how many terminal columns text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if category(c) in ("Mn", "Me") else 2 if east_asian_width(c) in "WF" else 1 for c in text
    )


def shorten(text: str, width: int) -> str:
    """Return text cut to width columns, with an ellipsis where something is missing."""
    if columns_of(text) <= width:
        return text
    return text[: _fitting(text, width - 1)] + "…"


def shorten_left(text: str, width: int) -> str:
    """Return the end of text in width columns, behind an ellipsis; of a path whole names if one fits."""
    if columns_of(text) <= width:
        return text
    kept = text[len(text) - _fitting(text[::-1], width - 1) :]
    slash = kept.find("/")
    return "…" + (kept[slash:] if 0 <= slash < len(kept) - 1 else kept)


def wrapped(line: str, width: int) -> list[str]:
    """Return a line in parts of at most width columns, broken at the last space that fits, if there is one."""
    parts = []
    while columns_of(line) > width:
        cut = max(1, _fitting(line, width))
        space = line.rfind(" ", 1, cut + 1)
        if space > 0 and line[:space].strip():
            parts.append(line[:space])
            line = line[space + 1 :]
        else:
            parts.append(line[:cut])
            line = line[cut:]
    return [*parts, line]


def broken(text: str, width: int, *, indent: str = "", first: int = 0) -> str:
    """Return a line, painted or not, broken between words to fit a width; what follows the first line is indented.

    A word that is wider, such as a path, is left whole, for it is there to be copied. first: columns of the first line that are
    taken already.
    """
    head, *words = text.split(" ")
    lines, used = [head], first + columns_of(PAINT.sub("", head))
    for word in words:
        size = columns_of(PAINT.sub("", word))
        if lines[-1].strip() and used + 1 + size > width:
            lines.append(indent + word)
            used = columns_of(indent) + size
        else:
            lines[-1] += f" {word}"
            used += 1 + size
    return "\n".join(line.rstrip() for line in lines)


def pad(text: str, width: int) -> str:
    """Return text filled with spaces to width columns."""
    return text + " " * max(0, width - columns_of(text))


def _narrow(widths: list[int], columns: Sequence[int], excess: int) -> int:
    """Take columns off the widest of some columns, one at a time, and return how much is too wide still."""
    while excess > 0:
        widest = max(columns, key=lambda column: widths[column])
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
        excess -= 1
    return excess


def _fitting(text: str, width: int) -> int:
    """Return how many characters of text take at most width columns."""
    if text.isascii():
        return max(0, min(len(text), width))
    taken = 0
    for count, char in enumerate(text):
        taken += columns_of(char)
        if taken > width:
            return count
    return len(text)
