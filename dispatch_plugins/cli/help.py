"""Help: what it does, how it is used, then the details. No name is ever cut."""

from __future__ import annotations

from dispatch_core import lean_json
from dispatch_plugins.cli.catalog import Catalog, command_line
from dispatch_plugins.cli.fields import fields_of
from dispatch_plugins.cli.names import command_of, is_taken
from dispatch_plugins.cli.page import Page

TYPE_CHECKING = False  # help is as quick as any command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from dispatch_plugins.cli.fields import Field

MIN_WIDTH, MAX_WIDTH = 50, 100
FEW = 4
NOTE = "  #"  # between the command of an example and what it is for
TITLE = "Direct many Codex threads from one place."
NAMES = ("-h", "--help")
GLOBAL_HELP = (
    ("--json", "Print one JSON document, on a terminal too."),
    ("--no-start", "Fail when the daemon is not running instead of starting it."),
    ("--safe", "Leave third-party plugins out; stands before the command."),
    ("--debug", "Show the traceback of an error."),
    ("--color [auto|always|never]", "When to colour. NO_COLOR and FORCE_COLOR are respected."),
    ("-h, --help", "Show this help."),
)
ON = "Go on until Ctrl-C; one JSON object a line where no person reads."
FOLLOW = {
    True: f"{ON} [default: yes, unless --limit or --timeout is given]",
    False: f"{ON} [default: no]",
}


def page(argv: Sequence[str], manifest: Mapping[str, Any], width: int) -> str | None:
    """Return the help that a plain command line asks for, as click would; None when click has to look at it."""
    asked = bool(argv) and argv[-1] in NAMES
    words = argv[:-1] if asked else argv
    if words and (not asked or is_taken(words[0], manifest)):
        return None
    catalog = Catalog(manifest)
    if not words:
        return root_help(catalog, width)
    op, group = _found(catalog, words)
    if group:
        return group_help(words[0], group, width)
    fields = [] if op is None else fields_of(op["schema"])
    if op is None or any("--help" in (field.option, *field.aliases) for field in fields):
        return None
    return op_help(op, fields, owner=catalog.owner(op), width=width)


def root_help(catalog: Catalog, width: int) -> str:
    """Return the help of dispatch itself."""
    out = Page(columns(width))
    out.write("Usage: dispatch [OPTIONS] COMMAND [ARGS]...\n\n")
    out.write(f"  {TITLE}\n")
    _examples(out, catalog.examples())
    for title, rows in catalog.sections():
        out.table(title, rows)
    out.table("Options", [*GLOBAL_HELP, ("--version", "Show the version.")])
    out.write("\ndispatch COMMAND --help explains a command,\n")
    out.write("dispatch help exit-codes what an exit status means.\n")
    return out.text


def group_help(name: str, ops: Mapping[str, Mapping[str, Any]], width: int) -> str:
    """Return the help of a group of commands."""
    out = Page(columns(width))
    out.write(f"Usage: dispatch {name} COMMAND [ARGS]...\n")
    out.table("Commands", [(word, op["summary"].rstrip(".")) for word, op in ops.items()])
    out.table("Global options", GLOBAL_HELP)
    return out.text


def op_help(
    op: Mapping[str, Any], fields: Sequence[Field], *, owner: str | None, width: int
) -> str:
    """Return the help of an op; owner: the distribution of a third party."""
    out = Page(columns(width))
    words = [field.usage for field in fields if field.argument and not field.hidden]
    usage = " ".join(["[OPTIONS]", *words])
    out.write(f"Usage: {command_of(op['name'])} {usage}\n\n")
    out.write(f"  {op['summary']}\n")
    if owner:
        out.write(f"  (from {owner})\n")
    _examples(out, [_example(op, example) for example in _shown(op)])
    shown = [field for field in fields if not field.hidden]
    out.table("Arguments", [(f.metavar, _describe(f)) for f in shown if f.argument])
    rows = [(_names(f), _describe(f)) for f in shown if not f.argument]
    rows += _own(op, [name for field in fields for name in (field.option, *field.aliases)])
    out.table("Options", rows)
    out.table("Global options", GLOBAL_HELP)
    return out.text


def columns(width: int) -> int:
    """Return the columns that help takes on a terminal of some width."""
    return max(MIN_WIDTH, min(width, MAX_WIDTH)) - 2


def _found(
    catalog: Catalog, words: Sequence[str]
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """Return the op or the group of ops that words name, exactly; an op comes before a group."""
    head, *tail = words
    if head in catalog.ops:
        return (None if tail else catalog.ops[head]), {}
    group = catalog.groups.get(head, {})
    return (group.get(tail[0]), {}) if len(tail) == 1 else (None, {} if tail else group)


def _own(op: Mapping[str, Any], taken: Iterable[str]) -> list[tuple[str, str]]:
    """Return what help says of the options that an op has for what it is; a name that a field has is left to it."""
    rows = []
    if op["intent"] == "destroy":
        rows.append(("--yes", "Do not ask; needed where there is no terminal."))
        rows.append(("--no-interactive", "Never ask: fail without --yes."))
    if op.get("stream"):
        rows.append(("--follow / --no-follow", FOLLOW[bool(op["stream"].get("always"))]))
    return [row for row in rows if not {*row[0].split(" / ")} & {*taken}]


def _shown(op: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the examples that work, or all when none does: a newcomer copies them."""
    return [e for e in op["examples"] if e.get("error") is None] or list(op["examples"])


def _examples(out: Page, lines: Sequence[str]) -> None:
    if lines:
        out.write("\nExamples:\n")
    for line in lines:
        command, mark, note = line.partition(NOTE)
        apart = bool(mark) and len(line) + 2 > out.width
        if apart:
            out.write(f"  #{note}\n")
        out.write(f"  {command if apart else line}\n")  # never wrapped: it is there to be copied


def _example(op: Mapping[str, Any], example: Mapping[str, Any]) -> str:
    line = command_line(op, example["input"])
    notes = [example.get("title") or ""]
    if example.get("error"):
        notes.append(f"fails with {example['error']}")
    note = "; ".join(filter(None, notes))
    return f"{line}{NOTE} {note}" if note else line


def _names(field: Field) -> str:
    names = ", ".join([field.option, *field.aliases])
    if field.kind == "bool" and not field.many:
        return names if field.default is False else f"{names} / --no-{field.option[2:]}"
    return f"{names} {field.metavar}"


def _describe(field: Field) -> str:
    notes = []
    if field.required and not field.argument:
        notes.append("required")
    if field.default_cwd:
        notes.append("default: the current directory")
    elif field.default is not False and field.default not in (None, [], {}, ""):
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
    return value if isinstance(value, str) else lean_json.dumps(value)
