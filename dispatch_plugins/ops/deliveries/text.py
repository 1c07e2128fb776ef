"""What people read of deliveries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dispatch_core.api import DeliveryState, View, glyph, printable
from dispatch_plugins.ops.shared.queues import ahead_words, short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dispatch_plugins.ops.deliveries.contract import (
        ChangedOutput,
        DeliveryOutput,
        DeliveryView,
        GetOutput,
        ListOutput,
        QueueOutput,
        Step,
    )

KNOWN_FROM = {
    "answer": "Codex's answer",
    "event": "what Codex reported while it ran",
    "history": "Codex's history",
    "operator": "what a person said",
    "daemon": "dispatch itself",
}
WHEN = {
    "now": "to be sent at once",
    "idle": "queued until the thread is idle",
    "interject": "in place of the turn that ran",
}


def render_list(output: ListOutput, view: View) -> str:
    """One line a delivery, newest first."""
    return _page(output, view, "nothing was sent yet")


def render_dead(output: ListOutput, view: View) -> str:
    """One line a delivery that was given up."""
    return _page(output, view, "no delivery was given up")


def render_queue(output: QueueOutput, view: View) -> str:
    """The queue in the order in which it will be sent."""
    if not output.deliveries:
        return "nothing is queued any more"
    return _table(output.deliveries, view)


def render_one(output: DeliveryOutput, view: View) -> str:
    """How it stands, and what can be done."""
    one = output.delivery
    return "\n".join([_line(one, view), *_steps(output.next[:2], view)])


def render_requeued(output: DeliveryOutput, view: View) -> str:
    """Where the message went: it has an id of its own now."""
    one = output.delivery
    line = f"{view.status(one.state.value)}  {_name(one, view)}: the message is {short(one.id)} now"
    if one.position is not None:
        line += f", {ahead_words(one.position)}"
    step = f"  next: dispatch delivery get {short(one.id)}, or dispatch wait {one.thread.ref}"
    return f"{view.wrap(line, indent='  ')}\n{step}"


def render_cancelled(output: ChangedOutput, view: View) -> str:
    """One line a delivery, and how to undo it."""
    lines = [_line(one, view) for one in output.deliveries]
    if len(output.deliveries) == 1:
        lines.append(
            f"  next: dispatch delivery requeue {short(output.deliveries[0].id)} undoes it"
        )
    return "\n".join(lines)


def render_get(output: GetOutput, view: View) -> str:
    """Name and value lines, the message, and what can be done."""
    one = output.delivery
    head = view.fields(
        [
            ("delivery", one.id),
            ("state", _state(output, view)),
            ("thread", _name(one, view)),
            ("accepted", _accepted(output, view)),
            ("given", _given(output)),
            ("turn", one.turn_id),
            ("was in doubt", _former_doubt(one)),
            ("known from", KNOWN_FROM.get(output.evidence or "", output.evidence)),
            ("ended", f"{view.age(one.ended_at)} ago" if one.ended_at else None),
            ("expires", _expires(one, view)),
            ("key", printable(one.key) if one.key else None),
            ("repeats", output.retry_of),
            ("pictures", ", ".join(view.directory(path) for path in output.images) or None),
        ]
    )
    if output.text is None:
        body = [f"the message is not kept any more; its SHA-256 is {output.sha256}"]
    else:
        body = view.block(output.text.strip(), indent="  ")
    lines = [head, "", *body]
    if output.next:
        lines += ["", *_steps(output.next, view)]
    return "\n".join(lines)


def _page(output: ListOutput, view: View, nothing: str) -> str:
    lines = [_table(output.deliveries, view) if output.deliveries else nothing]
    if output.next:
        lines.append(f"more: add --after {output.next}")
    if doubtful := [one for one in output.deliveries if one.state is DeliveryState.UNKNOWN]:
        lines.append(f"  next: dispatch delivery get {short(doubtful[0].id)} says what is in doubt")
    return "\n".join(lines)


def _table(deliveries: Sequence[DeliveryView], view: View) -> str:
    """A table; what explains nothing in any row has no column."""
    positions = any(one.position is not None for one in deliveries)
    reasons = any(_why(one) for one in deliveries)
    header = ["ID", "THREAD", "STATE", *(["AHEAD"] if positions else []), "AGE", "MESSAGE"]
    header += ["WHY"] if reasons else []
    rows = [
        [
            short(one.id),
            one.thread.handle,
            glyph(one.state.value),
            *([_count(one.position)] if positions else []),
            view.age(one.created_at),
            one.preview or "-",
            *([_why(one) or "-"] if reasons else []),
        ]
        for one in deliveries
    ]
    last = len(header) - 1
    flexible = (1, last - 1, last) if reasons else (1, last)
    return view.table(header, rows, flexible=flexible, whole={0, 2})


def _why(one: DeliveryView) -> str | None:
    """Return the reason of what is not as it should be; what was in doubt about a message that ran is over."""
    return None if one.state is DeliveryState.DONE else one.reason


def _count(position: int | None) -> str:
    return "-" if position is None else str(position)


def _line(one: DeliveryView, view: View) -> str:
    words = f"{view.status(one.state.value)}  {short(one.id)} for {_name(one, view)}"
    if one.position is not None:
        words += f", {ahead_words(one.position)}"
    line = view.wrap(words, indent="  ")
    return f"{line}\n{view.fit(one.preview, indent='  ')}" if one.preview else line


def _steps(steps: Sequence[Step], view: View) -> list[str]:
    """Commands with what they do beside them, or below where the terminal is too narrow."""
    room = max((view.columns(step.command) for step in steps), default=0)
    widest = max((view.columns(step.what) for step in steps), default=0)
    if 2 + room + 2 + widest <= view.width:
        return [f"  {step.command:<{room}}  {step.what}" for step in steps]
    return [line for step in steps for line in (f"  {step.command}", f"      {step.what}")]


def _name(one: DeliveryView, view: View) -> str:
    return f"{view.paint(printable(one.thread.handle), 'bold')} ({one.thread.ref})"


def _state(output: GetOutput, view: View) -> str:
    one = output.delivery
    parts = [view.status(one.state.value)]
    if one.position is not None:
        parts.append(ahead_words(one.position))
    if output.merged:
        parts.append("Codex put it into a turn that ran already")
    words = ", ".join(parts)
    why = _why(one)
    return f"{words}: {printable(why)}" if why else words


def _accepted(output: GetOutput, view: View) -> str:
    one = output.delivery
    return f"{view.age(one.created_at)} ago from {printable(one.principal)}, {WHEN[one.when.value]}"


def _given(output: GetOutput) -> str:
    if not output.attempt:
        return "not yet" if not output.delivery.state.ended else "never"
    words = "once" if output.attempt == 1 else f"{output.attempt} times"
    if output.epoch is not None:
        boot = output.epoch.boot_id[:8]
        words += f", last to Codex process {output.epoch.pid} of machine start {boot}"
    if output.deaths:
        ended = "process" if output.deaths == 1 else "processes"
        words += f"; {output.deaths} Codex {ended} ended with it"
    return words


def _former_doubt(one: DeliveryView) -> str | None:
    return printable(one.reason) if one.reason and one.state is DeliveryState.DONE else None


def _expires(one: DeliveryView, view: View) -> str | None:
    if one.expires_at is None:
        return None
    moment = f"{one.expires_at.astimezone():%Y-%m-%d %H:%M:%S}"
    if one.state is not DeliveryState.QUEUED:
        return moment
    if one.expires_at <= view.now:
        return f"{moment}, which is over: it will not be sent"
    return f"{moment}, in {_until(one.expires_at, view)}"


def _until(moment: datetime, view: View) -> str:
    return replace(view, now=moment).age(view.now)
