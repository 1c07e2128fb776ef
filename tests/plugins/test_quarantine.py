"""Every example of dispatch-broken, all installed at once: each costs itself and nothing else."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

BROKEN = Path(__file__).parents[2] / "plugins" / "examples" / "dispatch-broken"
HARMLESS = ("counted", "loud", "thread-at-import")
FAILURES = {
    "missing-module": ("load", "ModuleNotFoundError: No module named 'broken_missing_module_plugin'"),
    "missing-dependency": ("load", "No module named 'broken_library_that_is_not_installed'"),
    "assert-at-import": ("load", "AssertionError: arithmetic is not what it was"),
    "exit-at-import": ("load", "SystemExit: this library is a program"),
    "kill-at-import": ("load", "importing it ended the process with status 3"),
    "slow-import": ("load", "importing it took longer than 10 s"),
    "syntax-error": ("load", "SyntaxError"),
    "half-way": ("declare", "RuntimeError: the second hook gave up"),
    "unknown-hook": ("declare", "unknown hook 'dispatch_opz'"),
    "wrong-type": ("declare", "dispatch_ops returned 'wrongtype.one', which is not Op"),
    "not-iterable": ("declare", "dispatch_ops returned 7, which is no list"),
    "keyword-only": ("declare", "missing 1 required keyword-only argument: 'settings'"),
    "loose-input": ("declare", "op loose.one: the input model must be frozen with extra='forbid'"),
    "undescribed-field": ("declare", "op mute.one: IdleInput.count has no description"),
    "bare-name": ("freeze", "'bare' has no namespace"),
    "reserved-namespace": ("freeze", "'goal' belongs to dispatch"),
    "shadowed-command": ("freeze", "'send' belongs to dispatch"),
    "surface-name": ("freeze", "'list' belongs to dispatch"),
    "twice": ("freeze", "declares the op twice.one twice"),
    "rival-op-a": ("freeze", "op rivals.one is also declared by rival_op_b (broken-rival-op-b)"),
    "rival-op-b": ("freeze", "op rivals.one is also declared by rival_op_a (broken-rival-op-a)"),
    "no-schema": ("freeze", "op schemaless.one cannot be written as JSON"),
    "kind-no-schema": ("freeze", "trigger kind oddkind.odd cannot be written as JSON"),
    "odd-example": ("freeze", "op oddexample.one cannot be written as JSON"),
    "taken-name": ("vet", "'send' is also claimed by codex-dispatch, which keeps it"),
    "rival-name-a": ("vet", "'twin' is also claimed by broken-rival-name-b, so neither is loaded"),
    "rival-name-b": ("vet", "'twin' is also claimed by broken-rival-name-a, so neither is loaded"),
    "future-api": ("vet", "needs plugin API version 2; this dispatch provides version 1"),
    "unknown-group": ("vet", "unknown entry-point group 'dispatch.v1.widgets'"),
}


@pytest.fixture(scope="module")
def together(installed) -> Iterator[Any]:
    """A home in which the manifest of all examples has been made."""
    from conftest_site import Site  # noqa: F401 -- replaced below

    yield None


