"""``dispatch schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatch_core.errors import ValidationFailed
from dispatch_plugins.cli import output
from dispatch_plugins.cli.catalog import unknown
from dispatch_plugins.cli.names import words_of

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

HELP = """Print the JSON schemas of a command's input and output.

The command is given as it is typed, or by the name of its op (trigger add, trigger.add).
"""


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("schema", help=HELP)
    @click.argument("words", metavar="COMMAND", nargs=-1, required=True)
    @click.pass_context
    def schema(context: click.Context, words: tuple[str, ...]) -> int:
        app.settle(context)
        wanted = words_of(".".join(words))
        for op in app.catalog.visible:
            if words_of(op["name"]) == wanted:
                names = ("name", "summary", "intent", "schema_hash", "schema", "output_schema")
                output.result(app.invocation, {name: op[name] for name in names})
                return 0
        app.broken()
        message, hint, near = unknown(app.catalog, wanted)
        raise ValidationFailed(
            message, hint=hint, details={"command": " ".join(wanted), "similar": near}
        )

    return schema
