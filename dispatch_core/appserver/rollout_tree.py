"""Where Codex keeps rollout files, what their names say, and the titles beside them.

``sessions/YYYY/MM/DD/rollout-<time>-<thread>.jsonl``; ``rollout-<time>-<thread>_<segment>.jsonl`` goes on after turns were
reverted; archived ones are moved to ``archived_sessions/``. A file that Codex has compressed ends in ``.jsonl.zst``.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dispatch_core.contracts.history import Checkpoint

SESSIONS: Final = "sessions"
ARCHIVED: Final = "archived_sessions"
TITLES: Final = "session_index.jsonl"
SUFFIX: Final = ".jsonl"
COMPRESSED: Final = ".jsonl.zst"
MISSING: Final = "it does not exist"

_NAME = re.compile(
    r"rollout-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)-([0-9a-f-]{36})(?:_([0-9a-f-]{36}))?\.jsonl(?:\.zst)?"
)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class RolloutName:
    """What the name of a file says. segment: its own id, the thread's for the first one."""

    native_id: str
    segment: str


@dataclass(slots=True)
class Tree:
    """What a walk found. changed: path and stat of every file that is not as it was. unchanged: the paths of the others.

    compressed: paths without their last suffix. unreadable: folders and files, each with the reason; what is below a folder may
    be there or not. bare: roots with nothing at all in them, such as one whose disk is not mounted.
    """

    changed: list[tuple[str, os.stat_result]] = field(default_factory=list)
    unchanged: set[str] = field(default_factory=set)
    compressed: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)
    bare: set[str] = field(default_factory=set)

    @property
    def seen(self) -> int:
        """The number of files that can be read."""
        return len(self.changed) + len(self.unchanged)


def parse_name(path: str) -> RolloutName | None:
    """Return what the name of a file says; None when it is no rollout."""
    match = _NAME.fullmatch(os.path.basename(path))  # noqa: PTH119 -- of thousands of names
    return RolloutName(match[2], match[3] or match[2]) if match else None


def is_archived(path: str) -> bool:
    """Say whether a path is that of an archived thread."""
    return f"{os.sep}{ARCHIVED}{os.sep}" in path


def walk(codex_home: Path, known: Mapping[str, Checkpoint]) -> Tree:
    """Look at every rollout file below codex_home, and compare it with what is known."""
    tree = Tree()
    for root in (SESSIONS, ARCHIVED):
        _walk(str(codex_home / root), known, tree, None)
    return tree


def look_for(codex_home: Path, known: Mapping[str, Checkpoint], native_ids: Sequence[str]) -> Tree:
    """Look at the rollout files of these threads only: where they were, where their age puts them, and where today's go.

    Walks the whole tree if that leaves one of them out.
    """

    def wanted(name: str) -> bool:
        return any(native_id in name for native_id in native_ids)

    tree = Tree()
    for folder in _likely_folders(codex_home, known, native_ids):
        if os.path.isdir(folder):  # noqa: PTH112 -- a guess
            _walk(folder, known, tree, wanted)
    tree.bare.clear()  # a day without a thread is nothing special
    if all(any(i in path for path in _paths(tree)) for i in native_ids):
        return tree
    tree = Tree()
    for root in (SESSIONS, ARCHIVED):
        _walk(str(codex_home / root), known, tree, wanted)
    return tree


class Titles:
    """The names that people gave to threads, as Codex keeps them: a line for each change, the last one counts."""

    def __init__(self, codex_home: Path) -> None:
        self._path = codex_home / TITLES
        self._stamp: tuple[int, int, int] | None = None
        self._titles: dict[str, str] = {}

    def read(self) -> tuple[Mapping[str, str], bool]:
        """Return titles by native id, and whether they may have changed since the last call."""
        try:
            stat = self._path.stat()
        except OSError:
            return self._titles, False
        stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if stamp == self._stamp:
            return self._titles, False
        try:
            data = self._path.read_bytes()
        except OSError:
            return self._titles, False
        self._titles = dict(_titles(data))
        self._stamp = stamp
        return self._titles, True


def _walk(
    root: str, known: Mapping[str, Checkpoint], tree: Tree, wanted: Callable[[str], bool] | None
) -> None:
    folders = [root]
    while folders:
        folder = folders.pop()
        empty = True
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    empty = False
                    if not entry.name.endswith(SUFFIX):
                        _look_aside(entry, tree, folders, wanted)
                    elif wanted is None or wanted(entry.name):
                        _compare(entry, known, tree)
            if empty and folder == root:
                tree.bare.add(root)
        except FileNotFoundError:
            if folder == root:  # not the same as an empty one
                tree.unreadable[folder] = MISSING
        except OSError as error:
            tree.unreadable[folder] = error.strerror or str(error)


def _compare(entry: os.DirEntry[str], known: Mapping[str, Checkpoint], tree: Tree) -> None:
    try:
        stat = entry.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        tree.unreadable[entry.path] = error.strerror or str(error)
        return
    path = entry.path
    was = known.get(path)
    if (
        was is not None
        and was.mtime_ns == stat.st_mtime_ns
        and was.size == stat.st_size
        and was.inode == stat.st_ino
    ):
        tree.unchanged.add(path)
    elif parse_name(path) is not None:
        tree.changed.append((path, stat))


def _look_aside(
    entry: os.DirEntry[str],
    tree: Tree,
    folders: list[str],
    wanted: Callable[[str], bool] | None,
) -> None:
    if entry.is_dir(follow_symlinks=False):
        folders.append(entry.path)
    elif entry.name.endswith(COMPRESSED) and (wanted is None or wanted(entry.name)):
        tree.compressed.add(entry.path.removesuffix(".zst"))


def _likely_folders(
    codex_home: Path, known: Mapping[str, Checkpoint], native_ids: Sequence[str]
) -> Iterable[str]:
    folders = {
        os.path.dirname(path)  # noqa: PTH120 -- of thousands of names
        for path in known
        if any(native_id in path for native_id in native_ids)
    }
    days = [datetime.now(UTC), *filter(None, map(_born, native_ids))]
    for moment in days:
        # Folders are named by the local time of whoever ran Codex.
        for day in (moment - _DAY, moment, moment + _DAY):
            folders.add(str(codex_home / SESSIONS / f"{day:%Y}" / f"{day:%m}" / f"{day:%d}"))
    folders.add(str(codex_home / ARCHIVED))
    return sorted(folders)


def _born(native_id: str) -> datetime | None:
    """Return when a thread was made: its id is a UUID that begins with the time."""
    try:
        return datetime.fromtimestamp(int(native_id.replace("-", "")[:12], 16) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _paths(tree: Tree) -> Iterable[str]:
    yield from tree.unchanged
    yield from tree.compressed
    for path, _ in tree.changed:
        yield path


def _titles(data: bytes) -> Iterable[tuple[str, str]]:
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            native_id, title = record.get("id"), record.get("thread_name")
            if isinstance(native_id, str) and isinstance(title, str):
                yield native_id, title
