"""At-least-once delivery, as a contrast: what was on its way when the daemon died is simply sent again."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def forget_what_was_sent(registry: Path) -> int:
    """Make everything that was on its way wait again, and return how much that was. No daemon may run."""
    connection = sqlite3.connect(registry, timeout=10.0)
    try:
        with connection:
            changed = connection.execute(
                "UPDATE deliveries SET state = 'queued', epoch = NULL, turn_id = NULL, claimed_at = NULL "
                "WHERE state IN ('sending', 'submitted', 'running')"
            )
            return changed.rowcount
    finally:
        connection.close()


def pretend_reboot(registry: Path) -> int:
    """Make what is on its way look as if it had been given to Codex before the machine started, and return how much it is."""
    connection = sqlite3.connect(registry, timeout=10.0)
    try:
        with connection:
            changed = connection.execute(
                "UPDATE deliveries SET epoch = '00000000-0000-0000-0000-000000000000' || substr(epoch, instr(epoch, '/')) "
                "WHERE state IN ('sending', 'submitted', 'running') AND epoch IS NOT NULL"
            )
            return changed.rowcount
    finally:
        connection.close()
