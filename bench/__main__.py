"""Run the benchmarks: ``python -m bench [--quick] [--json FILE] [--only NAME]``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import (
    backlog,
    commands,
    control,
    enqueue,
    load,
    registry,
    search,
    start,
    sync,
    turn,
    waiting,
)
from bench.world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Result

BENCHMARKS = {
    "cli": commands.run,
    "control": control.run,
    "store": registry.store,
    "list": registry.command,
    "enqueue": enqueue.run,
    "backlog": backlog.run,
    "waiting": waiting.run,
    "start": start.run,
    "turn": turn.run,
    "sync": sync.run,
    "search": search.run,
    "load": load.run,
}
HEADER = ("figure", "median", "floor", "floor's median", "ratio (min-max)", "goal", "verdict")
GOALS = {"ratio": "≤ {:g}x", "excess": "≤ +{:g} {unit}", "figure": "≤ {:g} {unit}"}


def main() -> int:
    """Measure, print a table, and return 0 unless a benchmark could not run."""
    options = _parse()
    results: list[Result] = []
    failed = 0
    with World.open(quick=options.quick) as world:
        world.corpus = options.corpus
        about = _about(world)
        for name in options.only or BENCHMARKS:
            sys.stderr.write(f"measuring {name} …\n")
            try:
                results += BENCHMARKS[name](world)
            except Exception:
                traceback.print_exc()
                failed += 1
    sys.stdout.write(table(results, about))
    if options.json:
        lines = [_as_dict(result) for result in results]
        options.json.write_text(json.dumps({"about": about, "results": lines}, indent=2) + "\n")
    return 1 if failed else 0


def table(results: list[Result], about: dict[str, str]) -> str:
    """Return the results as a Markdown table, readable as it is, between a line about the machine and one about the goals."""
    rows = [HEADER, *(_row(result) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"| {' | '.join(map(str.ljust, row, widths))} |"
        for row in (rows[0], _rule(widths), *rows[1:])
    ]
    machine = ", ".join(f"{name} {value}" for name, value in about.items())
    return "\n".join([machine, "", *lines, "", _summary(results), ""])


def _rule(widths: Sequence[int]) -> list[str]:
    return ["-" * width for width in widths]


def _summary(results: list[Result]) -> str:
    goals = [result for result in results if result.goal is not None]
    missed = [result.name for result in goals if result.verdict == "missed"]
    text = f"{len(goals) - len(missed)} of {len(goals)} goals are met"
    return f"{text}; missed: {', '.join(missed)}" if missed else text


def _row(result: Result) -> list[str]:
    ratios = result.ratios
    goal = "-"
    verdict = result.verdict
    if result.goal is not None:
        goal = GOALS[result.goal.of].format(result.goal.at_most, unit=result.unit)
        if result.goal.of == "excess":
            verdict += f" (+{result.judged:.2f} {result.unit})"
    return [
        result.name,
        f"{_figure(result.figure)} {result.unit}",
        result.floor_name,
        f"{_figure(result.floor)} {result.unit}",
        f"{_ratio(statistics.median(ratios))} ({_ratio(min(ratios))}-{_ratio(max(ratios))})",
        goal,
        verdict,
    ]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _figure(samples: Sequence[float]) -> str:
    median = statistics.median(samples)
    return f"{median:.1f}" if median >= 1 else f"{median:.3f}"


def _as_dict(result: Result) -> dict[str, Any]:
    return {
        "name": result.name,
        "unit": result.unit,
        "figure": list(result.figure),
        "floor": list(result.floor),
        "floor_name": result.floor_name,
        "ratio": statistics.median(result.ratios),
        "judged": result.judged,
        "goal": None if result.goal is None else [result.goal.of, result.goal.at_most],
        "verdict": result.verdict,
    }


def _about(world: World) -> dict[str, str]:
    version = subprocess.run(
        [world.codex, "--version"], capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    return {
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "Codex": version,
        "CPUs": str(os.cpu_count()),
        "processes in": world.cost.unit,
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the rounds")
    parser.add_argument(
        "--corpus", type=int, default=50, metavar="MB", help="rollouts to search in (50)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument(
        "--only", action="append", choices=list(BENCHMARKS), help="one benchmark; repeatable"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
