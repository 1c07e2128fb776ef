"""Disks of their own for a whole daemon, to be filled, to fail and to lose their power; and a machine that was started anew."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dispatch_core.offline.codex_home import write_codex_home

from .harness import World, until
from .witness import witness

if TYPE_CHECKING:
    from collections.abc import Iterator

ANOTHER_BOOT = "11111111-2222-3333-4444-555555555555"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
NEW_MOUNTS = 0x00020000  # CLONE_NEWNS


def new_image(path: Path, size: int) -> Path:
    """Make a file that holds an empty file system, and return its path."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    path.unlink(missing_ok=True)  # a used one has blocks of the one before
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", str(path)], check=True)
    return path


def mount(folder: Path, *options: str) -> None:
    """Mount a file system at a folder; skip the test where that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("to mount a file system needs Linux and root")
    done = subprocess.run(
        ["mount", *options, str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    """Take a file system away from its folder, at once."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def home_on(*options: str) -> Iterator[World]:
    """Make a world whose home, but not Codex's, is on a disk of its own. options: of mount."""
    with _world_below("home", *options) as made:
        yield made


@contextmanager
def all_on(*options: str) -> Iterator[World]:
    """Make a world of which everything but the witness is on a disk of its own. options: of mount."""
    with _world_below("", *options) as made:
        yield made


@contextmanager
def _world_below(mounted: str, *options: str) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    try:
        with witness(root / "model.jsonl") as seen:
            made = World(root / "disk", seen, {})
            disk = made.root / mounted
            disk.mkdir(parents=True)
            mount(disk, *options)
            try:
                disk.chmod(0o700)
                made.home.mkdir(mode=0o700, exist_ok=True)
                (made.home / "user").mkdir(mode=0o700)
                write_codex_home(made.codex_home, seen.base_url)
                yield made
            finally:
                end(made)
                unmount(disk)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def end(world: World) -> None:
    """Kill the daemon and its app-server, and return once both are gone."""
    world.kill_daemon()
    world.kill_codex()
    until(lambda: world.codex_pid() is None, "the app-server is gone as well")


def start_after_reboot(world: World, boot_id: Path) -> None:
    """Start the daemon where the start of the machine has another name, by a mount that only it and its Codex can see."""

    def start() -> None:
        # Of this thread alone, and of what it starts.
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS):
            pytest.skip("a process cannot have mounts of its own here")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "--bind", str(boot_id), BOOT_ID], check=True)
        world.start()

    boot_id.write_text(f"{ANOTHER_BOOT}\n", encoding="ascii")
    with ThreadPoolExecutor(1) as thread:
        thread.submit(start).result()
