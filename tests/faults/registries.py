"""Registries to do harm to: processes that write one, disks of their own, and what a registry has left afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
import pytest

from dispatch_core.contracts.deliveries import DeliveryFilter
from dispatch_core.testing.storage import a_delivery, a_thread
from dispatch_plugins.registry.backend import PeeweeStorage
from dispatch_plugins.registry.maintenance import PeeweeMaintenance

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from dispatch_core.api import Storage

EVERY = 1_000_000
PATIENCE = 20.0  # seconds
# Accepts deliveries for ever, and says of each that it was accepted, or why it was not.
ACCEPT = """
import sys
from contextlib import AsyncExitStack
from pathlib import Path
import anyio
from dispatch_core.api import StorageError
from dispatch_core.testing.storage import a_delivery, a_thread
from dispatch_plugins.registry.backend import PeeweeStorage

def say(*words):
    print(*words, flush=True)

async def main(folder, first, refusals):
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(Path(folder))
        await storage.open(stack)
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        number = int(first)
        while refusals:
            try:
                await storage.deliveries.add(a_delivery(number))
                say("accepted", f"id-{number:04}")
            except StorageError as error:
                say("refused", error.code, (error.details.get("sqlite") or "-"))
                refusals -= 1
            number += 1
        say("readable", len(await storage.threads.list()))

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""
# The same without care for the disk, as a contrast.
CARELESS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1] + "/careless.db", isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL").fetchall()
connection.execute("PRAGMA synchronous = OFF")
connection.execute("CREATE TABLE accepted (id TEXT)")
number = 0
while True:
    number += 1
    connection.execute("INSERT INTO accepted VALUES (?)", (f"id-{number:04}",))
    print("accepted", f"id-{number:04}", flush=True)
"""
HOLD_THE_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
print("held", flush=True)
sys.stdin.readline()
"""


class Said(NamedTuple):
    """What a process that accepts has said."""

    accepted: list[str]
    refused: list[str]
    readable: bool


def start(script: str, *arguments: object, under: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a script of this module."""
    return subprocess.Popen(
        [*under, sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def understood(lines: Sequence[str]) -> Said:
    words = [line.split() for line in lines if line.endswith("\n")]
    return Said(
        accepted=[word[1] for word in words if word[0] == "accepted"],
        refused=[" ".join(word[1:]) for word in words if word[0] == "refused"],
        readable=["readable", "1"] in words,
    )


def crashed(folder: Path, count: int, first: int = 1) -> list[str]:
    """Accept some deliveries, die, and return what was accepted: the log and the memory of SQLite are left behind."""
    process = start(ACCEPT, folder, first, 1)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(count)]
    process.send_signal(signal.SIGKILL)
    lines += process.communicate(timeout=PATIENCE)[0].splitlines(keepends=True)
    return understood(lines).accepted


@contextmanager
def holding(path: Path, statement: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold the registry with a statement that begins a transaction."""
    process = start(HOLD_THE_LOCK, path, statement)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@asynccontextmanager
async def opened(folder: Path, **options: float) -> AsyncIterator[PeeweeStorage]:
    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(folder, **options)
        with anyio.fail_after(PATIENCE):
            await storage.open(stack)
        yield storage


@asynccontextmanager
async def ready(folder: Path, **options: float) -> AsyncIterator[PeeweeStorage]:
    """Open a registry that has the thread the deliveries are for."""
    async with opened(folder, **options) as storage:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        yield storage


async def accept(storage: Storage, number: int) -> str:
    return (await storage.deliveries.add(a_delivery(number))).id


async def kept(storage: Storage) -> set[str]:
    """Return the ids of all deliveries that are there."""
    return {delivery.id for delivery in await storage.deliveries.list(DeliveryFilter(), EVERY)}


def maintenance_of(folder: Path) -> PeeweeMaintenance:
    return PeeweeMaintenance(folder / "registry.db", folder / "index.db", 5.0)


@contextmanager
def mounted(*options: str) -> Iterator[Path]:
    """Mount a file system of its own; skip the test where that is not allowed."""
    folder = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    try:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("to mount a file system needs Linux and root")
        done = subprocess.run(
            ["mount", *options, str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    with anyio.fail_after(PATIENCE):
        while not true():  # noqa: ASYNC110 -- what is waited for tells nobody
            await anyio.sleep(0.02)
