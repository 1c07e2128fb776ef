"""Help: what it does, how it is used, then the details. No name is ever cut."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from dispatch_plugins.cli.catalog import command_line
from dispatch_plugins.cli.names import command_of
from dispatch_plugins.cli.params import GLOBAL_HELP, own_help

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatch_plugins.cli.catalog import Catalog
    from dispatch_plugins.cli.fields import Field

MIN_WIDTH, MAX_WIDTH = 50, 100
FEW = 4
TITLE = "Direct many Codex threads from one place."


def root_help(catalog: Catalog, width: int) -> str:
    """Return the help of dispatch itself."""
    out = _formatter(width)
    out.write("Usage: dispatch [OPTIONS] COMMAND [ARGS]...\n\n")
    out.write(f"  {TITLE}\n")
    _examples(out, catalog.examples())
    for title, rows in catalog.sections():
        _table(out, title, rows)
    _table(out, "Options", [*GLOBAL_HELP, ("--version", "Show the version.")])
    out.write(
        "\ndispatch COMMAND --help explains a command; dispatch help exit-codes explains failures.\n"
    )
    return out.getvalue()


def group_help(name: str, ops: Mapping[str, Mapping[str, Any]], width: int) -> str:
    """Return the help of a group of commands."""
    out = _formatter(width)
    out.write(f"Usage: dispatch {name} COMMAND [ARGS]...\n")
    _table(out, "Commands", [(word, op["summary"].rstrip(".")) for word, op in ops.items()])
    _table(out, "Global options", GLOBAL_HELP)
    return out.getvalue()


def op_help(
    op: Mapping[str, Any], fields: Sequence[Field], *, owner: str | None, width: int
) -> str:
    """Return the help of an op; owner: the distribution of a third party."""
    out = _formatter(width)
    words = [field.usage for field in fields if field.argument and not field.hidden]
    usage = " ".join(["[OPTIONS]", *words])
    out.write(f"Usage: {command_of(op['name'])} {usage}\n\n")
    out.write(f"  {op['summary']}\n")
    if owner:
        out.write(f"  (from {owner})\n")
    _examples(out, [_example(op, example) for example in _shown(op)])
    shown = [field for field in fields if not field.hidden]
    _table(out, "Arguments", [(f.metavar, _describe(f)) for f in shown if f.argument])
    rows = [(_names(f), _describe(f)) for f in shown if not f.argument]
    rows += own_help(op, [name for field in fields for name in (field.option, *field.aliases)])
    _table(out, "Options", rows)
    _table(out, "Global options", GLOBAL_HELP)
    return out.getvalue()


def columns(width: int) -> int:
    """Return the columns that help takes on a terminal of some width."""
    return max(MIN_WIDTH, min(width, MAX_WIDTH)) - 2


def _formatter(width: int) -> click.HelpFormatter:
    return click.HelpFormatter(width=columns(width))


def _table(out: click.HelpFormatter, title: str, rows: Sequence[tuple[str, str]]) -> None:
    if not rows:
        return
    out.write(f"\n{title}:\n")
    out.indent()
    out.write_dl(rows)
    out.dedent()


def _shown(op: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the examples that work, or all when none does: a newcomer copies them."""
    return [e for e in op["examples"] if e.get("error") is None] or list(op["examples"])


def _examples(out: click.HelpFormatter, lines: Sequence[str]) -> None:
    if lines:
        out.write("\nExamples:\n")
    for line in lines:
        out.write(f"  {line}\n")  # never wrapped: it is there to be copied


def _example(op: Mapping[str, Any], example: Mapping[str, Any]) -> str:
    line = command_line(op, example["input"])
    notes = [example.get("title") or ""]
    if example.get("error"):
        notes.append(f"fails with {example['error']}")
    note = "; ".join(filter(None, notes))
    return f"{line}  # {note}" if note else line


def _names(field: Field) -> str:
    names = ", ".join([field.option, *field.aliases])
    if field.kind == "bool" and not field.many:
        return f"{names} / --no-{field.option[2:]}"
    return f"{names} {field.metavar}"


def _describe(field: Field) -> str:
    notes = []
    if field.required and not field.argument:
        notes.append("required")
    if field.default_cwd:
        notes.append("default: the current directory")
    elif field.default not in (None, [], {}, ""):
        notes.append(f"default: {_value(field.default)}")
    if field.many or field.kind == "pairs":
        notes.append("several allowed" if field.argument else "can be repeated")
    if field.choices and (field.argument or field.many_choices):
        joint = " or " if len(field.choices) < FEW else ", "
        notes.append(joint.join(map(str, field.choices)))
    note = f"[{'; '.join(notes)}]" if notes else ""
    return " ".join(filter(None, (field.description, note)))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value)
