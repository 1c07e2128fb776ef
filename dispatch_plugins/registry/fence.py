"""The generation of a registry: how often it has been opened to be written. Whoever opens it last is the only one that writes.

The daemon's lock keeps a second daemon away. Should that fail, because somebody removed the lock's file, this does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dispatch_core.api import StorageError
from dispatch_plugins.registry.sql import driver, execute

if TYPE_CHECKING:
    from pathlib import Path

    import peewee

_RAISE: Final = 'UPDATE "registry" SET "generation" = "generation" + 1 RETURNING "generation"'
_READ: Final = 'SELECT "generation" FROM "registry"'


def raise_generation(database: peewee.SqliteDatabase) -> int:
    """Take the registry over from whoever opened it before, and return the generation that is ours. Raises SQLite's errors."""
    with database.atomic("IMMEDIATE"):
        ((generation,),) = execute(database, _RAISE, ()).fetchall()
        return int(generation)


def check(database: peewee.SqliteDatabase, path: Path, generation: int) -> None:
    """Raise StorageError unless the generation is still ours; inside the transaction that is to be committed."""
    found = driver(database).execute(_READ).fetchall()
    if found == [(generation,)]:
        return
    raise StorageError(
        f"another daemon has taken over the registry {path}: this one writes nothing more",
        hint="dispatch down and kill ask this one to end; dispatch daemon status shows the other",
        details={
            "path": str(path),
            "generation": generation,
            "found": found[0][0] if found else None,
        },
    )
