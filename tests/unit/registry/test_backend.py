"""What the backend makes when: nothing that the daemon's socket would wait for."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from dispatch_core.api import StorageError
from dispatch_plugins.registry.backend import PeeweeStorage

pytestmark = pytest.mark.anyio

MADE_AND_OPENED = """
import sys
from contextlib import AsyncExitStack
from pathlib import Path
import anyio
from dispatch_plugins.registry.backend import PeeweeStorage

async def main():
    async with AsyncExitStack() as stack:
        await PeeweeStorage(Path(sys.argv[1])).open(stack)
    names = ("index.file", "inspection", "upkeep")
    print([name for name in names if f"dispatch_plugins.registry.{name}" in sys.modules])

anyio.run(main)
"""


def test_a_registry_that_is_up_to_date_opens_without_index_and_maintenance(data_dir):
    done = subprocess.run(
        [sys.executable, "-c", MADE_AND_OPENED, data_dir],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"
    assert not (data_dir / "index.db").exists()


@pytest.mark.parametrize("asked", ["before opening", "after opening"])
async def test_the_index_can_be_used_while_the_registry_is_open(data_dir, asked):
    storage = PeeweeStorage(data_dir)
    index = storage.index if asked == "before opening" else None

    async with AsyncExitStack() as stack:
        await storage.open(stack)
        index = index or storage.index
        assert index.checkpoints() == {}
        assert storage.index is index

    with pytest.raises(StorageError, match="not open"):
        index.checkpoints()


def test_the_index_cannot_be_used_before_the_registry_is_open(data_dir):
    storage = PeeweeStorage(data_dir)

    with pytest.raises(StorageError, match="not open"):
        storage.index.checkpoints()

    assert list(data_dir.iterdir()) == []


async def test_a_damaged_index_is_built_anew(data_dir):
    (data_dir / "index.db").write_bytes(b"this is no index" * 1000)

    async with AsyncExitStack() as stack:
        storage = PeeweeStorage(data_dir)
        await storage.open(stack)

        assert storage.index.checkpoints() == {}
