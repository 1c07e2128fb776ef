"""Requests as text for people. What Codex sent is shown with every character that a terminal would act on written out."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dispatch_core.api import (
    RequestKind,
    RequestState,
    glyph,
    printable,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dispatch_core.api import ThreadView, View
    from dispatch_plugins.ops.requests.contract import (
        DeferOutput,
        ListOutput,
        RequestView,
        RespondOutput,
        ShowOutput,
    )

SHORT = 8  # characters at the end of an id
INDENT = "  "


def render_list(listed: ListOutput, view: View) -> str:
    """Return the requests as a table."""
    if not listed.requests:
        return "no requests\n  next: dispatch request list --all"
    rows = [
        (
            row.id[-SHORT:],
            row.thread.handle if row.thread else "-",
            row.kind.value,
            glyph(row.state.value),
            _left(row, view),
            visible(row.summary),
        )
        for row in listed.requests
    ]
    header = ("ID", "THREAD", "KIND", "STATE", "LEFT", "ASKS")
    table = view.table(header, rows, flexible=(5, 1), whole={0})
    first = listed.requests[0]
    hint = f"\n  next: dispatch request show {first.id[-SHORT:]}"
    more = f"\n  next: dispatch request list --after {listed.next}" if listed.next else ""
    return f"{table}{hint if first.state is RequestState.OPEN else ''}{more}"


def render_show(shown: ShowOutput, view: View) -> str:
    """Return one request: who asks, what is asked, and the commands that answer it."""
    request = shown.request
    parts = [
        view.fields(
            [
                ("request", request.id),
                ("thread", _name(shown.thread)),
                ("asks", visible(request.summary)),
                ("state", _state(request, view)),
                (
                    "declined in",
                    _left(request, view) if request.state is RequestState.OPEN else None,
                ),
                ("because", visible(request.detail or "")),
            ]
        )
    ]
    if shown.body is not None:
        parts.append("\n".join(_BODIES.get(request.kind, _anything)(shown.body, view)))
    if shown.cut:
        parts.append(view.wrap("This is not all: it is too long to be kept whole."))
    if shown.choices:
        parts.append("\n".join(f"{visible(c.command)}\n{INDENT}{c.meaning}" for c in shown.choices))
    return "\n\n".join(part for part in parts if part)


def render_respond(output: RespondOutput, view: View) -> str:
    """Say what became of the answer, or what it would be."""
    wire = visible(json.dumps(output.answer, ensure_ascii=False))
    if output.dry_run:
        return f"nothing was sent; Codex would be told\n{wire}"
    request = output.request
    state = _state(request, view)
    if request.state is RequestState.ANSWERING:
        return f"{state}\n  next: dispatch request show {request.id[-SHORT:]}"
    follow = f"\n  next: dispatch wait {output.thread.ref}" if output.thread else ""
    why = f": {visible(request.detail)}" if request.detail else ""
    return f"{state}{why}{follow}"


def render_defer(output: DeferOutput, view: View) -> str:
    """Say until when the request waits."""
    request = output.request
    return f"request {request.id[-SHORT:]} waits {_left(request, view)} more"


def block(text: str, view: View) -> list[str]:
    """Return text in lines, indented, the line breaks of its own kept and everything else as ``visible``."""
    return [line for own in text.split("\n") for line in view.block(visible(own), indent=INDENT)]


def _command(body: Mapping[str, Any], view: View) -> list[str]:
    lines = [view.rule("type into a terminal" if body.get("to_terminal") else "command")]
    lines += block(str(body.get("command") or "(none was sent)"), view)
    return [*lines, *_facts(body, view, "cwd", "reason", "network", "additional_permissions")]


def _files(body: Mapping[str, Any], view: View) -> list[str]:
    lines = _facts(body, view, "reason", "grant_root")
    changes = body.get("changes")
    if changes is None:
        return [*lines, "Codex did not say what it is going to change."]
    for change in changes:
        if not isinstance(change, dict):
            lines.append(visible(str(change)))
            continue
        moved = f" → {change['moved_to']}" if change.get("moved_to") else ""
        lines.append(view.rule(visible(f"{change.get('change')} {change.get('path')}{moved}")))
        lines += block(str(change.get("diff") or ""), view)
    return lines


def _permissions(body: Mapping[str, Any], view: View) -> list[str]:
    return [
        view.rule("more permissions"),
        *block(json.dumps(body.get("permissions"), ensure_ascii=False, indent=2), view),
        *_facts(body, view, "reason", "cwd"),
    ]


def _questions(body: Mapping[str, Any], view: View) -> list[str]:
    lines: list[str] = []
    for question in body.get("questions") or ():
        if not isinstance(question, dict):
            continue
        lines.append(view.rule(visible(f"{question.get('id')}  {question.get('header') or ''}")))
        lines += block(str(question.get("question")), view)
        for option in question.get("options") or ():
            about = f": {option['description']}" if option.get("description") else ""
            lines.append(view.wrap(visible(f"- {option.get('label')}{about}"), indent=INDENT))
        if question.get("options") and question.get("other"):
            lines.append("- or anything else")
        if question.get("secret"):
            lines.append("The answer is a secret: it stays in the history of your shell.")
    return lines


def _anything(body: Mapping[str, Any], view: View) -> list[str]:
    lines: list[str] = []
    for name, value in body.items():
        if value in (None, "", []):
            continue
        lines.append(view.rule(name))
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
        lines += block(text, view)
    return lines


def _facts(body: Mapping[str, Any], view: View, *names: str) -> list[str]:
    pairs = [
        (name.replace("_", " "), _fact(body[name])) for name in names if body.get(name) is not None
    ]
    return [view.fields(pairs)] if pairs else []


def _fact(value: Any) -> str:
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _state(request: RequestView, view: View) -> str:
    said = f" by {request.answered_by}" if request.answered_by else ""
    what = f" ({request.decision}{said})" if request.decision else ""
    return f"{view.status(request.state.value)}{what}"


def _left(request: RequestView, view: View) -> str:
    """Return how long an open request waits still."""
    if request.state is not RequestState.OPEN:
        return "-"
    return replace(view, now=request.deadline).age(view.now)


def _name(thread: ThreadView | None) -> str:
    return f"{printable(thread.handle)} ({thread.ref})" if thread else "-"


_BODIES: Mapping[RequestKind, Callable[[Mapping[str, Any], View], list[str]]] = {
    RequestKind.COMMAND: _command,
    RequestKind.FILE_CHANGE: _files,
    RequestKind.PERMISSIONS: _permissions,
    RequestKind.USER_INPUT: _questions,
}
