"""Writes docs/reference from the contracts: a page for every op, the trigger kinds, the commands that are no ops.

``python docs/generate.py`` writes it, ``python docs/generate.py DIRECTORY`` writes it elsewhere. Only the plugins of this
distribution count, whatever else is installed.
"""  # noqa: INP001 -- a script

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dispatch_core.contracts.surface import OpInfo
from dispatch_core.daemon.paths import Paths
from dispatch_core.plugin import manifest as manifests
from dispatch_plugins.cli.app import App
from dispatch_plugins.cli.catalog import command_line
from dispatch_plugins.cli.fields import fields_of
from dispatch_plugins.cli.group import native
from dispatch_plugins.cli.invocation import Invocation
from dispatch_plugins.cli.names import NATIVE, command_of, hidden, words_of
from dispatch_plugins.mcp.grouping import group_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dispatch_plugins.cli.fields import Field

REFERENCE = Path(__file__).parent / "reference"
OPS = "ops"
WIDTH = 96  # columns of native help
DEEPEST = 6  # levels of an output that are shown
NOTE = "<!-- Written by scripts/docs from the contracts; changes are overwritten. -->"
OPS_INTRO = (
    "Each is a command, a method of the [control protocol](../control-protocol.md) and an `op` of an "
    "[MCP tool](../mcp.md). `dispatch schema COMMAND` prints the JSON schemas."
)
KINDS_INTRO = (
    "What can stand after `--when` in [trigger add](ops/trigger.add.md). A field is given with the option that has its name "
    "there, `thread` with `--on`, and any other one with `--option FIELD=VALUE`."
)
INTENTS = {
    "read": "changes nothing",
    "write": "changes something",
    "destroy": "removes or discards something; asks first, or needs `--yes`",
}


def manifest() -> dict[str, Any]:
    """Return the manifest of our own plugins."""
    with tempfile.TemporaryDirectory() as home:
        return manifests.load(Paths(home), safe=True)


def pages(found: Mapping[str, Any]) -> dict[str, str]:
    """Return every generated page, by its path below docs/reference."""
    ops = sorted(found["ops"], key=lambda op: str(op["name"]))
    written = {f"{OPS}/{op['name']}.md": op_page(op) for op in ops}
    return {
        **written,
        f"{OPS}/README.md": index_page(ops),
        "trigger-kinds.md": kinds_page(found),
        "commands.md": commands_page(found),
    }


def write(target: Path, found: Mapping[str, str]) -> None:
    """Make a directory hold these pages, and below ``ops`` no others."""
    (target / OPS).mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        (target / name).write_text(text, encoding="utf-8")
    for name in leftovers(target, found):
        (target / name).unlink()


def leftovers(target: Path, found: Mapping[str, str]) -> list[str]:
    """Return the pages of ops that are no more."""
    names = (str(file.relative_to(target)) for file in sorted((target / OPS).glob("*.md")))
    return [name for name in names if name not in found]


def op_page(op: Mapping[str, Any]) -> str:
    """Return the page of one op."""
    title = " ".join(words_of(op["name"]))
    return _joined(
        [
            f"# {title}",
            NOTE,
            f"{op['summary'].rstrip('.')}.",
            *_usage(op),
            _facts(op),
            "## Input",
            *_input(op),
            "## Output",
            *_output(op["output_schema"]),
            "## Examples",
            *_examples(op),
            *_errors(op),
        ]
    )


