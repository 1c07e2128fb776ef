"""The first schema: threads with their latest turn, the action log, triggers and their firings."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

STATEMENTS = (
    """CREATE TABLE "registry" (
        "id" TEXT NOT NULL PRIMARY KEY,
        "created_at" TEXT NOT NULL)""",
    """CREATE TABLE "threads" (
        "key" TEXT NOT NULL PRIMARY KEY,
        "provider" TEXT NOT NULL,
        "native_id" TEXT NOT NULL,
        "ref" TEXT NOT NULL,
        "handle" TEXT NOT NULL,
        "title" TEXT,
        "source" TEXT NOT NULL,
        "status" TEXT NOT NULL,
        "cwd" TEXT NOT NULL,
        "settings" TEXT NOT NULL,
        "created_at" TEXT NOT NULL,
        "updated_at" TEXT NOT NULL,
        "materialized" INTEGER NOT NULL)""",
    """CREATE UNIQUE INDEX "thread_ref" ON "threads" ("ref")""",
    """CREATE INDEX "thread_handle" ON "threads" ("handle")""",
    """CREATE UNIQUE INDEX "thread_native_id_provider" ON "threads" ("native_id", "provider")""",
    """CREATE TABLE "turns" (
        "thread_id" TEXT NOT NULL PRIMARY KEY,
        "message_id" TEXT,
        "turn_id" TEXT,
        "status" TEXT NOT NULL,
        "started_at" TEXT NOT NULL,
        "completed_at" TEXT,
        "error" TEXT,
        FOREIGN KEY ("thread_id") REFERENCES "threads" ("key") ON DELETE CASCADE)""",
    """CREATE TABLE "actions" (
        "id" INTEGER NOT NULL PRIMARY KEY,
        "at" TEXT NOT NULL,
        "op" TEXT NOT NULL,
        "principal" TEXT NOT NULL,
        "outcome" TEXT NOT NULL,
        "thread" TEXT,
        "trigger_id" TEXT,
        "detail" TEXT)""",
    """CREATE TABLE "triggers" (
        "number" INTEGER NOT NULL PRIMARY KEY,
        "id" TEXT NOT NULL,
        "name" TEXT NOT NULL,
        "kind" TEXT NOT NULL,
        "config" TEXT NOT NULL,
        "thread" TEXT NOT NULL,
        "op" TEXT NOT NULL,
        "args" TEXT NOT NULL,
        "enabled" INTEGER NOT NULL,
        "created_at" TEXT NOT NULL,
        "next_at" TEXT)""",
    """CREATE UNIQUE INDEX "trigger_id" ON "triggers" ("id")""",
    """CREATE TABLE "firings" (
        "number" INTEGER NOT NULL PRIMARY KEY,
        "trigger_id" TEXT NOT NULL,
        "key" TEXT NOT NULL,
        "status" TEXT NOT NULL,
        "at" TEXT NOT NULL,
        "detail" TEXT,
        FOREIGN KEY ("trigger_id") REFERENCES "triggers" ("id") ON DELETE CASCADE)""",
    """CREATE UNIQUE INDEX "firing_trigger_id_key" ON "firings" ("trigger_id", "key")""",
    """CREATE INDEX "firing_trigger_id_at" ON "firings" ("trigger_id", "at")""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001 -- the runner's signature
    """Make the tables, and give this registry its id."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
    identity = (str(uuid.uuid4()), datetime.now(UTC).isoformat(timespec="microseconds"))
    db.execute_sql('INSERT INTO "registry" ("id", "created_at") VALUES (?, ?)', identity)
