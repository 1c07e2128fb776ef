"""``dispatch help``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatch_core.contracts.view import broken
from dispatch_core.errors import PROJECTIONS
from dispatch_plugins.cli import command_line, output

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

HELP = """Explain a command, or the exit codes.

\b
dispatch help send
dispatch help trigger add
dispatch help exit-codes
"""
EXIT_CODES = "exit-codes"
MEANINGS = {
    0: "done",
    1: "something went wrong inside",
    2: "the command line or the input is wrong; nothing was done",
    3: "a person said no",
    4: "there is no such thing",
    5: "something else comes first, or it is not in the state that this needs",
    6: "a person must approve something first",
    7: "this caller may not do it",
    8: "Codex or the daemon cannot be reached, or refused",
    9: "files could not be prepared",
    10: "it may have happened: do not simply repeat it",
    11: "the wait ended, the work goes on",
    12: "some of it was done, some was not",
    13: "a plugin broke its contract",
    130: "interrupted with Ctrl-C",
    141: "the reader of the output went away",
}


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("help", help=HELP)
    @click.argument("words", metavar="[COMMAND | exit-codes]", nargs=-1)
    @click.pass_context
    def explain(context: click.Context, words: tuple[str, ...]) -> int:
        app.settle(context)
        if words == (EXIT_CODES,):
            table = exit_codes()
            output.result(
                app.invocation, {"exit_codes": table}, _text(table, app.invocation.width())
            )
            return 0
        return command_line.run(app, [*words, "--help"])

    return explain


def exit_codes() -> list[dict[str, object]]:
    """Return every exit code as {exit_code, meaning, codes: [{code, retryable}]}, in order."""
    table: list[dict[str, object]] = []
    for number in sorted({*MEANINGS, *(p.exit_code for p in PROJECTIONS.values())}):
        codes = [
            {"code": code, "retryable": projection.retryable}
            for code, projection in PROJECTIONS.items()
            if projection.exit_code == number
        ]
        table.append({"exit_code": number, "meaning": MEANINGS.get(number, ""), "codes": codes})
    return table


def _text(table: list[dict[str, object]], width: int) -> str:
    lines = ["Exit codes, and the error codes behind them (* = safe to retry):", ""]
    for row in table:
        lines.append(f"{row['exit_code']:>5}  {row['meaning']}")
        codes = row["codes"]
        if isinstance(codes, list) and codes:
            names = (f"{code['code']}{'*' if code['retryable'] else ''}" for code in codes)
            lines.append(broken(f"       {', '.join(names)}", width, indent=" " * 7))
    return "\n".join(lines)
