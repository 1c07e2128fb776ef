"""Writes the table of faults and figures from what a run measured: ``python -m tests.faults.report LINES PAGE``.

LINES: the file that DISPATCH_FAULTS_REPORT named. PAGE: the document; what is between its two marks is replaced.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from dispatch_core import __version__
from dispatch_core.appserver.binary import find_codex

from .table import NOT_HERE, ROWS

BEGIN = "<!-- faults: begin -->"
END = "<!-- faults: end -->"
FOLDER = "tests/faults/"


def main(argv: list[str] | None = None) -> int:
    """Rewrite the page; 1 when there are no figures or no place for them."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("lines", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args(argv)
    lines = read(options.lines)
    text = options.page.read_text(encoding="utf-8")
    if not lines or BEGIN not in text or END not in text:
        sys.stderr.write(f"report: no figures, or {options.page} has no place for them\n")
        return 1
    options.page.write_text(replaced(text, page(lines, versions())), encoding="utf-8")
    return 0


def read(path: Path) -> list[dict[str, Any]]:
    """Return what the tests reported; a test that reported twice counts with its last figures."""
    if not path.exists():
        return []
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        before = found.pop(record["test"], {"figures": {}})
        found[record["test"]] = {**record, "figures": {**before["figures"], **record["figures"]}}
    return list(found.values())


def replaced(text: str, generated: str) -> str:
    """Return a page with what is between the marks replaced."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{generated}\n{END}{after}"


def versions() -> dict[str, str]:
    """Return what the figures were measured with."""
    import anyio  # only when a page is made

    from dispatch_core.appserver.binary import codex_version

    codex = anyio.run(codex_version, find_codex(None, os.environ).path)
    return {
        "dispatch": __version__,
        "Codex": str(codex),
        "SQLite": sqlite3.sqlite_version,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def page(lines: list[dict[str, Any]], measured_with: dict[str, str]) -> str:
    """Return the generated part: how it was measured, and a line for each row of the table."""
    by_row: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        for row in line["rows"]:
            by_row[row].append(line)
    seeds = sorted({line["seed"] for line in lines})
    tiers = sorted({line["tier"] for line in lines})
    head = ", ".join(f"{name} {value}" for name, value in measured_with.items())
    out = [
        f"Measured with {head}; tier {' and '.join(tiers)}, seed {', '.join(map(str, seeds))}.",
        "",
        "| row | fault | what holds | test and what it counted |",
        "|---|---|---|---|",
    ]
    for row, (fault, holds) in ROWS.items():
        measured = _measured(row, by_row.get(row, []), several_tiers=len(tiers) > 1)
        out.append(f"| {row} | {fault} | {holds} | {measured} |")
    return "\n".join(out)


def _measured(row: str, lines: list[dict[str, Any]], *, several_tiers: bool) -> str:
    if not lines:
        return NOT_HERE.get(row, "not in this run")
    return "<br>".join(
        f"`{line['test'].removeprefix(FOLDER)}`{' (' + line['tier'] + ')' if several_tiers else ''}: "
        f"{_figures(line['figures'])}"
        for line in lines
    )


def _figures(figures: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_number(n)}" for name, n in figures.items())


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
