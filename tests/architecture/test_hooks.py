"""A hook is a promise: the golden file, the reference, a test and a shipped plugin say the same as the code."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import pytest

import dispatch_hookspecs

REPO = Path(__file__).parents[2]
CONTRACT = REPO / "hookspecs" / "contract.json"
REFERENCE = REPO / "docs" / "reference" / "hooks.md"
HOOKS = {
    name: function
    for name, function in inspect.getmembers(dispatch_hookspecs, inspect.isfunction)
    if hasattr(function, "dispatch_spec")
}


def dump():
    """What contract.json must contain."""
    return {
        "api_version": dispatch_hookspecs.API_VERSION,
        "hooks": [
            {
                "name": name,
                "parameters": [
                    {"name": p.name, "annotation": p.annotation}
                    for p in inspect.signature(function).parameters.values()
                ],
                "returns": inspect.signature(function).return_annotation,
                "historic": function.dispatch_spec["historic"],
                "firstresult": function.dispatch_spec["firstresult"],
            }
            for name, function in sorted(HOOKS.items())
        ],
    }


def signature(name):
    """A hook as the reference writes it."""
    found = inspect.signature(HOOKS[name])
    parameters = ", ".join(f"{p.name}: {p.annotation}" for p in found.parameters.values())
    return f"{name}({parameters}) -> {found.return_annotation}"


def implementations(folder):
    """The hooks that the modules below a folder implement, by name."""
    found = {}
    for file in sorted((REPO / folder).rglob("*.py")):
        for node in ast.parse(file.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and any(
                ast.unparse(d).partition("(")[0].endswith("hookimpl") for d in node.decorator_list
            ):
                found.setdefault(node.name, []).append(file.relative_to(REPO).as_posix())
    return found


def names_used(file):
    """The names that a test file calls, imports or passes by keyword."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg


def test_the_contract_is_what_the_code_says():
    assert json.loads(CONTRACT.read_text()) == dump(), "see hookspecs/README.md"


def test_there_are_four_hooks():
    assert sorted(HOOKS) == [
        "dispatch_ops",
        "dispatch_storage",
        "dispatch_surfaces",
        "dispatch_trigger_kinds",
    ]


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_has_a_heading_with_its_signature_in_the_reference(name):
    lines = REFERENCE.read_text().splitlines()

    assert f"### `{signature(name)}`" in lines


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_says_what_it_returns_and_when_it_is_called(name):
    doc = inspect.getdoc(HOOKS[name])

    assert doc.startswith("Return ")
    assert "Called once" in doc


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_hook_has_positional_parameters_without_defaults(name):
    for parameter in inspect.signature(HOOKS[name]).parameters.values():
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert parameter.default is parameter.empty


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_shipped_plugin_implements_the_hook(name):
    assert implementations("dispatch_plugins").get(name)


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_a_test_uses_the_hook(name):
    tests = (REPO / "tests" / "unit").rglob("*.py")

    assert any(name in names_used(file) for file in tests)


def test_nothing_implements_a_hook_that_does_not_exist():
    assert set(implementations("dispatch_plugins")) <= set(HOOKS)


def test_the_hooks_import_pluggy_and_types_only():
    tree = ast.parse(Path(dispatch_hookspecs.__file__).read_bytes())
    modules = [
        *(alias.name for n in tree.body if isinstance(n, ast.Import) for alias in n.names),
        *(n.module for n in tree.body if isinstance(n, ast.ImportFrom)),
    ]

    assert set(modules) == {"__future__", "typing", "pluggy"}
