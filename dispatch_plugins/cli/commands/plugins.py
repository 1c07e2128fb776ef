"""``dispatch plugins``: from the manifest alone, so it works with broken plugins and without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dispatch_core.errors import NotFound
from dispatch_plugins.cli import output
from dispatch_plugins.cli.catalog import similar
from dispatch_plugins.cli.params import global_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatch_plugins.cli.app import App

HELP = """Show what is plugged in, and what failed.

\b
dispatch plugins
dispatch plugins show NAME
"""
GLYPHS = {"loaded": "✓", "quarantined": "✗", "disabled": "▫"}
COLORS = {"loaded": "32", "quarantined": "31", "disabled": "2"}
HEADER = ("NAME", "STATE", "DISTRIBUTION", "STAGE", "REASON")


def command(app: App) -> click.Command:
    """Return the group."""

    @click.group("plugins", help=HELP, invoke_without_command=True)
    @click.pass_context
    def plugins(context: click.Context) -> int:
        if context.invoked_subcommand is None:
            app.settle(context)
            return listing(app)
        return 0

    @click.command("list", help="Show every plugin with its state.", params=global_options())
    @click.pass_context
    def list_(context: click.Context) -> int:
        app.settle(context)
        return listing(app)

    @click.command(
        "show", help="Show one plugin: what it provides, or why it failed.", params=global_options()
    )
    @click.argument("name")
    @click.pass_context
    def show(context: click.Context, name: str) -> int:
        app.settle(context)
        return details(app, name)

    plugins.add_command(list_)
    plugins.add_command(show)
    return plugins


def listing(app: App) -> int:
    """Print the table of all plugins."""
    manifest = app.invocation.manifest
    rows = sorted(
        manifest["plugins"], key=lambda plugin: (not plugin["first_party"], plugin["name"])
    )
    result: dict[str, Any] = {"plugins": [_without_traceback(plugin) for plugin in rows]}
    error = manifest.get("error")
    text = _table(app, rows) if rows else "no plugin is known"
    if error is not None:
        result["error"] = error
        text = f"{output.printable(str(error['message']))}\n{output.printable(str(error['hint'] or ''))}".rstrip()
    elif any(plugin["state"] == "quarantined" for plugin in rows):
        text += "\n\ndispatch plugins show NAME says where it failed"
    output.result(app.invocation, result, text)
    return 0


def details(app: App, name: str) -> int:
    """Print what one plugin provides, or why it does not; every plugin of that name."""
    plugins = app.invocation.manifest["plugins"]
    found = [plugin for plugin in plugins if name in (plugin["name"], plugin["dist"])]
    if not found:
        app.broken()
        near = similar(name, {plugin["name"] for plugin in plugins})
        meant = f"did you mean {' or '.join(near)}? " if near else ""
        raise NotFound(
            f"there is no plugin {name!r}",
            hint=f"{meant}dispatch plugins lists them",
            details={"plugin": name, "similar": near},
        )
    text = "\n\n".join(_details(plugin) for plugin in found)
    output.result(app.invocation, {"plugins": found}, text)
    return 0


def _without_traceback(plugin: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plugin.items() if name != "traceback"}


def _table(app: App, plugins: Sequence[Mapping[str, Any]]) -> str:
    import sys

    rows = [
        (
            plugin["name"],
            f"{GLYPHS[plugin['state']]} {plugin['state']}",
            f"{plugin['dist']} {plugin['version']}".strip(),
            plugin["stage"] or "",
            _one_line(plugin["reason"] or ""),
        )
        for plugin in plugins
    ]
    widths = [max(len(row[c]) for row in [HEADER, *rows]) for c in range(len(HEADER) - 1)]
    room = max(24, app.invocation.width() - sum(widths) - 2 * len(widths))
    color = app.invocation.color(sys.stdout)
    lines = ["  ".join(pad(HEADER, widths))]
    for plugin, row in zip(plugins, rows, strict=True):
        cells = pad(row, widths)
        if color:
            cells[1] = f"\x1b[{COLORS[plugin['state']]}m{cells[1]}\x1b[0m"
        reason = row[-1] if len(row[-1]) <= room else row[-1][: room - 1] + "…"
        lines.append("  ".join([*cells[:-1], reason]).rstrip())
    return "\n".join(lines)


def pad(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the cells of a row, filled to their columns; the last one as it is."""
    return [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]


def _one_line(text: str) -> str:
    return output.printable(" ".join(text.split()))


def _details(plugin: Mapping[str, Any]) -> str:
    provides = plugin["provides"]
    pairs = [
        ("name", plugin["name"]),
        ("state", f"{GLYPHS[plugin['state']]} {plugin['state']}"),
        ("distribution", f"{plugin['dist']} {plugin['version']}".strip()),
        ("entry point", f"{plugin['group']}: {plugin['value']}"),
        ("ops", ", ".join(provides.get("ops", ()))),
        ("trigger kinds", ", ".join(provides.get("kinds", ()))),
        ("surfaces", ", ".join(provides.get("surfaces", ()))),
        ("storage", "yes" if provides.get("storage") else ""),
        ("stage", plugin["stage"] or ""),
        ("reason", plugin["reason"] or ""),
    ]
    width = max(len(name) for name, value in pairs if value)
    lines = [f"{name.ljust(width)}  {output.printable(value)}" for name, value in pairs if value]
    if plugin["traceback"]:
        lines += ["", output.printable(plugin["traceback"]).rstrip()]
    return "\n".join(lines)
