"""Text for people: tables, glyphs and colours within a given width. Rendering runs in the daemon, so the CLI stays thin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import category, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

GAP = 2
NARROWEST = 9  # columns below which no column is shortened
UNSAFE = frozenset(
    {"Cc", "Cf", "Cs", "Zl", "Zp"}
)  # categories that move the cursor or cannot be written
COLORS = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "dim": "2", "bold": "1"}
STATUS = {
    "idle": ("○", "green"),
    "busy": ("●", "cyan"),
    "waiting_approval": ("?", "yellow"),
    "archived": ("▫", "dim"),
    "error": ("✗", "red"),
    "unknown": ("~", "yellow"),
    "submitted": ("●", "cyan"),
    "started": ("●", "cyan"),
    "completed": ("✓", "green"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "interrupted": ("■", "yellow"),
    "ready": ("✓", "green"),
    "degraded": ("✗", "red"),
    "starting": ("●", "cyan"),
    "draining": ("■", "yellow"),
}


@dataclass(frozen=True, slots=True)
class View:
    """Where text is going to be shown. width: terminal columns. now: for ages."""

    width: int
    color: bool
    now: datetime

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

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, flexible: int) -> str:
        """Return rows in aligned columns.

        To fit the width the column numbered ``flexible`` is shortened first, then whichever is widest, none below 9 columns.
        """
        cells = [[printable(cell) for cell in row] for row in rows]
        columns = range(len(header))
        widths = [max(columns_of(row[c]) for row in [list(header), *cells]) for c in columns]
        excess = sum(widths) + GAP * (len(header) - 1) - self.width
        while excess > 0:
            column = flexible if widths[flexible] > NARROWEST else widths.index(max(widths))
            cut = min(excess, widths[column] - NARROWEST, 1 if column != flexible else excess)
            if cut <= 0:
                break
            widths[column] -= cut
            excess -= cut
        names = [pad(shorten(header[c], widths[c]), widths[c]) for c in columns]
        lines = [self.paint("  ".join(names).rstrip(), "dim")]
        lines += [
            "  ".join(self._cell(row[c], widths[c]) for c in columns).rstrip() for row in cells
        ]
        return "\n".join(lines)

    def fields(self, pairs: Sequence[tuple[str, str | None]]) -> str:
        """Return name and value lines, aligned; pairs without a value are left out."""
        shown = [(name, value) for name, value in pairs if value not in (None, "")]
        width = max((len(name) for name, _ in shown), default=0)
        return "\n".join(f"{self.paint(pad(name, width), 'dim')}  {value}" for name, value in shown)

    def _cell(self, text: str, width: int) -> str:
        cell = pad(shorten(text, width), width)
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
    kept = ""
    for char in text:
        if columns_of(kept + char) > width - 1:
            break
        kept += char
    return kept + "…"


def pad(text: str, width: int) -> str:
    """Return text filled with spaces to width columns."""
    return text + " " * max(0, width - columns_of(text))
