"""Changes of a delivery, each a compare-and-set."""
# ruff: noqa: S101 -- these are tests; pytest reports an assert best

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from dispatch_core.api import (
    DeliveryRecord,
    DeliveryState,
    Message,
    Storage,
)
from dispatch_core.contracts.deliveries import IN_FLIGHT
from dispatch_core.testing.storage.samples import (
    EPOCH,
    EVERY_DELIVERY,
    LATER,
    NOT_CHANGED_ALONE,
    PATIENCE,
    a_delivery,
    a_thread,
)


class DeliveryMoves:
    """What every backend does with them."""

    # Moving deliveries.

    async def test_a_move_changes_the_named_fields_and_no_other(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        before = await storage.deliveries.add(a_delivery(key="k"))
        changes: dict[str, Any] = {
            field.name: getattr(EVERY_DELIVERY, field.name)
            for field in fields(EVERY_DELIVERY)
            if field.name not in ("id", "thread", "state", "created_at")
        }

        after = await storage.deliveries.move(before, DeliveryState.RUNNING, **changes)

        assert after == replace(before, state=DeliveryState.RUNNING, **changes)
        assert await storage.deliveries.get(before.id) == after

    async def test_each_field_can_be_changed_alone_and_taken_back(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        before = await storage.deliveries.add(a_delivery())

        for name in sorted({field.name for field in fields(before)} - NOT_CHANGED_ALONE):
            value = getattr(EVERY_DELIVERY, name)
            changed = await storage.deliveries.move(before, before.state, **{name: value})
            assert changed == replace(before, **{name: value})
            old = getattr(before, name)
            assert await storage.deliveries.move(changed, before.state, **{name: old}) == before

        assert await storage.deliveries.get(before.id) == before

    async def test_a_move_tells_what_is_stored_and_not_what_was_read(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        read = await storage.deliveries.add(a_delivery())
        edited = Message(text="better")
        await storage.deliveries.move(read, DeliveryState.QUEUED, message=edited, position=-7)

        moved = await storage.deliveries.move(read, DeliveryState.SENDING, epoch=EPOCH)

        assert moved is not None
        assert (moved.message, moved.position) == (edited, -7)

    async def test_a_delivery_in_another_state_is_not_moved(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        read = await storage.deliveries.add(a_delivery())
        cancelled = await storage.deliveries.move(read, DeliveryState.CANCELLED, ended_at=LATER)

        moved = await storage.deliveries.move(read, DeliveryState.SENDING, epoch=EPOCH, attempt=1)

        assert moved is None
        assert await storage.deliveries.get(read.id) == cancelled

    @pytest.mark.parametrize("stored", ["none", "one", "other"])
    @pytest.mark.parametrize("read", ["none", "one", "other"])
    async def test_a_delivery_is_moved_only_with_the_epoch_it_has(
        self, storage: Storage, stored: str, read: str
    ) -> None:
        epochs = {"none": None, "one": EPOCH, "other": replace(EPOCH, generation=8)}
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = await storage.deliveries.add(
            a_delivery(state=DeliveryState.SENDING, epoch=epochs[stored])
        )

        moved = await storage.deliveries.move(
            replace(added, epoch=epochs[read]), DeliveryState.RUNNING, turn_id="turn-1"
        )

        changed = replace(added, state=DeliveryState.RUNNING, turn_id="turn-1")
        assert moved == (changed if stored == read else None)
        assert await storage.deliveries.get(added.id) == (changed if stored == read else added)

    async def test_a_delivery_that_is_not_there_is_not_moved(self, storage: Storage) -> None:
        assert await storage.deliveries.move(a_delivery(), DeliveryState.DONE) is None

    @pytest.mark.parametrize("rival", sorted(IN_FLIGHT))
    @pytest.mark.parametrize("state", sorted(IN_FLIGHT))
    async def test_one_delivery_of_a_thread_is_in_flight(
        self, storage: Storage, rival: DeliveryState, state: DeliveryState
    ) -> None:
        for number in (1, 2):
            await storage.threads.add(a_thread(number), [f"0AAAA{number}"])
        first, second = [await storage.deliveries.add(a_delivery(n)) for n in (1, 2)]
        elsewhere = await storage.deliveries.add(a_delivery(3, thread="key-0002"))
        flying = await storage.deliveries.move(first, rival, epoch=EPOCH)
        assert flying is not None

        assert await storage.deliveries.move(second, state, epoch=EPOCH) is None
        assert await storage.deliveries.move(elsewhere, state, epoch=EPOCH) is not None
        assert await storage.deliveries.move(flying, state) is not None

        assert await storage.deliveries.get(second.id) == second

    async def test_a_delivery_is_in_flight_after_the_one_before_has_landed(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        first, second = [await storage.deliveries.add(a_delivery(n)) for n in (1, 2)]
        flying = await storage.deliveries.move(first, DeliveryState.SENDING, epoch=EPOCH)
        assert flying is not None

        await storage.deliveries.move(flying, DeliveryState.DONE, ended_at=LATER)

        assert await storage.deliveries.move(second, DeliveryState.SENDING, epoch=EPOCH) is not None

    @pytest.mark.parametrize("name", ["id", "thread", "created_at", "colour"])
    async def test_a_move_refuses_what_cannot_be_changed(self, storage: Storage, name: str) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = await storage.deliveries.add(a_delivery())

        with pytest.raises(TypeError):
            await storage.deliveries.move(added, DeliveryState.DONE, **{name: "x"})

        assert await storage.deliveries.get(added.id) == added

    async def test_one_of_many_moves_of_one_delivery_wins(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = await storage.deliveries.add(a_delivery())
        won: list[int] = []

        async def move(number: int) -> None:
            state = DeliveryState.SENDING if number % 2 else DeliveryState.CANCELLED
            if await storage.deliveries.move(added, state, reason=str(number)) is not None:
                won.append(number)

        with fail_after(PATIENCE):
            async with create_task_group() as tasks:
                for number in range(64):
                    tasks.start_soon(move, number)

        stored = await storage.deliveries.get(added.id)
        assert stored is not None
        assert [stored.reason] == [str(number) for number in won]

    async def test_one_of_many_deliveries_of_a_thread_takes_off(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = [await storage.deliveries.add(a_delivery(n)) for n in range(20)]
        won: list[str] = []

        async def take_off(delivery: DeliveryRecord) -> None:
            if await storage.deliveries.move(delivery, DeliveryState.SENDING, epoch=EPOCH):
                won.append(delivery.id)

        with fail_after(PATIENCE):
            async with create_task_group() as tasks:
                for delivery in added:
                    tasks.start_soon(take_off, delivery)

        assert [delivery.id for delivery in await storage.deliveries.in_flight()] == won
        assert await storage.deliveries.pending() == {"key-0001": 19}

    async def test_a_position_before_all_others_is_the_front(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = [await storage.deliveries.add(a_delivery(n)) for n in (1, 2, 3)]
        doubt = await storage.deliveries.move(added[2], DeliveryState.UNKNOWN)
        assert doubt is not None

        front = added[0].position - 5
        again = await storage.deliveries.move(doubt, DeliveryState.QUEUED, position=front)

        assert again is not None
        assert again.position == front < 0
        assert await storage.deliveries.head("key-0001") == again
        assert await storage.deliveries.queue("key-0001", 10) == (again, *added[:2])

    async def test_a_key_that_was_given_up_can_be_used_again(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        first = await storage.deliveries.add(a_delivery(1, key="k"))
        await storage.deliveries.move(first, DeliveryState.REJECTED, key=None, ended_at=LATER)

        second = await storage.deliveries.add(a_delivery(2, key="k"))

        assert second.id == a_delivery(2).id
        assert await storage.deliveries.keyed("human", "k") == second