def index_page(ops: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all ops."""
    rows = [
        (
            f"[{' '.join(words_of(op['name']))}]({op['name']}.md)",
            op["summary"].rstrip("."),
            op["intent"],
            f"`{_tool(op)}`",
        )
        for op in ops
    ]
    return _joined(
        [
            "# Ops",
            NOTE,
            OPS_INTRO,
            _table(("op", "what it does", "intent", "MCP tool"), rows),
        ]
    )


def kinds_page(found: Mapping[str, Any]) -> str:
    """Return the page of the trigger kinds."""
    parts = [
        "# Trigger kinds",
        NOTE,
        KINDS_INTRO,
    ]
    for kind in sorted(found["kinds"], key=lambda kind: str(kind["name"])):
        parts += [f"## {kind['name']}", f"{kind['summary'].rstrip('.')}."]
        rows = [
            (f"`{name}`", kind_, default, text)
            for name, kind_, default, text in _fields(_kind_schema(kind))
            if name != "kind"
        ]
        parts.append(_table(("field", "type", "default", "meaning"), rows))
    return _joined(parts)


def commands_page(found: Mapping[str, Any]) -> str:
    """Return the help of the commands that are no ops."""
    app = App(Invocation(found, {"COLUMNS": str(WIDTH)}))
    parts = [
        "# Commands that are no ops",
        NOTE,
        "They work without a daemon. Every [op](ops/README.md) is a command as well.",
    ]
    for name in sorted(NATIVE):
        for words, command in _commands((name,), native(app, name)):
            with click.Context(
                command, info_name=f"dispatch {' '.join(words)}", terminal_width=WIDTH
            ) as ctx:
                text = "\n".join(line.rstrip() for line in command.get_help(ctx).splitlines())
            parts += [f"## {' '.join(words)}", f"```\n{text}\n```"]
    return _joined(parts)


def _commands(
    words: tuple[str, ...], command: click.Command
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, inner in sorted(command.commands.items()):
            yield from _commands((*words, name), inner)


def _usage(op: Mapping[str, Any]) -> list[str]:
    if hidden(op):
        return []
    words = [
        field.usage for field in fields_of(op["schema"]) if field.argument and not field.hidden
    ]
    return [f"```\n{' '.join([command_of(op['name']), '[OPTIONS]', *words])}\n```"]


def _facts(op: Mapping[str, Any]) -> str:
    timeout = op["timeout"]
    rows = [
        ("op", f"`{op['name']}`"),
        ("intent", f"{op['intent']}: {INTENTS[op['intent']]}"),
        ("idempotent", "yes" if op["idempotent"] else "no: look before you repeat it"),
        ("MCP tool", f"`{_tool(op)}`"),
        ("plugin", f"`{op['plugin']}`"),
        ("deadline", "none" if timeout is None else f"{timeout:g} s"),
    ]
    if op.get("stream"):
        rows.append(("stream", f"`{op['stream']['rows']}`, continued with `after` from `cursor`"))
    if op.get("progress"):
        rows.append(("progress", "`op.progress` events while it runs"))
    return _table(("", ""), rows)


def _tool(op: Mapping[str, Any]) -> str:
    noun, intent = group_of(OpInfo(**op))
    return f"dispatch_{noun}_{intent}"


def _input(op: Mapping[str, Any]) -> list[str]:
    schema = op["schema"]
    shown = {field.name: field for field in fields_of(schema)}
    rows = [
        (f"`{name}`", _option(shown[name]), kind, default, text)
        for name, kind, default, text in _fields(schema)
        if not shown[name].hidden
    ]
    if not rows:
        return ["It takes nothing."]
    return [_table(("field", "command line", "type", "default", "meaning"), rows)]


def _option(field: Field) -> str:
    names = [f"`{name}`" for name in [field.option, *field.aliases]]
    return ", ".join([f"`{field.metavar}`", *names] if field.argument else names)


def _output(schema: Mapping[str, Any]) -> list[str]:
    rows = [
        (f"`{name}`", kind, text) for name, kind, text in _nested(schema, schema.get("$defs", {}))
    ]
    return [_table(("field", "type", "meaning"), rows)] if rows else ["Nothing."]


def _nested(
    schema: Mapping[str, Any], defs: Mapping[str, Any], prefix: str = "", depth: int = 0
) -> Iterator[tuple[str, str, str]]:
    """Yield name, type and meaning of every field, those of inner objects after theirs: ``thread.ref``, ``items[].id``."""
    for name, prop in schema.get("properties", {}).items():
        yield prefix + name, _type(prop, defs), _text(prop.get("description"))
        for inner, mark in _inner(prop, defs):
            if depth < DEEPEST:
                yield from _nested(inner, defs, f"{prefix}{name}{mark}.", depth + 1)


def _inner(
    prop: Mapping[str, Any], defs: Mapping[str, Any], mark: str = ""
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the objects that a field may hold, each with what stands after the field's name."""
    prop = _resolved(prop, defs)
    for part in (*prop.get("anyOf", ()), *prop.get("oneOf", ())):
        yield from _inner(part, defs, mark)
    if prop.get("properties"):
        yield prop, mark
    if prop.get("type") == "array" and isinstance(prop.get("items"), dict):
        yield from _inner(prop["items"], defs, f"{mark}[]")
    if isinstance(prop.get("additionalProperties"), dict):
        yield from _inner(prop["additionalProperties"], defs, f"{mark}.*")


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and meaning of the fields of an input."""
    defs = schema.get("$defs", {})
    required = schema.get("required", ())
    for name, prop in schema.get("properties", {}).items():
        default = prop.get("default")
        shown = "required" if name in required else "" if default is None else f"`{_json(default)}`"
        yield name, _type(prop, defs), shown, _text(prop.get("description"))


def _type(prop: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    prop = _resolved(prop, defs)
    parts = [*prop.get("anyOf", ()), *prop.get("oneOf", ())]
    if parts:
        return " or ".join(dict.fromkeys(_type(part, defs) for part in parts))
    if "const" in prop or "enum" in prop:
        return ", ".join(f"`{value}`" for value in prop.get("enum", [prop.get("const")]))
    kind = prop.get("type", "any")
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        inner = _type(prop["items"], defs) if isinstance(prop.get("items"), dict) else "any"
        return f"list of {inner}"
    form = prop.get("format")
    return f"{kind}{f' ({form})' if form else ''}{_limits(prop)}"


def _limits(prop: Mapping[str, Any]) -> str:
    low, high = prop.get("minimum"), prop.get("maximum")
    above, longest = prop.get("exclusiveMinimum"), prop.get("maxLength")
    limits = [
        f"≥ {low}" if low is not None else "",
        f"> {above}" if above is not None else "",
        f"≤ {high}" if high is not None else "",
        f"≤ {longest} characters" if longest is not None else "",
    ]
    return "".join(f", {limit}" for limit in limits if limit)


def _resolved(prop: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = prop.get("$ref")
    return defs[reference.rpartition("/")[2]] if reference else prop


def _kind_schema(kind: Mapping[str, Any]) -> Mapping[str, Any]:
    return kind.get("schema") or kind.get("config") or {}


def _examples(op: Mapping[str, Any]) -> list[str]:
    parts = []
    for example in op["examples"]:
        title = (example.get("title") or "in short").rstrip(".")
        parts.append(f"**{title[:1].upper()}{title[1:]}**")
        parts.append(f"```\n{command_line(op, example['input'])}\n```")
        if example.get("error"):
            parts.append(f"fails with [`{example['error']}`](../errors.md).")
        else:
            parts.append(
                f"answers with, among other fields:\n\n```json\n{_json(example['output'], indent=2)}\n```"
            )
    return parts


def _errors(op: Mapping[str, Any]) -> list[str]:
    """Return what an op is known to fail with: what its examples show."""
    codes = sorted({example["error"] for example in op["examples"] if example.get("error")})
    if not codes:
        return []
    names = ", ".join(f"`{code}`" for code in codes)
    return ["## Errors", f"Among others {names}; what each means is in [errors](../errors.md)."]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _text(description: object) -> str:
    """Return a description with what looks like markup taken literally."""
    return str(description or "").replace("<", "&lt;").replace("*", "\\*")


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else REFERENCE, pages(manifest()))
