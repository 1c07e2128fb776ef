"""The dispatch home: who may read it, how much room there is, what the log says."""

from __future__ import annotations

import os
import re
import shutil
import stat
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_plugins.cli.doctor.report import Check

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dispatch_plugins.cli.doctor.report import Subject

MIB = 1 << 20
LITTLE, TOO_LITTLE = 1024 * MIB, 100 * MIB  # bytes free
OTHERS = stat.S_IRWXG | stat.S_IRWXO
WRITERS = stat.S_IWGRP | stat.S_IWOTH
RECENT = timedelta(hours=24)
ENTRY = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (ERROR|CRITICAL)\s+(.*)")
LOG_TAIL = 512 * 1024  # bytes that are read of the log
SHOWN_ERRORS = 3


def permissions(subject: Subject) -> Check:
    """Whether nobody else may read the home, or write what is in it."""
    root = Path(subject.paths.home)
    try:
        info = root.lstat()
    except FileNotFoundError:
        return Check(
            name="home", status="ok", summary=f"{root} is made when the daemon first starts"
        )
    data = {"path": str(root), "mode": oct(stat.S_IMODE(info.st_mode)), "uid": info.st_uid}
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        return Check(
            name="home",
            status="fail",
            summary=f"{root} is no directory of your own",
            recovery="set DISPATCH_HOME to a directory of your own",
            data=data,
        )
    loose = list(_loose(root))
    if not loose:
        return Check(name="home", status="ok", summary=f"{root} is private", data=data)
    open_ = [path for path, mode in loose if mode & WRITERS]
    names = [str(path) for path, _ in loose]
    return Check(
        name="home",
        status="fail" if root in open_ else "warn",
        summary=f"other users may {'write' if open_ else 'read'} {len(loose)} files or folders: {names[0]}",
        detail="\n".join(names),
        recovery=f"look what is in {root}, then dispatch doctor --fix (chmod go=)",
        data={**data, "loose": names},
    )


def tighten(subject: Subject) -> Sequence[str]:
    """Take from other users what they may do in the home."""
    done = []
    for path, mode in list(_loose(Path(subject.paths.home))):
        if path.lstat().st_uid == os.geteuid():
            path.chmod(mode & ~OTHERS)
            done.append(f"made {path} private")
    return done


def disk(subject: Subject) -> Check:
    """Whether there is room for the registry, the index and the log."""
    place = next(
        p for p in (Path(subject.paths.home), *Path(subject.paths.home).parents) if p.exists()
    )
    usage = shutil.disk_usage(place)
    data = {"path": str(place), "free": usage.free, "total": usage.total}
    free = f"{usage.free / MIB / 1024:.1f} GiB are free on the disk of {place}"
    if usage.free >= LITTLE:
        return Check(name="disk", status="ok", summary=free, data=data)
    return Check(
        name="disk",
        status="fail" if usage.free < TOO_LITTLE else "warn",
        summary=f"only {usage.free // MIB} MiB are free on the disk of {place}",
        recovery=f"make room, or move the home: DISPATCH_HOME; {subject.paths.home}/index.db can be deleted at any time",
        data=data,
    )


def log(subject: Subject) -> Check:
    """How large the daemon's log is, and whether it has recent errors."""
    file = Path(subject.paths.log)
    if not file.exists():
        return Check(name="log", status="ok", summary="there is no log yet")
    files = [file, *file.parent.glob(f"{file.name}.*")]
    size = sum(part.stat().st_size for part in files)
    errors = list(_errors(file))
    data = {"path": str(file), "bytes": size, "files": len(files), "errors": len(errors)}
    if not errors:
        summary = f"{size / MIB:.1f} MiB, no error in the last day"
        return Check(name="log", status="ok", summary=summary, data=data)
    return Check(
        name="log",
        status="warn",
        summary=f"{len(errors)} errors in the last day, the last one: {errors[-1][:200]}",
        detail="\n".join(errors[-SHOWN_ERRORS:]),
        recovery="dispatch daemon log --daemon",
        data=data,
    )


def _loose(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield what other users may touch in the home, with its mode; links are not followed.

    In a private home the configuration file may have any mode: a person made it, and nobody else gets to it.
    """
    private = not root.lstat().st_mode & OTHERS
    for path in (root, *sorted(root.iterdir())):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) or not mode & OTHERS or (private and path.suffix == ".toml"):
            continue
        yield path, stat.S_IMODE(mode)


def _errors(file: Path) -> Iterator[str]:
    """Yield the errors of the last day, oldest first."""
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - LOG_TAIL))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    since = datetime.now() - RECENT  # noqa: DTZ005 -- the log's own clock is the local one
    for line in lines:
        found = ENTRY.match(line)
        if found and datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S") >= since:  # noqa: DTZ007
            yield f"{found[1]} {found[3]}"
