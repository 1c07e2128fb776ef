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
# ruff: noqa: S101 -- these are tests; pytest reports an assert best

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import FrozenInstanceError, fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import pytest
from anyio import create_task_group, fail_after, to_thread

from dispatch_core.api import (
    ActionRecord,
    CachedRecord,
    FiringRecord,
    FiringStatus,
    ModelInUse,
    Source,
    Storage,
    StorageError,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TriggerRecord,
    TurnRecord,
    TurnStatus,
)

if TYPE_CHECKING:
    from pathlib import Path

OpenStorage: TypeAlias = Callable[[AsyncExitStack], Awaitable[Storage]]

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = START + timedelta(minutes=1)
EVERY_SETTING = ThreadSettings(
    sandbox="workspace-write",
    approval_policy="never",
    approvals_reviewer="auto",
    permissions="careful",
    model="m",
    model_provider="p",
    effort="high",
    summary="concise",
    personality="friendly",
    service_tier="priority",
    output_schema={"type": "object", "properties": {"ü": {"enum": [1, None, True, 0.5, []]}}},
    base_instructions="Ünïcode\n✓",
    developer_instructions="",
)
PATIENCE = 20.0  # seconds; a backend that waits for ever fails instead of hanging the run


def a_thread(number: int = 1, **fields: Any) -> ThreadRecord:
    """Return a thread that differs from that of every other number in key, native id, handle and age."""
    plain = ThreadRecord(
        key=f"key-{number:04}",
        provider="codex",
        native_id=f"native-{number}",
        ref="",
        handle=f"@thread-{number}",
        title=None,
        source=Source.OWN,
        status=ThreadStatus.IDLE,
        cwd="/srv/project",
        settings=ThreadSettings(),
        created_at=START + timedelta(seconds=number),
        updated_at=START + timedelta(seconds=number),
    )
    return replace(plain, **fields)


def a_turn(**fields: Any) -> TurnRecord:
    """Return a turn that has been submitted."""
    plain = TurnRecord(
        message_id="message-1", id=None, status=TurnStatus.SUBMITTED, started_at=START
    )
    return replace(plain, **fields)


def a_trigger(number: int = 1, **fields: Any) -> TriggerRecord:
    """Return a trigger that differs from that of every other number in id, name and age."""
    plain = TriggerRecord(
        id=f"trigger-{number}",
        name=f"on-{number}",
        kind="interval",
        config={"every": 60, "labels": ["é", None]},
        thread="@thread-1",
        op="send",
        args={"text": "go"},
        created_at=START + timedelta(seconds=number),
    )
    return replace(plain, **fields)


