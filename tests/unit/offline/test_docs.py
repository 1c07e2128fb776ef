"""The reference page and the code name the same keys."""

import re
from pathlib import Path

from dispatch_core.offline.script import Call, CustomCall, Failure, HttpReply, Step, Usage

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "offline-model.md"


def test_the_page_lists_exactly_the_keys_of_a_step() -> None:
    section = PAGE.read_text().split("### Keys of a step")[1].split("###")[0]

    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)

    assert sorted(documented) == sorted(Step.model_fields)


def test_the_page_names_every_key_inside_the_objects() -> None:
    page = PAGE.read_text()

    inner = [
        name for kind in (Call, CustomCall, Failure, HttpReply, Usage) for name in kind.model_fields
    ]

    assert [name for name in inner if f'"{name}"' not in page] == []
