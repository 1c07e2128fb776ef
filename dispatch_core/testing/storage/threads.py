"""Threads: added, looked up, listed and changed."""
# ruff: noqa: S101 -- these are tests; pytest reports an assert best

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from dispatch_core.api import (
    ModelInUse,
    Source,
    Storage,
    StorageError,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
)
from dispatch_core.testing.storage.samples import (
    EVERY_SETTING,
    LATER,
    PATIENCE,
    a_thread,
    a_turn,
)


class Threads:
    """What every backend does with them."""

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
