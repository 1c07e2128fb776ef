"""Deliveries: accepted, looked up, queued, and what retention takes."""
# ruff: noqa: S101 -- these are tests; pytest reports an assert best

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from datetime import timedelta
from itertools import product

import pytest
from anyio import create_task_group, fail_after

from dispatch_core.api import (
    DeliveryFilter,
    DeliveryRecord,
    DeliveryState,
    Message,
    Storage,
    StorageError,
    When,
)
from dispatch_core.contracts.deliveries import ENDED
from dispatch_core.testing.storage.samples import (
    EPOCH,
    EVERY_DELIVERY,
    LATER,
    PATIENCE,
    START,
    a_delivery,
    a_thread,
    deliveries_in_every_state,
)


class Deliveries:
    """What every backend does with them."""

    # Accepting deliveries.

    async def test_a_delivery_comes_back_as_it_was_added(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        left_open = [f.name for f in fields(EVERY_DELIVERY) if not getattr(EVERY_DELIVERY, f.name)]
        assert left_open == []

        added = await storage.deliveries.add(EVERY_DELIVERY)

        assert added == replace(EVERY_DELIVERY, position=1)
        assert await storage.deliveries.get(added.id) == added

    async def test_what_a_delivery_leaves_open_stays_open(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        plain = a_delivery(message=Message(text=""))

        added = await storage.deliveries.add(plain)

        assert added == replace(plain, position=added.position)
        assert await storage.deliveries.get(added.id) == added

    async def test_a_delivery_is_the_frozen_record_of_the_contract(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        await storage.deliveries.add(EVERY_DELIVERY)

        delivery = await storage.deliveries.get(EVERY_DELIVERY.id)

        assert type(delivery) is DeliveryRecord
        assert type(delivery.state) is DeliveryState
        assert type(delivery.when) is When
        with pytest.raises(FrozenInstanceError):
            delivery.state = DeliveryState.DONE  # type: ignore[misc]

    async def test_a_delivery_for_a_thread_that_is_not_there_is_not_stored(
        self, storage: Storage
    ) -> None:
        with pytest.raises(LookupError):
            await storage.deliveries.add(a_delivery(thread="nobody"))

        assert await storage.deliveries.get(a_delivery().id) is None

    async def test_an_id_is_given_once(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        first = await storage.deliveries.add(a_delivery())

        with pytest.raises(StorageError):
            await storage.deliveries.add(a_delivery(digest="other"))

        assert await storage.deliveries.get(first.id) == first

    async def test_a_delivery_can_be_added_in_flight_unless_another_is(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        first = await storage.deliveries.add(a_delivery(1, state=DeliveryState.SENDING))

        with pytest.raises(StorageError):
            await storage.deliveries.add(a_delivery(2, state=DeliveryState.SENDING))

        assert await storage.deliveries.in_flight() == (first,)
        assert await storage.deliveries.get(a_delivery(2).id) is None

    async def test_a_delivery_is_put_behind_all_others_of_its_thread(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        sent, waits = [await storage.deliveries.add(a_delivery(n)) for n in (1, 2)]
        await storage.deliveries.move(sent, DeliveryState.SENDING, epoch=EPOCH)
        await storage.deliveries.move(waits, DeliveryState.QUEUED, position=70)

        last = await storage.deliveries.add(a_delivery(3))

        assert last.position > 70
        assert sent.position < waits.position
        assert [d.id for d in await storage.deliveries.queue("key-0001", 10)] == [waits.id, last.id]

    async def test_a_delivery_is_behind_one_that_was_sent_when_that_comes_back(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        sent = await storage.deliveries.add(a_delivery(1))
        sending = await storage.deliveries.move(sent, DeliveryState.SENDING, epoch=EPOCH)
        later = await storage.deliveries.add(a_delivery(2))
        assert sending is not None

        await storage.deliveries.move(sending, DeliveryState.QUEUED, epoch=None)

        assert [d.id for d in await storage.deliveries.queue("key-0001", 10)] == [sent.id, later.id]

    async def test_deliveries_accepted_at_once_each_get_their_place(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])

        with fail_after(PATIENCE):
            async with create_task_group() as tasks:
                for number in range(64):
                    tasks.start_soon(storage.deliveries.add, a_delivery(number))

        queue = await storage.deliveries.queue("key-0001", 100)
        assert len({delivery.position for delivery in queue}) == 64
        assert {delivery.id for delivery in queue} == {a_delivery(n).id for n in range(64)}

    async def test_a_key_that_is_taken_gives_its_first_delivery_and_stores_nothing(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        first = await storage.deliveries.add(a_delivery(1, key="k"))

        again = await storage.deliveries.add(a_delivery(2, key="k", digest="other"))

        assert again == first
        assert await storage.deliveries.get(a_delivery(2).id) is None

    async def test_a_key_is_taken_for_every_thread_and_also_when_its_delivery_has_ended(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        await storage.threads.add(a_thread(2), ["0AAAA2"])
        first = await storage.deliveries.add(a_delivery(1, key="k"))
        done = await storage.deliveries.move(first, DeliveryState.CANCELLED, ended_at=LATER)

        again = await storage.deliveries.add(a_delivery(2, key="k", thread="key-0002"))

        assert again == done

    async def test_the_key_of_another_sender_is_another_key(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        first = await storage.deliveries.add(a_delivery(1, key="k"))

        second = await storage.deliveries.add(a_delivery(2, key="k", principal="agent"))

        assert second.id == a_delivery(2).id
        assert await storage.deliveries.keyed("human", "k") == first
        assert await storage.deliveries.keyed("agent", "k") == second
        assert await storage.deliveries.keyed("nobody", "k") is None
        assert await storage.deliveries.keyed("human", "other") is None

    async def test_deliveries_without_a_key_are_no_repetition_of_each_other(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])

        added = [await storage.deliveries.add(a_delivery(n)) for n in (1, 2)]

        assert [delivery.id for delivery in added] == [a_delivery(n).id for n in (1, 2)]

    async def test_a_key_used_by_many_at_once_has_one_delivery(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        got: list[str] = []

        async def send(number: int) -> None:
            got.append((await storage.deliveries.add(a_delivery(number, key="k"))).id)

        with fail_after(PATIENCE):
            async with create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(send, number)

        assert len(got) == 50
        assert len(set(got)) == 1
        assert await storage.deliveries.counts() == {DeliveryState.QUEUED: 1}

    # Looking deliveries up.

    async def test_an_unknown_delivery_is_none(self, storage: Storage) -> None:
        assert await storage.deliveries.get("nobody") is None
        assert await storage.deliveries.head("nobody") is None
        assert await storage.deliveries.queue("nobody", 10) == ()
        assert await storage.deliveries.in_flight() == ()
        assert await storage.deliveries.pending() == {}
        assert await storage.deliveries.counts() == {}

    async def test_deliveries_are_found_by_the_beginning_of_their_id(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        names = ("ab-1", "ab-2", "ab", "ac", "a", "b", "a%")
        for name in names:
            await storage.deliveries.add(a_delivery(id=name))

        async def found(prefix: str, limit: int = 10) -> list[str]:
            return [d.id for d in await storage.deliveries.find(prefix, limit)]

        assert await found("ab") == ["ab-2", "ab-1", "ab"]
        assert await found("ab", 2) == ["ab-2", "ab-1"]
        assert await found("ab", 0) == []
        assert await found("ab-1") == ["ab-1"]
        assert await found("AB") == []
        assert await found("a%") == ["a%"]
        assert await found("c") == []
        assert len(await found("")) == len(names)

    async def test_deliveries_are_listed_newest_first_and_page_by_page(
        self, storage: Storage
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = [await storage.deliveries.add(a_delivery(n)) for n in (2, 5, 1, 4, 3)]
        newest_first = sorted(added, key=lambda delivery: delivery.id, reverse=True)

        first = await storage.deliveries.list(DeliveryFilter(), 2)
        second = await storage.deliveries.list(DeliveryFilter(before=first[-1].id), 2)
        third = await storage.deliveries.list(DeliveryFilter(before=second[-1].id), 2)

        assert [*first, *second, *third] == newest_first
        assert await storage.deliveries.list(DeliveryFilter(before=third[-1].id), 2) == ()
        assert await storage.deliveries.list(DeliveryFilter(), 0) == ()

    @pytest.mark.parametrize("states", ["", "queued", "running done", "queued unknown done dead"])
    async def test_a_list_has_what_is_wanted_and_nothing_else(
        self, storage: Storage, states: str
    ) -> None:
        everything = await deliveries_in_every_state(storage)
        everything.sort(key=lambda delivery: delivery.id, reverse=True)
        wanted = {DeliveryState(state) for state in states.split()}
        pages = product((None, "key-0001", "key-0002", "nobody"), (None, "id-0011"), (1, 2, 30))

        for thread, before, limit in pages:
            listed = await storage.deliveries.list(
                DeliveryFilter(thread=thread, states=wanted, before=before), limit
            )

            meant = [
                delivery
                for delivery in everything
                if thread in (None, delivery.thread)
                and (not wanted or delivery.state in wanted)
                and (before is None or delivery.id < before)
            ]
            assert listed == tuple(meant[:limit]), (thread, before, limit)

    async def test_deliveries_are_counted_by_state(self, storage: Storage) -> None:
        await deliveries_in_every_state(storage)

        counts = await storage.deliveries.counts()

        assert counts == {
            state: 2
            for state in DeliveryState
            if state not in (DeliveryState.SENDING, DeliveryState.SUBMITTED)
        }
        assert all(type(state) is DeliveryState for state in counts)

    async def test_what_is_queued_is_counted_by_thread(self, storage: Storage) -> None:
        await deliveries_in_every_state(storage)
        await storage.deliveries.add(a_delivery(90, thread="key-0002"))

        assert await storage.deliveries.pending() == {"key-0001": 1, "key-0002": 2}

    async def test_what_is_in_flight_is_listed_oldest_first(self, storage: Storage) -> None:
        for number in (1, 2, 3):
            await storage.threads.add(a_thread(number), [f"0AAAA{number}"])
            added = await storage.deliveries.add(a_delivery(9 - number, thread=f"key-000{number}"))
            await storage.deliveries.add(a_delivery(20 + number, thread=f"key-000{number}"))
            if number < 3:
                await storage.deliveries.move(added, DeliveryState.SUBMITTED, epoch=EPOCH)

        flying = await storage.deliveries.in_flight()

        assert [delivery.id for delivery in flying] == [a_delivery(n).id for n in (7, 8)]

    # The queue of a thread.

    async def test_a_queue_is_read_in_order_and_page_by_page(self, storage: Storage) -> None:
        for number in (1, 2):
            await storage.threads.add(a_thread(number), [f"0AAAA{number}"])
        added = [await storage.deliveries.add(a_delivery(n)) for n in (3, 1, 2, 5, 4)]
        await storage.deliveries.add(a_delivery(6, thread="key-0002"))

        first = await storage.deliveries.queue("key-0001", 2)
        rest = await storage.deliveries.queue("key-0001", 10, after=first[-1].position)

        assert [*first, *rest] == added
        assert await storage.deliveries.queue("key-0001", 10, after=rest[-1].position) == ()
        assert await storage.deliveries.queue("key-0001", 0) == ()

    async def test_a_queue_holds_only_what_is_queued(self, storage: Storage) -> None:
        everything = await deliveries_in_every_state(storage)

        queue = await storage.deliveries.queue("key-0001", 100)

        assert queue == tuple(
            delivery
            for delivery in everything
            if delivery.thread == "key-0001" and delivery.state is DeliveryState.QUEUED
        )

    @pytest.mark.parametrize(
        "state", [DeliveryState.SENDING, DeliveryState.SUBMITTED, DeliveryState.RUNNING]
    )
    async def test_what_is_in_flight_comes_first(
        self, storage: Storage, state: DeliveryState
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = [await storage.deliveries.add(a_delivery(n)) for n in (1, 2, 3)]
        await storage.deliveries.move(added[0], DeliveryState.UNKNOWN)
        flying = await storage.deliveries.move(added[2], state, epoch=EPOCH)

        assert flying is not None
        assert await storage.deliveries.head("key-0001") == flying

    async def test_what_is_in_doubt_comes_before_what_is_queued(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = [await storage.deliveries.add(a_delivery(n)) for n in (1, 2, 3)]
        await storage.deliveries.move(added[0], DeliveryState.DONE)

        doubt = await storage.deliveries.move(added[2], DeliveryState.UNKNOWN)

        assert doubt is not None
        assert await storage.deliveries.head("key-0001") == doubt

    async def test_the_first_in_the_queue_comes_when_nothing_else_does(
        self, storage: Storage
    ) -> None:
        for number in (1, 2):
            await storage.threads.add(a_thread(number), [f"0AAAA{number}"])
        added = [await storage.deliveries.add(a_delivery(n)) for n in (2, 1)]
        other = await storage.deliveries.add(a_delivery(3, thread="key-0002"))
        await storage.deliveries.move(other, DeliveryState.RUNNING)

        assert await storage.deliveries.head("key-0001") == added[0]

    async def test_there_is_no_head_when_all_have_ended(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        for number, state in enumerate(sorted(ENDED)):
            added = await storage.deliveries.add(a_delivery(number))
            await storage.deliveries.move(added, state, ended_at=LATER)

        assert await storage.deliveries.head("key-0001") is None

    # Reordering a queue.

    async def test_a_queue_is_given_another_order(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        sent, *queued = [await storage.deliveries.add(a_delivery(n)) for n in range(5)]
        sent = await storage.deliveries.move(sent, DeliveryState.SENDING, epoch=EPOCH) or sent
        wanted = [queued[n].id for n in (2, 0, 3, 1)]

        assert await storage.deliveries.reorder("key-0001", wanted)
        last = await storage.deliveries.add(a_delivery(9))

        queue = await storage.deliveries.queue("key-0001", 10)
        assert [delivery.id for delivery in queue] == [*wanted, last.id]
        assert [replace(delivery, position=0) for delivery in queue[:4]] == [
            replace(queued[n], position=0) for n in (2, 0, 3, 1)
        ]
        assert await storage.deliveries.get(sent.id) == sent
        assert sent.position < queue[0].position

    @pytest.mark.parametrize("given", ["1 2", "1 2 3 4", "1 2 2", "1 2 3 3", "1 2 0", "1 2 8", ""])
    async def test_an_order_of_anything_but_the_queue_changes_nothing(
        self, storage: Storage, given: str
    ) -> None:
        for number in (1, 2):
            await storage.threads.add(a_thread(number), [f"0AAAA{number}"])
        sent, *queued = [await storage.deliveries.add(a_delivery(n)) for n in range(4)]
        await storage.deliveries.move(sent, DeliveryState.SENDING, epoch=EPOCH)
        await storage.deliveries.add(a_delivery(8, thread="key-0002"))
        ids = [a_delivery(int(number)).id for number in given.split()[::-1]]

        assert not await storage.deliveries.reorder("key-0001", ids)

        assert await storage.deliveries.queue("key-0001", 10) == tuple(queued)

    async def test_an_empty_queue_has_one_order(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])

        assert await storage.deliveries.reorder("key-0001", [])
        assert not await storage.deliveries.reorder("key-0001", ["id-0001"])

    # Retention.

    async def test_bodies_and_rows_are_dropped_when_their_time_has_come(
        self, storage: Storage
    ) -> None:
        ages = {"old": START, "middle": LATER, "new": LATER + timedelta(minutes=1)}
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        for name, moment in ages.items():
            added = await storage.deliveries.add(a_delivery(id=name, key=name))
            await storage.deliveries.move(added, DeliveryState.DONE, ended_at=moment)
        middle, new = await storage.deliveries.get("middle"), await storage.deliveries.get("new")
        assert middle is not None

        touched = await storage.deliveries.collect(
            bodies_before=ages["new"], receipts_before=ages["middle"], limit=10
        )

        assert touched == 2
        assert await storage.deliveries.get("old") is None
        assert await storage.deliveries.keyed("human", "old") is None
        assert await storage.deliveries.get("middle") == replace(middle, message=None)
        assert await storage.deliveries.get("new") == new

    @pytest.mark.parametrize("state", sorted(set(DeliveryState) - ENDED))
    async def test_what_has_not_ended_is_never_collected(
        self, storage: Storage, state: DeliveryState
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = await storage.deliveries.add(a_delivery(1))
        open_one = await storage.deliveries.move(added, state, ended_at=START)

        touched = await storage.deliveries.collect(
            bodies_before=LATER, receipts_before=LATER, limit=10
        )

        assert touched == 0
        assert await storage.deliveries.get(added.id) == open_one

    @pytest.mark.parametrize("state", sorted(ENDED))
    async def test_every_end_is_collected_after_its_time_and_not_before(
        self, storage: Storage, state: DeliveryState
    ) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        added = await storage.deliveries.add(a_delivery(1))
        await storage.deliveries.move(added, state, ended_at=START)

        early = await storage.deliveries.collect(
            bodies_before=START, receipts_before=START, limit=10
        )
        late = await storage.deliveries.collect(
            bodies_before=LATER, receipts_before=LATER, limit=10
        )

        assert (early, late) == (0, 1)
        assert await storage.deliveries.get(added.id) is None

    async def test_a_queue_is_collected_in_slices(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        for number in range(7):
            added = await storage.deliveries.add(a_delivery(number))
            ended = START if number < 4 else LATER
            await storage.deliveries.move(added, DeliveryState.DONE, ended_at=ended)

        touched = [
            await storage.deliveries.collect(
                bodies_before=LATER + timedelta(seconds=1), receipts_before=LATER, limit=3
            )
            for _ in range(4)
        ]

        assert touched == [3, 3, 1, 0]
        left = await storage.deliveries.list(DeliveryFilter(), 10)
        assert [(d.id, d.message) for d in left] == [(a_delivery(n).id, None) for n in (6, 5, 4)]
