"""``dispatch conformance codex``."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from dispatch_core.appserver import binary as binaries
from dispatch_core.daemon.lock import private_directory
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import PROJECTIONS
from dispatch_core.settings import CodexSection, Settings
from dispatch_plugins.cli import output
from dispatch_plugins.cli.invocation import is_terminal
from dispatch_plugins.cli.progress import StatusLine

if TYPE_CHECKING:
    from dispatch_core.conformance import Conformance
    from dispatch_plugins.cli.app import App

HELP = """Find out whether the installed Codex may be trusted with automatic repeats.

After a crash dispatch sends a message again by itself only if Codex's history proves that it did not run. That needs a Codex
that stores a message before it asks the model. This kills the installed Codex again and again at that very moment, offline and
in a directory of its own, and looks into its history. What comes of it is kept for this version.
"""
FAILED = PROJECTIONS["app_server"].exit_code
ROUNDS = 150


def command(app: App) -> click.Command:
    """Return the group of the command."""

    @click.group("conformance", help="Try out what dispatch relies on.")
    @click.pass_context
    def conformance(context: click.Context) -> None:
        app.settle(context)

    @conformance.command("codex", help=HELP)
    @click.option(
        "--rounds",
        type=click.IntRange(min=2),
        default=ROUNDS,
        show_default=True,
        help="How often Codex is killed. Fewer than 100 are not kept: they prove too little.",
    )
    @click.option(
        "--seed", type=int, help="Of the random moments; another one each time if left out."
    )
    @click.pass_context
    def codex(context: click.Context, rounds: int, seed: int | None) -> int:
        app.settle(context)
        chosen = random.randrange(2**31) if seed is None else seed  # noqa: S311 -- no secret
        answer = anyio.run(_try, app, rounds, chosen)
        output.result(app.invocation, answer, _text(answer))
        return 0 if answer["passed"] else FAILED

    return conformance


async def _try(app: App, rounds: int, seed: int) -> dict[str, Any]:
    # Imported for start-up: they bring the offline model along.
    from dispatch_core.conformance import try_codex
    from dispatch_core.daemon.proven import ENOUGH, ProvenVersions

    paths = Paths.from_env(app.invocation.env)
    configured = Settings.read(paths.config).section("codex", CodexSection).bin
    found = binaries.find_codex(configured, app.invocation.env)
    version = str(await binaries.codex_version(found.path))
    line = StatusLine(sys.stderr) if is_terminal(sys.stderr) else None

    def show(so_far: Conformance) -> None:
        if line is not None:
            line.show(
                f"round {so_far.rounds} of {rounds}: asked {so_far.asked}, stored {so_far.stored}"
            )

    with tempfile.TemporaryDirectory(prefix="d-") as directory:
        result = await try_codex(
            found.path, Path(directory), app.invocation.env, rounds=rounds, seed=seed, on_round=show
        )
    if line is not None:
        line.clear()
    facts = {
        "passed": result.passed,
        "rounds": result.rounds,
        "asked": result.asked,
        "stored": result.stored,
        "absent": result.absent,
        "seed": seed,
    }
    kept = result.rounds >= ENOUGH or not result.passed
    if kept:
        private_directory(paths.home)
        ProvenVersions(paths.home).record(version, facts)
    return {"version": version, "binary": str(found.path), **facts, "kept": kept}


def _text(answer: dict[str, Any]) -> str:
    done = (
        f"Codex {answer['version']}: killed {answer['rounds']} times; the model was asked {answer['asked']} times, "
        f"and {answer['stored']} of these messages were in the history"
    )
    if not answer["passed"]:
        return f"✗ {done}\n  messages of which nothing is known are left to you: dispatch delivery list --state unknown"
    kept = "" if answer["kept"] else "\n  too few rounds to be kept: leave --rounds out"
    return f"✓ {done}\n  a message that is not in the history did not run, and is sent again by itself{kept}"
