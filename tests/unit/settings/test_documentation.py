"""The reference page lists every key with its type and its class."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dispatch_core.config.keys import KEYS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \| ", re.MULTILINE)


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_documented_with_its_class(name):
    rows = {key: (kind, project) for key, kind, project in ROW.findall(PAGE.read_text("utf-8"))}
    key = KEYS[name]
    said = key.project.value
    if key.safe_values:
        said += "; " + ", ".join(f"`{value}`" for value in key.safe_values) + " project-safe"
    if key.outside not in (None, key.project):
        said += f"; outside {key.outside.value}"

    assert rows[name] == (key.type, said)


def test_nothing_else_is_documented_as_a_key():
    assert {key for key, _, _ in ROW.findall(PAGE.read_text("utf-8"))} == set(KEYS)
