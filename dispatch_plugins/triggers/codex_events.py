"""Trigger kinds of what happens in threads: a turn has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dispatch_core.api import Event, EventKind, Firing, TriggerConfig, TriggerKind, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatch_core.api import PluginSettings

ENDINGS = {
    EventKind.TURN_COMPLETED: "completed",
    EventKind.TURN_FAILED: "failed",
    EventKind.TURN_INTERRUPTED: "interrupted",
}


def _words(value: Any) -> Any:
    """Return "a,b" as ["a", "b"], because a command line has only text."""
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


class TurnCompletedConfig(TriggerConfig):
    """A turn of one thread has ended in one of the given ways."""

    kind: Literal["turn_completed"] = "turn_completed"
    thread: str = Field(description="The thread whose turns are watched.", min_length=1)
    statuses: Annotated[
        tuple[Literal["completed", "failed", "interrupted"], ...], BeforeValidator(_words)
    ] = Field(
        default=("completed",),
        description="Which ends count: completed, failed, interrupted.",
        min_length=1,
    )


def match_turn(config: TurnCompletedConfig, event: Event) -> Firing | None:
    """Return the turn that has ended, keyed by its id.

    None for another thread, another end, and a turn whose id is not known.
    """
    if event.thread != config.thread or event.turn_id is None:
        return None
    ending = ENDINGS.get(event.kind)
    if ending not in config.statuses:
        return None
    return Firing(key=event.turn_id, reason=f"turn {ending}")


TURN_COMPLETED = TriggerKind(
    name="turn_completed",
    summary="Fire when a turn of a thread has ended.",
    config=TurnCompletedConfig,
    match=match_turn,
)


@hookimpl
def dispatch_trigger_kinds(settings: PluginSettings) -> Iterable[TriggerKind[Any]]:  # noqa: ARG001
    """Return the kind turn_completed."""
    return (TURN_COMPLETED,)
