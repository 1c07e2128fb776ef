"""``dispatch schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click

from dispatch_core.errors import ValidationFailed
from dispatch_plugins.cli import output
from dispatch_plugins.cli.catalog import similar, unknown
from dispatch_plugins.cli.fields import fields_of
from dispatch_plugins.cli.names import NATIVE, PROGRAM, command_of, words_of
from dispatch_plugins.cli.params import dest, global_options, names_of, options_for, own_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatch_plugins.cli.app import App

HELP = """Print the JSON schemas of a command's input and output.

The command is given as it is typed, with options if you like, or by the name of its op. Options are checked; a flag is answered
with the input it stands for. Commands that are no ops have no schema, and the answer says so.

\b
dispatch schema send
dispatch schema list --unmanaged
dispatch schema trigger.add
"""
MEMBERS = (
    "name",
    "summary",
    "intent",
    "idempotent",
    "schema_hash",
    "schema",
    "output_schema",
    "stream",
    "progress",
)


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("schema", help=HELP, context_settings={"ignore_unknown_options": True})
    @click.argument("words", metavar="COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
    @click.pass_context
    def schema(context: click.Context, words: tuple[str, ...]) -> int:
        app.settle(context)
        answer = describe(app, words)
        text = None
        if answer["native"]:
            text = (
                f"{PROGRAM} {answer['command']} is no op and has no schema: {answer['summary']}\n"
                f"  next: {PROGRAM} {answer['command']} --help"
            )
        output.result(app.invocation, answer, text)
        return 0

    return schema


def describe(app: App, typed: Sequence[str]) -> dict[str, Any]:
    """Return what a spelling stands for: {command, native, input, name, summary, …}.

    Raises ValidationFailed, naming near misses, for words that are no command and options that the command does not have.
    """
    words = words_of(".".join(word for word in typed if not word.startswith("-")))
    spelled = " ".join((*words, *(word for word in typed if word.startswith("-"))))
    for op in app.catalog.visible:
        if words_of(op["name"]) == words:
            given = _input(op, [word for word in typed if word.startswith("-")])
            members = {name: op.get(name) for name in MEMBERS}
            return {"command": spelled, "native": False, "input": given, **members}
    native = _native(app, words)
    if native is not None:
        members = {**dict.fromkeys(MEMBERS), "summary": native}
        return {"command": spelled, "native": True, "input": None, **members}
    app.broken()
    message, hint, near = unknown(app.catalog, words)
    raise ValidationFailed(
        message, hint=hint, details={"command": " ".join(words), "similar": near}
    )


def _native(app: App, words: Sequence[str]) -> str | None:
    """Return the summary of a command that is no op; its subcommands are its own affair."""
    if words and words[0] in NATIVE:
        return NATIVE[words[0]][1]
    surfaces = {surface["name"]: surface["summary"] for surface in app.catalog.surfaces}
    return surfaces.get(words[0]) if words else None


def _input(op: Mapping[str, Any], options: Sequence[str]) -> dict[str, Any]:
    """Return the values that flags stand for. Raises ValidationFailed for an option that the op does not have."""
    fields = {dest(field): field for field in fields_of(op["schema"])}
    params = options_for(list(fields.values()))
    params += own_options(op, names_of(params))
    params += global_options(names_of(params))
    given: dict[str, Any] = {}
    for word in options:
        name = word.partition("=")[0]
        param = next((one for one in params if name in (*one.opts, *one.secondary_opts)), None)
        if param is None:
            _refuse(op, name, sorted(names_of(params)))
        field = fields.get(str(param.name))
        if field is not None and field.kind == "bool" and not field.many:
            given[field.name] = name in param.opts
    return given


def _refuse(op: Mapping[str, Any], option: str, known: Sequence[str]) -> NoReturn:
    near = similar(option, known)
    hint = f"{command_of(op['name'])} --help shows what it takes"
    if near:
        hint = f"did you mean {' or '.join(near)}? {hint}"
    raise ValidationFailed(
        f"{command_of(op['name'])} has no option {option}",
        hint=hint,
        details={"option": option, "similar": near},
    )
