"""The command line through click: help, every form of option, and what to say when it is wrong."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from dispatch_core.errors import Declined, ValidationFailed
from dispatch_plugins.cli.group import Root
from dispatch_plugins.cli.names import PROGRAM

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

COMPLETE_VAR = "_DISPATCH_COMPLETE"


def run(app: App, argv: list[str]) -> int:
    """Run one command and return its exit status. Raises DispatchError for a command line that is wrong."""
    root = Root(app)
    instruction = os.environ.get(COMPLETE_VAR)
    if instruction:
        from click.shell_completion import shell_complete

        from dispatch_plugins.cli import shells

        shells.install()
        return shell_complete(root, {}, PROGRAM, COMPLETE_VAR, instruction)
    try:
        with root.make_context(PROGRAM, list(argv)) as context:
            return int(root.invoke(context) or 0)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        raise Declined("declined; nothing was done") from None
    except click.ClickException as error:
        raise usage_error(error, argv) from None


def usage_error(error: click.ClickException, argv: list[str]) -> ValidationFailed:
    """Return our own error for what click found wrong."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else PROGRAM
    hint = f"{path} --help shows what it takes"
    message = error.format_message()
    details: dict[str, object] = {}
    if isinstance(error, click.NoSuchOption):
        name = _as_typed(error.option_name, argv)
        message = f"{path} has no option {name}"
        details["option"] = name
        if error.possibilities:
            hint = f"did you mean {' or '.join(error.possibilities)}? {hint}"
        elif " " in name or not name.startswith("--"):
            hint = f"put -- before text that begins with a dash; {hint}"
    elif isinstance(error, click.BadOptionUsage):
        message = f"{path}: {message[:1].lower()}{message[1:].rstrip('.')}"
        details["option"] = error.option_name
    elif isinstance(error, click.BadParameter):
        param = error.param
        name = param.opts[0] if param is not None else str(error.param_hint or "")
        message = f"{path} {name}: {error.message.rstrip('.')}"
        details["option"] = name
    return ValidationFailed(message, hint=hint, details=details)


def _as_typed(option: str, argv: list[str]) -> str:
    """Return the whole word in which click found an option that does not exist; -hello is no -e to anybody."""
    if option.startswith("--"):
        words = [word for word in argv if word.partition("=")[0] == option]
    else:
        words = [word for word in argv if word[:1] == "-" and option[1:] in word[1:]]
    return words[0] if words else option
