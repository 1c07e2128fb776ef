"""The process half of the command line."""

from __future__ import annotations

import os
import sys

from dispatch_plugins.cli import fast, output
from dispatch_plugins.cli.invocation import Invocation

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def main(argv: list[str], manifest: Mapping[str, Any]) -> int:
    """Run one command and return its exit status.

    argv: without the program's name. A manifest with an "error" could not be built; commands that need no op still work.
    """
    invocation = Invocation(manifest, os.environ)
    try:
        completing = "_DISPATCH_COMPLETE" in os.environ
        plan = None if completing else fast.parse(argv, manifest)
        if plan is not None:
            from dispatch_plugins.cli.run import run

            invocation.options = plan.options
            return run(invocation, plan)
        page = None if completing else _help(argv, invocation)
        if page is not None:
            sys.stdout.write(page)
            return 0
        from dispatch_plugins.cli import command_line
        from dispatch_plugins.cli.app import App

        return command_line.run(App(invocation), argv)
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 -- the border of the process
        return _failed(invocation, argv, error)


def _help(argv: list[str], invocation: Invocation) -> str | None:
    """Return the help that a plain command line asks for."""
    if argv and argv[-1] not in ("-h", "--help"):
        return None
    from dispatch_plugins.cli.help import page

    return page(argv, invocation.manifest, invocation.width())


def _failed(invocation: Invocation, argv: list[str], error: Exception) -> int:
    from dispatch_core.errors import DispatchError

    if not invocation.options:
        invocation.guess(argv)
    if invocation.debug:
        sys.excepthook(type(error), error, error.__traceback__)
    if not isinstance(error, DispatchError):
        # The border: a mistake of ours is an answer too.
        error = DispatchError(
            f"this should not have happened: {type(error).__name__}: {error}",
            hint="the same command with --debug shows where",
        )
    return output.failure(invocation, error)
