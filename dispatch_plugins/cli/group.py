"""The click commands, built one at a time from the manifest."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from dispatch_core.errors import ValidationFailed
from dispatch_plugins.cli.arguments import gather
from dispatch_plugins.cli.catalog import unknown
from dispatch_plugins.cli.fast import Plan
from dispatch_plugins.cli.fields import fields_of
from dispatch_plugins.cli.help import NAMES, columns, group_help, op_help, root_help
from dispatch_plugins.cli.names import NATIVE, PROGRAM, command_of
from dispatch_plugins.cli.params import (
    WORDS,
    global_options,
    names_of,
    options_for,
    own_options,
    values_from,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_plugins.cli.app import App

HELP_NAMES = {"help_option_names": list(NAMES)}


class Root(click.Group):
    """``dispatch``: every op, the native commands and the other surfaces, built when they are asked for."""

    def __init__(self, app: App) -> None:
        super().__init__(
            PROGRAM,
            params=global_options(root=True),
            context_settings={**HELP_NAMES, "terminal_width": columns(app.invocation.width())},
            invoke_without_command=True,
            callback=self._without_command,
        )
        self.app = app

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every first word."""
        del ctx
        return self.app.catalog.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command that a first word names."""
        del ctx
        catalog = self.app.catalog
        if cmd_name in NATIVE:
            return native(self.app, cmd_name)
        if cmd_name in catalog.ops:
            return OpCommand(self.app, catalog.ops[cmd_name], cmd_name)
        if cmd_name in catalog.groups:
            return OpGroup(self.app, cmd_name, catalog.groups[cmd_name])
        for surface in catalog.surfaces:
            if (
                surface["name"] == cmd_name
            ):  # only for completion: boot hands over to it before click is asked
                return click.Command(cmd_name, short_help=surface["summary"])
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or raise ValidationFailed with what may have been meant."""
        return _resolve(self.app, self, ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help that lists everything."""
        del ctx
        return root_help(self.app.catalog, self.app.invocation.width()).rstrip("\n")

    def _without_command(self) -> int:
        context = click.get_current_context()
        if context.invoked_subcommand is None:
            click.echo(self.get_help(context))
        return 0


class OpGroup(click.Group):
    """The ops whose names share what stands before the dot."""

    def __init__(self, app: App, name: str, ops: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(
            name,
            params=global_options(),
            context_settings=HELP_NAMES,
            no_args_is_help=False,
            short_help=f"{', '.join(ops)}",
        )
        self.app = app
        self.ops = ops

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the second words."""
        del ctx
        return sorted(self.ops)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command that a second word names."""
        del ctx
        op = self.ops.get(cmd_name)
        return None if op is None else OpCommand(self.app, op, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse a group without a command, naming its commands."""
        rest = super().parse_args(ctx, args)
        if not rest and not ctx._protected_args and not ctx.resilient_parsing:
            raise ValidationFailed(
                f"dispatch {self.name} needs a command: {', '.join(sorted(self.ops))}",
                hint=f"dispatch {self.name} --help explains them",
            )
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command, or raise ValidationFailed with what may have been meant."""
        return _resolve(self.app, self, ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help that lists the commands of the group."""
        del ctx
        return group_help(str(self.name), self.ops, self.app.invocation.width()).rstrip("\n")


class OpCommand(click.Command):
    """One op, with its options built from the schema of its input."""

    def __init__(self, app: App, op: Mapping[str, Any], word: str) -> None:
        self.app = app
        self.op = op
        self.fields = fields_of(op["schema"])
        params = options_for(self.fields, app.offer)
        params += own_options(op, names_of(params))
        params += global_options(names_of(params))
        super().__init__(word, params=params, context_settings=HELP_NAMES, short_help=op["summary"])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options; click's parser does not say itself which command it was parsing."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def invoke(self, ctx: click.Context) -> int:
        """Run the op with what was parsed."""
        words = ctx.params.get(WORDS) or ()
        values = gather(
            command_of(self.op["name"]), self.fields, words, values_from(self.fields, ctx)
        )
        self.app.settle(ctx)
        plan = Plan(
            self.op,
            self.fields,
            values,
            dict(self.app.invocation.options),
            follow=ctx.params.get("follow"),
        )
        confirmed, interactive = ctx.params.get("confirmed"), not ctx.params.get("no_interactive")
        return self.app.execute(plan, confirmed=bool(confirmed), interactive=interactive)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help of the op."""
        del ctx
        owner = self.app.catalog.owner(self.op)
        width = self.app.invocation.width()
        return op_help(self.op, self.fields, owner=owner, width=width).rstrip("\n")


def native(app: App, name: str) -> click.Command:
    """Return a command that is no op, imported when it is asked for."""
    module = NATIVE[name][0]
    __import__(module)
    command: click.Command = sys.modules[module].command(app)
    command.params += global_options(names_of(command.params))
    command.context_settings = {**HELP_NAMES, **command.context_settings}
    return command


def _resolve(
    app: App, group: click.Group, ctx: click.Context, args: list[str]
) -> tuple[str | None, click.Command | None, list[str]]:
    name = args[0]
    command = group.get_command(ctx, name) or group.get_command(ctx, name.replace("_", "-"))
    if command is None and not ctx.resilient_parsing:
        app.broken()
        words = [name] if ctx.parent is None else [str(group.name), name]
        message, hint, near = unknown(app.catalog, words)
        raise ValidationFailed(
            message, hint=hint, details={"command": " ".join(words), "similar": near}
        )
    return (command.name if command else None), command, args[1:]
