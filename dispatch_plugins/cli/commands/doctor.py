"""``dispatch doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import PROJECTIONS
from dispatch_plugins.cli import output
from dispatch_plugins.cli.doctor import report
from dispatch_plugins.cli.doctor.checks import CHECKS
from dispatch_plugins.cli.doctor.screen import render

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

HELP = """Check the installation, Codex, the daemon and what dispatch remembers.

Every check that is not ok names the next command. The daemon is not started, no third-party plugin is loaded and no model is
asked. The exit status is 8 if a check failed, and 0 if there are warnings alone.

\b
dispatch doctor
dispatch doctor --fix
dispatch doctor --json --no-app-server
"""
FAILED = PROJECTIONS["codex_unavailable"].exit_code


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("doctor", help=HELP)
    @click.option(
        "--app-server/--no-app-server",
        "probe",
        default=True,
        help="Start an app-server in a home of its own and see what it can do.",
    )
    @click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=10.0,
        metavar="SECONDS",
        help="How long Codex, and the daemon, may take to answer; 10 when left out.",
    )
    @click.option(
        "--fix",
        is_flag=True,
        help="Do what is safe: remove a stale socket, make files private, build the list of commands anew.",
    )
    @click.pass_context
    def doctor(context: click.Context, probe: bool, timeout: float, fix: bool) -> int:
        app.settle(context)
        invocation = app.invocation
        subject = report.Subject(
            paths=Paths.from_env(invocation.env),
            env=invocation.env,
            manifest=invocation.manifest,
            cwd=_cwd(),
            probe=probe,
            timeout=timeout,
        )
        checks = report.examine(subject, CHECKS, fix=fix)
        text = render(checks, width=invocation.width(), color=invocation.color(sys.stdout))
        output.result(invocation, report.to_dict(checks), text)
        return FAILED if report.worst(checks) == "fail" else 0

    return doctor


def _cwd() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None
