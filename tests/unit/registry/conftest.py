from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from anyio import fail_after

from dispatch_plugins.registry.backend import PeeweeStorage

OpenRegistry = Callable[..., AbstractAsyncContextManager[PeeweeStorage]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="d-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def path(data_dir: Path) -> Path:
    return data_dir / "registry.db"


@pytest.fixture
def open_registry(data_dir: Path) -> OpenRegistry:
    @asynccontextmanager
    async def open_registry(**options: float) -> AsyncIterator[PeeweeStorage]:
        async with AsyncExitStack() as stack:
            storage = PeeweeStorage(data_dir, **options)
            with fail_after(20):
                await storage.open(stack)
            yield storage

    return open_registry


@pytest.fixture
async def registry(open_registry: OpenRegistry) -> AsyncIterator[PeeweeStorage]:
    async with open_registry() as storage:
        yield storage
