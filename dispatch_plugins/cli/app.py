"""What the commands of one command line share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dispatch_core.errors import RemoteError
from dispatch_plugins.cli.catalog import Catalog
from dispatch_plugins.cli.params import GLOBALS

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from dispatch_plugins.cli.fast import Plan
    from dispatch_plugins.cli.invocation import Invocation


class App:
    """One run of the command line; what the commands share.

    execute: runs the op that the command line asks for; confirmed says whether --yes was given, interactive whether a question
    may be asked otherwise.
    """

    def __init__(self, invocation: Invocation, execute: Callable[..., int] | None = None) -> None:
        self.invocation = invocation
        self.catalog = Catalog(invocation.manifest)
        self._execute = execute or _run

    def settle(self, context: click.Context) -> None:
        """Take the global options that were parsed, wherever they stood."""
        self.invocation.options = dict(context.meta.get(GLOBALS, {}))

    def execute(self, plan: Plan, *, confirmed: bool, interactive: bool) -> int:
        """Run an op."""
        return self._execute(self.invocation, plan, confirmed=confirmed, interactive=interactive)

    def offer(self, kind: str, incomplete: str) -> list[tuple[str, str]]:
        """Return what a shell may complete a value of a kind with, and what each is."""
        from dispatch_plugins.cli.suggest import suggestions

        return suggestions(self.invocation, kind, incomplete)

    def broken(self) -> None:
        """Raise the reason when the manifest could not be built."""
        error = self.invocation.manifest.get("error")
        if error is not None:
            raise RemoteError(error)

    def print_help(self, text: str) -> None:
        """Print help on stdout."""
        sys.stdout.write(text)


def _run(invocation: Invocation, plan: Plan, *, confirmed: bool, interactive: bool) -> int:
    from dispatch_plugins.cli.run import run  # imports the client, which help does not need

    return run(invocation, plan, confirmed=confirmed, interactive=interactive)
