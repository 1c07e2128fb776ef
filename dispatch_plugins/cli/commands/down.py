"""``dispatch down``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatch_core.daemon import launch
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import DispatchError
from dispatch_core.settings import DaemonSection, Settings
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
        paths = Paths.from_env(app.invocation.env)
        answer = launch.down(paths, grace=configured(paths) if grace is None else grace)
        stopped = f"daemon stopped (pid {answer['pid']})"
        output.result(
            app.invocation, answer, stopped if answer["stopped"] else "the daemon is not running"
        )
        return 0

    return down


def configured(paths: Paths) -> float | None:
    """Return the seconds that the configuration gives running turns; None when it cannot be read."""
    try:
        return float(Settings.read(paths.config).section("daemon", DaemonSection).grace)
    except DispatchError:
        return None
