"""What people read: which thread there is now, or what a dry run found."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

from dispatch_core.api import View, printable
from dispatch_core.config import brief

if TYPE_CHECKING:
    from dispatch_plugins.ops.new.contract import NewOutput, Plan, PlannedText

DIGEST = 12  # characters of a digest that are shown


def render_new(output: NewOutput, view: View) -> str:
    """Say which thread there is now and what to do next; of a dry run, the settings with their sources."""
    notes = [view.wrap(view.paint(f"note: {printable(note)}", "yellow")) for note in output.notes]
    if output.plan is not None:
        return "\n".join([_plan(output.plan, view), *notes])
    return "\n".join([_made(output, view), *notes])


def _made(output: NewOutput, view: View) -> str:
    thread = output.thread
    if thread is None:
        return "nothing was made"
    said = "its first message was accepted" if output.message_accepted else "nothing was sent yet"
    if output.goal_set:
        said = f"its goal is set, {said}"
    step = f"dispatch send {thread.ref} TEXT"
    if output.message_accepted or output.goal_set:
        step = f"dispatch wait {thread.ref}"
    handle = view.paint(printable(thread.handle), "bold")
    made = view.wrap(f"{handle} is thread {thread.ref}; {said}", indent="  ")
    return f"{made}\n  next: {step}"


def _plan(plan: Plan, view: View) -> str:
    rows = [
        [setting.name, _value(setting.name, setting.value, view), brief(setting.source, plan.files)]
        for setting in plan.settings
        if setting.source != "codex"
    ]
    rows += [
        [text.name, _text(text, plan.cwd), brief(text.source, plan.files)] for text in plan.texts
    ]
    rows += [["image", _near(path, plan.cwd), "option"] for path in plan.images]
    lines = [
        view.fields([("name", printable(plan.name)), ("handle", printable(plan.handle))]),
        "",
        view.table(["SETTING", "VALUE", "SOURCE"], rows, flexible=1),
        "",
    ]
    lines += [f"{kind} config: {view.directory(path)}" for kind, path in plan.files.items()]
    if left := [setting.name for setting in plan.settings if setting.source == "codex"]:
        said = f"left to Codex: {', '.join(left)}"
        lines += textwrap.wrap(said, view.width, subsequent_indent="  ", break_on_hyphens=False)
    sent = "the message would be sent" if plan.would_send else "no message would be sent"
    goal = ", after the goal was set" if plan.goal is not None else ""
    lines.append(f"nothing was done; {sent}{goal}")
    return "\n".join(lines)


def _value(name: str, value: object, view: View) -> str:
    if name == "cwd" and isinstance(value, str):
        return view.directory(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(text: PlannedText, cwd: str) -> str:
    size = f"{text.bytes:,} bytes, sha256 {text.sha256[:DIGEST]}"
    return size if text.path is None else f"{_near(text.path, cwd)}, {size}"


def _near(path: str, cwd: str) -> str:
    """Return a path as somebody in the directory would write it."""
    return path.removeprefix(f"{cwd.rstrip('/')}/")
