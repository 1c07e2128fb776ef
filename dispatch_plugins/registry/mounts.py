"""Which file system a registry would be on: SQLite's log needs memory and locks that network file systems do not share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from dispatch_core.api import StorageError

MOUNTS: Final = Path("/proc/self/mountinfo")
NETWORK: Final = frozenset(
    {
        "afs",
        "ceph",
        "cifs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
    }
)


def require_local(path: Path, mounts: Path = MOUNTS) -> None:
    """Raise StorageError if path is on a network file system. Without a list of mounts, as on macOS, SQLite has to find out."""
    kind = _file_system(path.parent, mounts)
    if kind in NETWORK:
        raise StorageError(
            f"the registry {path} would be on a network file system ({kind}), which cannot hold one",
            hint="put DISPATCH_HOME on a local disk",
            details={"path": str(path), "file_system": kind},
        )


def _file_system(folder: Path, mounts: Path) -> str | None:
    """Return the kind of the file system a folder is on, None if that cannot be said."""
    try:
        device = folder.stat().st_dev
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split()[2:3] == [number]:
            return after.partition(" ")[0]
    return None
