"""Reading one source from where it was left, in portions that each say how far they reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final

from dispatch_core.appserver import rollout, rollout_tree
from dispatch_core.contracts.history import (
    Checkpoint,
    HistorySource,
    SourceChange,
    SourceFacts,
    SyncState,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from datetime import datetime

    from dispatch_core.contracts.history import Document

WINDOW: Final = 256 * 1024  # bytes read of each end of a long source that is new
PORTION: Final = 2 * 1024 * 1024  # bytes read between two checkpoints
NO_SIZE: Final = -1  # the size of a source that could not be read: the next pass tries again


@dataclass(slots=True)
class Job:
    """A source that is to be read. ranges: of bytes; one before the checkpoint's offset is its gap, and comes first.

    stat: None for a file that is as it was. anew: what was read before counts no more.
    """

    path: str
    stat: os.stat_result | None
    before: Checkpoint | None
    ranges: list[tuple[int, int]]
    anew: bool = False

    @property
    def size(self) -> int:
        """How many bytes are to be read."""
        return sum(end - start for start, end in self.ranges)


def read_source(
    job: Job, known: HistorySource | None, now: datetime
) -> Iterator[tuple[SourceChange, int]]:
    """Iterate over what was read, each with the number of bytes. Nothing for a file that has gone meanwhile.

    known: what the index has of it. A file that cannot be read becomes a change with an error in it.
    """
    try:
        with open(job.path, "rb") as file:  # noqa: PTH123 -- thousands of files
            if known is None or not _continues(file, known.checkpoint):
                yield from _Reading(_anew(job), None, now).read(file)
            else:
                yield from _Reading(job, known, now).read(file)
    except FileNotFoundError:
        return
    except OSError as error:
        yield _failed(job, known, now, error.strerror or str(error)), 0


class _Reading:
    """One source being read: how far, and what is known of it by now."""

    def __init__(self, job: Job, known: HistorySource | None, now: datetime) -> None:
        self._job = job
        self._now = now
        self._drop = job.anew
        fresh = known is None or job.anew
        self._facts = _blank(job.path) if known is None or fresh else known.facts
        self._at = _start(job) if known is None or fresh else known.checkpoint

    def read(self, file: BinaryIO) -> Iterator[tuple[SourceChange, int]]:
        for number, (start, end) in enumerate(self._job.ranges, 1):
            last = number == len(self._job.ranges)
            if self._at.gap is not None and start == self._at.gap[0]:
                yield from self._portions(file, start, end, last=last, old=True)
                continue
            begin = max(start, self._at.offset)
            if start > self._at.offset:
                begin = max(rollout.line_start(file, start), self._at.offset)
                if begin > self._at.offset:
                    self._at = replace(self._at, gap=(self._at.offset, begin), offset=begin)
            yield from self._portions(file, begin, end, last=last, old=False)

    def _portions(
        self, file: BinaryIO, start: int, end: int, *, last: bool, old: bool
    ) -> Iterator[tuple[SourceChange, int]]:
        reader = rollout.Reader(self._facts, old=old)
        documents: list[Document] = []
        begun = reached = start
        for offset, following, line in rollout.lines(file, start, end):
            if offset - begun >= PORTION:
                yield self._change(reader, documents, offset, old=old), offset - begun
                documents, begun = [], offset
            if line is None:
                reader.skip()
            elif (document := reader.read(line, offset)) is not None:
                documents.append(document)
            reached = following
        self._finish(end if old else reached, last=last, old=old)
        yield self._change(reader, documents, end if old else reached, old=old), reached - begun

    def _finish(self, reached: int, *, last: bool, old: bool) -> None:
        if old:
            self._at = replace(self._at, gap=None)
        stat = self._job.stat
        if last and stat is not None:
            # Only now is the source as it was when it was looked at.
            self._at = replace(
                self._at,
                device=stat.st_dev,
                inode=stat.st_ino,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                offset=self._at.offset if old else reached,
            )

    def _change(
        self, reader: rollout.Reader, documents: list[Document], reached: int, *, old: bool
    ) -> SourceChange:
        """Return what was read since the last change, and note that it is on its way to the index."""
        gap = self._at.gap
        if old and gap is not None:
            gap = (reached, gap[1])
        self._at = replace(
            self._at,
            offset=self._at.offset if old else reached,
            gap=gap,
            lines=self._at.lines + reader.lines,
            malformed=self._at.malformed + reader.malformed,
        )
        reader.lines = reader.malformed = 0
        self._facts = replace(reader.facts(), archived=rollout_tree.is_archived(self._job.path))
        source = HistorySource(
            checkpoint=self._at,
            facts=self._counted(),
            state=SyncState.COMPLETE if self._whole else SyncState.PARTIAL,
            synced_at=self._now,
        )
        change = SourceChange(source=source, documents=documents, replace=self._drop)
        self._drop = False
        return change

    @property
    def _whole(self) -> bool:
        return self._at.gap is None and bool(self._at.mtime_ns)

    def _counted(self) -> SourceFacts:
        if not self._whole:
            return replace(self._facts, lines=None, malformed=None)
        return replace(self._facts, lines=self._at.lines, malformed=self._at.malformed)


def _start(job: Job) -> Checkpoint:
    """Return a checkpoint that no file agrees with."""
    inode = job.stat.st_ino if job.stat is not None else 0
    device = job.stat.st_dev if job.stat is not None else 0
    return Checkpoint(path=job.path, device=device, inode=inode, size=0, mtime_ns=0, offset=0)


def _anew(job: Job) -> Job:
    """Return the job that reads the source from its beginning."""
    if job.anew:
        return job
    end = max(end for _, end in job.ranges)
    return replace(job, ranges=[(0, end)], anew=True)


def _continues(file: BinaryIO, checkpoint: Checkpoint) -> bool:
    """Say whether a line ends where the reading ended: a file that was written anew hardly does that."""
    if checkpoint.offset == 0:
        return True
    file.seek(checkpoint.offset - 1)
    return file.read(1) == b"\n"


def _blank(path: str) -> SourceFacts:
    name = rollout_tree.parse_name(path)
    if name is None:
        return SourceFacts(native_id="")
    return SourceFacts(native_id=name.native_id, segment=name.segment)


def _failed(job: Job, known: HistorySource | None, now: datetime, reason: str) -> SourceChange:
    """Return the change that keeps what was read before and says why there is no more."""
    checkpoint = known.checkpoint if known is not None else _start(job)
    source = HistorySource(
        checkpoint=replace(checkpoint, size=NO_SIZE),
        facts=known.facts if known is not None else _blank(job.path),
        state=SyncState.ERROR,
        synced_at=now,
        error=reason,
    )
    return SourceChange(source=source, documents=(), replace=False)
