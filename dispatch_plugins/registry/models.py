"""The tables as Peewee models, declared anew for each database and never leaving this package.

The migrations make the tables; the models only say what to ask of them. A test compares the two.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import peewee

# Spelt out: an index in a file holds these words, whatever becomes of the enumeration.
IN_FLIGHT: Final = ("sending", "submitted", "running")
ENDED: Final = ("done", "failed", "interrupted", "rejected", "dead", "cancelled", "expired")


class Tables(NamedTuple):
    """The models of one database."""

    registry: type[peewee.Model]
    thread: type[peewee.Model]
    turn: type[peewee.Model]
    action: type[peewee.Model]
    trigger: type[peewee.Model]
    firing: type[peewee.Model]
    cache: type[peewee.Model]
    delivery: type[peewee.Model]
    request: type[peewee.Model]


def tables(database: peewee.SqliteDatabase) -> Tables:
    """Return the models bound to database. Moments are ISO-8601 text in UTC, so that they sort."""

    class Base(peewee.Model):
        class Meta:
            table_function = _plural

    Base._meta.set_database(database)
    thread, turn = _threads(Base)
    return Tables(
        _registry(Base),
        thread,
        turn,
        _actions(Base),
        *_triggers(Base),
        _cache(Base),
        _deliveries(Base, thread),
        _requests(Base),
    )


def _plural(model: type[peewee.Model]) -> str:
    return f"{model.__name__.lower()}s"


def _registry(base: type[peewee.Model]) -> type[peewee.Model]:
    class Registry(base):  # type: ignore[valid-type,misc]
        id = peewee.TextField(primary_key=True)
        created_at = peewee.TextField()
        generation = peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 0")])

        class Meta:
            table_name = "registry"

    return Registry


def _threads(base: type[peewee.Model]) -> tuple[type[peewee.Model], type[peewee.Model]]:
    class Thread(base):  # type: ignore[valid-type,misc]
        key = peewee.TextField(primary_key=True)
        provider = peewee.TextField()
        native_id = peewee.TextField()
        ref = peewee.TextField(unique=True)
        handle = peewee.TextField(index=True)
        title = peewee.TextField(null=True)
        source = peewee.TextField()
        status = peewee.TextField()
        cwd = peewee.TextField()
        settings = peewee.TextField()
        created_at = peewee.TextField()
        updated_at = peewee.TextField()
        materialized = peewee.IntegerField()
        ephemeral = peewee.IntegerField(constraints=[peewee.SQL("DEFAULT 0")])
        in_use = peewee.TextField(null=True)

        class Meta:
            indexes = ((("native_id", "provider"), True),)

    class Turn(base):  # type: ignore[valid-type,misc]
        thread = peewee.ForeignKeyField(Thread, primary_key=True, on_delete="CASCADE")
        message_id = peewee.TextField(null=True)
        turn_id = peewee.TextField(null=True)
        status = peewee.TextField()
        started_at = peewee.TextField()
        completed_at = peewee.TextField(null=True)
        error = peewee.TextField(null=True)

    return Thread, Turn


def _actions(base: type[peewee.Model]) -> type[peewee.Model]:
    class Action(base):  # type: ignore[valid-type,misc]
        at = peewee.TextField()
        op = peewee.TextField()
        principal = peewee.TextField()
        outcome = peewee.TextField()
        thread = peewee.TextField(null=True)
        trigger_id = peewee.TextField(null=True)
        detail = peewee.TextField(null=True)

    return Action


def _triggers(base: type[peewee.Model]) -> tuple[type[peewee.Model], type[peewee.Model]]:
    class Trigger(base):  # type: ignore[valid-type,misc]
        number = peewee.AutoField()
        id = peewee.TextField(unique=True)
        name = peewee.TextField()
        kind = peewee.TextField()
        config = peewee.TextField()
        thread = peewee.TextField()
        op = peewee.TextField()
        args = peewee.TextField()
        enabled = peewee.IntegerField()
        created_at = peewee.TextField()
        next_at = peewee.TextField(null=True)

    class Firing(base):  # type: ignore[valid-type,misc]
        number = peewee.AutoField()
        trigger = peewee.ForeignKeyField(Trigger, field="id", on_delete="CASCADE", index=False)
        key = peewee.TextField()
        status = peewee.TextField()
        at = peewee.TextField()
        detail = peewee.TextField(null=True)

        class Meta:
            indexes = ((("trigger", "key"), True), (("trigger", "at"), False))

    return Trigger, Firing


def _cache(base: type[peewee.Model]) -> type[peewee.Model]:
    class Cache(base):  # type: ignore[valid-type,misc]
        name = peewee.TextField(primary_key=True)
        value = peewee.TextField()
        at = peewee.TextField()

        class Meta:
            table_name = "cache"

    return Cache


def in_state(*states: str) -> peewee.SQL:
    """Return the condition that a delivery is in one of these states, word for word as the partial indexes have it."""
    names = ", ".join(f"'{state}'" for state in states)
    return peewee.SQL(f'"state" IN ({names})' if len(states) > 1 else f'"state" = {names}')


def _deliveries(base: type[peewee.Model], threads: type[peewee.Model]) -> type[peewee.Model]:
    class Delivery(base):  # type: ignore[valid-type,misc]
        id = peewee.TextField(primary_key=True)
        thread = peewee.ForeignKeyField(threads, on_delete="RESTRICT", index=False)
        state = peewee.TextField()
        when = peewee.TextField()
        digest = peewee.TextField()
        principal = peewee.TextField()
        created_at = peewee.TextField()
        text = peewee.TextField(null=True)
        images = peewee.TextField(null=True)
        key = peewee.TextField(null=True)
        attempt = peewee.IntegerField()
        deaths = peewee.IntegerField()
        epoch = peewee.TextField(null=True)
        turn_id = peewee.TextField(null=True)
        merged = peewee.IntegerField()
        evidence = peewee.TextField(null=True)
        reason = peewee.TextField(null=True)
        retry_of = peewee.TextField(null=True)
        expires_at = peewee.TextField(null=True)
        claimed_at = peewee.TextField(null=True)
        ended_at = peewee.TextField(null=True)
        position = peewee.IntegerField()

        class Meta:
            table_name = "deliveries"
            indexes = (
                (("thread", "id"), False),
                (("thread", "position"), False),
                (("state", "id"), False),
            )

    _index_deliveries(Delivery)
    return Delivery


def _index_deliveries(table: Any) -> None:
    ended, has_body, has_key = (
        peewee.SQL(f'"{column}" IS NOT NULL') for column in ("ended_at", "text", "key")
    )
    place = (table.thread, table.position, table.id)
    table.add_index(
        table.thread, unique=True, where=in_state(*IN_FLIGHT), name="delivery_in_flight"
    )
    # With the state it answers by itself how many are queued.
    table.add_index(*place, table.state, where=in_state("queued"), name="delivery_queued")
    table.add_index(*place, where=in_state("unknown"), name="delivery_unknown")
    table.add_index(table.principal, table.key, unique=True, where=has_key, name="delivery_key")
    table.add_index(table.ended_at, where=ended, name="delivery_ended")
    table.add_index(table.ended_at, where=ended & has_body, name="delivery_ended_with_body")


def _requests(base: type[peewee.Model]) -> type[peewee.Model]:
    class Request(base):  # type: ignore[valid-type,misc]
        id = peewee.TextField(primary_key=True)
        thread = peewee.TextField(index=True)
        turn_id = peewee.TextField(null=True)
        item_id = peewee.TextField(null=True)
        method = peewee.TextField()
        kind = peewee.TextField()
        rpc_id = peewee.TextField()
        epoch = peewee.TextField()
        summary = peewee.TextField()
        digest = peewee.TextField()
        body = peewee.TextField(null=True)
        cut = peewee.IntegerField()
        state = peewee.TextField(index=True)
        asked_at = peewee.TextField()
        deadline = peewee.TextField()
        answered_by = peewee.TextField(null=True)
        decision = peewee.TextField(null=True)
        answered_at = peewee.TextField(null=True)
        closed_at = peewee.TextField(null=True)
        detail = peewee.TextField(null=True)

        class Meta:
            indexes = ((("epoch", "rpc_id"), True), (("deadline", "id"), False))

    return Request
