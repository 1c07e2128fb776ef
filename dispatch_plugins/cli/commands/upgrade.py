"""``dispatch upgrade``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dispatch_core.daemon.paths import Paths
from dispatch_core.daemon.upgrade import begin, upgrade
from dispatch_core.plugin import manifest as manifests
from dispatch_core.settings import DaemonSection, Settings
from dispatch_plugins.cli import output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dispatch_plugins.cli.app import App

HELP = """Let the build that is installed now take over from the daemon that runs.

Use it after installing another version or a plugin while something runs; an
idle daemon is replaced by the next command anyway. First it makes sure that
the installed build can start. Then the daemon takes no new work, running turns
get time to end and are interrupted after that, and the new daemon goes on with
what waits.

\b
dispatch upgrade
dispatch upgrade --grace 300
dispatch upgrade --no-wait
"""


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("upgrade", help=HELP)
    @click.option(
        "--grace",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long running turns may take to end; 0 interrupts them.",
    )
    @click.option(
        "--no-wait",
        is_flag=True,
        help="Return as soon as the installed build is known to start; the rest goes on by itself.",
    )
    @click.pass_context
    def run(context: click.Context, grace: float | None, no_wait: bool) -> int:
        app.settle(context)
        app.broken()
        paths = Paths.from_env(app.invocation.env)
        if grace is None:
            grace = float(Settings.read(paths.config).section("daemon", DaemonSection).grace)
        known = str(manifests.identity(app.invocation.manifest))
        answer = (
            begin(paths, known, grace=grace)
            if no_wait
            else upgrade(paths, known, grace=grace, note=output.note)
        )
        output.result(app.invocation, answer, _text(answer))
        return 0

    return run


def _text(answer: Mapping[str, Any]) -> str:
    old, new = answer["from"], answer["to"]
    if answer["status"] == "not_running":
        return "no daemon is running; the next command starts the build that is installed"
    if answer["status"] == "current":
        return f"the daemon (pid {old['pid']}) runs what is installed; nothing was done\n  {_build(old)}"
    if answer["status"] == "upgrading":
        return (
            f"the daemon (pid {old['pid']}) is being replaced by the installed build\n"
            f"  from  {_build(old)}\n"
            "  next: dispatch daemon status; dispatch up waits for it"
        )
    mode = ", offline" if answer["offline"] else ""
    state = "" if answer["state"] == "ready" else f", {answer['state']}"
    lines = [
        f"daemon upgraded in {answer['seconds']:.1f} s (pid {new['pid']}{mode}{state})",
        f"  from  {_build(old)}",
        f"  to    {_build(new)}",
        *_ended(answer),
    ]
    if answer["state"] == "degraded":
        lines.append("  next: dispatch daemon status says what is missing and what to do")
    return "\n".join(lines)


def _ended(answer: Mapping[str, Any]) -> Iterator[str]:
    interrupted, sessions, queued = answer["interrupted"], answer["sessions"], answer["queued"]
    if interrupted:
        yield f"  interrupted: {', '.join(map(output.printable, interrupted))}"
        yield f"  next: dispatch send {output.printable(interrupted[0])} TEXT goes on"
    if sessions:
        yield f"  ended: {_count(sessions, 'session')} (dispatch mcp); clients open another"
    if queued:
        yield f"  queue: {_count(queued, 'message')} waiting, and going on"


def _build(build: Mapping[str, Any]) -> str:
    return f"{build['version']} (build {build['build']})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
