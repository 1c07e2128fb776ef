"""How a managed thread appears in every output."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it

from pydantic import Field

from dispatch_core.contracts.op import OpOutput
from dispatch_core.contracts.records import (
    Source,
    ThreadRecord,
    ThreadStatus,
    TurnRecord,
    TurnStatus,
)


class ThreadView(OpOutput):
    """A managed thread, in short."""

    ref: str = Field(description="Short stable name of the thread: six characters.")
    id: str = Field(description="Codex's own thread id.")
    handle: str = Field(description="The label, @name; it can change and need not be unique.")
    title: str | None = Field(description="Display name of the thread in Codex.")
    key: str = Field(
        description="dispatch's own id of the thread, which never changes; events carry it."
    )
    managed: bool = Field(default=True, description="Whether the thread is in the registry.")
    source: Source = Field(
        description="own: made by dispatch, may be written. attached: may be read."
    )
    status: ThreadStatus = Field(description="What the thread is doing, as far as is known.")
    cwd: str = Field(description="Absolute working directory of the thread.")


class TurnView(OpOutput):
    """The latest turn of a thread."""

    id: str | None = Field(description="Codex's turn id; null until Codex has named it.")
    message_id: str | None = Field(
        description="Id of the message that started the turn; the receipt of its send."
    )
    status: TurnStatus = Field(
        description="submitted, started, completed, failed, interrupted or unknown."
    )
    started_at: datetime = Field(description="When it was submitted, or seen to start.")
    completed_at: datetime | None = Field(description="When it ended; null while it runs.")
    error: str | None = Field(
        description="Why it failed, or what is in its way while it runs; null otherwise."
    )


def thread_view(thread: ThreadRecord) -> ThreadView:
    """Return the output form of a record."""
    return ThreadView(
        ref=thread.ref,
        id=thread.native_id,
        handle=thread.handle,
        title=thread.title,
        key=thread.key,
        source=thread.source,
        status=thread.status,
        cwd=thread.cwd,
    )


def turn_view(turn: TurnRecord | None) -> TurnView | None:
    """Return the output form of a turn, or None."""
    if turn is None:
        return None
    return TurnView(
        id=turn.id,
        message_id=turn.message_id,
        status=turn.status,
        started_at=turn.started_at,
        completed_at=turn.completed_at,
        error=turn.error,
    )
