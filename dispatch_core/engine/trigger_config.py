"""What the options of a trigger mean: validation, binding, and the arithmetic of instants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from dispatch_core.errors import PluginFault, ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from dispatch_core.contracts.trigger import TriggerKind

GRACE = timedelta(hours=1)
STEPS = 3600


def kind_named(kinds: Mapping[str, TriggerKind[Any]], name: str) -> TriggerKind[Any]:
    """Return the kind. Raises ValidationFailed, listing the kinds there are."""
    if name in kinds:
        return kinds[name]
    raise ValidationFailed(
        f"there is no trigger kind {name!r}",
        hint=f"use one of: {', '.join(sorted(kinds)) or 'none is installed'}",
        details={"field": "kind", "kinds": sorted(kinds)},
    )


def parse(kind: TriggerKind[Any], options: Mapping[str, Any]) -> BaseModel:
    """Return the validated configuration. options: without ``kind``.

    Raises ValidationFailed: the message names every field that is wrong, details["field"] the
    first, details["fields"] all.
    """
    if "kind" in options:
        raise ValidationFailed(
            "'kind' is not an option of a trigger",
            hint="the kind is chosen when the trigger is added",
            details={"field": "kind", "fields": ["kind"]},
        )
    try:
        config: BaseModel = kind.config.model_validate({**options, "kind": kind.name})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
        fields = list(dict.fromkeys(_field(problem) for problem in problems))
        raise ValidationFailed(
            "; ".join(_sentence(kind.name, problem) for problem in problems),
            hint="dispatch trigger add --help shows what each kind takes",
            details={"field": fields[0], "fields": fields, "kind": kind.name},
        ) from None
    return config


def options_of(config: BaseModel, **changes: Any) -> dict[str, Any]:
    """Return a configuration as the JSON object that is stored.

    Defaults are written out, so that a later default changes no stored trigger; ``kind`` and fields
    that are None are left out.
    """
    dumped: dict[str, Any] = config.model_copy(update=changes).model_dump(
        mode="json", exclude={"kind"}, exclude_none=True
    )
    return dumped


def source_of(config: BaseModel) -> str | None:
    """Return the selector in the field ``thread``, or None for a kind that has no such field."""
    selector = getattr(config, "thread", None)
    return selector if isinstance(selector, str) else None


def bind(config: BaseModel, *, thread: str | None, created_at: datetime) -> BaseModel:
    """Return the configuration as the kind's functions see it.

    thread: the key that replaces the selector in the field ``thread``. created_at: what a field
    ``anchor`` holds when it was left None, in whole seconds, so that a phase survives any precision
    of the storage.
    """
    changes: dict[str, Any] = {}
    if thread is not None:
        changes["thread"] = thread
    if "anchor" in type(config).model_fields and getattr(config, "anchor", None) is None:
        changes["anchor"] = created_at.replace(microsecond=0)
    return config.model_copy(update=changes) if changes else config


def next_instant(kind: TriggerKind[Any], config: BaseModel, moment: datetime) -> datetime | None:
    """Return the kind's next instant after moment in UTC, or None. Raises PluginFault unless it is
    aware and strictly later.
    """
    if kind.next_after is None:
        return None
    instant = kind.next_after(config, moment)
    if instant is None:
        return None
    if instant.tzinfo is None or instant <= moment:
        raise PluginFault(
            f"trigger kind {kind.name!r}: next_after({moment.isoformat()}) returned "
            f"{instant.isoformat()}, which is not an aware instant strictly later",
            hint="dispatch plugins shows which plugin adds the kind",
        )
    return instant.astimezone(UTC)


def due(
    kind: TriggerKind[Any], config: BaseModel, *, scheduled: datetime, now: datetime
) -> tuple[datetime | None, datetime | None]:
    """Return the one instant to fire for now, and the next one after now.

    Of several instants since scheduled the latest counts; one older than GRACE is skipped: the
    first value is then None.
    """
    floor = now - GRACE
    instant: datetime | None = scheduled
    if scheduled < floor:
        instant = next_instant(kind, config, floor - timedelta(microseconds=1))
    if instant is None or instant > now:
        return None, instant
    for _ in range(STEPS):
        following = next_instant(kind, config, instant)
        if following is None or following > now:
            return instant, following
        instant = following
    return instant, next_instant(kind, config, now)


def _field(problem: ErrorDetails) -> str:
    return str(problem["loc"][0]) if problem["loc"] else "option"


def _sentence(kind: str, problem: ErrorDetails) -> str:
    field = _field(problem)
    if problem["type"] == "extra_forbidden":
        return f"trigger kind {kind!r} does not use {field!r}"
    if problem["type"] == "missing":
        return f"trigger kind {kind!r} needs {field!r}"
    return f"{field!r}: {problem['msg'].removeprefix('Value error, ')}"
