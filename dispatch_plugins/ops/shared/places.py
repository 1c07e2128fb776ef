"""Directories as filters: which threads work in one of them or below."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from anyio import to_thread

from dispatch_core.api import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence


async def under(*, repo: str | None, directory: str | None) -> tuple[tuple[str, ...], ...]:
    """Return the directories to be in or below: one group for each filter, of which a thread must be in one.

    A group has more than one directory when a symbolic link leads to it. Raises ValidationFailed for a repo that is none.
    """
    groups = []
    if repo is not None:
        groups.append(_spellings(await repository(repo)))
    if directory is not None:
        groups.append(_spellings(directory))
    return tuple(groups)


async def repository(path: str) -> str:
    """Return the nearest directory at or above path that holds a Git repository or a worktree of one.

    Raises ValidationFailed when there is none.
    """
    found = await to_thread.run_sync(nearest_repository, Path(path))
    if found is None:
        raise ValidationFailed(
            f"repo: {path} is in no Git repository",
            hint="name a directory inside one, or use --directory",
        )
    return str(found)


def nearest_repository(path: Path) -> Path | None:
    """Return the nearest directory at or above path that holds a Git repository or a worktree of one. Reads the disk.

    An empty ``.git`` is none: Codex's sandbox leaves such a directory where it keeps one from being made.
    """
    for folder in (path, *path.parents):
        git = folder / ".git"
        if git.is_file() or (git / "HEAD").exists():
            return folder
    return None


def is_in(cwd: str | None, groups: Sequence[Sequence[str]]) -> bool:
    """Return whether a directory is in or below one of every group."""
    if not groups:
        return True
    if not cwd:
        return False
    here = PurePosixPath(cwd)
    return all(any(here.is_relative_to(folder) for folder in group) for group in groups)


def narrowest(groups: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """Return the directories of which a thread must be in one to be in every group, None when there can be none."""
    found = tuple(groups[0]) if groups else ()
    for group in groups[1:]:
        inside = [folder for folder in found if is_in(folder, [group])]
        inside += [folder for folder in group if is_in(folder, [found])]
        if not inside:
            return None
        found = tuple(dict.fromkeys(inside))
    return found


def _spellings(path: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((path, str(Path(path).resolve()))))