class StorageConformance:
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

    # Adding threads.

    async def test_a_thread_comes_back_as_it_was_added(self, storage: Storage) -> None:
        thread = a_thread(
            title="Ünïcode ✓",
            source=Source.ATTACHED,
            status=ThreadStatus.UNKNOWN,
            settings=ThreadSettings(sandbox="read-only", model="m", effort="high"),
            materialized=True,
            ephemeral=True,
            in_use=ModelInUse(provider="p", model="m", effort="low", service_tier="fast"),
            turn=a_turn(
                id="turn-1", error="it broke", completed_at=LATER, status=TurnStatus.FAILED
            ),
        )

        added = await storage.threads.add(thread, ["0AAAA1"])

        assert added == replace(thread, ref="0AAAA1")
        assert await storage.threads.get(thread.key) == added

    async def test_every_setting_comes_back_as_it_was_added(self, storage: Storage) -> None:
        missing = [f.name for f in fields(EVERY_SETTING) if getattr(EVERY_SETTING, f.name) is None]
        assert missing == []

        added = await storage.threads.add(a_thread(settings=EVERY_SETTING), ["0AAAA1"])

        assert added.settings == EVERY_SETTING
        assert await storage.threads.get(added.key) == added
        assert await storage.threads.list() == (added,)

    async def test_what_a_thread_leaves_open_stays_open(self, storage: Storage) -> None:
        added = await storage.threads.add(a_thread(in_use=ModelInUse(model="m")), ["0AAAA1"])

        thread = await storage.threads.get(added.key)

        assert thread is not None
        assert thread.settings == ThreadSettings()
        assert thread.in_use == ModelInUse(model="m")
        assert (thread.ephemeral, thread.materialized, thread.turn) == (False, False, None)

    async def test_a_record_is_the_frozen_one_of_the_contract(self, storage: Storage) -> None:
        added = await storage.threads.add(a_thread(turn=a_turn()), ["0AAAA1"])

        (thread,) = await storage.threads.list()

        assert type(thread) is ThreadRecord
        assert type(thread.turn) is TurnRecord
        assert replace(thread) == added
        for record, name in ((thread, "title"), (thread.turn, "status")):
            with pytest.raises(FrozenInstanceError):
                setattr(record, name, "x")

    async def test_a_thread_gets_the_first_free_ref(self, storage: Storage) -> None:
        refs = ["0AAAA1", "0AAAA2", "0AAAA3"]

        threads = [await storage.threads.add(a_thread(n), refs) for n in (1, 2, 3)]

        assert [thread.ref for thread in threads] == refs

    async def test_refs_are_taken_in_the_order_given(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0BBBB1"])

        thread = await storage.threads.add(a_thread(2), ["0BBBB1", "0BBBBz", "0BBBB2"])

        assert thread.ref == "0BBBBz"

    async def test_a_thread_without_a_free_ref_is_not_stored(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])

        with pytest.raises(StorageError):
            await storage.threads.add(a_thread(2), ["0AAAA1"])

        assert await storage.threads.get("key-0002") is None
        assert await storage.threads.find("native_id", "native-2") == ()

    async def test_adding_a_native_thread_again_returns_the_stored_one(
        self, storage: Storage
    ) -> None:
        first = await storage.threads.add(a_thread(1), ["0AAAA1"])

        again = await storage.threads.add(
            a_thread(2, native_id="native-1", title="other"), ["0AAAA2"]
        )

        assert again == first
        assert await storage.threads.list() == (first,)

    async def test_the_same_native_id_of_another_provider_is_another_thread(
        self, storage: Storage
    ) -> None:
        first = await storage.threads.add(a_thread(1, native_id="same"), ["0AAAA1"])
        second = await storage.threads.add(
            a_thread(2, native_id="same", provider="other"), ["0AAAA2"]
        )

        found = await storage.threads.find("native_id", "same")

        assert found == (first, second)

    async def test_a_key_is_given_once(self, storage: Storage) -> None:
        first = await storage.threads.add(a_thread(1), ["0AAAA1"])

        with pytest.raises(StorageError):
            await storage.threads.add(a_thread(2, key=first.key), ["0AAAA2"])

        assert await storage.threads.list() == (first,)

    async def test_threads_added_at_once_get_different_refs(self, storage: Storage) -> None:
        refs = [f"0CCCC{n}" for n in range(10)]

        with fail_after(PATIENCE):
            async with create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(storage.threads.add, a_thread(number), refs)

        assert {thread.ref for thread in await storage.threads.list()} == set(refs)

    # Looking threads up.

    async def test_an_unknown_key_is_none(self, storage: Storage) -> None:
        assert await storage.threads.get("nobody") is None

    @pytest.mark.parametrize("by", ["ref", "native_id", "handle", "title", "title_like"])
    async def test_nothing_answers_to_an_unknown_name(self, storage: Storage, by: Any) -> None:
        await storage.threads.add(a_thread(title="Build"), ["0AAAA1"])

        assert await storage.threads.find(by, "nobody") == ()

    async def test_ref_native_id_and_handle_match_exactly(self, storage: Storage) -> None:
        thread = await storage.threads.add(a_thread(handle="@Builder"), ["0AAAA1"])

        assert await storage.threads.find("ref", "0AAAA1") == (thread,)
        assert await storage.threads.find("native_id", "native-1") == (thread,)
        assert await storage.threads.find("handle", "@Builder") == (thread,)
        assert await storage.threads.find("ref", "0aaaa1") == ()
        assert await storage.threads.find("native_id", "native") == ()
        assert await storage.threads.find("handle", "@builder") == ()
        assert await storage.threads.find("handle", "Builder") == ()

    async def test_several_threads_with_one_handle_come_oldest_first(
        self, storage: Storage
    ) -> None:
        young = await storage.threads.add(a_thread(2, handle="@x"), ["0AAAA2"])
        old = await storage.threads.add(a_thread(1, handle="@x"), ["0AAAA1"])

        assert await storage.threads.find("handle", "@x") == (old, young)

    async def test_a_title_is_the_title_or_the_handle_with_or_without_its_sign(
        self, storage: Storage
    ) -> None:
        titled = await storage.threads.add(a_thread(1, title="Build", handle="@a"), ["0AAAA1"])
        named = await storage.threads.add(a_thread(2, handle="@Build"), ["0AAAA2"])
        plain = await storage.threads.add(a_thread(3, handle="Build"), ["0AAAA3"])
        await storage.threads.add(a_thread(4, title="Builder", handle="@b"), ["0AAAA4"])

        assert await storage.threads.find("title", "Build") == (titled, named, plain)
        assert await storage.threads.find("title", "@Build") == (named,)
        assert await storage.threads.find("title", "build") == ()

    async def test_a_part_of_a_title_is_found_whatever_its_case(self, storage: Storage) -> None:
        titled = await storage.threads.add(a_thread(1, title="Build it", handle="@a"), ["0AAAA1"])
        named = await storage.threads.add(a_thread(2, handle="@rebuild"), ["0AAAA2"])
        await storage.threads.add(a_thread(3, title="Bauen", handle="@c"), ["0AAAA3"])

        assert await storage.threads.find("title_like", "BUILD") == (titled, named)
        assert await storage.threads.find("title_like", "@REB") == (named,)

    async def test_a_part_of_a_title_folds_ascii_only(self, storage: Storage) -> None:
        thread = await storage.threads.add(a_thread(title="ÄRGER"), ["0AAAA1"])

        assert await storage.threads.find("title_like", "Ärg") == (thread,)
        assert await storage.threads.find("title_like", "ärg") == ()

    @pytest.mark.parametrize("text", ["%", "_", "\\", "*", "?", "[a]", "'", '"', "50%_\\%"])
    async def test_nothing_in_a_part_of_a_title_is_a_pattern(
        self, storage: Storage, text: str
    ) -> None:
        literal = await storage.threads.add(a_thread(1, title=f"a {text} b"), ["0AAAA1"])
        await storage.threads.add(a_thread(2, title="plain words"), ["0AAAA2"])

        assert await storage.threads.find("title_like", text) == (literal,)

    # Listing threads.

    async def test_threads_are_listed_in_order_of_key(self, storage: Storage) -> None:
        added = [await storage.threads.add(a_thread(n), [f"0AAAA{n}"]) for n in (3, 1, 2)]

        assert await storage.threads.list() == (added[1], added[2], added[0])

    async def test_a_list_is_read_page_by_page(self, storage: Storage) -> None:
        added = [await storage.threads.add(a_thread(n), [f"0AAAA{n}"]) for n in range(5)]

        first = await storage.threads.list(limit=2)
        second = await storage.threads.list(limit=2, after=first[-1].key)
        third = await storage.threads.list(limit=2, after=second[-1].key)
        beyond = await storage.threads.list(limit=2, after=third[-1].key)

        assert [*first, *second, *third] == added
        assert beyond == ()

    async def test_a_limit_of_nothing_lists_nothing(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(), ["0AAAA1"])

        assert await storage.threads.list(limit=0) == ()

    async def test_archived_threads_are_listed_only_if_asked(self, storage: Storage) -> None:
        archived = await storage.threads.add(a_thread(1, status=ThreadStatus.ARCHIVED), ["0AAAA1"])
        live = await storage.threads.add(a_thread(2), ["0AAAA2"])

        assert await storage.threads.list() == (live,)
        assert await storage.threads.list(limit=1) == (live,)
        assert await storage.threads.list(archived=True) == (archived, live)

    # Changing threads.

    async def test_an_update_changes_the_named_fields_and_no_other(self, storage: Storage) -> None:
        before = await storage.threads.add(a_thread(turn=a_turn()), ["0AAAA1"])
        changes: dict[str, Any] = {
            "native_id": "native-9",
            "handle": "@new",
            "title": "New",
            "status": ThreadStatus.BUSY,
            "settings": EVERY_SETTING,
            "materialized": True,
            "ephemeral": True,
            "in_use": ModelInUse(provider="p", model="m2"),
            "updated_at": LATER,
        }

        after = await storage.threads.update(before.key, **changes)

        assert after == replace(before, **changes)
        assert await storage.threads.get(before.key) == after

    async def test_an_update_can_clear_a_title(self, storage: Storage) -> None:
        thread = await storage.threads.add(a_thread(title="Old"), ["0AAAA1"])

        after = await storage.threads.update(thread.key, title=None, updated_at=LATER)

        assert after.title is None

    async def test_an_update_can_clear_the_model_in_use_and_every_setting(
        self, storage: Storage
    ) -> None:
        thread = await storage.threads.add(
            a_thread(settings=EVERY_SETTING, in_use=ModelInUse(model="m"), ephemeral=True),
            ["0AAAA1"],
        )

        after = await storage.threads.update(
            thread.key, settings=ThreadSettings(), in_use=None, ephemeral=False, updated_at=LATER
        )

        assert (after.settings, after.in_use, after.ephemeral) == (ThreadSettings(), None, False)
        assert await storage.threads.get(thread.key) == after

    async def test_an_update_of_an_unknown_thread_is_a_lookup_error(self, storage: Storage) -> None:
        with pytest.raises(LookupError):
            await storage.threads.update("nobody", updated_at=LATER)

    @pytest.mark.parametrize("name", ["key", "ref", "created_at", "turn", "colour"])
    async def test_an_update_of_any_other_field_is_a_type_error(
        self, storage: Storage, name: str
    ) -> None:
        thread = await storage.threads.add(a_thread(), ["0AAAA1"])

        with pytest.raises(TypeError):
            await storage.threads.update(thread.key, updated_at=LATER, **{name: "x"})

        assert await storage.threads.get(thread.key) == thread

    async def test_an_update_says_when(self, storage: Storage) -> None:
        thread = await storage.threads.add(a_thread(), ["0AAAA1"])

        with pytest.raises(TypeError):
            await storage.threads.update(thread.key, title="x")

        assert await storage.threads.get(thread.key) == thread

    async def test_a_thread_cannot_take_the_native_id_of_another(self, storage: Storage) -> None:
        first = await storage.threads.add(a_thread(1), ["0AAAA1"])
        second = await storage.threads.add(a_thread(2), ["0AAAA2"])

        with pytest.raises(StorageError):
            await storage.threads.update(
                second.key, native_id=first.native_id, title="x", updated_at=LATER
            )

        assert await storage.threads.list() == (first, second)

    async def test_a_turn_and_the_thread_change_together(self, storage: Storage) -> None:
        before = await storage.threads.add(a_thread(), ["0AAAA1"])

        after = await storage.threads.set_turn(
            before.key, a_turn(), status=ThreadStatus.BUSY, updated_at=LATER
        )

        assert after == replace(before, turn=a_turn(), status=ThreadStatus.BUSY, updated_at=LATER)
        assert await storage.threads.get(before.key) == after

    async def test_a_turn_replaces_the_one_before_it(self, storage: Storage) -> None:
        thread = await storage.threads.add(a_thread(turn=a_turn(error="old")), ["0AAAA1"])
        turn = a_turn(message_id=None, id="turn-2", status=TurnStatus.COMPLETED, completed_at=LATER)

        after = await storage.threads.set_turn(thread.key, turn, updated_at=LATER)

        assert after.turn == turn
        assert await storage.threads.find("ref", "0AAAA1") == (after,)

    async def test_a_turn_that_is_no_more_is_forgotten(self, storage: Storage) -> None:
        other = await storage.threads.add(a_thread(1, turn=a_turn()), ["0AAAA1"])
        thread = await storage.threads.add(a_thread(2, turn=a_turn(message_id=None)), ["0AAAA2"])

        after = await storage.threads.set_turn(
            thread.key, None, status=ThreadStatus.BUSY, updated_at=LATER
        )

        assert after == replace(thread, turn=None, status=ThreadStatus.BUSY, updated_at=LATER)
        assert await storage.threads.get(thread.key) == after
        assert await storage.threads.set_turn(thread.key, None, updated_at=LATER) == after
        assert await storage.threads.get(other.key) == other

    async def test_a_refused_change_leaves_the_turn_alone(self, storage: Storage) -> None:
        await storage.threads.add(a_thread(1), ["0AAAA1"])
        thread = await storage.threads.add(a_thread(2), ["0AAAA2"])

        with pytest.raises(TypeError):
            await storage.threads.set_turn(thread.key, a_turn(), updated_at=LATER, colour="red")
        with pytest.raises(StorageError):
            await storage.threads.set_turn(
                thread.key, a_turn(), updated_at=LATER, native_id="native-1"
            )
        with pytest.raises(TypeError):
            await storage.threads.set_turn(thread.key, None, updated_at=LATER, colour="red")

        assert await storage.threads.get(thread.key) == thread

    @pytest.mark.parametrize("turn", [a_turn(), None], ids=["a turn", "none"])
    async def test_a_turn_of_an_unknown_thread_is_a_lookup_error(
        self, storage: Storage, turn: TurnRecord | None
    ) -> None:
        with pytest.raises(LookupError):
            await storage.threads.set_turn("nobody", turn, updated_at=LATER)

    async def test_a_moment_keeps_its_microseconds_and_comes_back_aware(
        self, storage: Storage
    ) -> None:
        moment = datetime(2026, 7, 1, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=30)))

        thread = await storage.threads.add(a_thread(created_at=moment), ["0AAAA1"])

        assert thread.created_at == moment
        assert thread.created_at.tzinfo is not None

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

    async def test_abandoning_turns_claimed_firings_into_unknown_ones(
        self, storage: Storage
    ) -> None:
        await storage.triggers.add(a_trigger())
        for key in ("done", "open"):
            await storage.firings.claim("trigger-1", key, START)
        await storage.firings.finish("trigger-1", "done", FiringStatus.DONE)

        abandoned = await storage.firings.abandon()

        assert abandoned == (
            FiringRecord(trigger_id="trigger-1", key="open", status=FiringStatus.UNKNOWN, at=START),
        )
        assert await storage.firings.latest("trigger-1") == abandoned[0]
        assert await storage.firings.abandon() == ()
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

        async with AsyncExitStack() as stack:
            storage = await open_storage(stack)

            assert await storage.threads.list() == (thread,)
            assert await storage.triggers.list() == (a_trigger(),)
            assert await storage.actions.latest(10) == (action,)
            assert await storage.cache.get("models") == CachedRecord(value=["m"], at=START)

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
            assert len(await storage.firings.abandon()) == 1

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
