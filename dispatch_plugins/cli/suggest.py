"""What a shell is offered besides commands, options and choices: threads and triggers as a daemon that runs knows them, presets.

No daemon, a slow one, or one that says anything unexpected: then there is nothing to offer, quickly and without a word.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from dispatch_core.control.sync_client import Connection
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import DispatchError
from dispatch_plugins.cli.call import hello

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dispatch_plugins.cli.invocation import Invocation

BUDGET = 0.15  # seconds for everything that is said with the daemon
MOST = 500


class Source(NamedTuple):
    """Where the values of a kind come from. names: of the fields of a row, each of which can be typed; about: what describes it.

    A dotted name is a field of a field.
    """

    op: str
    args: Mapping[str, Any]
    rows: str
    names: tuple[str, ...]
    about: tuple[str, ...]


# The kinds that a field can be marked with (see cli_field). An op that is not installed has nothing to offer.
SOURCES = {
    "thread": Source(
        "list",
        {"limit": MOST},
        "threads",
        ("thread.handle", "thread.ref"),
        ("thread.handle", "thread.status", "thread.cwd"),
    ),
    "trigger": Source("trigger.list", {}, "triggers", ("name", "id"), ("when", "thread")),
    "model": Source("models", {"refresh": False}, "models", ("id",), ("display_name", "name")),
}


def suggestions(invocation: Invocation, kind: str, incomplete: str) -> list[tuple[str, str]]:
    """Return (value, description) for everything of a kind that begins so."""
    if kind == "preset":
        return [pair for pair in _presets(invocation) if pair[0].startswith(incomplete)]
    source = SOURCES.get(kind)
    if source is None or all(op["name"] != source.op for op in invocation.manifest["ops"]):
        return []
    try:
        rows = _ask(invocation, source)
    except (DispatchError, OSError):
        return []
    found = [pair for row in rows for pair in _pairs(source, row)]
    return [pair for pair in found if pair[0].startswith(incomplete)]


def _presets(invocation: Invocation) -> list[tuple[str, str]]:
    """Return the presets of the user's file and of the nearest project's, which no daemon is needed for."""
    from pathlib import Path

    from dispatch_core.config.files import Places
    from dispatch_core.config.trust import is_foreign
    from dispatch_core.settings import parse, read_bytes

    places = Places.from_env(invocation.env)
    try:
        project = places.project(Path.cwd())
    except OSError:  # it was removed
        project = None
    found: dict[str, str] = {}
    for path in (places.user, project):
        if path is None or is_foreign(path):
            continue
        try:
            tables = parse(path, read_bytes(path) or b"").get("presets")
        except DispatchError:
            continue  # what is wrong with a file, the command itself says
        if isinstance(tables, dict):
            found |= {name: str(path) for name in tables if name.isprintable()}
    return sorted(found.items())


def _ask(invocation: Invocation, source: Source) -> list[Any]:
    deadline = monotonic() + BUDGET
    socket = Paths.from_env(invocation.env).socket
    with Connection.connect(socket, timeout=BUDGET) as connection:
        # Any daemon will do: one of another build is not replaced for a suggestion.
        greeting = {**hello(invocation), "manifest": None}
        left = max(0.001, deadline - monotonic())
        _, reply = connection.first_call(greeting, source.op, source.args, timeout=left, read=True)
    rows = reply.result.get(source.rows)
    return rows if isinstance(rows, list) else []


def _pairs(source: Source, row: Any) -> Iterator[tuple[str, str]]:
    names = [_field(row, name) for name in source.names]
    about = [_field(row, name) for name in source.about]
    for name in dict.fromkeys(filter(None, names)):
        if name.isprintable():
            text = "  ".join(part for part in dict.fromkeys(about) if part and part != name)
            yield name, "".join(char if char.isprintable() else " " for char in text)


def _field(row: Any, path: str) -> str:
    for name in path.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return row if isinstance(row, str) else ""
