"""The generated reference pages are what the contracts say now: none is stale, missing or left over."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
FIX = "scripts/docs writes them"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def manifest(generate: ModuleType) -> dict[str, Any]:
    return dict(generate.manifest())


@pytest.fixture(scope="module")
def pages(generate: ModuleType, manifest: dict[str, Any]) -> dict[str, str]:
    return dict(generate.pages(manifest))


def test_no_page_is_missing_or_stale(pages: dict[str, str]) -> None:
    stale = [
        name
        for name, text in pages.items()
        if not (REFERENCE / name).exists() or (REFERENCE / name).read_text(encoding="utf-8") != text
    ]

    assert stale == [], FIX


def test_no_page_is_left_of_an_op_that_is_gone(generate: ModuleType, pages: dict[str, str]) -> None:
    assert generate.leftovers(REFERENCE, pages) == [], FIX


def test_every_op_has_a_page_that_names_all_its_fields(
    manifest: dict[str, Any], pages: dict[str, str]
) -> None:
    for op in manifest["ops"]:
        page = pages[f"ops/{op['name']}.md"]
        shown = [
            name
            for name, prop in op["schema"].get("properties", {}).items()
            if not prop.get("x-cli", {}).get("hidden")
        ]

        missing = [
            name for name in [*shown, *op["output_schema"]["properties"]] if f"`{name}`" not in page
        ]

        assert missing == [], op["name"]


def test_a_page_that_was_changed_or_is_left_over_is_put_right(
    generate: ModuleType, pages: dict[str, str], tmp_path: Path
) -> None:
    generate.write(tmp_path, pages)
    (tmp_path / "ops" / "send.md").write_text("changed", encoding="utf-8")
    (tmp_path / "ops" / "gone.md").write_text("left over", encoding="utf-8")

    generate.write(tmp_path, pages)

    written = {
        str(file.relative_to(tmp_path)): file.read_text(encoding="utf-8")
        for file in tmp_path.rglob("*.md")
    }
    assert written == pages


def test_the_pages_are_the_same_every_time(generate: ModuleType, pages: dict[str, str]) -> None:
    assert generate.pages(generate.manifest()) == pages
