"""A reserve of disk space: given up when the disk is full, so that what was accepted can still be brought to its end."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Final

from dispatch_plugins.registry import files

if TYPE_CHECKING:
    from pathlib import Path

SIZE: Final = 16 << 20
SHARE: Final = 16  # the reserve is at most this part of the file system
PAGE: Final = 4096
PATIENCE: Final = 0.5  # seconds between two looks at the free space

log = logging.getLogger(__name__)


class Ballast:
    """The reserve of one registry, a file beside it. That it cannot be made is no error."""

    def __init__(self, registry: Path) -> None:
        self.path = registry.with_name(f"{registry.name}.ballast")
        self._held = False
        self._complained = False
        self._roomy = True
        self._looked_at: float | None = None

    @property
    def full(self) -> bool:
        """Whether there is no reserve, and no room to make one. Asks the system at most twice a second."""
        return not self._held and not self._has_room()

    def hold(self) -> None:
        """Make the reserve if there is none and twice its size is free."""
        if self._held:
            return
        try:
            size = self._size()
            if _is_whole(self.path, size):
                self._held = True
                return
            self.path.unlink(missing_ok=True)
            if size and self._has_room():
                _fill(self.path, size)
                self._held = True
        except OSError as error:
            if not self._complained:
                log.warning("no space is kept in reserve at %s: %s", self.path, error)
            self._complained = True

    def release(self) -> bool:
        """Give the reserve up, and say whether there was one."""
        self._held = False
        self._roomy, self._looked_at = False, time.monotonic()
        try:
            self.path.unlink()
        except OSError:
            return False
        log.warning("the disk is full: the space in reserve at %s is given up", self.path)
        return True

    def _has_room(self) -> bool:
        now = time.monotonic()
        if self._looked_at is None or now - self._looked_at >= PATIENCE:
            self._looked_at = now
            try:
                self._roomy = _free(self.path.parent) >= 2 * self._size()
            except OSError:
                self._roomy = True  # a write will tell
        return self._roomy

    def _size(self) -> int:
        system = os.statvfs(self.path.parent)
        share = system.f_blocks * system.f_frsize // SHARE
        return min(SIZE, share) // PAGE * PAGE


def _free(folder: Path) -> int:
    system = os.statvfs(folder)
    return system.f_bavail * system.f_frsize


def _is_whole(path: Path, size: int) -> bool:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return False
    # A copy of it may have holes, and then it reserves nothing.
    return stat.st_size == size and stat.st_blocks * 512 >= size


def _fill(path: Path, size: int) -> None:
    """Make a file that takes up size bytes, or none. Raises OSError."""
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, files.PRIVATE)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        else:  # macOS
            for _ in range(0, size, PAGE):
                os.write(handle, bytes(PAGE))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
