"""Facts of a source as JSON, moments as numbers, and what the sources of a thread say together."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.api import Checkpoint, HistorySource, SourceFacts, SyncState

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES: Final = tuple(field.name for field in fields(SourceFacts))
_MOMENTS: Final = ("created_at", "latest_event_at")
_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

SOURCE_COLUMNS: Final = (
    "path, device, inode, size, mtime_ns, offset, gap_start, gap_end, lines, malformed, "
    "facts, state, synced_at, error"
)
CHECKPOINT_COLUMNS: Final = (
    "path, device, inode, size, mtime_ns, offset, gap_start, gap_end, lines, malformed"
)


def dump_facts(facts: SourceFacts) -> str:
    """Return facts as JSON, without what is not known."""
    values: dict[str, Any] = {
        name: value for name in _NAMES if (value := getattr(facts, name)) is not None
    }
    for name in _MOMENTS:
        if name in values:
            values[name] = values[name].isoformat()
    return json.dumps(values)


def load_facts(text: str, title: str | None = None) -> SourceFacts:
    """Return the facts in JSON written by ``dump_facts``; title: kept beside them."""
    values: dict[str, Any] = json.loads(text)
    if title is not None:
        values["title"] = title
    for name in _MOMENTS:
        if name in values:
            values[name] = datetime.fromisoformat(values[name])
    if "base" in values:
        values["base"] = (values["base"][0], values["base"][1])
    return SourceFacts(**values)


def load_checkpoint(row: Sequence[Any]) -> Checkpoint:
    """Return the checkpoint in CHECKPOINT_COLUMNS."""
    path, device, inode, size, mtime_ns, offset, gap_start, gap_end, lines, malformed = row
    return Checkpoint(
        path=path,
        device=device,
        inode=inode,
        size=size,
        mtime_ns=mtime_ns,
        offset=offset,
        gap=None if gap_start is None else (gap_start, gap_end),
        lines=lines,
        malformed=malformed,
    )


def load_source(row: Sequence[Any]) -> HistorySource:
    """Return the source in SOURCE_COLUMNS."""
    facts, state, synced_at, error = row[10:]
    return HistorySource(
        checkpoint=load_checkpoint(row[:10]),
        facts=load_facts(facts),
        state=SyncState(state),
        synced_at=datetime.fromisoformat(synced_at),
        error=error,
    )


def microseconds(moment: datetime | None) -> int | None:
    """Return a moment as microseconds since 1970."""
    return None if moment is None else (moment - _START) // _MICROSECOND


def together(segments: Sequence[SourceFacts]) -> SourceFacts:
    """Return what the segments of a thread, oldest first, say about it: the newest, with what only older ones know."""
    newest = segments[-1]
    if len(segments) == 1:
        return newest
    first = segments[0]
    latest = [s.latest_event_at for s in segments if s.latest_event_at is not None]
    whole = all(s.lines is not None for s in segments)
    return replace(
        newest,
        preview=first.preview or newest.preview,
        created_at=first.created_at or newest.created_at,
        forked_from=first.forked_from,
        latest_event_at=max(latest, default=None),
        latest_turn_id=newest.latest_turn_id,
        lines=sum(s.lines or 0 for s in segments) if whole else None,
        malformed=sum(s.malformed or 0 for s in segments) if whole else None,
    )


def visible(segments: Sequence[SourceFacts]) -> dict[str, int | None]:
    """Return how many bytes of each segment still belong to the thread, None for all of it; what is missing does not.

    segments: of one thread, oldest first. The newest one goes on from a place in an older one, and what came behind was reverted.
    """
    by_name = {facts.segment: facts for facts in segments if facts.segment is not None}
    shown: dict[str, int | None] = {}
    name, end = segments[-1].segment, None
    while name is not None and name in by_name and name not in shown:
        shown[name] = end
        base = by_name[name].base
        name, end = base if base is not None else (None, None)
    return shown


def worst(states: Sequence[SyncState]) -> SyncState:
    """Return how much is known of a thread whose sources are known so far."""
    for state in (SyncState.ERROR, SyncState.UNKNOWN, SyncState.METADATA, SyncState.PARTIAL):
        if state in states:
            return state
    return SyncState.COMPLETE
