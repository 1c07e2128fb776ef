"""What a command costs: the whole process, on a regular install, against an interpreter that does nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measure import Goal, Result, interleave

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.world import World

ROUNDS = 25


def run(world: World) -> Iterable[Result]:
    """Measure ``dispatch list`` with a warm daemon, the help, and the least that a command can cost."""
    home = world.home()
    script = str(world.bin / "dispatch")
    commands = {
        "dispatch list": ([script, "list"], 7.0),
        "dispatch --help": ([script, "--help"], 8.0),
        "dispatch send --help": ([script, "send", "--help"], 8.0),
        "dispatch --version": ([script, "--version"], None),
    }
    with world.daemon(home):
        samples = interleave(
            world.rounds(ROUNDS),
            lambda: world.cost.of([world.python, "-c", "pass"], home.env),
            *(lambda argv=argv: world.cost.of(argv, home.env) for argv, _ in commands.values()),
            warmup=2,
        )
    for (name, (_, limit)), figure in zip(commands.items(), samples[1:], strict=True):
        yield Result(
            name=name,
            unit=world.cost.unit,
            figure=figure,
            floor=samples[0],
            floor_name="python -c pass",
            goal=Goal(of="ratio", at_most=limit) if limit else None,
        )
