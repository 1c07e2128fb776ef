"""Models and profiles as people read them: a table, and where it is from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import printable

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import View
    from dispatch_plugins.ops.models.contract import Model, ModelsOutput, PermissionsOutput

INPUT, WIDE = 3, 100  # a column of models, and the columns of a terminal from which it is shown


def render_models(output: ModelsOutput, view: View) -> str:
    """A table of models, the configured defaults, and how fresh it is."""
    rows = [
        [
            f"{model.id}{' (default)' if model.default else ''}{' (hidden)' if model.hidden else ''}",
            _efforts(model),
            " ".join([*model.aliases] or [tier.id for tier in model.service_tiers]) or "-",
            " ".join(model.input_modalities) or "-",
            model.description or "",
        ]
        for model in output.models
    ]
    header = ["MODEL", "EFFORT", "TIER", "INPUT", "FOR"]
    if view.width < WIDE:  # what it is for helps more to choose one
        header, rows = _without(INPUT, header), [_without(INPUT, row) for row in rows]
    table = view.table(header, rows, flexible=len(header) - 1) if rows else "no model is known"
    c = output.configured
    said = [c.model, c.effort, c.service_tier, c.model_provider and f"from {c.model_provider}"]
    configured = ", ".join(printable(value) for value in said if value)
    lines = [table, ""] if rows else [table]
    if configured:
        lines.append(f"configured in Codex: {configured}")
    return "\n".join(
        [
            *lines,
            *_origin(output.source, output.refreshed_at, output.warning, view),
            *_next(output.hint),
        ]
    )


def render_permissions(output: PermissionsOutput, view: View) -> str:
    """A table of profiles, and how fresh it is."""
    rows = [
        [
            profile.id,
            "yes" if profile.allowed else "no",
            "Codex" if profile.built_in else "configuration",
            profile.description or "",
        ]
        for profile in output.profiles
    ]
    header = ["PROFILE", "ALLOWED", "FROM", "FOR"]
    table = (
        [view.table(header, rows, flexible=3), ""] if rows else ["there is no permission profile"]
    )
    where = [f"in {view.directory(output.cwd)}"] if output.cwd and rows else []
    origin = _origin(output.source, output.refreshed_at, output.warning, view)
    return "\n".join([*table, *where, *origin, *_next(output.hint)])


def _without(column: int, row: list[str]) -> list[str]:
    return [cell for at, cell in enumerate(row) if at != column]


def _efforts(model: Model) -> str:
    """Return the efforts, the default one in brackets."""
    shown = (f"[{e.id}]" if e.id == model.default_effort else e.id for e in model.efforts)
    return " ".join(shown) or "-"


def _origin(source: str, at: datetime | None, warning: str | None, view: View) -> list[str]:
    lines = (
        [view.wrap(f"Codex was not asked: {printable(warning)}", indent="  ")] if warning else []
    )
    if source == "cache" and at is not None:
        lines.append(f"as Codex said {view.age(at)} ago")
    return lines


def _next(hint: str | None) -> list[str]:
    return [f"  next: {printable(hint)}"] if hint else []
