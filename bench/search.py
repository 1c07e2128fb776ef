"""The index: how fast it is built and how large it is, and how fast it answers, against ripgrep over the same files."""

from __future__ import annotations

import sqlite3
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from bench import corpus as rollouts
from bench.indexes import FILE_SIZE, MEGABYTE, build, folder, grep, grep_time, index_in, query
from bench.measure import Goal, Result, interleave
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.history.histories import Histories
from dispatch_core.engine.history.sync_source import Job, read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anyio.from_thread import BlockingPortal

    from bench.corpus import Corpus
    from bench.world import World
    from dispatch_core.contracts.history import Document, SearchQuery

ROUNDS = 15
REPEATS = 20  # searches in a sample
LARGE = 500  # MB from which the goals of a search are asked for
BATCH = 100  # documents in a transaction of whoever does not think about it


def run(world: World) -> Iterable[Result]:
    """Measure build, size and searches on a corpus of ``--corpus`` megabytes."""
    with folder() as path:
        files = max(1, world.corpus * MEGABYTE // FILE_SIZE)
        corpus = rollouts.write(path, files=files, size=FILE_SIZE)
        yield from _building(world, corpus)
        with index_in(path) as index:
            build(index, corpus)
        yield Result(
            name=f"index of {world.corpus} MB",
            unit="MB",
            figure=[(path / "index.db").stat().st_size / MEGABYTE],
            floor=[corpus.bytes / MEGABYTE],
            floor_name="the rollouts",
            goal=Goal(of="ratio", at_most=0.4),
        )
        yield from _searching(world, corpus)


def _building(world: World, corpus: Corpus) -> Iterable[Result]:
    """A build with ours against FTS5 as it comes, with a small hash table and small transactions; the reader is the same."""
    read, ours, defaults = _Clocks(), _Clocks(), _Clocks()
    interleave(
        world.rounds(ROUNDS),
        lambda: read(_read, corpus),
        lambda: ours(_ours, corpus),
        lambda: defaults(_defaults, corpus),
    )
    for name, figures, floors, goal in (
        (
            ", without the reading",
            _less(ours.wall, read.wall),
            _less(defaults.wall, read.wall),
            Goal(of="ratio", at_most=0.5),
        ),
        ("", ours.wall, defaults.wall, None),
        (", CPU time", ours.cpu, defaults.cpu, None),
    ):
        yield Result(
            name=f"index build of {world.corpus} MB{name}",
            unit="ms",
            figure=figures[1:],  # the first round warms up
            floor=floors[1:],
            floor_name=f"FTS5 defaults, {BATCH} texts in a transaction",
            goal=goal,
        )


class _Clocks:
    """Both times of what is called, in milliseconds."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def __call__(self, work: Callable[[Corpus], None], corpus: Corpus) -> float:
        began = time.perf_counter(), time.process_time()
        work(corpus)
        self.wall.append((time.perf_counter() - began[0]) * 1000)
        self.cpu.append((time.process_time() - began[1]) * 1000)
        return self.wall[-1]


def _less(samples: list[float], part: list[float]) -> list[float]:
    return [sample - taken for sample, taken in zip(samples, part, strict=True)]


def _read(corpus: Corpus) -> None:
    for _ in _documents(corpus):
        pass


def _documents(corpus: Corpus) -> Iterable[Document]:
    for file in corpus.files:
        stat = file.stat()
        job = Job(str(file), stat, None, [(0, stat.st_size)], anew=True)
        for change, _ in read_source(job, None, SystemClock().now()):
            yield from change.documents


def _ours(corpus: Corpus) -> None:
    with folder() as path, index_in(path) as index:
        build(index, corpus)


def _defaults(corpus: Corpus) -> None:
    """Index the same documents, read by the same reader, with SQLite and FTS5 as they are."""
    with folder() as path:
        connection = sqlite3.connect(path / "plain.db", isolation_level=None)
        connection.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='')")
        connection.execute("BEGIN")
        for number, document in enumerate(_documents(corpus), 1):
            row = (number, document.text)
            connection.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", row)
            if number % BATCH == 0:
                connection.execute("COMMIT")
                connection.execute("BEGIN")
        connection.execute("COMMIT")
        connection.close()


def _searching(world: World, corpus: Corpus) -> Iterable[Result]:
    command, name = grep(world)
    large = world.corpus >= LARGE
    with index_in(corpus.home) as index, anyio.from_thread.start_blocking_portal() as portal:
        histories = portal.call(partial(Histories, index, corpus.home, SystemClock()))
        for title, asked, word, at_most in (
            ("needle", query(rollouts.NEEDLE), rollouts.NEEDLE, 1 / 200),
            (
                "common word, ranked",
                query(rollouts.COMMON, sort="relevance"),
                rollouts.COMMON,
                0.5,
            ),
            ("common word, newest first", query(rollouts.COMMON), rollouts.COMMON, None),
        ):
            figures, floors = interleave(
                world.rounds(ROUNDS),
                partial(_search, portal, histories, asked),
                partial(grep_time, command, word, corpus),
            )
            yield Result(
                name=f"search {world.corpus} MB: {title}",
                unit="ms",
                figure=figures,
                floor=floors,
                floor_name=name,
                goal=Goal(of="ratio", at_most=at_most) if at_most and large else None,
            )


def _search(portal: BlockingPortal, histories: Histories, asked: SearchQuery) -> float:
    """Return the milliseconds of a search with its snippets, as the daemon does it; the look for news is a figure of its own."""
    return portal.call(_searches, histories, asked)


async def _searches(histories: Histories, asked: SearchQuery) -> float:
    histories.note(0, looked=True)
    began = time.perf_counter()
    for _ in range(REPEATS):
        page = await histories.search(asked)
    took = (time.perf_counter() - began) * 1000 / REPEATS
    if not page.hits or "\x02" not in page.hits[0].snippet:
        raise RuntimeError("nothing was found")
    return took
