"""Every row of the table is proven by a test, or says why not; no test claims a row that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .report import BEGIN, END, page, replaced
from .table import NOT_HERE, ROWS

HERE = Path(__file__).parent
COLLECT = """
import sys, pytest
class Rows:
    def pytest_collection_finish(self, session):
        for item in session.items:
            for mark in item.iter_markers("fault"):
                for row in mark.args:
                    print("row", row, item.nodeid)
sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Rows()]))
"""


@pytest.fixture(scope="module")
def marked() -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, str(HERE)],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("row "):
            _, row, test = line.split(" ", 2)
            found.setdefault(row, []).append(test)
    return found


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_a_test_or_a_reason(row: str, marked: dict[str, list[str]]) -> None:
    assert bool(marked.get(row)) != (row in NOT_HERE), marked.get(row)


def test_tests_claim_only_rows_of_the_table(marked: dict[str, list[str]]) -> None:
    assert set(marked) <= set(ROWS)


def test_every_reason_is_for_a_row_and_says_something() -> None:
    assert set(NOT_HERE) <= set(ROWS)
    assert all(len(reason.split()) > 3 for reason in NOT_HERE.values())


def test_the_page_says_what_was_measured_and_nothing_else() -> None:
    line = {
        "rows": ["D1"],
        "test": "t",
        "tier": "quick",
        "seed": 7,
        "figures": {"messages": 10000, "lost": 0},
    }

    made = page([line], {"Codex": "0.1"})

    assert made.splitlines()[0] == "Measured with Codex 0.1; tier quick, seed 7."
    [row] = [line for line in made.splitlines() if line.startswith("| D1 |")]
    assert row.endswith("| `t`: messages 10,000, lost 0 |")
    assert made.count("not in this run") == len(ROWS) - 1 - len(NOT_HERE)


def test_what_is_written_by_hand_stays() -> None:
    text = f"# Title\n{BEGIN}\nold\n{END}\nend\n"

    assert replaced(text, "new") == f"# Title\n{BEGIN}\nnew\n{END}\nend\n"
