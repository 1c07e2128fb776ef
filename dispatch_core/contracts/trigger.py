"""Trigger kinds: what can stand on the left of when → action → lane. Plain functions over frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime

    from dispatch_core.contracts.events import Event

SUMMARY_LIMIT = 72

C = TypeVar("C", bound=BaseModel)


class TriggerConfig(BaseModel):
    """Base of a kind's configuration; it declares ``kind: Literal["…"]`` and describes every field.

    A field named ``anchor`` that is empty is filled with the moment the trigger was made, so that periods keep their phase.
    A field named ``thread`` holds a selector and is replaced by the thread's key before ``match`` or ``watch`` see it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """One occasion. key: at most 200 characters, the same for the same occasion however often it is seen."""

    key: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerKind(Generic[C]):
    """One kind of occasion; exactly one of the three functions is set.

    next_after(config, moment): the next instant strictly later than moment, aware, or None when there is none; pure.
    match(config, event): the Firing that this event is, or None; pure. watch(config): its own source of firings, cancellable.
    """

    name: str
    summary: str
    config: type[C]
    next_after: Callable[[C, datetime], datetime | None] | None = None
    match: Callable[[C, Event], Firing | None] | None = None
    watch: Callable[[C], AsyncIterator[Firing]] | None = None

    def __post_init__(self) -> None:
        shapes = [self.next_after, self.match, self.watch]
        if sum(shape is not None for shape in shapes) != 1:
            raise ValueError(
                f"trigger kind {self.name}: exactly one of next_after, match and watch"
            )
        if "kind" not in self.config.model_fields:
            raise ValueError(f"trigger kind {self.name}: its config has no field 'kind'")
        if not self.summary or len(self.summary) > SUMMARY_LIMIT or "\n" in self.summary:
            raise ValueError(
                f"trigger kind {self.name}: the summary is one line of 1 to {SUMMARY_LIMIT} characters"
            )
