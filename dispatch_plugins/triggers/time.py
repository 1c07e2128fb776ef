"""Trigger kinds of time: every so many seconds, and cron expressions in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AwareDatetime, Field, field_validator

from dispatch_core.api import TriggerConfig, TriggerKind, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatch_core.api import PluginSettings

CRON_FIELDS = 5
LONGEST_INTERVAL = 366 * 86400
SOME_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


class IntervalConfig(TriggerConfig):
    """Every so many seconds, in the phase of the anchor; no change of the clocks moves it."""

    kind: Literal["interval"] = "interval"
    seconds: int = Field(description="Seconds between two firings.", ge=1, le=LONGEST_INTERVAL)
    anchor: AwareDatetime | None = Field(
        default=None,
        description="Instant the firings are counted from; the creation if left out.",
    )


class CronConfig(TriggerConfig):
    """A cron expression in a time zone.

    An instant that the clocks skip fires right after the gap; one that they repeat fires once, the
    first time.

    An hour field that begins with ``*`` follows elapsed time instead: it skips the gap and fires in
    both repeated hours.
    """

    kind: Literal["cron"] = "cron"
    cron: str = Field(
        description="Five fields: minute, hour, day of month, month, day of week.", max_length=200
    )
    timezone: str = Field(default="UTC", description="IANA name of the time zone.", max_length=100)

    @field_validator("cron")
    @classmethod
    def _can_happen(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != CRON_FIELDS:
            raise ValueError(
                f"five fields are needed (minute hour day month weekday), not {len(fields)}"
            )
        expression = " ".join(fields)
        try:
            first = next(_instants(expression, SOME_MOMENT), None)
        except CronSimError as error:
            raise ValueError(f"{expression!r} can never fire: {error}") from None
        if first is None:
            raise ValueError(f"{expression!r} can never fire: there is no such day")
        return expression

    @field_validator("timezone")
    @classmethod
    def _exists(cls, value: str) -> str:
        _zone(value)
        return value


def interval_next_after(config: IntervalConfig, moment: datetime) -> datetime | None:
    """Return the first instant of the phase that is later than moment, in UTC.

    The phase is anchor + n · seconds, n ≥ 0; without an anchor the result is moment + seconds.
    """
    step = timedelta(seconds=config.seconds)
    anchor = moment if config.anchor is None else config.anchor
    start, instant = anchor.astimezone(UTC), moment.astimezone(UTC)
    try:
        return start if instant < start else start + ((instant - start) // step + 1) * step
    except OverflowError:
        return None


def cron_next_after(config: CronConfig, moment: datetime) -> datetime | None:
    """Return the first instant of the expression later than moment, in UTC.

    None when there is none within fifty years.
    """
    instant = moment.astimezone(UTC)
    try:
        # Within a repeated hour the simulation counts from the first pass again, so earlier
        # instants are passed over. They are compared in UTC: within one time zone Python compares
        # wall time and ignores the fold.
        for local in _instants(config.cron, instant.astimezone(_zone(config.timezone))):
            if (found := local.astimezone(UTC)) > instant:
                return found
    except OverflowError:
        return None
    return None


def _instants(expression: str, moment: datetime) -> CronSim:
    minute, hour, *rest = expression.split()
    if not hour.startswith("*"):
        # The library treats a clock change for fixed times only when the minute field has no star
        # either.
        minute = minute.replace("*", "0-59")
    return CronSim(" ".join((minute, hour, *rest)), moment)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone; use a name like Europe/Berlin") from None


INTERVAL = TriggerKind(
    name="interval",
    summary="Fire every so many seconds, counted from the creation of the trigger.",
    config=IntervalConfig,
    next_after=interval_next_after,
)
CRON = TriggerKind(
    name="cron",
    summary="Fire at the instants of a cron expression, in a time zone.",
    config=CronConfig,
    next_after=cron_next_after,
)


@hookimpl
def dispatch_trigger_kinds(settings: PluginSettings) -> Iterable[TriggerKind[Any]]:  # noqa: ARG001
    """Return the kinds interval and cron."""
    return (INTERVAL, CRON)
