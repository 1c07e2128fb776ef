"""What the registry adds to the contract of deliveries: the indexes that answer for it, and what stands even against raw SQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields, replace

import pytest

from dispatch_core.api import DeliveryState, StorageError
from dispatch_core.contracts import deliveries as contract
from dispatch_core.testing.storage import EPOCH, LATER, a_delivery, a_thread
from dispatch_plugins.registry import models, queries

pytestmark = pytest.mark.anyio

LISTS = [(of_thread, states) for of_thread in (True, False) for states in (0, 1, 3)]
READ_WHOLE = {"counts"}  # from an index; every other statement is led to its rows
OF_ALL_THREADS = {"in_flight", "pending"}  # read a partial index that holds nothing but their rows


def statements(registry):
    """Return every statement about deliveries by name."""
    sql = registry.connection.queries.deliveries
    named = {f.name: getattr(sql, f.name) for f in fields(sql)}
    named = {name: text for name, text in named.items() if isinstance(text, str)}
    for of_thread, states in LISTS:
        named[f"list {of_thread} {states}"] = sql.list(of_thread=of_thread, states=states)
    for into_flight in (True, False):
        named[f"move {into_flight}"] = sql.move(("state", "epoch"), into_flight=into_flight)
    return named


def plan(connection, sql):
    return [
        row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))
    ]


async def fill(registry):
    await registry.threads.add(a_thread(1), ["0AAAA1"])
    added = [await registry.deliveries.add(a_delivery(n, key=f"k{n}")) for n in range(4)]
    await registry.deliveries.move(added[0], DeliveryState.DONE, ended_at=LATER)
    await registry.deliveries.move(added[1], DeliveryState.SENDING, epoch=EPOCH)
    return added


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
async def test_no_statement_reads_the_table_from_one_end_to_the_other(registry, path, analyzed):
    await fill(registry)
    named = statements(registry)

    with closing(sqlite3.connect(path)) as connection:
        if analyzed:
            connection.execute("ANALYZE")
        plans = {name: plan(connection, sql) for name, sql in named.items()}

    for name, steps in plans.items():
        scans = [step for step in steps if step.startswith("SCAN")]
        if name in READ_WHOLE:
            assert scans == ["SCAN t1 USING COVERING INDEX delivery_state_id"], name
        elif name in OF_ALL_THREADS:
            assert [step.split()[-1] for step in scans] in (
                ["delivery_in_flight"],
                ["delivery_queued"],
            ), (name, steps)
        else:
            assert scans == [], (name, steps)


@pytest.mark.parametrize("analyzed", [False, True], ids=["no statistics", "statistics"])
async def test_the_head_and_the_queue_of_a_thread_come_from_their_indexes_in_order(
    registry, path, analyzed
):
    await fill(registry)
    sql = registry.connection.queries.deliveries

    with closing(sqlite3.connect(path)) as connection:
        if analyzed:
            connection.execute("ANALYZE")
        head, queue = plan(connection, sql.head), plan(connection, sql.queue)
        pending = plan(connection, sql.pending)

    used = [step.split("INDEX ")[1].split()[0] for step in head if "INDEX" in step]
    assert used == [
        "sqlite_autoindex_deliveries_1",
        "delivery_in_flight",
        "delivery_unknown",
        "delivery_queued",
    ]
    assert pending == ["SCAN t1 USING COVERING INDEX delivery_queued"]
    assert not [step for step in (*head, *queue, *pending) if "TEMP B-TREE" in step]


async def test_a_page_of_many_states_is_merged_and_not_sorted(registry, path):
    await fill(registry)
    sql = registry.connection.queries.deliveries.list(of_thread=False, states=3)

    with closing(sqlite3.connect(path)) as connection:
        steps = plan(connection, sql)

    assert sum("delivery_state_id (state=? AND id<?)" in step for step in steps) == 3
    assert not [step for step in steps if "TEMP B-TREE" in step]


@pytest.mark.parametrize("rival", ["sending", "submitted", "running"])
async def test_two_in_flight_in_one_thread_cannot_be_written_at_all(registry, path, rival):
    added = await fill(registry)

    with (
        closing(sqlite3.connect(path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="UNIQUE"),
    ):
        connection.execute("UPDATE deliveries SET state = ? WHERE id = ?", (rival, added[2].id))


async def test_a_thread_with_deliveries_cannot_be_deleted(registry):
    await fill(registry)

    with pytest.raises(StorageError):
        await registry.connection.write(lambda write: write.run("DELETE FROM threads"))

    assert len(await registry.threads.list()) == 1
    assert sum((await registry.deliveries.counts()).values()) == 4


async def test_a_key_that_another_delivery_has_cannot_be_moved_to(registry):
    added = await fill(registry)

    with pytest.raises(StorageError):
        await registry.deliveries.move(added[3], DeliveryState.QUEUED, key="k0")

    assert await registry.deliveries.get(added[3].id) == added[3]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", "nonsense"),
        ("when", "nonsense"),
        ("created_at", "nonsense"),
        ("ended_at", "nonsense"),
        ("epoch", "nonsense"),
        ("images", "nonsense"),
        ("images", "[1]"),
    ],
)
async def test_a_delivery_that_makes_no_sense_is_named(registry, path, column, value):
    added = await fill(registry)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            f'UPDATE deliveries SET "{column}" = ? WHERE id = ?',
            (value, added[3].id),
        )

    with pytest.raises(StorageError, match=added[3].id):
        await registry.deliveries.get(added[3].id)


async def test_a_lone_surrogate_is_refused_and_nothing_is_stored(registry):
    await registry.threads.add(a_thread(1), ["0AAAA1"])

    with pytest.raises(StorageError):
        await registry.deliveries.add(a_delivery(1, reason="\ud800"))

    assert await registry.deliveries.get(a_delivery(1).id) is None


async def test_a_state_that_is_none_is_refused_and_nothing_is_changed(registry):
    added = await fill(registry)

    with pytest.raises(ValueError, match="nonsense"):
        await registry.deliveries.move(added[3], "nonsense")
    with pytest.raises(ValueError, match="time zone"):
        await registry.deliveries.move(
            added[3], DeliveryState.DONE, ended_at=LATER.replace(tzinfo=None)
        )

    assert await registry.deliveries.get(added[3].id) == added[3]


async def test_the_indexes_speak_of_the_states_of_the_contract():
    assert set(models.IN_FLIGHT) == {state.value for state in contract.IN_FLIGHT}
    assert set(models.ENDED) == {state.value for state in contract.ENDED}


async def test_every_field_has_its_columns_in_the_order_of_the_model(registry):
    delivery = registry.connection.queries.deliveries.delivery
    kept = {field.name for field in fields(contract.DeliveryRecord)} - {"message"}

    assert tuple(delivery._meta.sorted_field_names) == queries.DELIVERY
    assert set(queries.DELIVERY) == kept | {"text", "images"}


async def test_an_epoch_is_kept_without_a_start_time_too(registry):
    await registry.threads.add(a_thread(1), ["0AAAA1"])
    epoch = replace(EPOCH, start_time=None)

    added = await registry.deliveries.add(a_delivery(epoch=epoch))

    assert (await registry.deliveries.get(added.id)).epoch == epoch
    assert await registry.deliveries.move(added, DeliveryState.SENDING) is not None


async def test_a_registry_of_schema_1_accepts_deliveries_once_it_is_upgraded(
    open_registry, first_schema
):
    async with open_registry() as registry:
        added = await registry.deliveries.add(a_delivery(thread="key-1"))

        assert await registry.deliveries.head("key-1") == added
