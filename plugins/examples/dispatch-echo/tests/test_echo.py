# ruff: noqa: S101 -- asserting is what tests do
"""How a plugin is tested: its declarations as plain data, then the real command over a real daemon.

The fixture ``dispatch`` comes with dispatch itself: a fresh home, a daemon that starts with the first command, no account.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import dispatch_echo
import pytest

from dispatch_core.testing.examples import command_line, mismatch

if TYPE_CHECKING:
    from pydantic import BaseModel

    from dispatch_core.testing.daemon import Dispatch

M = TypeVar("M", bound="BaseModel")


class DefaultSettings:
    """A configuration file without anything in it."""

    def section(self, name: str, model: type[M]) -> M:
        del name
        return model()


def test_the_plugin_declares_one_op_in_its_own_namespace() -> None:
    ops = list(dispatch_echo.dispatch_ops(DefaultSettings()))

    assert [(op.name, op.noun) for op in ops] == [("echo.say", "echo")]


def test_a_trigger_that_never_fires_has_no_next_instant() -> None:
    (kind,) = dispatch_echo.dispatch_trigger_kinds()

    assert kind.next_after is not None
    assert kind.next_after(kind.config(), datetime(2030, 1, 1, tzinfo=UTC)) is None


@pytest.mark.e2e
def test_every_example_holds_on_the_command_line(dispatch: Dispatch) -> None:
    (op,) = dispatch_echo.dispatch_ops(DefaultSettings())

    for example in op.examples:
        words = command_line({"name": op.name, "intent": op.intent}, example.input)
        if example.error is not None:
            assert dispatch.error(*words)["code"] == example.error
        else:
            assert mismatch(example.output, dispatch.json(*words)) is None


@pytest.mark.e2e
def test_the_separator_is_configured(dispatch: Dispatch) -> None:
    (dispatch.home / "config.toml").write_text('[echo]\nseparator = ", "\n', encoding="utf-8")

    said = dispatch.json("echo", "say", "hi", "--times", "2")

    assert said == {"text": "hi, hi"}
