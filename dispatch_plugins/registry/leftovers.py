"""What a crash has left of the write-ahead log, looked at before SQLite does: it drops what it cannot read without a word.

SQLite keeps the log until it is folded into the database, and beside it the memory that its users share, which says how far the
log was synced. After a crash both are there. A log that is gone, or that ends before that point, had acknowledged writes in it.
(Format: https://sqlite.org/walformat.html)
"""

from __future__ import annotations

import struct
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from dispatch_core.api import StorageError
from dispatch_plugins.registry import files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

HEADER: Final = 32
FRAME: Final = 24
WORDS: Final = 0xFFFFFFFF
_INDEX: Final = struct.Struct("=IIIBBHII2I8s2I")  # one of the two copies that begin the memory
_INDEX_VERSION: Final = 3007000
_FOLDED: Final = 96  # where the number of frames that are in the database already is


class Extent(NamedTuple):
    """How far the log reaches, in frames. folded: of them, in the database. page: bytes of one."""

    frames: int
    folded: int
    page: int
    salt: bytes


def require_whole(path: Path) -> None:
    """Raise StorageError if the log has lost what was committed. Raises OSError if it cannot be read.

    Nobody in this process may have the database open: closing a file drops its locks.
    """
    memory = path.with_name(f"{path.name}-shm")
    extent = _extent(memory)
    if extent is None or extent.frames <= extent.folded:
        return
    log = files.log_of(path)
    if (files.size_of(log) or 0) < HEADER:
        # After a power cut what the memory says may be older than the log is.
        if _written_since_boot(memory):
            raise _lost(path, f"its log {log.name} is missing or empty")
        return
    with log.open("rb") as file:
        header = file.read(HEADER)
        if header[16:24] != extent.salt or _reaches(file, header, extent):
            return
    now = _extent(memory)
    if (
        now is not None and now.salt == extent.salt
    ):  # else somebody has it open, and began it anew meanwhile
        raise _lost(path, f"its log {log.name} is damaged")


def _extent(memory: Path) -> Extent | None:
    """Return what the memory says, None if it says nothing that makes sense."""
    try:
        with memory.open("rb") as file:
            content = file.read(_FOLDED + 4)
    except FileNotFoundError:
        return None
    size = _INDEX.size
    if len(content) < _FOLDED + 4 or content[:size] != content[size : 2 * size]:
        return None
    version, _, _, ready, _, page, frames, _, _, _, salt, *sums = _INDEX.unpack(content[:size])
    if version != _INDEX_VERSION or not ready or [*_sums(content[: size - 8], "=")] != sums:
        return None
    (folded,) = struct.unpack_from("=I", content, _FOLDED)
    return Extent(frames, folded, 65536 if page == 1 else page, salt)


def _reaches(file: BinaryIO, header: bytes, extent: Extent) -> bool:
    """Say whether every frame up to the end is whole that is not in the database yet."""
    order = ">" if header[3] & 1 else "<"
    step = FRAME + extent.page
    if extent.folded:
        file.seek(HEADER + (extent.folded - 1) * step)
        before = struct.unpack(">2I", file.read(FRAME)[16:24])
    else:
        before = struct.unpack(">2I", header[24:32])
        if tuple(_sums(header[:24], order)) != before:
            return False
    file.seek(HEADER + extent.folded * step)
    for frame in _frames(file, step, extent.frames - extent.folded):
        if len(frame) < step or frame[8:16] != extent.salt:
            return False
        before = _sums(frame[:8] + frame[FRAME:], order, *before)
        if struct.unpack(">2I", frame[16:24]) != before:
            return False
    return True


def _frames(file: BinaryIO, step: int, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield file.read(step)


def _sums(content: bytes, order: str, first: int = 0, second: int = 0) -> tuple[int, int]:
    """Return SQLite's checksum of content, continued from the one before."""
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & WORDS
        second = (second + odd + first) & WORDS
    return first, second


def _written_since_boot(memory: Path) -> bool:
    if sys.platform == "darwin":
        return False  # there is no such clock
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return memory.stat().st_mtime > booted


def _lost(path: Path, reason: str) -> StorageError:
    return StorageError(
        f"the registry {path} has lost what was written last: {reason}",
        hint=f"put {files.log_of(path).name} back; or dispatch registry restore puts the newest good backup in its place; "
        f"to go on without what is lost, delete {path.name}-wal and {path.name}-shm",
        details={"path": str(path)},
    )
