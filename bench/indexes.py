"""What the benchmarks of the index share: an index over a corpus, outside the daemon."""

from __future__ import annotations

import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from dispatch_core.contracts.history import SearchQuery
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.history.sync_pass import SyncPass, Wish
from dispatch_plugins.registry.index.store import SqliteIndex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.corpus import Corpus
    from bench.world import World

MEGABYTE = 1_000_000
FILE_SIZE = 500_000  # bytes of a rollout in a large corpus


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="d-", dir="/tmp") as path:
        yield Path(path)


@contextmanager
def index_in(path: Path) -> Iterator[SqliteIndex]:
    """Yield a new index."""
    index = SqliteIndex(path / "index.db", path / "registry.db")
    index.connect()
    try:
        yield index
    finally:
        index.disconnect()


def build(index: SqliteIndex, corpus: Corpus) -> None:
    """Read everything into an index. Raises RuntimeError when something was left out."""
    work = SyncPass(index, corpus.home, SystemClock())
    report = work.run(work.plan(Wish(full=True)), progress=_nobody, stopped=_never)
    if report.documents != corpus.documents or report.problems:
        raise RuntimeError(f"{report.documents} of {corpus.documents} texts: {report.problems}")


def grep(world: World) -> tuple[list[str], str]:
    """Return the command that lists files with a fixed string, and its name: ripgrep, also the one that comes with Codex."""
    bundled = Path(world.codex).resolve().parent.parent / "codex-path" / "rg"
    found = which("rg") or (str(bundled) if bundled.exists() else None)
    if found is not None:
        return [found, "-l", "-F"], "rg -l -F"
    return ["grep", "-rlF"], "grep -rlF (no ripgrep here)"


def grep_time(command: list[str], text: str, corpus: Corpus) -> float:
    """Return the milliseconds that a search through the files takes."""
    began = time.perf_counter()
    done = subprocess.run(
        [*command, text, str(corpus.home / "sessions")], stdout=subprocess.PIPE, check=True
    )
    took = (time.perf_counter() - began) * 1000
    if not done.stdout:
        raise RuntimeError(f"{command} found nothing")
    return took


def query(text: str, **options: object) -> SearchQuery:
    """Return a query for a page of 20."""
    return SearchQuery(text=text, limit=20, **options)  # type: ignore[arg-type]


def _nobody(done: int, total: int) -> None:
    del done, total


def _never() -> bool:
    return False
