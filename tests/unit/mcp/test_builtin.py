"""The tools of the ops that are really installed."""

from __future__ import annotations

import json
import shutil
import tempfile

import pytest
from jsonschema import Draft202012Validator

from dispatch_core.api import OpInfo
from dispatch_core.daemon.paths import Paths
from dispatch_core.plugin.manifest import load
from dispatch_plugins.mcp.grouping import TOOL_BYTES, tools

LIST_BYTES = 24_000


@pytest.fixture(scope="module")
def builtin():
    home = tempfile.mkdtemp(prefix="d-", dir="/tmp")
    manifest = load(Paths(home), safe=True)
    shutil.rmtree(home)
    ops = [OpInfo(**op) for op in manifest["ops"] if op["dist"] == "codex-dispatch"]
    assert ops
    return [op for op in ops if "mcp" not in op.hidden_from]


def test_every_builtin_op_is_reachable_in_a_group_of_its_intent(builtin):
    specs = tools(builtin)

    placed = {name: spec.intent for spec in specs for name in spec.ops}
    assert placed == {op.name: op.intent for op in builtin}


def test_the_builtin_tools_stay_within_their_budget(builtin):
    sizes = [
        len(json.dumps(spec.wire(), separators=(",", ":")).encode()) for spec in tools(builtin)
    ]

    assert max(sizes) <= TOOL_BYTES
    assert sum(sizes) <= LIST_BYTES


@pytest.mark.parametrize("profile", ["default", "readonly", "flat", "worker"])
def test_the_schemas_of_every_profile_are_schemas(builtin, profile):
    specs = tools(builtin, profile, thread_id="t1")

    assert specs
    for spec in specs:
        Draft202012Validator.check_schema(spec.input_schema)
        Draft202012Validator.check_schema(spec.output_schema or {})


def test_the_examples_fit_the_schemas_of_their_tools(builtin):
    specs = tools(builtin, "flat")

    for spec in specs:
        (op,) = spec.ops.values()
        names = {real: alias for alias, real in spec.fields(op).items()}
        for example in op.examples:
            if "error" in example:
                continue
            arguments = {names[name]: value for name, value in example["input"].items()}
            if spec.confirmed:
                arguments["confirm"] = True
            Draft202012Validator(spec.input_schema).validate(arguments)
