"""Deliveries, with the indexes that each question about them is answered from, and who may write the registry."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    """ALTER TABLE "registry" ADD COLUMN "generation" INTEGER NOT NULL DEFAULT 0""",
    """CREATE TABLE "deliveries" (
        "id" TEXT NOT NULL PRIMARY KEY,
        "thread_id" TEXT NOT NULL,
        "state" TEXT NOT NULL,
        "when" TEXT NOT NULL,
        "digest" TEXT NOT NULL,
        "principal" TEXT NOT NULL,
        "created_at" TEXT NOT NULL,
        "text" TEXT,
        "images" TEXT,
        "key" TEXT,
        "attempt" INTEGER NOT NULL,
        "deaths" INTEGER NOT NULL,
        "epoch" TEXT,
        "turn_id" TEXT,
        "merged" INTEGER NOT NULL,
        "evidence" TEXT,
        "reason" TEXT,
        "retry_of" TEXT,
        "expires_at" TEXT,
        "claimed_at" TEXT,
        "ended_at" TEXT,
        "position" INTEGER NOT NULL,
        FOREIGN KEY ("thread_id") REFERENCES "threads" ("key") ON DELETE RESTRICT)""",
    """CREATE INDEX "delivery_thread_id_id" ON "deliveries" ("thread_id", "id")""",
    """CREATE INDEX "delivery_thread_id_position" ON "deliveries" ("thread_id", "position")""",
    """CREATE INDEX "delivery_state_id" ON "deliveries" ("state", "id")""",
    """CREATE UNIQUE INDEX "delivery_in_flight" ON "deliveries" ("thread_id")
        WHERE "state" IN ('sending', 'submitted', 'running')""",
    """CREATE INDEX "delivery_queued" ON "deliveries" ("thread_id", "position", "id", "state") WHERE "state" = 'queued'""",
    """CREATE INDEX "delivery_unknown" ON "deliveries" ("thread_id", "position", "id") WHERE "state" = 'unknown'""",
    """CREATE UNIQUE INDEX "delivery_key" ON "deliveries" ("principal", "key") WHERE "key" IS NOT NULL""",
    """CREATE INDEX "delivery_ended" ON "deliveries" ("ended_at") WHERE "ended_at" IS NOT NULL""",
    """CREATE INDEX "delivery_ended_with_body" ON "deliveries" ("ended_at")
        WHERE ("ended_at" IS NOT NULL AND "text" IS NOT NULL)""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001 -- the runner's signature
    """Make the table; nothing was accepted before there was one, and nobody was counted who opened the registry."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
