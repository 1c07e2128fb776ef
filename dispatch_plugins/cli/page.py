"""A page of help: texts, and tables of names and what they are. click, which could do this, costs more than all the rest."""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs too much
if TYPE_CHECKING:
    from collections.abc import Sequence

INDENT = 2
GAP = 2
WIDEST_NAME = 30  # columns of a name; what a wider one is stands below it
NARROWEST = 10


class Page:
    """Text that is written from top to bottom. width: its columns."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(self._parts)

    def write(self, text: str) -> None:
        """Add a text as it is."""
        self._parts.append(text)

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """Add a titled table of names and what they are, unless it is empty; no name is ever cut or broken."""
        if not rows:
            return
        self.write(f"\n{title}:\n")
        widest = min(max(len(name) for name, _ in rows), WIDEST_NAME)
        margin = " " * (INDENT + widest + GAP)
        for name, about in rows:
            lines = wrapped(about, max(self.width - len(margin), NARROWEST))
            head = f"{' ' * INDENT}{name}"
            if lines:
                head = head.ljust(len(margin)) if len(name) <= widest else f"{head}\n{margin}"
            self.write(head + f"\n{margin}".join(lines) + "\n")


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines, broken between words; a word that is wider than a line has one of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
