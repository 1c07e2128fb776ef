"""Threads that Codex never writes to disk, the model Codex says it uses, and a cache of what Codex said."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    """ALTER TABLE "threads" ADD COLUMN "ephemeral" INTEGER NOT NULL DEFAULT 0""",
    """ALTER TABLE "threads" ADD COLUMN "in_use" TEXT""",
    """CREATE TABLE "cache" (
        "name" TEXT NOT NULL PRIMARY KEY,
        "value" TEXT NOT NULL,
        "at" TEXT NOT NULL)""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001 -- the runner's signature
    """Add the columns and the table; every thread there is was written to disk."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
