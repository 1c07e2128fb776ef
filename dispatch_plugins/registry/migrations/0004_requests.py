"""What Codex asked, and what became of it."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    """CREATE TABLE "requests" (
        "id" TEXT NOT NULL PRIMARY KEY,
        "thread" TEXT NOT NULL,
        "turn_id" TEXT,
        "item_id" TEXT,
        "method" TEXT NOT NULL,
        "kind" TEXT NOT NULL,
        "rpc_id" TEXT NOT NULL,
        "epoch" TEXT NOT NULL,
        "summary" TEXT NOT NULL,
        "digest" TEXT NOT NULL,
        "body" TEXT,
        "cut" INTEGER NOT NULL,
        "state" TEXT NOT NULL,
        "asked_at" TEXT NOT NULL,
        "deadline" TEXT NOT NULL,
        "answered_by" TEXT,
        "decision" TEXT,
        "answered_at" TEXT,
        "closed_at" TEXT,
        "detail" TEXT)""",
    """CREATE UNIQUE INDEX "request_epoch_rpc_id" ON "requests" ("epoch", "rpc_id")""",
    """CREATE INDEX "request_state" ON "requests" ("state")""",
    """CREATE INDEX "request_deadline_id" ON "requests" ("deadline", "id")""",
    """CREATE INDEX "request_thread" ON "requests" ("thread")""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001 -- the runner's signature
    """Add the table; nothing was recorded before."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
