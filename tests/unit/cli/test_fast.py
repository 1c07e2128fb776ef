"""The short way must mean what click means, or leave the command line to click."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dispatch_core.errors import DispatchError
from dispatch_plugins.cli import command_line, fast
from dispatch_plugins.cli.app import App
from dispatch_plugins.cli.invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

from .conftest import MANIFEST

WORDS = [
    "list", "new", "send", "wait", "goal", "set", "clear", "daemon", "status", "acme", "deploy", "up", "mcp", "secret", "op",
    "builder", "hi there", "-", "--", "", "-1", "7", "1_0", "٣", "0.5", "1e999", "nan", "k=v", "k=1", "=v", "read-only", "--json",
    "--no-start", "--safe", "--debug", "--color", "never", "--color=never", "--text", "--text=x", "--limit", "--weight",
    "--sandbox", "--tag", "--label", "--config", "--send", "--no-send", "--archived", "--thread", "--name", "--yes", "-h",
    "watch", "tail", "sync", "archive", "paint", "--follow", "--no-follow", "--after", "--image",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=7))
@example(["new", "--name", "b", "hi there", "--tag", "x", "y"])
@example(["--json", "send", "a", "-", "--no-start"])
@example(["acme", "deploy", "x", "--json", "y"])
@example(["new", "b", "--config", "k=1", "--config", "k=2"])
@example(["new", "b", "--limit", "1", "--limit", "2"])
def test_what_the_short_way_accepts_click_reads_the_same(argv: list[str]) -> None:
    plan = fast.parse(argv, MANIFEST)

    if plan is not None:
        other = _through_click(argv)
        assert (plan.op["name"], plan.values, plan.options) == (
            other.op["name"],
            other.values,
            other.options,
        )
        assert plan.follow == other.follow


@pytest.mark.parametrize(
    "argv",
    [
        ["list"], ["list", "--json"], ["send", "@x", "hi"], ["new", "b", "--sandbox", "read-only"], ["daemon", "status"],
        ["acme", "deploy", "x"], ["wait", "@a", "@b"],
        ["watch", "@a"], ["tail", "@a", "--limit", "3"],
    ],
)  # fmt: skip
def test_the_usual_command_lines_take_the_short_way(argv: list[str]) -> None:
    assert fast.parse(argv, MANIFEST) is not None


def _through_click(argv: Sequence[str]) -> fast.Plan:
    seen: list[fast.Plan] = []
    app = App(Invocation(MANIFEST, {}), execute=lambda _, plan, **__: seen.append(plan) or 0)
    try:
        command_line.run(app, list(argv))
    except DispatchError as error:
        pytest.fail(f"click refuses {argv}: {error.message}")
    return seen[0]
