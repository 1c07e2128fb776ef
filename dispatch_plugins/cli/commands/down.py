"""``dispatch down``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatch_core.daemon import launch
from dispatch_core.daemon.paths import Paths
from dispatch_plugins.cli import output

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

HELP = """Stop the daemon and wait until it is gone.

Running turns are given time to end first.
"""


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("down", help=HELP)
    @click.option(
        "--grace",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long running turns may take to end; 0 interrupts them.",
    )
    @click.pass_context
    def down(context: click.Context, grace: float | None) -> int:
        app.settle(context)
        answer = launch.down(Paths.from_env(app.invocation.env), grace=grace)
        stopped = f"daemon stopped (pid {answer['pid']})"
        output.result(
            app.invocation, answer, stopped if answer["stopped"] else "the daemon is not running"
        )
        return 0

    return down
