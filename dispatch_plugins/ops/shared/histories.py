"""How much of a thread's history is indexed, as every output says it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import TYPE_CHECKING

from pydantic import Field

from dispatch_core.api import OpOutput, SyncState

if TYPE_CHECKING:
    from dispatch_core.api import HistorySource


class SyncView(OpOutput):
    """How much of a thread's history is in the search index."""

    state: SyncState = Field(
        description="unknown: nothing; metadata: its head, no text; partial: its beginning and end; complete; error."
    )
    synced_at: datetime | None = Field(description="When it was looked at last.")
    path: str | None = Field(description="The file of Codex that holds the history.")
    size: int | None = Field(description="Bytes of that file when it was looked at.")
    indexed: int | None = Field(description="Bytes of it up to which it was read.")
    latest_event_at: datetime | None = Field(description="When the newest line in it was written.")
    latest_turn_id: str | None = Field(description="The newest turn in it that has ended.")
    lines: int | None = Field(description="Lines in it; null unless it was read as a whole.")
    malformed: int | None = Field(description="How many of them could not be read.")
    error: str | None = Field(description="Why it could not be read.")


def sync_view(source: HistorySource | None) -> SyncView:
    """Return the output form of what is known of a source; nothing is known of None."""
    if source is None:
        return SyncView(
            state=SyncState.UNKNOWN,
            synced_at=None,
            path=None,
            size=None,
            indexed=None,
            latest_event_at=None,
            latest_turn_id=None,
            lines=None,
            malformed=None,
            error=None,
        )
    return SyncView(
        state=source.state,
        synced_at=source.synced_at,
        path=source.checkpoint.path,
        size=source.checkpoint.size,
        indexed=source.checkpoint.offset,
        latest_event_at=source.facts.latest_event_at,
        latest_turn_id=source.facts.latest_turn_id,
        lines=source.facts.lines,
        malformed=source.facts.malformed,
        error=source.error,
    )
