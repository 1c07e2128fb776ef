"""How events read for people: one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import EventKind, View, printable
from dispatch_plugins.ops.shared.queues import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_plugins.ops.watch.contract import WatchedEvent, WatchOutput

GLYPHS = {
    EventKind.TURN_STARTED: ("●", "cyan"),
    EventKind.TURN_COMPLETED: ("✓", "green"),
    EventKind.TURN_FAILED: ("✗", "red"),
    EventKind.TURN_INTERRUPTED: ("■", "yellow"),
    EventKind.TURN_UNKNOWN: ("~", "yellow"),
    EventKind.APPROVAL_REQUESTED: ("?", "yellow"),
    EventKind.REQUEST_OPENED: ("?", "yellow"),
    EventKind.THREAD_CREATED: ("+", "green"),
    EventKind.TRIGGER_FIRED: ("»", "cyan"),
}
DELIVERY_GLYPHS = {
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "rejected": ("✗", "red"),
    "dead": ("✗", "red"),
    "interrupted": ("■", "yellow"),
    "unknown": ("~", "yellow"),
    "submitted": ("●", "cyan"),
    "running": ("●", "cyan"),
}
DELIVERY_WORDS = {
    "queued": "is queued",
    "sending": "is being sent",
    "submitted": "was taken by Codex",
    "running": "runs",
    "done": "is done",
    "failed": "failed",
    "interrupted": "was interrupted",
    "rejected": "was refused",
    "dead": "was given up",
    "cancelled": "was cancelled",
    "expired": "expired before it was sent",
    "unknown": "is in doubt",
}
REQUEST_WORDS = {
    "command": "asks to run a command",
    "file_change": "asks to change files",
    "permissions": "asks to be allowed more",
    "user_input": "has questions",
    "tool_call": "asks for the result of a tool",
    "mcp_tool": "asks to call a tool",
    "elicitation": "asks for something on behalf of a tool",
}
SPEAKERS = {"userMessage": "you", "agentMessage": "codex"}


def render_watch(output: WatchOutput, view: View) -> str:
    """One line an event."""
    lines = [view.paint("… some events may be missing here", "yellow")] if output.gap else []
    lines += [_line(event, view) for event in output.events]
    return "\n".join(lines) or "nothing has happened"


def _line(event: WatchedEvent, view: View) -> str:
    time = event.at.astimezone().strftime("%H:%M:%S")
    sign, color = _sign(event)
    name = ""
    if event.thread is not None:
        name = f"{printable(event.thread.handle or '')} ({event.thread.ref or event.thread.key})  "
    head = f"{time}  {name}{sign} {event.kind.value}"
    painted = f"{view.paint(time, 'dim')}  {name}{view.paint(f'{sign} {event.kind.value}', color)}"
    more = _shorten(_detail(event), view.width - _columns(head) - 2)
    return f"{painted}  {more}" if more else painted


def _sign(event: WatchedEvent) -> tuple[str, str]:
    if event.kind is EventKind.DELIVERY_CHANGED:
        return DELIVERY_GLYPHS.get(str(event.data.get("state")), ("·", "dim"))
    return GLYPHS.get(event.kind, ("·", "dim"))


def _delivery(data: Mapping[str, Any]) -> str:
    """Return what became of a message, in words."""
    state = str(data.get("state"))
    words = DELIVERY_WORDS.get(state, f"is {state}")
    if state == "queued" and data.get("before") is not None:
        words = "is back in the queue"
    text = f"message {short(str(data.get('id')))} {words}"
    return f"{text}: {data['reason']}" if data.get("reason") else text


def _request(event: WatchedEvent) -> str:
    """Return what Codex asks, or what became of it, in words."""
    one, kind = short(str(event.data.get("id"))), str(event.data.get("kind"))
    if event.kind is EventKind.REQUEST_CLOSED:
        return f"request {one} is {event.data.get('state')}"
    return f"Codex {REQUEST_WORDS.get(kind, f'asks: {kind}')}, request {one}"


def _detail(event: WatchedEvent) -> str:
    """Return what a person would like to know of an event's data, on one line."""
    data = event.data
    if event.kind is EventKind.DELIVERY_CHANGED:
        return printable(_delivery(data))
    if event.kind in (EventKind.REQUEST_OPENED, EventKind.REQUEST_CLOSED):
        return printable(_request(event))
    if "text" in data:
        speaker = SPEAKERS.get(str(data.get("type")), data.get("type"))
        text = " ".join(str(data["text"] or "").split())
        return printable(f"{speaker}: {text}" if speaker else text)
    if event.kind.value.startswith("turn."):
        data = {name: value for name, value in data.items() if name != "status"}
    return printable(", ".join(f"{name} {value}" for name, value in data.items() if _plain(value)))


def _plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and value != ""


def _columns(text: str) -> int:
    """Return at most how many columns a text takes."""
    return sum(1 if char.isascii() or char in "●✓✗■·»…~" else 2 for char in text)


def _shorten(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    kept, room = [], width - 1
    for char in text:
        room -= _columns(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + "…" if kept else ""
