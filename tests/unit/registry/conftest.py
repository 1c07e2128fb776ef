from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from pathlib import Path

import peewee
import pytest
from anyio import fail_after

from dispatch_plugins.registry import schema
from dispatch_plugins.registry.backend import PeeweeStorage

# What the build of schema 1 has written.
FIRST_ROWS = (
    """INSERT INTO threads VALUES
        ('key-1', 'codex', 'native-1', '0AAAA1', '@one', 'One', 'own', 'idle', '/srv/one',
         '{"sandbox":"read-only","model":"m"}', '2026-01-02T03:04:05.000000+00:00',
         '2026-01-02T03:04:06.000000+00:00', 1),
        ('key-2', 'codex', 'native-2', '0AAAA2', '@two', NULL, 'attached', 'archived', '/srv/two',
         '{}', '2026-01-02T03:04:07.000000+00:00', '2026-01-02T03:04:08.000000+00:00', 0)""",
    """INSERT INTO turns VALUES
        ('key-1', 'message-1', 'turn-1', 'completed', '2026-01-02T03:04:05.000000+00:00', NULL, NULL)""",
    """INSERT INTO triggers VALUES
        (1, 'trigger-1', 'nightly', 'cron', '{"cron":"0 2 * * *"}', '@one', 'send', '{"text":"go"}', 1,
         '2026-01-02T03:04:05.000000+00:00', NULL)""",
    """INSERT INTO firings VALUES
        (1, 'trigger-1', 'key', 'done', '2026-01-02T03:04:05.000000+00:00', NULL)""",
)

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


@pytest.fixture
def first_schema(path: Path, tmp_path: Path) -> Path:
    """A registry of schema 1 with rows in its tables, as the build before schema 2 left it."""
    folder = tmp_path / "first"
    folder.mkdir()
    shutil.copy(next(schema.MIGRATIONS.glob("0001_*.py")), folder)
    database = peewee.SqliteDatabase(str(path), thread_safe=False)
    with closing(database):
        database.connect()
        schema.prepare(database, path, new=True, target=schema.Schema(folder, 1))
        for statement in FIRST_ROWS:
            database.execute_sql(statement)
    path.chmod(0o600)
    return path


@pytest.fixture
def damage_table() -> Callable[[Path, str], None]:
    """Overwrite the first page of a table."""

    def damage_table(path: Path, table: str) -> None:
        with closing(sqlite3.connect(path)) as connection:
            ((page,),) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
            ).fetchall()
        content = bytearray(path.read_bytes())
        content[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
        path.write_bytes(content)

    return damage_table
