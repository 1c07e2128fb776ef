"""The tables as Peewee models, declared anew for each database and never leaving this package.

The migrations make the tables; the models only say what to ask of them. A test compares the two.
"""

from __future__ import annotations

from typing import NamedTuple

import peewee


class Tables(NamedTuple):
    """The models of one database."""

    registry: type[peewee.Model]
    thread: type[peewee.Model]
    turn: type[peewee.Model]
    action: type[peewee.Model]
    trigger: type[peewee.Model]
    firing: type[peewee.Model]
    cache: type[peewee.Model]


def tables(database: peewee.SqliteDatabase) -> Tables:
    """Return the models bound to database. Moments are ISO-8601 text in UTC, so that they sort."""

    class Base(peewee.Model):
        class Meta:
            table_function = _plural

    Base._meta.set_database(database)
    return Tables(_registry(Base), *_threads(Base), _actions(Base), *_triggers(Base), _cache(Base))


def _plural(model: type[peewee.Model]) -> str:
    return f"{model.__name__.lower()}s"


def _registry(base: type[peewee.Model]) -> type[peewee.Model]:
    class Registry(base):  # type: ignore[valid-type,misc]
        id = peewee.TextField(primary_key=True)
        created_at = peewee.TextField()

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
