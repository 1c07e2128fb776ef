"""Refs people type and keys that sort by creation."""

from __future__ import annotations

import uuid

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.engine.ids import BASE58, base58, ref_candidates, uuid7


@pytest.mark.parametrize(
    ("thread_id", "ref"),
    [
        ("lane-1", "0BGeK1"),
        ("T1", "0ABFs1"),
        ("01a08340-5251-7d23-87b0-50f6e1911115", "0DzNr1"),
        ("01a08341-cd1f-7e73-8721-3fc0d0c1b4a8", "0ACpq1"),
    ],
)
def test_a_ref_is_what_it_has_always_been(thread_id, ref):
    assert ref_candidates(thread_id)[0] == ref


def test_every_ref_a_thread_may_get_differs_in_its_last_character_alone():
    refs = ref_candidates("T1")

    assert len(set(refs)) == 58
    assert {ref[:5] for ref in refs} == {"0ABFs"}
    assert [ref[5] for ref in refs] == list(BASE58)


@given(st.binary(max_size=40))
def test_base58_can_be_read_back(data):
    text = base58(data)

    number = 0
    for char in text:
        number = number * 58 + BASE58.index(char)
    zeros = len(text) - len(text.lstrip("1"))
    assert b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big") == data


def test_a_key_is_a_uuid_of_version_7_of_this_millisecond():
    before, key = uuid7(), uuid7()

    parsed = uuid.UUID(key)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert 0 <= (parsed.int >> 80) - (uuid.UUID(before).int >> 80) < 60_000
    assert len({uuid7() for _ in range(1000)}) == 1000


@pytest.mark.anyio
async def test_keys_of_different_milliseconds_sort_by_creation():
    keys = []
    for _ in range(5):
        keys.append(uuid7())
        while uuid7()[:13] == keys[-1][:13]:
            await anyio.lowlevel.checkpoint()

    assert keys == sorted(keys)


@pytest.mark.anyio
async def test_a_taken_ref_gives_way_to_the_next_one_until_none_is_left(world):
    async with world.running():
        thread = await world.thread()
        add = world.storage.threads.add
        ids = [f"n{i}" for i in range(58)]
        from dataclasses import replace

        refs = ref_candidates(thread.native_id)
        made = [
            (await add(replace(thread, key=uuid7(), native_id=i, handle=f"@{i}"), refs)).ref
            for i in ids[:57]
        ]
        with pytest.raises(Exception, match="refs for this thread are taken"):
            await add(replace(thread, key=uuid7(), native_id="last", handle="@last"), refs)

    assert [thread.ref, *made] == list(refs)
