"""From ops to tools, grouped by what they act on and by intent, so annotations stay true. Pure.

A grouped tool takes one flat object: ``op`` selects, and the fields of all its ops stand beside it.
The exact schema of an op is one call away, ``{"op": "schema", "of": NAME}``; precise validation is
the kernel's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatch_core.api import ValidationFailed
from dispatch_plugins.mcp.options import FLAT, READONLY, WORKER, check_profile
from dispatch_plugins.mcp.schemas import (
    describe,
    full_input,
    merge,
    plain,
    shape,
    size,
    without_marks,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dispatch_core.api import OpInfo

TOOL_BYTES = 4000
SELECTOR, SUBJECT, CONFIRM, THREAD = "op", "of", "confirm", "thread"
SCHEMA_OP = "schema"
HOMES = {"message": "thread", "goal": "thread"}
TOPICS = {
    "thread": "Codex threads and their messages",
    "delivery": "messages on their way",
    "request": "what Codex asks of people",
    "trigger": "triggers: what happens when",
    "daemon": "the dispatch daemon and Codex",
}
VERBS = {"read": "Look at", "write": "Act on", "destroy": "Remove or discard from"}
CONFIRM_FIELD = {"type": "boolean", "description": "Must be true: this removes something."}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSpec:
    """One tool and the ops behind it.

    ops: by name. selector: whether ``op`` chooses among them; otherwise there is exactly one.
    fixed: fields that the session sets itself, which the tool does not show.
    """

    name: str
    intent: str
    ops: Mapping[str, OpInfo]
    selector: bool
    fixed: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    input_schema: Mapping[str, Any] = field(default_factory=dict)
    output_schema: Mapping[str, Any] | None = None

    @property
    def confirmed(self) -> bool:
        """Whether every call must say ``confirm: true``."""
        return self.intent == "destroy"

    def fields(self, op: OpInfo) -> dict[str, str]:
        """Return the fields of an op: from the name this tool shows to the name in the op.

        A field that is called like one of the tool's own gets a trailing underscore.
        """
        own = {SELECTOR: self.selector, CONFIRM: self.confirmed}
        names = [name for name in op.schema.get("properties", {}) if name not in self.fixed]
        shown: dict[str, str] = {}
        for name in names:
            alias = name
            while own.get(alias) or (alias != name and alias in names):
                alias += "_"
            shown[alias] = name
        return shown

    def wire(self) -> dict[str, Any]:
        """Return the tool as ``tools/list`` shows it."""
        tool = {
            "name": self.name,
            "description": self.description,
            "inputSchema": dict(self.input_schema),
            "annotations": {
                "readOnlyHint": self.intent == "read",
                "destructiveHint": self.confirmed,
                "idempotentHint": all(op.idempotent for op in self.ops.values()),
            },
        }
        return (
            tool
            if self.output_schema is None
            else {**tool, "outputSchema": dict(self.output_schema)}
        )


class Detail(NamedTuple):
    """How much a grouped tool says. description: characters for each field."""

    description: int
    optional: bool = True
    summaries: bool = True


DETAILS = (
    Detail(80),
    Detail(56),
    Detail(40),
    Detail(40, optional=False),
    Detail(0, optional=False),
    Detail(0, optional=False, summaries=False),
)


def tools(
    ops: Sequence[OpInfo], profile: str = "default", *, thread_id: str | None = None
) -> tuple[ToolSpec, ...]:
    """Return the tools of a profile, in which every op that it admits is exactly once.

    thread_id: what the worker profile is pinned to. Raises ValidationFailed for an unknown profile
    and for a worker without a thread.
    """
    check_profile(profile)
    if profile == FLAT:
        return _flat(ops)
    if profile == READONLY:
        return _grouped([op for op in ops if op.intent == "read"])
    if profile == WORKER:
        if not thread_id:
            raise ValidationFailed(
                "the worker profile needs the thread it belongs to",
                hint="start dispatch mcp inside a Codex thread, where CODEX_THREAD_ID is set",
            )
        return _grouped([op for op in ops if _for_worker(op)], fixed={THREAD: thread_id})
    return _grouped(ops)


def group_of(op: OpInfo) -> tuple[str, str]:
    """Return the noun of the tool an op belongs to, and its intent."""
    return _word(HOMES.get(op.noun, op.noun)), op.intent


def _grouped(ops: Sequence[OpInfo], fixed: Mapping[str, Any] | None = None) -> tuple[ToolSpec, ...]:
    groups: dict[tuple[str, str], dict[str, OpInfo]] = {}
    for op in sorted(ops, key=lambda op: op.name):
        groups.setdefault(group_of(op), {})[op.name] = op
    order = ["read", "write", "destroy"]
    return tuple(
        _group(noun, intent, groups[noun, intent], fixed or {})
        for noun, intent in sorted(groups, key=lambda key: (key[0], order.index(key[1])))
    )


def _group(noun: str, intent: str, ops: Mapping[str, OpInfo], fixed: Mapping[str, Any]) -> ToolSpec:
    name = f"dispatch_{noun}_{intent}"
    bare = ToolSpec(name=name, intent=intent, ops=ops, selector=True, fixed=fixed)

    def build(detail: Detail) -> ToolSpec:
        text = _description(bare, noun, detail)
        return replace(bare, description=text, input_schema=_union(bare, detail))

    return _within_budget(build)


def _within_budget(build: Callable[[Detail], ToolSpec]) -> ToolSpec:
    """Return the most detailed form that fits, or the tersest."""
    for detail in DETAILS:
        spec = build(detail)
        if size(spec.wire()) <= TOOL_BYTES:
            break
    return spec


def _description(spec: ToolSpec, noun: str, detail: Detail) -> str:
    dists = sorted({op.dist for op in spec.ops.values()})
    topic = TOPICS.get(noun, f"{noun} (from {', '.join(dists)})")
    lines = [f"{VERBS[spec.intent]} {topic}. Ops and their fields (? = optional):"]
    lines += [_line(spec, op, detail) for op in spec.ops.values()]
    if spec.fixed:
        lines.append("Every op acts on your own thread.")
    if spec.confirmed:
        lines.append('Every op needs "confirm": true.')
    if SCHEMA_OP not in spec.ops:
        lines.append('{"op":"schema","of":OP} returns the exact input schema of an op.')
    return "\n".join(lines)


def _line(spec: ToolSpec, op: OpInfo, detail: Detail) -> str:
    needed = set(op.schema.get("required", []))
    shown = spec.fields(op).items()
    names = [alias for alias, name in shown if name in needed]
    if detail.optional:
        names += [f"{alias}?" for alias, name in shown if name not in needed]
    call = f"- {op.name}({', '.join(names)})"
    return f"{call}: {op.summary}" if detail.summaries else call


def _union(spec: ToolSpec, detail: Detail) -> dict[str, Any]:
    names = list(spec.ops)
    properties: dict[str, Any] = {}
    if SCHEMA_OP not in spec.ops:
        names.append(SCHEMA_OP)
        properties[SUBJECT] = {
            "type": "string",
            "description": "With op schema: the op to describe.",
        }
    if spec.confirmed:
        properties[CONFIRM] = CONFIRM_FIELD
    for alias, uses in _uses(spec).items():
        shapes = [shape(sub, defs) for sub, defs in uses]
        texts = [describe(str(sub.get("description", "")), detail.description) for sub, _ in uses]
        if alias in properties:
            shapes.append({"type": properties[alias]["type"]})
            texts.insert(0, properties[alias]["description"])
        text = max(texts, key=texts.count)
        properties[alias] = {**merge(shapes), **({"description": text} if text else {})}
    return {
        "type": "object",
        "properties": {SELECTOR: {"type": "string", "enum": names}, **properties},
        "required": [SELECTOR],
    }


def _uses(spec: ToolSpec) -> dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """Return, for each field of the tool, its schema in every op that has it, with definitions."""
    uses: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    for op in spec.ops.values():
        for alias, name in spec.fields(op).items():
            uses.setdefault(alias, []).append(
                (plain(op.schema["properties"][name]), op.schema.get("$defs", {}))
            )
    return uses


def _flat(ops: Sequence[OpInfo]) -> tuple[ToolSpec, ...]:
    specs: dict[str, ToolSpec] = {}
    for op in sorted(ops, key=lambda op: op.name):
        name = f"dispatch_{_word(op.name)}"
        while name in specs:
            name += "_"
        bare = ToolSpec(name=name, intent=op.intent, ops={op.name: op}, selector=False)
        schema = full_input(op, bare.fields(op))
        if bare.confirmed:
            schema["properties"] = {**schema["properties"], CONFIRM: CONFIRM_FIELD}
            schema["required"] = [*schema["required"], CONFIRM]
        specs[name] = replace(
            bare,
            description=op.summary,
            input_schema=schema,
            output_schema={"type": "object", **without_marks(dict(op.output_schema))},
        )
    return tuple(specs.values())


def _for_worker(op: OpInfo) -> bool:
    """Whether an op acts on one thread and on nothing that outlives or steers it."""
    noun, intent = group_of(op)
    own = THREAD in op.schema.get("properties", {})
    return own and (intent == "read" or noun not in ("trigger", "daemon"))


def _word(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
