"""A pass over the histories on disk: what is new in the files goes into the index.

Everything here blocks, and runs in a worker thread or in a process of its own.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from dispatch_core.appserver import rollout_tree
from dispatch_core.contracts.history import SyncReport
from dispatch_core.engine.history.sync_source import WINDOW, Job, read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from dispatch_core.appserver.rollout_tree import Tree
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.history import Checkpoint, HistoryIndex, SourceChange

GROUP: Final = 64 * 1024 * 1024  # bytes that are read in the order of their age


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pass is to do. native_ids: only these threads. full: the whole of every source."""

    native_ids: tuple[str, ...] | None = None
    full: bool = False


@dataclass(slots=True)
class Plan:
    """What a look at the files found to be done. sources: how many there are. moved: from where to where.

    began: when the look began, on the monotonic clock.
    """

    sources: int
    began: float
    jobs: list[Job] = field(default_factory=list)
    moved: list[tuple[str, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many bytes are to be read."""
        return sum(job.size for job in self.jobs)


@dataclass(slots=True)
class Counts:
    """What has been done so far."""

    done: int = 0
    new: int = 0
    changed: int = 0
    documents: int = 0
    bytes_read: int = 0
    problems: list[str] = field(default_factory=list)

    def count(self, job: Job) -> None:
        """Count a source that has been read to its end."""
        self.done += 1
        if job.before is None:
            self.new += 1
        else:
            self.changed += 1


class SyncPass:
    """Passes over one Codex home with one index; the titles of threads are kept in between."""

    def __init__(self, index: HistoryIndex, codex_home: Path, clock: Clock) -> None:
        self._index = index
        self._codex_home = codex_home
        self._clock = clock
        self._titles = rollout_tree.Titles(codex_home)

    def plan(self, wish: Wish) -> Plan:
        """Find out what is to be done, from names and stats alone."""
        began = time.monotonic()
        known = self._index.checkpoints()
        if wish.native_ids is None:
            tree = rollout_tree.walk(self._codex_home, known)
        else:
            tree = rollout_tree.look_for(self._codex_home, known, wish.native_ids)
        plan = Plan(tree.seen, began)
        missing = _missing(known, tree, wish, plan)
        _pair(known, tree, missing, plan, full=wish.full)
        if wish.full:
            plan.jobs += (
                Job(path, None, known[path], [gap])
                for path in tree.unchanged
                if (gap := known[path].gap) is not None
            )
        _report(known, tree, plan)
        return plan

    def run(
        self, plan: Plan, *, progress: Callable[[int, int], None], stopped: Callable[[], bool]
    ) -> SyncReport:
        """Do what was planned and say what was done; stopped, asked between portions, ends it early with what was read so far.

        Raises StorageError; what was committed before stays.
        """
        counts = Counts()
        for before, after in plan.moved:
            self._index.moved(before, after, archived=rollout_tree.is_archived(after))
        if plan.gone:
            self._index.forget(plan.gone)
        if plan.jobs:
            fresh = sorted((j.path for j in plan.jobs if j.before is None), key=os.path.basename)
            if len(fresh) > 1:
                self._index.expect(fresh)
            counts.documents = self._index.apply(self._changes(plan, counts, progress, stopped))
        titles, news = self._titles.read()
        if titles and (news or counts.new):
            self._index.name(titles)
        return SyncReport(
            sources=plan.sources,
            changed=counts.changed,
            new=counts.new,
            moved=len(plan.moved),
            gone=len(plan.gone),
            documents=counts.documents,
            bytes_read=counts.bytes_read,
            seconds=time.monotonic() - plan.began,
            problems=(*plan.problems, *counts.problems),
        )

    def _changes(
        self,
        plan: Plan,
        counts: Counts,
        progress: Callable[[int, int], None],
        stopped: Callable[[], bool],
    ) -> Iterator[SourceChange]:
        for job in _in_order(plan.jobs):
            known = self._index.source(job.path) if job.before is not None else None
            for change, length in read_source(job, known, self._clock.now()):
                counts.bytes_read += length
                if change.source.error is not None:
                    counts.problems.append(f"{job.path}: {change.source.error}")
                yield change
                if stopped():
                    return
            counts.count(job)
            progress(counts.done, len(plan.jobs))


def _in_order(jobs: list[Job]) -> Iterator[Job]:
    """Iterate over groups of jobs, the newest threads first, and over each group in the order of age.

    Whoever stops early has the newest histories; an index takes large groups best in one order.
    """
    newest_first = sorted(jobs, key=lambda job: os.path.basename(job.path), reverse=True)  # noqa: PTH119
    group: list[Job] = []
    size = 0
    for job in newest_first:
        group.append(job)
        size += job.size
        if size >= GROUP:
            yield from reversed(group)
            group, size = [], 0
    yield from reversed(group)


def _missing(known: Mapping[str, Checkpoint], tree: Tree, wish: Wish, plan: Plan) -> list[str]:
    """Return the known sources that are not there any more, without those that merely cannot be seen."""
    missing = known.keys() - tree.unchanged
    missing.difference_update([path for path, _ in tree.changed])
    missing -= tree.compressed
    missing -= tree.unreadable.keys()
    if wish.native_ids is not None:
        missing = {path for path in missing if any(i in path for i in wish.native_ids)}
    for folder in [*tree.unreadable, *tree.bare]:
        unseen = {path for path in missing if path.startswith(folder + os.sep)}
        missing -= unseen
        if unseen and folder in tree.bare:
            plan.problems.append(
                f"{folder} is empty, but {len(unseen)} histories in it are in the index: they are kept"
            )
    return sorted(missing)


def _pair(
    known: Mapping[str, Checkpoint], tree: Tree, missing: list[str], plan: Plan, *, full: bool
) -> None:
    """Tell files that moved from new ones and from those that are gone."""
    by_inode = {known[path].inode: path for path in missing}
    for path, stat in tree.changed:
        before = known.get(path)
        came_from = by_inode.get(stat.st_ino) if before is None else None
        if came_from is not None and _same_segment(came_from, path):
            plan.moved.append((came_from, path))
            missing.remove(came_from)
            before = known[came_from]
        job = _job(path, stat, before, full=full)
        if job is not None:
            plan.jobs.append(job)
    plan.gone = missing


def _same_segment(before: str, after: str) -> bool:
    names = rollout_tree.parse_name(before), rollout_tree.parse_name(after)
    return names[0] is not None and names[0] == names[1]


def _job(path: str, stat: os.stat_result, before: Checkpoint | None, *, full: bool) -> Job | None:
    """Return what is to be read of a file that is not as it was; None for one that only moved."""
    size = stat.st_size
    if before is None or before.inode != stat.st_ino or size < before.offset or not before.offset:
        if full or size <= 2 * WINDOW:
            return Job(path, stat, before, [(0, size)], anew=True)
        return Job(path, stat, before, [(0, WINDOW), (size - WINDOW, size)], anew=True)
    ranges = [before.gap] if full and before.gap is not None else []
    if (before.size, before.mtime_ns) != (size, stat.st_mtime_ns):
        ranges.append((before.offset, size))
    return Job(path, stat, before, ranges) if ranges else None


def _report(known: Mapping[str, Checkpoint], tree: Tree, plan: Plan) -> None:
    for folder, reason in tree.unreadable.items():
        expected = any(path.startswith(folder + os.sep) for path in known)
        if expected or reason != rollout_tree.MISSING:
            plan.problems.append(f"{folder}: {reason}; what is known of it is kept")
    unread = len(tree.compressed - known.keys())
    if unread:
        plan.problems.append(f"{unread} rollouts are compressed, which cannot be read here")
