"""The action log, triggers and their firings, and the cache."""
# ruff: noqa: S101 -- these are tests; pytest reports an assert best

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from dispatch_core.api import (
    ActionRecord,
    CachedRecord,
    FiringRecord,
    FiringStatus,
    Storage,
)
from dispatch_core.testing.storage.samples import (
    LATER,
    PATIENCE,
    START,
    a_trigger,
)


class Triggers:
    """What every backend does with them."""

    # The action log.

    async def test_the_latest_actions_come_newest_first(self, storage: Storage) -> None:
        actions = [
            ActionRecord(
                at=START + timedelta(seconds=n),
                op="send",
                principal="human",
                outcome="ok",
                thread="0AAAA1" if n else None,
                trigger_id="t" if n else None,
                detail=f"action {n}",
            )
            for n in range(3)
        ]
        for action in actions:
            await storage.actions.append(action)

        latest = await storage.actions.latest(2)

        assert latest == (actions[2], actions[1])

    async def test_actions_of_the_same_instant_keep_their_order(self, storage: Storage) -> None:
        for name in ("first", "second"):
            await storage.actions.append(
                ActionRecord(at=START, op=name, principal="human", outcome="ok")
            )

        latest = await storage.actions.latest(10)

        assert [action.op for action in latest] == ["second", "first"]

    async def test_no_actions_are_an_empty_log(self, storage: Storage) -> None:
        assert await storage.actions.latest(10) == ()

    # Triggers.

    async def test_a_trigger_comes_back_as_it_was_added(self, storage: Storage) -> None:
        trigger = a_trigger(enabled=False, next_at=LATER)

        await storage.triggers.add(trigger)

        assert await storage.triggers.get(trigger.id) == trigger
        assert await storage.triggers.get("nobody") is None

    async def test_a_trigger_id_is_given_once(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger())

        with pytest.raises(ValueError, match="trigger-1"):
            await storage.triggers.add(a_trigger(name="other"))

        assert await storage.triggers.list() == (a_trigger(),)

    async def test_triggers_are_listed_in_order_of_creation(self, storage: Storage) -> None:
        for number in (2, 1, 3):
            await storage.triggers.add(a_trigger(number))

        assert await storage.triggers.list() == (a_trigger(1), a_trigger(2), a_trigger(3))

    async def test_a_trigger_is_paused_and_resumed(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger(next_at=LATER))

        assert await storage.triggers.update("trigger-1", enabled=False)
        assert await storage.triggers.get("trigger-1") == a_trigger(enabled=False)

        assert await storage.triggers.update("trigger-1", enabled=True, next_at=LATER)
        assert await storage.triggers.get("trigger-1") == a_trigger(next_at=LATER)

    async def test_moving_the_next_instant_leaves_a_trigger_paused(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger(enabled=False))

        assert await storage.triggers.update("trigger-1", next_at=LATER)

        assert await storage.triggers.get("trigger-1") == a_trigger(enabled=False, next_at=LATER)

    async def test_an_unknown_trigger_is_neither_updated_nor_removed(
        self, storage: Storage
    ) -> None:
        assert not await storage.triggers.update("nobody", enabled=True)
        assert not await storage.triggers.remove("nobody")

    async def test_removing_a_trigger_removes_its_firings(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger(1))
        await storage.triggers.add(a_trigger(2))
        await storage.firings.claim("trigger-1", "noon", START)
        await storage.firings.claim("trigger-2", "noon", START)

        assert await storage.triggers.remove("trigger-1")

        assert await storage.triggers.list() == (a_trigger(2),)
        assert await storage.firings.latest("trigger-1") is None
        assert await storage.firings.latest("trigger-2") is not None

    # Firings.

    async def test_an_occasion_is_claimed_once(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger())

        claims = [await storage.firings.claim("trigger-1", "noon", START) for _ in range(3)]

        assert claims == [True, False, False]

    async def test_one_of_many_concurrent_claims_wins(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger())
        claims: list[bool] = []

        async def claim() -> None:
            claims.append(await storage.firings.claim("trigger-1", "noon", START))

        with fail_after(PATIENCE):
            async with create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(claim)

        assert sorted(claims) == [False] * 19 + [True]

    async def test_each_key_and_each_trigger_is_another_occasion(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger(1))
        await storage.triggers.add(a_trigger(2))

        assert await storage.firings.claim("trigger-1", "noon", START)
        assert await storage.firings.claim("trigger-1", "midnight", START)
        assert await storage.firings.claim("trigger-2", "noon", START)

    async def test_a_trigger_that_is_gone_claims_nothing(self, storage: Storage) -> None:
        assert not await storage.firings.claim("nobody", "noon", START)

        assert await storage.firings.latest("nobody") is None

    async def test_a_finished_firing_says_how_it_ended(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger())
        await storage.firings.claim("trigger-1", "noon", START)

        await storage.firings.finish("trigger-1", "noon", FiringStatus.FAILED, "lane_busy")

        assert await storage.firings.latest("trigger-1") == FiringRecord(
            trigger_id="trigger-1",
            key="noon",
            status=FiringStatus.FAILED,
            at=START,
            detail="lane_busy",
        )
        assert not await storage.firings.claim("trigger-1", "noon", LATER)

    async def test_finishing_for_a_trigger_that_is_gone_does_nothing(
        self, storage: Storage
    ) -> None:
        await storage.firings.finish("nobody", "noon", FiringStatus.DONE)

        assert await storage.firings.latest("nobody") is None

    async def test_the_latest_firing_is_the_newest(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger())
        await storage.firings.claim("trigger-1", "b", START)
        await storage.firings.claim("trigger-1", "a", LATER)

        latest = await storage.firings.latest("trigger-1")

        assert latest is not None
        assert (latest.key, latest.status) == ("a", FiringStatus.CLAIMED)

    async def test_what_was_claimed_and_not_finished_is_found(self, storage: Storage) -> None:
        await storage.triggers.add(a_trigger())
        for key in ("done", "open"):
            await storage.firings.claim("trigger-1", key, START)
        await storage.firings.finish("trigger-1", "done", FiringStatus.DONE)

        claimed = await storage.firings.claimed()
        await storage.firings.finish("trigger-1", "open", FiringStatus.UNKNOWN)

        assert claimed == (
            FiringRecord(trigger_id="trigger-1", key="open", status=FiringStatus.CLAIMED, at=START),
        )
        assert await storage.firings.claimed() == ()
        assert not await storage.firings.claim("trigger-1", "open", LATER)

    # The cache.

    async def test_nothing_is_cached_under_an_unknown_name(self, storage: Storage) -> None:
        assert await storage.cache.get("models") is None

    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            0,
            1.5,
            "Ünïcode ✓",
            [],
            {},
            {"data": [{"id": "m", "efforts": ["low", None]}]},
        ],
    )
    async def test_a_cached_value_comes_back_with_its_moment(
        self, storage: Storage, value: Any
    ) -> None:
        await storage.cache.put("models", value, START)

        assert await storage.cache.get("models") == CachedRecord(value=value, at=START)

    async def test_a_value_takes_the_place_of_the_one_before(self, storage: Storage) -> None:
        await storage.cache.put("models", ["old"], START)
        await storage.cache.put("profiles", ["other"], START)

        await storage.cache.put("models", ["new"], LATER)

        assert await storage.cache.get("models") == CachedRecord(value=["new"], at=LATER)
        assert await storage.cache.get("profiles") == CachedRecord(value=["other"], at=START)

    @pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), START])
    async def test_what_is_no_json_is_not_cached(self, storage: Storage, value: Any) -> None:
        await storage.cache.put("models", ["kept"], START)

        with pytest.raises((TypeError, ValueError)):
            await storage.cache.put("models", value, LATER)

        assert await storage.cache.get("models") == CachedRecord(value=["kept"], at=START)

    async def test_a_cached_value_belongs_to_nobody_else(self, storage: Storage) -> None:
        value = {"data": ["m"]}
        await storage.cache.put("models", value, START)

        value["data"].append("later")
        first = await storage.cache.get("models")
        assert first is not None
        first.value["data"].append("mine")

        assert await storage.cache.get("models") == CachedRecord(value={"data": ["m"]}, at=START)
