"""From a tool call to an op call, or to a reason why not. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.api import AuthorityDenied, NotFound, ValidationFailed
from dispatch_plugins.mcp.grouping import CONFIRM, SCHEMA_OP, SELECTOR, SUBJECT
from dispatch_plugins.mcp.schemas import full_input, is_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dispatch_core.api import OpInfo
    from dispatch_plugins.mcp.grouping import ToolSpec


class UnknownSelection(NotFound):
    """There is no such tool, or the tool has no such op; the hint names the ones there are."""

    code = "unknown_op"


@dataclass(frozen=True, slots=True)
class OpCall:
    """An op to run, with its own names for the arguments."""

    op: OpInfo
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A result that needs no op."""

    result: dict[str, Any]


def find(specs: Mapping[str, ToolSpec], name: str) -> ToolSpec:
    """Return a tool by name. Raises UnknownSelection."""
    if name not in specs:
        raise UnknownSelection(f"there is no tool {name!r}", hint=_suggest(name, specs))
    return specs[name]


def route(
    specs: Mapping[str, ToolSpec], spec: ToolSpec, arguments: Mapping[str, Any]
) -> OpCall | Answer:
    """Return what a call of a tool asks for.

    Raises UnknownSelection for an op the tool does not have, ValidationFailed for a missing op or
    confirmation and for a relative path, and AuthorityDenied for a field that the session sets
    itself.
    """
    args = dict(arguments)
    if spec.selector:
        name = args.pop(SELECTOR, None)
        if name == SCHEMA_OP and name not in spec.ops:
            return _schema(specs, spec, args.get(SUBJECT))
        op = _select(specs, spec, name, SELECTOR)
    else:
        (op,) = spec.ops.values()
    if spec.confirmed and args.pop(CONFIRM, None) is not True:
        raise ValidationFailed(
            f"{op.name} removes something and was not confirmed; nothing was done",
            hint='repeat the call with "confirm": true if this is what you want',
        )
    named = _renamed(spec, op, args)
    _check_paths(op, named)
    return OpCall(op, {**named, **_fixed(spec, op)})


def schema_call(spec: ToolSpec, op: OpInfo) -> str | None:
    """Return how to ask a tool for the schema of an op; None where the tool shows it already."""
    if not spec.selector or SCHEMA_OP in spec.ops:
        return None
    return f'{spec.name} with {{"op":"schema","of":"{op.name}"}} shows its fields'


def _schema(specs: Mapping[str, ToolSpec], spec: ToolSpec, name: object) -> Answer:
    op = _select(specs, spec, name, SUBJECT)
    schema = full_input(op, spec.fields(op))
    return Answer({"op": op.name, "summary": op.summary, "input_schema": schema})


def _select(specs: Mapping[str, ToolSpec], spec: ToolSpec, name: object, key: str) -> OpInfo:
    if name is None:
        raise ValidationFailed(f"{key!r} is missing: it names the op", hint=_suggest("", spec.ops))
    if not isinstance(name, str):
        raise ValidationFailed(
            f"{key!r} is not a text: it names the op", hint=_suggest("", spec.ops)
        )
    if name in spec.ops:
        return spec.ops[name]
    home = next((other.name for other in specs.values() if name in other.ops), None)
    if home is not None:
        raise UnknownSelection(
            f"{name!r} is not an op of {spec.name}", hint=f"call the tool {home}"
        )
    raise UnknownSelection(f"{spec.name} has no op {name!r}", hint=_suggest(name, spec.ops))


def _renamed(spec: ToolSpec, op: OpInfo, args: Mapping[str, Any]) -> dict[str, Any]:
    shown = spec.fields(op)
    for name, value in spec.fixed.items():
        if args.get(name, value) != value:
            raise AuthorityDenied(
                f"this session acts on its own thread only; {name!r} cannot be {args[name]!r}",
                hint=f"leave {name!r} out",
            )
    return {shown.get(alias, alias): value for alias, value in args.items()}


def _fixed(spec: ToolSpec, op: OpInfo) -> dict[str, Any]:
    """Return the fields that the session sets itself, in the form the op takes: where it takes several, the one of them."""
    fields = op.schema.get("properties", {})
    return {
        name: [value] if fields.get(name, {}).get("type") == "array" else value
        for name, value in spec.fixed.items()
    }


def _check_paths(op: OpInfo, args: Mapping[str, Any]) -> None:
    """Refuse relative paths: they would be taken from the daemon's directory, which is nobody's."""
    fields = op.schema.get("properties", {})
    for name, value in args.items():
        if not is_path(fields.get(name, {})):
            continue
        several = value if isinstance(value, list) else [value]
        relative = [one for one in several if isinstance(one, str) and not one.startswith("/")]
        if relative:
            raise ValidationFailed(
                f"{op.name}: {name}: {relative[0]!r} is relative, and a session has no directory of its own",
                hint="give the absolute path",
            )


def _suggest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    return f"{guess}use one of: {', '.join(names)}"
