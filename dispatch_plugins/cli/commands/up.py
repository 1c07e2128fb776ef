"""``dispatch up``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatch_core.daemon import handover, launch
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import ValidationFailed
from dispatch_core.plugin import manifest as manifests
from dispatch_plugins.cli import output

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

HELP = """Start the daemon.

Does nothing when one is running. Other commands start it too, so this is only needed for --offline.
"""


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("up", help=HELP)
    @click.option(
        "--offline",
        is_flag=True,
        help="Use a stand-in for the language model; no account is needed.",
    )
    @click.pass_context
    def up(context: click.Context, offline: bool) -> int:
        app.settle(context)
        paths = Paths.from_env(app.invocation.env)
        handover.wait(paths)
        answer = launch.up(paths, offline=offline)
        known = manifests.identity(app.invocation.manifest)
        answer["stale"] = known is not None and answer.pop("identity") != known
        if answer["state"] == "starting":
            answer["state"] = launch.settled_state(paths)
        if offline and not answer["offline"]:
            raise ValidationFailed(
                f"a daemon (pid {answer['pid']}) is running already, and not offline",
                hint="dispatch down stops it; or set DISPATCH_HOME to start another one beside it",
                details=answer,
            )
        started = "started" if answer["started"] else "is running already"
        mode = ", offline" if answer["offline"] else ""
        state = "" if answer["state"] in (None, "ready") else f", {answer['state']}"
        text = f"daemon {started} (pid {answer['pid']}{mode}{state})"
        if answer["state"] == "degraded":
            text += "\n  next: dispatch daemon status says what is missing and what to do"
        elif answer["stale"]:
            text += "\n  it runs another build or other plugins\n  next: dispatch upgrade"
        output.result(app.invocation, answer, text)
        return 0

    return up
