"""The report as people read it."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from dispatch_plugins.cli.doctor.report import ORDER, worst
from dispatch_plugins.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dispatch_plugins.cli.doctor.report import Check

GLYPHS = {"ok": "✓", "warn": "!", "fail": "✗"}
COLORS = {"ok": "32", "warn": "33", "fail": "31"}
DIM = "2"
NARROWEST = 24  # columns of text


def render(checks: Sequence[Check], *, width: int, color: bool) -> str:
    """Return a line for each check, with what to do about it below, and the sum of it."""
    names = max(len(check.name) for check in checks)
    lines = [line for check in checks for line in _lines(check, names, width, color=color)]
    counts = {status: sum(check.status == status for check in checks) for status in ORDER}
    total = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return "\n".join([*lines, "", f"{_paint(*_mark(worst(checks)), color=color)}: {total}"])


def _lines(check: Check, names: int, width: int, *, color: bool) -> Iterator[str]:
    mark, code = _mark(check.status)
    head = f"{mark.ljust(6)}  {check.name.ljust(names)}  "
    room = max(NARROWEST, width - len(head))
    indent = " " * len(head)
    first, *rest = _wrapped(printable(check.summary), room) or [""]
    yield f"{_paint(mark.ljust(6), code, color=color)}  {check.name.ljust(names)}  {first}"
    for line in rest:
        yield indent + line
    if check.detail and check.status != "ok":
        for text in check.detail.splitlines():
            yield from (
                indent + _paint(line, DIM, color=color) for line in _wrapped(printable(text), room)
            )
    for done in check.fixed:
        yield from (indent + line for line in _wrapped(f"fixed: {printable(done)}", room))
    if check.recovery and check.status != "ok":
        yield from (indent + line for line in _wrapped(f"next: {printable(check.recovery)}", room))


def _wrapped(text: str, width: int) -> list[str]:
    """Return text in lines; a path or an address is never broken, for it is there to be copied."""
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _mark(status: str) -> tuple[str, str]:
    return f"{GLYPHS[status]} {status}", COLORS[status]


def _paint(text: str, code: str, *, color: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if color else text
