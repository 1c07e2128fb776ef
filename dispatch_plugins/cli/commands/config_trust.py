"""``dispatch config trust``: a person reads a project's configuration, and lets exactly that content count."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dispatch_core.config.files import FILE, FOLDER, ConfigFile, Places, read_project
from dispatch_core.config.keys import DEFAULTS, KEYS, PRESETS, ProjectClass
from dispatch_core.config.trust import (
    Trust,
    TrustStore,
    bundle_of,
    difference,
    is_foreign,
)
from dispatch_core.contracts.view import UNSAFE, View
from dispatch_core.errors import AuthorityDenied, Declined, NotFound, ValidationFailed
from dispatch_plugins.cli import output
from dispatch_plugins.cli.arguments import absolute, refuse
from dispatch_plugins.cli.invocation import is_terminal

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

HELP = """Trust a project's configuration as it is now.

\b
It is shown, or how it differs from what was trusted before. What is trusted is the file and the
files it names; any change makes them inert again.
\b
dispatch config trust
dispatch config trust ~/work/parser --yes
dispatch config trust --list
dispatch config trust --revoke
"""
MISSING = "missing"


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("trust", help=HELP)
    @click.argument("path", required=False)
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @click.option("--revoke", is_flag=True, help="Take the trust away.")
    @click.option("--list", "list_", is_flag=True, help="Show what is trusted.")
    @click.pass_context
    def trust(
        context: click.Context, path: str | None, *, yes: bool, revoke: bool, list_: bool
    ) -> int:
        app.settle(context)
        if revoke and list_:
            refuse("--revoke and --list do not go together", "give one of the two", flag="--list")
        places = Places.from_env(app.invocation.env)
        if list_:
            return _list(app, places)
        if revoke:
            return _revoke(app, places, path)
        return _trust(app, places, _find(places, path), confirmed=yes)

    return trust


def state(places: Places, path: Path) -> str:
    """Return how a project's file stands: trusted, untrusted, changed, foreign, or missing."""
    if is_foreign(path):
        return Trust.FOREIGN.value
    if not path.exists():
        return MISSING
    return TrustStore(places.trust).state(bundle_of(read_project(path))).value


def _trust(app: App, places: Places, path: Path, *, confirmed: bool) -> int:
    if app.invocation.env.get("CODEX_THREAD_ID"):
        raise AuthorityDenied(
            "a thread cannot trust a configuration: that is for a person to do",
            hint=f"in a terminal of your own: dispatch config trust {path}",
        )
    if is_foreign(path):
        raise AuthorityDenied(
            f"{path} belongs to another user, and is not used",
            hint="copy it to make it your own, and look at what is in it",
        )
    file = read_project(path)
    bundle = bundle_of(file)
    store = TrustStore(places.trust)
    before = store.get(bundle.path)
    already = before is not None and before.covers(bundle)
    diff = difference(before, bundle)
    gains, never = _effects(file)
    if not already:
        _show(app, diff, gains, never)
        if not confirmed:
            _confirm(path)
        store.add(bundle, datetime.now(UTC))
    result = {
        "path": bundle.path,
        "trusted": True,
        "changed": not already,
        "sha256": bundle.digests[bundle.path],
        "files": [name for name in bundle.parts if name != bundle.path],
        "keys": gains,
        "never": never,
        "diff": diff,
    }
    said = "was trusted already" if already else "is trusted, as long as it does not change"
    output.result(app.invocation, result, f"{output.printable(bundle.path)} {said}")
    return 0


def _effects(file: ConfigFile) -> tuple[list[str], list[str]]:
    """Return the keys that trust lets count, and those that never do."""
    gains, never = [], [f"[{name}]" for name in file.others]
    tables = {DEFAULTS: file.defaults}
    tables |= {f"{PRESETS}.{name}": values for name, values in file.presets.items()}
    for table, values in tables.items():
        for name, value in values.items():
            found = KEYS[name].classify(value, file.root)
            if found is ProjectClass.TRUST:
                gains.append(f"{table}.{name}")
            elif found is ProjectClass.NEVER:
                never.append(f"{table}.{name}")
    return gains, never


def _show(app: App, diff: str, gains: list[str], never: list[str]) -> None:
    """Show on stderr what is to be trusted; control characters are spelled out, for somebody else wrote them."""
    if app.invocation.json and not is_terminal(sys.stderr):
        return
    lines = [_visible(line) for line in diff.splitlines()]
    lines.append("")
    lines.append(f"trust lets count: {', '.join(gains) or 'nothing more than counts already'}")
    if never:
        lines.append(f"never counts: {', '.join(never)}")
    sys.stderr.write("\n".join(lines) + "\n")


def _visible(text: str) -> str:
    from unicodedata import category

    return "".join(
        ascii(char)[1:-1] if category(char) in UNSAFE and char != "\t" else char for char in text
    )


def _confirm(path: Path) -> None:
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        refuse(
            "trust is given by a person, and there is no terminal to ask on",
            f"add --yes once you have read it: dispatch config trust {path} --yes",
            flag="--yes",
        )
    sys.stderr.write(f"Trust {output.printable(str(path))} as shown? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("declined; nothing is trusted that was not before")


def _revoke(app: App, places: Places, given: str | None) -> int:
    store = TrustStore(places.trust)
    path = _named(places, given)
    if path is None or not store.remove(str(path)):
        what = path or absolute(given, "PATH")
        raise NotFound(f"nothing is trusted at {what}", hint="dispatch config trust --list")
    output.result(
        app.invocation,
        {"path": str(path), "trusted": False},
        f"{output.printable(str(path))} is not trusted any more",
    )
    return 0


def _list(app: App, places: Places) -> int:
    rows: list[dict[str, Any]] = []
    for trusted in TrustStore(places.trust).all():
        digest = trusted.parts[trusted.path][0] if trusted.path in trusted.parts else ""
        rows.append(
            {
                "path": trusted.path,
                "state": _state_of(places, Path(trusted.path)),
                "sha256": digest,
                "at": trusted.at.isoformat(),
                "files": [name for name in trusted.parts if name != trusted.path],
            }
        )
    text = "no project's configuration is trusted"
    if rows:
        view = View(
            app.invocation.width(), color=app.invocation.color(sys.stdout), now=datetime.now(UTC)
        )
        table = [
            [row["state"], view.age(datetime.fromisoformat(row["at"])), row["path"]] for row in rows
        ]
        text = view.table(["STATE", "AGE", "PATH"], table, flexible=2)
    output.result(app.invocation, {"trusted": rows}, text)
    return 0


def _state_of(places: Places, path: Path) -> str:
    try:
        return state(places, path)
    except ValidationFailed:  # it is listed even so: what changed is not TOML any more
        return Trust.CHANGED.value


def _find(places: Places, given: str | None) -> Path:
    path = _named(places, given)
    if path is not None and path.exists():
        return path
    where = absolute(given, "PATH")
    raise NotFound(
        f"there is no {FOLDER}/{FILE} at or above {where}",
        hint="dispatch config path shows which files count",
        details={"path": where},
    )


def _named(places: Places, given: str | None) -> Path | None:
    """Return the file that was named, by itself or by a directory at or below its project."""
    path = Path(absolute(given, "PATH"))
    if path.is_dir():
        return places.project(path)
    if path.name != FILE or path.parent.name != FOLDER:
        return None
    return path.parent.parent.resolve() / FOLDER / FILE
