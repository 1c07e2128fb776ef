"""The suite as one class, with what concerns all of a backend."""
# ruff: noqa: S101 -- these are tests; pytest reports an assert best

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ClassVar

import pytest
from anyio import fail_after, to_thread

from dispatch_core.api import (
    ActionRecord,
    CachedRecord,
    Storage,
    StorageError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

from dispatch_core.testing.storage.deliveries import Deliveries
from dispatch_core.testing.storage.delivery_moves import DeliveryMoves
from dispatch_core.testing.storage.requests import Requests
from dispatch_core.testing.storage.samples import (
    EVERY_DELIVERY,
    PATIENCE,
    START,
    OpenStorage,
    a_delivery,
    a_thread,
    a_trigger,
    a_turn,
)
from dispatch_core.testing.storage.threads import Threads
from dispatch_core.testing.storage.triggers import Triggers


class StorageConformance(Threads, Triggers, Deliveries, DeliveryMoves, Requests):
    """Inherit it, give it an ``open_storage`` fixture, and pytest runs the suite against that backend.

    open_storage: called with an AsyncExitStack, opens a backend over the same data each time and
    returns it. durable: whether what was stored is there after a restart; without it those tests
    are skipped.
    """

    durable: ClassVar[bool] = True
    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.anyio]

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Return the event loop the suite runs on."""
        return "asyncio"

    @pytest.fixture
    def open_storage(self) -> OpenStorage:
        """Open a backend over the same data each time; every subclass supplies its own."""
        raise NotImplementedError(f"{type(self).__name__} has no fixture open_storage")

    @pytest.fixture
    async def storage(self, open_storage: OpenStorage) -> AsyncIterator[Storage]:
        """Yield an open, empty backend."""
        async with AsyncExitStack() as stack:
            with fail_after(PATIENCE):
                storage = await open_storage(stack)
            yield storage

    # What a backend need not have.

    async def test_a_backend_says_what_it_does_not_have(self, storage: Storage) -> None:
        assert storage.index is None or callable(storage.index.checkpoints)
        assert storage.maintenance is None or callable(storage.maintenance.check)

    async def test_a_backend_that_can_be_checked_finds_itself_whole(self, storage: Storage) -> None:
        if storage.maintenance is None:
            pytest.skip("this backend needs no maintenance")
        await storage.threads.add(a_thread(), ["0AAAA1"])

        report = await to_thread.run_sync(storage.maintenance.check)

        assert (report.exists, report.problems) == (True, ())
        assert report.schema == report.supported
        assert report.counts["threads"] == 1

    async def test_a_backend_that_can_be_copied_is_copied_and_overwrites_nothing(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        if storage.maintenance is None:
            pytest.skip("this backend needs no maintenance")
        await storage.threads.add(a_thread(), ["0AAAA1"])
        target = tmp_path / "copy"

        copy = await to_thread.run_sync(storage.maintenance.backup, target)

        assert copy.exists()
        with pytest.raises(StorageError):
            await to_thread.run_sync(storage.maintenance.backup, target)

    # Restarts.

    async def test_everything_is_there_after_a_restart(self, open_storage: OpenStorage) -> None:
        self._needs_durability()
        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)
            thread = await storage.threads.add(a_thread(turn=a_turn()), ["0AAAA1"])
            await storage.triggers.add(a_trigger())
            await storage.firings.claim("trigger-1", "noon", START)
            action = ActionRecord(at=START, op="new", principal="human", outcome="ok")
            await storage.actions.append(action)
            await storage.cache.put("models", ["m"], START)
            delivery = await storage.deliveries.add(EVERY_DELIVERY)

        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)

            assert await storage.threads.list() == (thread,)
            assert await storage.triggers.list() == (a_trigger(),)
            assert await storage.actions.latest(10) == (action,)
            assert await storage.cache.get("models") == CachedRecord(value=["m"], at=START)
            assert await storage.deliveries.in_flight() == (delivery,)

    async def test_a_key_is_taken_across_a_restart(self, open_storage: OpenStorage) -> None:
        self._needs_durability()
        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)
            await storage.threads.add(a_thread(1), ["0AAAA1"])
            first = await storage.deliveries.add(a_delivery(1, key="k"))

        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)

            assert await storage.deliveries.add(a_delivery(2, key="k")) == first

    async def test_an_occasion_is_claimed_once_across_a_restart(
        self, open_storage: OpenStorage
    ) -> None:
        self._needs_durability()
        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)
            await storage.triggers.add(a_trigger())
            assert await storage.firings.claim("trigger-1", "noon", START)

        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)

            assert not await storage.firings.claim("trigger-1", "noon", START)
            assert len(await storage.firings.claimed()) == 1

    async def test_a_ref_stays_taken_across_a_restart(self, open_storage: OpenStorage) -> None:
        self._needs_durability()
        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)
            await storage.threads.add(a_thread(1), ["0AAAA1"])

        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)
            thread = await storage.threads.add(a_thread(2), ["0AAAA1", "0AAAA2"])

        assert thread.ref == "0AAAA2"

    def _needs_durability(self) -> None:
        if not self.durable:
            pytest.skip("this backend keeps nothing across restarts")
