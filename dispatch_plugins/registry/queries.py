"""Every statement the stores run, compiled once per open from Peewee to SQL text.

Building a Peewee query costs twenty times as much as running it. A parameter stands where ``?``
does, in the order in which the fields say; selected columns come in the order of ``THREAD``,
``TURN`` and so on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import peewee

from dispatch_plugins.registry.models import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatch_plugins.registry.models import Tables

THREAD: Final = (
    "key", "provider", "native_id", "ref", "handle", "title", "source", "status", "cwd", "settings",
    "created_at", "updated_at", "materialized", "ephemeral", "in_use",
)  # fmt: skip
TURN: Final = ("message_id", "turn_id", "status", "started_at", "completed_at", "error")
ACTION: Final = ("at", "op", "principal", "outcome", "thread", "trigger_id", "detail")
TRIGGER: Final = (
    "id", "name", "kind", "config", "thread", "op", "args", "enabled", "created_at", "next_at",
)  # fmt: skip
FIRING: Final = ("trigger", "key", "status", "at", "detail")
CACHED: Final = ("value", "at")

ARG: Final = peewee.SQL("?")


@dataclass(frozen=True, slots=True)
class ThreadQueries:
    """insert: THREAD. native: provider, native id. refs: ref. put_turn: key, TURN. drop_turn: key.

    page: after, the archived status, limit; page_with_archived: after, limit. by_field: the value;
    for "title" the value twice and ``@value``, for "title_like" the value twice.
    """

    insert: str
    get: str
    native: str
    by_field: dict[str, str]
    page: str
    page_with_archived: str
    refs: str
    put_turn: str
    drop_turn: str
    thread: type[peewee.Model]
    updates: dict[tuple[str, ...], str] = field(default_factory=dict)

    def update(self, columns: tuple[str, ...]) -> str:
        """Return the statement that sets these columns; parameters: their values, then the key."""
        sql = self.updates.get(columns)
        if sql is None:
            fields = _columns(self.thread)
            sql = _sql(
                self.thread.update({fields[c]: ARG for c in columns}).where(fields.key == ARG)
            )
            self.updates[columns] = sql
        return sql


@dataclass(frozen=True, slots=True)
class TriggerQueries:
    """insert: TRIGGER. get, remove: id. set_next: next_at, id. set_both: enabled, next_at, id."""

    insert: str
    get: str
    all: str
    remove: str
    set_next: str
    set_both: str


@dataclass(frozen=True, slots=True)
class FiringQueries:
    """claim: key, status, at, trigger id. finish: status, detail, trigger id, key. settle: new, old status."""

    claim: str
    finish: str
    latest: str
    with_status: str
    settle: str


@dataclass(frozen=True, slots=True)
class CacheQueries:
    """get: name. put: name, CACHED."""

    get: str
    put: str


@dataclass(frozen=True, slots=True)
class Queries:
    """The statements of all stores."""

    threads: ThreadQueries
    add_action: str
    latest_actions: str
    triggers: TriggerQueries
    firings: FiringQueries
    cache: CacheQueries


def compile_queries(database: peewee.SqliteDatabase) -> Queries:
    """Return every statement as SQL text."""
    models = tables(database)
    action = _columns(models.action)
    return Queries(
        threads=_threads(models),
        add_action=_insert(models.action, ACTION),
        latest_actions=_sql(
            models.action.select(*_pick(action, ACTION)).order_by(action.id.desc()).limit(ARG)
        ),
        triggers=_triggers(models),
        firings=_firings(models),
        cache=_cache(models),
    )


def _threads(models: Tables) -> ThreadQueries:
    thread, turn = _columns(models.thread), _columns(models.turn)
    every = (
        models.thread.select(*_pick(thread, THREAD), *_pick(turn, TURN))
        .join(models.turn, peewee.JOIN.LEFT_OUTER)
    )  # fmt: skip
    oldest_first = (thread.created_at, thread.key)
    page = every.where(thread.key > ARG).order_by(thread.key).limit(ARG)
    # INSTR and not LIKE: nothing in the value is a pattern, and its length is not limited.
    in_title, in_handle = (
        peewee.fn.INSTR(peewee.fn.LOWER(text), peewee.fn.LOWER(ARG)) > peewee.SQL("0")
        for text in (thread.title, thread.handle)
    )
    conditions = {name: thread[name] == ARG for name in ("ref", "native_id", "handle")}
    conditions["title"] = (thread.title == ARG) | (thread.handle == ARG) | (thread.handle == ARG)
    conditions["title_like"] = in_title | in_handle
    return ThreadQueries(
        insert=_insert(models.thread, THREAD),
        get=_sql(every.where(thread.key == ARG)),
        native=_sql(every.where((thread.provider == ARG) & (thread.native_id == ARG))),
        by_field={
            name: _sql(every.where(condition).order_by(*oldest_first))
            for name, condition in conditions.items()
        },
        page=_sql(page.where(thread.status != ARG)),
        page_with_archived=_sql(page),
        refs=_sql(models.thread.select(thread.ref).where(thread.ref == ARG)),
        put_turn=_insert(models.turn, ("thread", *TURN), replace=True),
        drop_turn=_sql(models.turn.delete().where(turn.thread == ARG)),
        thread=models.thread,
    )


def _triggers(models: Tables) -> TriggerQueries:
    model, trigger = models.trigger, _columns(models.trigger)
    every = model.select(*_pick(trigger, TRIGGER))
    mine = trigger.id == ARG
    return TriggerQueries(
        insert=_insert(model, TRIGGER),
        get=_sql(every.where(mine)),
        all=_sql(every.order_by(trigger.created_at, trigger.number)),
        remove=_sql(model.delete().where(mine)),
        set_next=_sql(model.update({trigger.next_at: ARG}).where(mine)),
        set_both=_sql(model.update({trigger.enabled: ARG, trigger.next_at: ARG}).where(mine)),
    )


def _firings(models: Tables) -> FiringQueries:
    model, firing, trigger = models.firing, _columns(models.firing), _columns(models.trigger)
    every = model.select(*_pick(firing, FIRING))
    # From the trigger's own row: a trigger that is gone has no occasions.
    claimed = models.trigger.select(trigger.id, ARG, ARG, ARG).where(trigger.id == ARG)
    claim = model.insert_from(claimed, _pick(firing, ("trigger", "key", "status", "at")))
    newest = (firing.at.desc(), firing.number.desc())
    return FiringQueries(
        claim=_sql(claim.on_conflict_ignore()),
        finish=_sql(
            model.update({firing.status: ARG, firing.detail: ARG}).where(
                (firing.trigger == ARG) & (firing.key == ARG)
            )
        ),
        latest=_sql(every.where(firing.trigger == ARG).order_by(*newest).limit(peewee.SQL("1"))),
        with_status=_sql(every.where(firing.status == ARG).order_by(firing.number)),
        settle=_sql(model.update({firing.status: ARG}).where(firing.status == ARG)),
    )


def _cache(models: Tables) -> CacheQueries:
    cache = _columns(models.cache)
    found = models.cache.select(*_pick(cache, CACHED)).where(cache.name == ARG)
    return CacheQueries(get=_sql(found), put=_insert(models.cache, ("name", *CACHED), replace=True))


def _columns(model: type[peewee.Model]) -> Any:
    """Return the fields of a model by name. Any: the models are made at run time."""
    return peewee.attrdict(model._meta.fields)


def _pick(columns: Any, names: Sequence[str]) -> list[Any]:
    return [columns[name] for name in names]


def _insert(model: Any, names: Sequence[str], *, replace: bool = False) -> str:
    columns = _pick(_columns(model), names)
    rows = [(ARG,) * len(columns)]
    if replace:
        return _sql(model.replace_many(rows, fields=columns))
    return _sql(model.insert_many(rows, fields=columns))


def _sql(query: Any) -> str:
    text, parameters = query.sql()
    if parameters:
        raise TypeError(f"{parameters!r} would be compiled into {text}")
    return str(text)
