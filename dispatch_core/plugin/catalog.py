"""Freeze: one table of ops, trigger kinds and surfaces, in which every name has exactly one owner."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dispatch_core.contracts.surface import OpInfo, Surface

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from dispatch_core.contracts.op import Op
    from dispatch_core.contracts.trigger import TriggerKind
    from dispatch_core.plugin.host import Contribution
    from dispatch_core.plugin.report import PluginReport

# First words of the command line that third parties cannot take: commands that are not ops, and our own nouns.
RESERVED = frozenset(
    {
        *(
            "completion",
            "config",
            "doctor",
            "demo",
            "dispatch",
            "down",
            "help",
            "mcp",
            "plugins",
            "registry",
        ),
        *("schema", "up", "daemon", "delivery", "goal", "message", "request", "thread", "trigger"),
    }
)


@dataclass(slots=True)
class Catalog:
    """What the plugins provide, by name, with the owner of each."""

    ops: dict[str, Op[Any, Any]] = field(default_factory=dict)
    kinds: dict[str, TriggerKind[Any]] = field(default_factory=dict)
    surfaces: dict[str, Surface] = field(default_factory=dict)
    owners: dict[str, PluginReport] = field(default_factory=dict)


def freeze(contributions: Iterable[tuple[PluginReport, Contribution]]) -> Catalog:
    """Return the catalog of all contributions, quarantining whoever breaks the rules of names.

    A third party's op and kind names carry a namespace that is not ours, nor one of our commands. A name claimed twice belongs
    to the first-party plugin, or to nobody.
    """
    contributions = list(contributions)
    ours = RESERVED | {
        word for report, c in contributions if report.first_party for word in _first_words(c)
    }
    accepted = [
        (report, contribution)
        for report, contribution in contributions
        if _well_named(report, contribution, ours)
    ]
    _refuse_rivals(accepted)
    _refuse_hidden_ops(accepted)
    catalog = Catalog()
    for report, contribution in accepted:
        if report.state == "loaded":
            _add(catalog, report, contribution)
    return catalog


def _names(contribution: Contribution) -> Iterable[str]:
    yield from (f"op {op.name}" for op in contribution.ops)
    yield from (f"trigger kind {kind.name}" for kind in contribution.kinds)
    yield from (f"surface {surface.name}" for surface in contribution.surfaces)


def _first_words(contribution: Contribution) -> Iterable[str]:
    yield from (op.name.partition(".")[0] for op in contribution.ops)
    yield from (surface.name for surface in contribution.surfaces)


def _well_named(report: PluginReport, contribution: Contribution, ours: AbstractSet[str]) -> bool:
    names = list(_names(contribution))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        report.quarantine("freeze", f"declares the {twice[0]} twice")
    elif not report.first_party:
        for name in [*(op.name for op in contribution.ops), *(k.name for k in contribution.kinds)]:
            namespace, dot, _ = name.partition(".")
            if not dot:
                report.quarantine(
                    "freeze",
                    f"{name!r} has no namespace: call it 'acme.{name}', with a name of yours",
                )
            elif namespace in ours:
                report.quarantine(
                    "freeze", f"{name!r}: the namespace {namespace!r} belongs to dispatch"
                )
        for op in contribution.ops:
            if op.noun in RESERVED:
                report.quarantine(
                    "freeze", f"{op.name!r}: the noun {op.noun!r} belongs to dispatch"
                )
        for surface in contribution.surfaces:
            if surface.name in ours:
                report.quarantine(
                    "freeze", f"the surface name {surface.name!r} belongs to dispatch"
                )
    return report.state == "loaded"


def _refuse_rivals(accepted: list[tuple[PluginReport, Contribution]]) -> None:
    claimants: dict[str, list[PluginReport]] = defaultdict(list)
    for report, contribution in accepted:
        for name in _names(contribution):
            claimants[name].append(report)
    for name, rivals in claimants.items():
        keeper = next((report for report in rivals if report.first_party), None)
        for report in rivals if len(rivals) > 1 else []:
            if report is not keeper:
                others = ", ".join(f"{r.name} ({r.dist})" for r in rivals if r is not report)
                report.quarantine("freeze", f"the {name} is also declared by {others}")


def _refuse_hidden_ops(accepted: list[tuple[PluginReport, Contribution]]) -> None:
    """A surface is asked before ops are: no op's first word may be the name of a surface."""
    owners: dict[str, list[PluginReport]] = defaultdict(list)
    for report, contribution in accepted:
        for op in contribution.ops:
            owners[op.name.partition(".")[0]].append(report)
    for report, contribution in accepted:
        for surface in contribution.surfaces:
            for rival in owners.get(surface.name, ()):
                reason = f"{surface.name!r} names a surface of {report.dist} and a namespace of ops of {rival.dist}"
                report.quarantine("freeze", reason)
                rival.quarantine("freeze", reason)


def _add(catalog: Catalog, report: PluginReport, contribution: Contribution) -> None:
    for op in contribution.ops:
        catalog.ops[op.name] = op
        catalog.owners[op.name] = report
    for kind in contribution.kinds:
        catalog.kinds[kind.name] = kind
    for surface in contribution.surfaces:
        catalog.surfaces[surface.name] = surface


def describe(op: Op[Any, Any], owner: PluginReport) -> OpInfo:
    """Return an op as the surfaces see it. Raises whatever pydantic raises for models without a JSON schema."""
    schema = _slim(op.input.model_json_schema())
    output_schema = _slim(op.output.model_json_schema(mode="serialization"))
    canonical = json.dumps([schema, output_schema], sort_keys=True, separators=(",", ":"))
    return OpInfo(
        name=op.name,
        summary=op.summary,
        noun=op.noun,
        intent=op.intent.value,
        idempotent=op.idempotent,
        timeout=op.timeout,
        schema=schema,
        output_schema=output_schema,
        schema_hash=hashlib.sha256(canonical.encode()).hexdigest()[:16],
        examples=[_example(example) for example in op.examples],
        plugin=owner.name,
        dist=owner.dist,
        hidden_from=sorted(op.hidden_from),
        stream=None if op.stream is None else {"rows": op.stream.rows, "always": op.stream.always},
        progress=op.progress,
    )


def _example(example: Any) -> Mapping[str, Any]:
    fields = {"title": example.title, "input": dict(example.input)}
    if example.error is not None:
        return {**fields, "error": example.error}
    return {**fields, "output": dict(example.output)}


def _slim(schema: Any) -> Any:
    """Drop pydantic's generated titles, which repeat the field names."""
    if isinstance(schema, list):
        return [_slim(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _slim(sub) for name, sub in value.items()}
        if key in ("properties", "$defs")
        else _slim(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
