"""The documentation says what the code says: error table, configuration keys, environment variables, links."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from dispatch_core.errors import PROJECTIONS
from dispatch_core.settings import SECTIONS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
ERROR_ROW = re.compile(r"^\| `(\w+)` \| (\d+) \| (-?\d+) \| [^|]+ \| (yes|no) \|$", re.MULTILINE)
VARIABLE = re.compile(r"(?<![A-Z_])_?DISPATCHD?_[A-Z_]*[A-Z](?![A-Z_])")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)


DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def variables_in_code() -> set[str]:
    files = [
        *(ROOT / "dispatch_core").rglob("*.py"),
        *(ROOT / "dispatch_plugins").rglob("*.py"),
        *(file for file in (ROOT / "scripts").iterdir() if file.is_file()),
    ]
    return {name for file in files for name in VARIABLE.findall(file.read_text(encoding="utf-8"))}


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as repository hosts make them."""
    headings = HEADING.findall(FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def resolves(document: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def test_the_error_table_is_the_one_in_the_code() -> None:
    text = (REFERENCE / "errors.md").read_text(encoding="utf-8")

    rows = [
        (code, int(status), int(rpc), retry == "yes")
        for code, status, rpc, retry in ERROR_ROW.findall(text)
    ]

    assert rows == [(code, p.exit_code, p.rpc_code, p.retryable) for code, p in PROJECTIONS.items()]


@pytest.mark.parametrize("table", SECTIONS)
def test_every_configuration_key_is_documented(table: str) -> None:
    text = (REFERENCE / "configuration.md").read_text(encoding="utf-8")

    documented = set(re.findall(rf"^\| `\[{table}\] (\w+)` \|", text, re.MULTILINE))

    assert documented == {field.name for field in fields(SECTIONS[table])}


def test_every_environment_variable_is_documented() -> None:
    text = (REFERENCE / "configuration.md").read_text(encoding="utf-8")

    assert variables_in_code() == set(VARIABLE.findall(text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_resolves(document: Path) -> None:
    text = FENCE.sub("", document.read_text(encoding="utf-8"))

    broken = [link for link in LINK.findall(text) if not resolves(document, link)]

    assert broken == []
