"""The suite every storage backend passes.

In a backend's own tests::

    class TestMyStorage(StorageConformance):
        durable = True

        @pytest.fixture
        def open_storage(self, tmp_path):
            async def open_storage(stack):
                storage = MyStorage(tmp_path)
                await storage.open(stack)
                return storage

            return open_storage
"""

from __future__ import annotations

from dispatch_core.testing.storage.conformance import StorageConformance
from dispatch_core.testing.storage.samples import (
    EPOCH,
    EVERY_DELIVERY,
    EVERY_SETTING,
    LATER,
    PATIENCE,
    START,
    OpenStorage,
    a_delivery,
    a_request,
    a_thread,
    a_trigger,
    a_turn,
    deliveries_in_every_state,
)

__all__ = [
    "EPOCH",
    "EVERY_DELIVERY",
    "EVERY_SETTING",
    "LATER",
    "PATIENCE",
    "START",
    "OpenStorage",
    "StorageConformance",
    "a_delivery",
    "a_request",
    "a_thread",
    "a_trigger",
    "a_turn",
    "deliveries_in_every_state",
]
