"""What ``watch`` takes and what it answers."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import Any

from pydantic import Field

from dispatch_core.api import (
    EventKind,
    OpInput,
    OpOutput,
    Selectors,
    cli_field,
    thread_field,
)

PAGE = 500  # events of one answer
LONGEST = 3600.0


class WatchInput(OpInput):
    """What to watch, from where on, and for how long."""

    thread: Selectors = thread_field(
        default=[],
        description="Refs, ids, handles (@name) or titles of managed threads; everything when left out.",
        max_length=100,
    )
    kinds: list[EventKind] = cli_field(
        [],
        description="Only these kinds of event; all but op.progress when left out.",
        aliases=("kind",),
    )
    after: str | None = cli_field(
        None, description="Go on behind this cursor; from now on when left out.", max_length=256
    )
    limit: int | None = cli_field(
        None,
        description="Return when there are this many; when left out, as soon as there is one.",
        ge=1,
        le=PAGE,
    )
    timeout: float | None = cli_field(
        None,
        description="Return what there is after this many seconds; 0 does not wait.",
        ge=0,
        le=LONGEST,
    )


class WatchedThread(OpOutput):
    """The thread of an event."""

    key: str = Field(description="dispatch's own id of the thread.")
    ref: str | None = Field(description="Its ref; null when it is not in the registry any more.")
    handle: str | None = Field(description="Its handle.")


class WatchedEvent(OpOutput):
    """One thing that happened."""

    cursor: str = Field(description="Where to go on after it.")
    at: datetime = Field(description="When.")
    kind: EventKind = Field(description="What.")
    thread: WatchedThread | None = Field(description="In which thread, if in one.")
    turn_id: str | None = Field(description="In which turn, if in one.")
    data: dict[str, Any] = Field(description="More about it; each kind has its own fields.")


class WatchOutput(OpOutput):
    """What happened, oldest event first."""

    events: list[WatchedEvent] = Field(description="The events.")
    cursor: str = Field(description="Where to go on: after of the next call.")
    gap: bool = Field(
        description="Whether events are missing before the first: the cursor was too old, or of another run of the daemon."
    )
