"""Every statement the stores run, compiled once per open from Peewee to SQL text.

Building a Peewee query costs twenty times as much as running it. A parameter stands where ``?``
does, in the order in which the fields say; selected columns come in the order of ``THREAD``,
``TURN`` and so on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import peewee

from dispatch_plugins.registry.models import ENDED, IN_FLIGHT, in_state, tables

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
DELIVERY: Final = (
    "id", "thread", "state", "when", "digest", "principal", "created_at", "text", "images", "key", "attempt",
    "deaths", "epoch", "turn_id", "merged", "evidence", "reason", "retry_of", "expires_at", "claimed_at",
    "ended_at", "position",
)  # fmt: skip
REQUEST: Final = (
    "id", "thread", "turn_id", "item_id", "method", "kind", "rpc_id", "epoch", "summary", "digest", "body", "cut",
    "state", "asked_at", "deadline", "answered_by", "decision", "answered_at", "closed_at", "detail",
)  # fmt: skip

ARG: Final = peewee.SQL("?")
_SOURCE: Final = re.compile(r'FROM "deliveries" AS "\w+"')
_NULL: Final = peewee.SQL("NULL")
_COUNT: Final = peewee.fn.COUNT(peewee.SQL("*"))


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
    """claim: key, status, at, trigger id. finish: status, detail, trigger id, key."""

    claim: str
    finish: str
    latest: str
    with_status: str


@dataclass(frozen=True, slots=True)
class CacheQueries:
    """get: name. put: name, CACHED."""

    get: str
    put: str


@dataclass(frozen=True, slots=True)
class DeliveryQueries:
    """insert: DELIVERY without its last column, which is the position and is returned, then thread twice.

    get: id. keyed: principal, key. find: prefix, end of the prefix, limit. queue: thread, after, limit. head: thread three
    times. queued_places: thread. place: position, id. drop: the moment, limit; strip: likewise.
    """

    insert: str
    get: str
    keyed: str
    find: str
    queue: str
    head: str
    in_flight: str
    pending: str
    counts: str
    queued_places: str
    place: str
    drop: str
    strip: str
    delivery: type[peewee.Model]
    moves: dict[tuple[tuple[str, ...], bool], str] = field(default_factory=dict)
    lists: dict[tuple[bool, int], str] = field(default_factory=dict)

    def move(self, columns: tuple[str, ...], *, into_flight: bool) -> str:
        """Return the statement that sets these columns; parameters: their values, then id, state and epoch.

        into_flight: it changes nothing either when another delivery of the thread is in flight.
        """
        sql = self.moves.get((columns, into_flight))
        if sql is None:
            sql = _move(self.delivery, columns, into_flight=into_flight)
            self.moves[columns, into_flight] = sql
        return sql

    def list(self, *, of_thread: bool, states: int) -> str:
        """Return the query for a page, newest first.

        of_thread: parameters are thread, before, the states, limit. Otherwise before, limit when no states are wanted, else
        each state with before, then limit.
        """
        sql = self.lists.get((of_thread, states))
        if sql is None:
            sql = _list(self.delivery, of_thread=of_thread, states=states)
            self.lists[of_thread, states] = sql
        return sql


@dataclass(frozen=True, slots=True)
class RequestQueries:
    """insert: REQUEST. get: id. same: epoch, rpc id. find: begin and end of a range of ids, minus the length of an end of ids,
    that end, limit.

    live: every open or answering one, oldest first. page: thread twice, states as a JSON list twice, deadline twice, id, limit.
    claim: by, decision, at, id. defer: deadline, id. close: state, by, decision, at, detail, id. forget: the moment.
    """

    insert: str
    get: str
    same: str
    find: str
    live: str
    page: str
    claim: str
    defer: str
    close: str
    forget: str


@dataclass(frozen=True, slots=True)
class Queries:
    """The statements of all stores."""

    threads: ThreadQueries
    add_action: str
    latest_actions: str
    triggers: TriggerQueries
    firings: FiringQueries
    cache: CacheQueries
    deliveries: DeliveryQueries
    requests: RequestQueries


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
        deliveries=_deliveries(models.delivery, models.thread),
        requests=_requests(models.request),
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
    )


def _cache(models: Tables) -> CacheQueries:
    cache = _columns(models.cache)
    found = models.cache.select(*_pick(cache, CACHED)).where(cache.name == ARG)
    return CacheQueries(get=_sql(found), put=_insert(models.cache, ("name", *CACHED), replace=True))


def _deliveries(model: Any, thread: Any) -> DeliveryQueries:
    delivery = _columns(model)
    every = model.select(*_pick(delivery, DELIVERY))
    in_order = (delivery.position, delivery.id)
    queued = (delivery.thread == ARG) & in_state("queued")
    per_state = model.select(delivery.state, _COUNT).group_by(delivery.state)
    per_thread = model.select(delivery.thread, _COUNT).group_by(delivery.thread)
    begins = (delivery.id >= ARG) & (delivery.id < ARG)
    return DeliveryQueries(
        insert=_add(model, thread),
        get=_sql(every.where(delivery.id == ARG)),
        keyed=_sql(every.where((delivery.principal == ARG) & (delivery.key == ARG))),
        find=_sql(every.where(begins).order_by(delivery.id.desc()).limit(ARG)),
        queue=_by(
            "delivery_queued",
            every.where(queued & (delivery.position > ARG)).order_by(*in_order).limit(ARG),
        ),
        head=_head(model),
        in_flight=_by(
            "delivery_in_flight", every.where(in_state(*IN_FLIGHT)).order_by(delivery.id)
        ),
        pending=_by("delivery_queued", per_thread.where(in_state("queued"))),
        counts=_sql(per_state),
        queued_places=_by(
            "delivery_queued",
            model.select(delivery.id, delivery.position).where(queued).order_by(*in_order),
        ),
        place=_sql(model.update({delivery.position: ARG}).where(delivery.id == ARG)),
        drop=_by("delivery_ended", model.delete().where(delivery.id.in_(_ended(model)))),
        strip=_by(
            "delivery_ended_with_body",
            model.update({delivery.text: _NULL, delivery.images: _NULL}).where(
                delivery.id.in_(_ended(model, delivery.text.is_null(False)))
            ),
        ),
        delivery=model,
    )


def _add(model: Any, thread_model: Any) -> str:
    delivery, thread = _columns(model), _columns(thread_model)
    last = model.select(peewee.fn.MAX(delivery.position)).where(delivery.thread == ARG)
    place = peewee.fn.COALESCE(last, peewee.SQL("0")) + peewee.SQL("1")
    values = (*(ARG for _ in DELIVERY[:-1]), place)
    # From the thread's own row: there is no queue for a thread that is not there.
    row = thread_model.select(*values).where(thread.key == ARG)
    return f'{_sql(model.insert_from(row, _pick(delivery, DELIVERY)))} RETURNING "position"'


def _head(model: Any) -> str:
    delivery = _columns(model)

    def first(index: str, *states: str) -> str:
        found = model.select(delivery.id).where((delivery.thread == ARG) & in_state(*states))
        in_order = found.order_by(delivery.position, delivery.id)
        return f"({_by(index, in_order.limit(peewee.SQL('1')))})"

    every = _sql(model.select(*_pick(delivery, DELIVERY)))
    in_flight = first("delivery_in_flight", *IN_FLIGHT)
    unknown, queued = first("delivery_unknown", "unknown"), first("delivery_queued", "queued")
    return f'{every} WHERE "t1"."id" = COALESCE({in_flight}, {unknown}, {queued})'


def _move(model: Any, columns: tuple[str, ...], *, into_flight: bool) -> str:
    delivery = _columns(model)
    epoch = peewee.Expression(delivery.epoch, "IS", ARG)
    where = (delivery.id == ARG) & (delivery.state == ARG) & epoch
    if into_flight:
        other = model.alias()
        rival = other.select(peewee.SQL("1")).where(
            (other.thread == delivery.thread) & (other.id != delivery.id) & in_state(*IN_FLIGHT)
        )
        where &= ~peewee.fn.EXISTS(rival)
    return _sql(model.update({delivery[name]: ARG for name in columns}).where(where))


def _list(model: Any, *, of_thread: bool, states: int) -> str:
    delivery = _columns(model)
    every = model.select(*_pick(delivery, DELIVERY))
    older = delivery.id < ARG
    if of_thread:
        wanted = (delivery.thread == ARG) & older
        if states:
            wanted &= delivery.state.in_([ARG] * states)
        return _sql(every.where(wanted).order_by(delivery.id.desc()).limit(ARG))
    if not states:
        return _sql(every.where(older).order_by(delivery.id.desc()).limit(ARG))
    # One branch for each state, merged in order: each is read from its index only as far as needed.
    branch = _sql(every.where((delivery.state == ARG) & older))
    return f'{" UNION ALL ".join([branch] * states)} ORDER BY "id" DESC LIMIT ?'


def _ended(model: Any, *conditions: Any) -> Any:
    delivery = _columns(model)
    found = model.select(delivery.id).where(
        (delivery.ended_at < ARG) & in_state(*ENDED), *conditions
    )
    return found.order_by(delivery.ended_at).limit(ARG)


def _by(index: str, query: Any) -> str:
    """Return the query, to be answered with this index whatever the statistics say; SQLite refuses it if it cannot."""
    text, count = _SOURCE.subn(rf'\g<0> INDEXED BY "{index}"', _sql(query))
    if count != 1:
        raise TypeError(f"{text} does not read the deliveries once")
    return text


def _requests(model: Any) -> RequestQueries:
    request = _columns(model)
    every = model.select(*_pick(request, REQUEST))
    mine, is_open, is_live = request.id == ARG, in_state("open"), in_state("open", "answering")
    ends = peewee.fn.SUBSTR(request.id, ARG) == ARG
    wanted = peewee.SQL('(? IS NULL OR "thread" = ?)') & peewee.SQL(
        """(? = '[]' OR "state" IN (SELECT value FROM json_each(?)))"""
    )
    behind = (request.deadline < ARG) | ((request.deadline == ARG) & (request.id < ARG))
    answered = {request.answered_by: ARG, request.decision: ARG, request.answered_at: ARG}
    kept = {name: peewee.fn.COALESCE(ARG, request[name]) for name in ("answered_by", "decision")}
    return RequestQueries(
        insert=_insert(model, REQUEST),
        get=_sql(every.where(mine)),
        same=_sql(every.where((request.epoch == ARG) & (request.rpc_id == ARG))),
        find=_sql(
            every.where(((request.id >= ARG) & (request.id < ARG)) | ends)
            .order_by(request.id)
            .limit(ARG)
        ),
        live=_sql(every.where(is_live).order_by(request.id)),
        page=_sql(
            every.where(wanted & behind)
            .order_by(request.deadline.desc(), request.id.desc())
            .limit(ARG)
        ),
        claim=_sql(
            model.update({request.state: peewee.SQL("'answering'"), **answered}).where(
                mine & is_open
            )
        ),
        defer=_sql(model.update({request.deadline: ARG}).where(mine & is_open)),
        close=_sql(
            model.update(
                {
                    request.state: ARG,
                    **{request[name]: value for name, value in kept.items()},
                    request.closed_at: ARG,
                    request.detail: ARG,
                    request.body: _NULL,
                }
            ).where(mine & is_live)
        ),
        forget=_sql(model.delete().where(request.closed_at < ARG)),
    )


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
