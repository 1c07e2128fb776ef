"""How long what has ended is kept: the text of a message for a month, the receipt for three."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from dispatch_core.errors import StorageError

if TYPE_CHECKING:
    from dispatch_core.contracts.context import Clock
    from dispatch_core.contracts.deliveries import DeliveryStore

log = logging.getLogger(__name__)

BODIES = timedelta(days=30)
RECEIPTS = timedelta(days=90)  # an idempotency key is kept as long
SLICE = 500  # rows in one transaction, so that nobody waits for it
PERIOD = 24 * 3600.0  # seconds
FIRST = 60.0  # seconds after the start, which has better to do


async def collect_for_ever(store: DeliveryStore, clock: Clock) -> None:
    """Drop what is older than it is kept, once a day, until cancelled. What has not ended, or is unknown, stays."""
    await anyio.sleep(FIRST)
    while True:
        try:
            await collect(store, clock)
        except StorageError as error:
            log.warning("old deliveries stay for another day: %s", error)
        except Exception:
            # The backend may be anybody's.
            log.exception("old deliveries stay for another day")
        await anyio.sleep(PERIOD)


async def collect(store: DeliveryStore, clock: Clock) -> int:
    """Drop what is older than it is kept and return how many deliveries that touched. Raises StorageError."""
    now, total = clock.now(), 0
    while True:
        touched = await store.collect(
            bodies_before=now - BODIES, receipts_before=now - RECEIPTS, limit=SLICE
        )
        total += touched
        if touched < SLICE:
            return total
        await anyio.lowlevel.checkpoint()  # the reader's turn
