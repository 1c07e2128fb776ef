"""A pass over 1,000 rollouts that are in the index already, against a bare look at all of them."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from bench import corpus as rollouts
from bench.indexes import build, folder, index_in
from bench.measure import Goal, Result, interleave
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.history.histories import Histories

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from anyio.from_thread import BlockingPortal

    from bench.corpus import Corpus
    from bench.world import World

ROUNDS = 25
FILES = 1000
SIZE = 6000  # bytes of a rollout, besides its first line
REPEATS = 5  # passes in a sample


def run(world: World) -> Iterable[Result]:
    """Measure a pass that finds nothing new, one that finds one message more, and one over a single known thread."""
    with folder() as path:
        corpus = rollouts.write(path, files=FILES, size=SIZE)
        with index_in(path) as index, anyio.from_thread.start_blocking_portal() as portal:
            build(index, corpus)
            histories = portal.call(partial(Histories, index, path, SystemClock()))
            only = [rollouts.native_id(FILES // 2)]
            for name, sample, at_most in (
                ("nothing new", partial(_pass, portal, histories, None, 0), 2.0),
                ("one message more", partial(_appended, portal, histories, corpus), 2.5),
                ("one thread only", partial(_pass, portal, histories, only, 0), None),
            ):
                figures, floors = interleave(
                    world.rounds(ROUNDS), sample, partial(_look, path / "sessions")
                )
                yield Result(
                    name=f"sync of {FILES} rollouts: {name}",
                    unit="ms",
                    figure=figures,
                    floor=floors,
                    floor_name="scandir and stat",
                    goal=None if at_most is None else Goal(of="ratio", at_most=at_most),
                )


def _look(root: Path) -> float:
    """Return the milliseconds that it takes to find all files and ask for their size and time."""
    began = time.perf_counter()
    for _ in range(REPEATS):
        folders, seen = [str(root)], 0
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        seen += entry.stat().st_size > 0
    if seen != FILES:
        raise RuntimeError(f"{seen} files")
    return (time.perf_counter() - began) * 1000 / REPEATS


def _pass(
    portal: BlockingPortal, histories: Histories, only: list[str] | None, changed: int
) -> float:
    return portal.call(_passes, histories, only, changed, REPEATS)


def _appended(portal: BlockingPortal, histories: Histories, corpus: Corpus) -> float:
    total = 0.0
    for number in range(REPEATS):
        rollouts.one_more_turn(corpus.files[number * 7], "one more message about the parser")
        total += portal.call(_passes, histories, None, 1, 1)
    return total / REPEATS


async def _passes(
    histories: Histories, only: list[str] | None, changed: int, repeats: int
) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        report = await histories.sync(native_ids=only)
    took = (time.perf_counter() - began) * 1000 / repeats
    if report.changed != changed:
        raise RuntimeError(f"{report.changed} rollouts have changed")
    return took
