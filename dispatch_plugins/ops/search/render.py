"""What was found, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import View, printable

if TYPE_CHECKING:
    from dispatch_plugins.ops.search.models import Hit, SearchOutput

INDENT = "  "


def render_search(output: SearchOutput, view: View) -> str:
    """Two lines for each hit: which thread, and the text around the match."""
    lines = [line for hit in output.hits for line in (_head(hit, view), _snippet(hit, view))]
    if not lines:
        lines.append(f"nothing found for {printable(output.query)}")
        if output.complete:
            lines.append("  next: dispatch sync --full reads all histories into the index")
    lines += [view.paint(view.fit(f"note: {note}"), "yellow") for note in output.notes]
    if output.next:
        lines.append(f"more: add --after {output.next}")
    return "\n".join(lines)


def _head(hit: Hit, view: View) -> str:
    name = hit.handle or hit.name or hit.preview or "(no name)"
    facts = [
        view.age(hit.at or hit.updated_at),
        hit.role if hit.item_id else view.directory(hit.cwd),
        "archived" if hit.archived else None,
        f"turn {hit.turn_id}" if hit.item_id else "+".join(hit.found_in),
    ]
    key = hit.ref or hit.id
    rest = " · ".join(fact for fact in facts if fact)
    room = max(0, view.width - len(key) - 2)
    title = view.fit(name, reserve=view.width - max(room // 2, room - len(rest) - 3))
    shown = f"{key}  {view.paint(title, 'bold')}"
    used = len(key) + 2 + view.columns(title) + 3
    return f"{shown} {view.paint('· ' + view.fit(rest, reserve=used), 'dim')}"


def _snippet(hit: Hit, view: View) -> str:
    return INDENT + view.marked(hit.snippet, hit.matches, view.width - len(INDENT))
