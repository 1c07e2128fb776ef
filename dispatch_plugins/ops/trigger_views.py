"""How triggers appear in every output, as data and as text."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dispatch_core.api import FiringStatus, OpOutput, View, glyph, printable

if TYPE_CHECKING:
    from dispatch_core.api import FiringRecord, TriggerRecord

HELP = "dispatch trigger add --help"


class FiringView(OpOutput):
    """One occasion and what came of it."""

    at: datetime = Field(description="When it was claimed.")
    key: str = Field(
        description="What identifies it: the scheduled instant, or the id of the turn."
    )
    status: FiringStatus = Field(description="claimed, done, failed, or unknown: it may have run.")
    detail: str | None = Field(description="Why it failed; null otherwise.")


class TriggerView(OpOutput):
    """A trigger."""

    id: str = Field(description="Eight hexadecimal digits.")
    name: str = Field(description="Name, unique among the triggers.")
    when: str = Field(description="What it waits for, in words.")
    kind: str = Field(description="Its kind: interval, cron, turn_completed or one of a plugin.")
    config: dict[str, Any] = Field(description="The options of the kind.")
    action: str = Field(description="The op it runs.")
    thread: str = Field(description="The thread the action goes to, resolved when it fires.")
    text: str | None = Field(description="The message of the action.")
    enabled: bool = Field(description="False while it is paused.")
    created_at: datetime = Field(description="When it was added.")
    next_at: datetime | None = Field(description="The next instant of a time trigger, in UTC.")
    last_firing: FiringView | None = Field(
        description="The newest occasion; null before the first."
    )


class TriggerList(OpOutput):
    """All triggers."""

    triggers: list[TriggerView] = Field(description="The triggers in order of creation.")


class RemovedTrigger(OpOutput):
    """A trigger that is gone."""

    id: str = Field(description="Its id.")
    name: str = Field(description="Its name, free again.")


def view_of(trigger: TriggerRecord, last: FiringRecord | None) -> TriggerView:
    """Return the output form of a trigger and its newest firing."""
    config = dict(trigger.config)
    text = trigger.args.get("text")
    return TriggerView(
        id=trigger.id,
        name=trigger.name,
        when=label(trigger.kind, config),
        kind=trigger.kind,
        config=config,
        action=trigger.op,
        thread=trigger.thread,
        text=text if isinstance(text, str) else None,
        enabled=trigger.enabled,
        created_at=trigger.created_at,
        next_at=trigger.next_at,
        last_firing=last
        and FiringView(at=last.at, key=last.key, status=last.status, detail=last.detail),
    )


def label(kind: str, config: dict[str, Any]) -> str:
    """Return what a trigger waits for, in words; for a kind of a plugin its name and options."""
    match kind:
        case "interval":
            return f"every {config.get('seconds')} s"
        case "cron":
            return f"cron {config.get('cron')} {config.get('timezone', 'UTC')}"
        case "turn_completed":
            ends = list(config.get("statuses", ["completed"]))
            which = "" if ends == ["completed"] else f" ({', '.join(ends)})"
            return f"turn_completed of {config.get('thread')}{which}"
        case _:
            return " ".join([kind, *(f"{name}={value}" for name, value in config.items())])


def render_one(trigger: TriggerView, view: View) -> str:
    """Return one trigger as lines of names and values."""
    outcome = upcoming = ""
    if last := trigger.last_firing:
        why = f", {printable(last.detail)}" if last.detail else ""
        outcome = f"{view.status(last.status.value)} {view.age(last.at)} ago{why}"
    if trigger.next_at:
        upcoming = f"{trigger.next_at.isoformat()} ({_until(trigger, view)})"
    return view.fields(
        [
            ("name", trigger.name),
            ("id", trigger.id),
            ("when", printable(trigger.when)),
            ("action", printable(f"{trigger.action} → {trigger.thread}")),
            ("text", printable(trigger.text or "")),
            ("state", view.status(_state(trigger))),
            ("next", upcoming),
            ("last", outcome),
        ]
    )


def render_list(listed: TriggerList, view: View) -> str:
    """Return the triggers as a table."""
    if not listed.triggers:
        return f"no triggers\n  next: {HELP}"
    rows = [
        (
            t.name,
            t.id,
            t.when,
            f"{t.action} → {t.thread}",
            glyph(_state(t)),
            _until(t, view),
            glyph(t.last_firing.status) if t.last_firing else "-",
        )
        for t in listed.triggers
    ]
    header = ("NAME", "ID", "WHEN", "ACTION", "STATE", "NEXT", "LAST")
    return view.table(header, rows, flexible=(0, 2, 3), whole={1})


def render_removed(removed: RemovedTrigger, view: View) -> str:  # noqa: ARG001 -- short
    """Return one line that says which trigger is gone."""
    return f"removed trigger {removed.name} ({removed.id})"


def _state(trigger: TriggerView) -> str:
    return "on" if trigger.enabled else "paused"


def _until(trigger: TriggerView, view: View) -> str:
    if trigger.next_at is None:
        return "-"
    return f"in {replace(view, now=trigger.next_at).age(view.now)}"
