"""``dispatch config``: which files count, which values, and which projects are trusted. Works without a daemon."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dispatch_core.config.explain import CODEX, Explained, explain, pick
from dispatch_core.config.files import Places
from dispatch_core.config.layers import Configuration, brief
from dispatch_core.config.schema import schema
from dispatch_core.contracts.view import View
from dispatch_core.errors import ValidationFailed
from dispatch_core.lean_json import dumps
from dispatch_plugins.cli import output
from dispatch_plugins.cli.arguments import absolute
from dispatch_plugins.cli.commands import config_trust
from dispatch_plugins.cli.params import global_options

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

HELP = """Show the configuration, and trust a project's.

\b
dispatch config path
dispatch config get model
dispatch config explain model --cwd ~/work/parser
dispatch config trust
"""
WHERE = ("DISPATCH_HOME", "DISPATCH_CONFIG")


def command(app: App) -> click.Command:
    """Return the group."""

    @click.group("config", help=HELP, invoke_without_command=True)
    @click.pass_context
    def group(context: click.Context) -> int:
        if context.invoked_subcommand is None:
            raise ValidationFailed(
                f"dispatch config needs a command: {', '.join(sorted(group.commands))}",
                hint="dispatch config --help explains them",
            )
        return 0

    @click.command("path", help="Show which files count, and whether they are there.")
    @_cwd
    @click.pass_context
    def path(context: click.Context, cwd: str | None) -> int:
        app.settle(context)
        return _path(app, _directory(cwd))

    @click.command("get", help="Print the value of one key.")
    @click.argument("key")
    @_cwd
    @_preset
    @click.pass_context
    def get(context: click.Context, key: str, cwd: str | None, presets: tuple[str, ...]) -> int:
        app.settle(context)
        return _get(app, key, _directory(cwd), presets)

    @click.command("explain", help="Show where a value comes from; every key without one.")
    @click.argument("key", required=False)
    @_cwd
    @_preset
    @click.pass_context
    def explain_(
        context: click.Context, key: str | None, cwd: str | None, presets: tuple[str, ...]
    ) -> int:
        app.settle(context)
        return _explain(app, key, _directory(cwd), presets)

    @click.command("schema", help="Print the JSON Schema of the configuration file.")
    @click.pass_context
    def schema_(context: click.Context) -> int:
        app.settle(context)
        output.result(app.invocation, schema())
        return 0

    for one in (path, get, explain_, schema_, config_trust.command(app)):
        one.params += global_options()
        one.context_settings = {"help_option_names": ["-h", "--help"], **one.context_settings}
        group.add_command(one)
    return group


def _cwd(function: Any) -> Any:
    return click.option(
        "--cwd", metavar="DIRECTORY", help="As for a thread in this directory, not the current one."
    )(function)


def _preset(function: Any) -> Any:
    return click.option(
        "--preset", "presets", metavar="NAME", multiple=True, help="As with this preset."
    )(function)


def _directory(given: str | None) -> Path:
    directory = Path(absolute(given, "--cwd"))
    if not directory.is_dir():
        raise ValidationFailed(
            f"--cwd: the directory {directory} does not exist",
            hint="name another: dispatch config … --cwd DIRECTORY",
            details={"field": "cwd", "path": str(directory)},
        )
    return directory


def _path(app: App, directory: Path) -> int:
    env = app.invocation.env
    places = Places.from_env(env)
    project = places.project(directory)
    files: list[dict[str, Any]] = [
        {"kind": "user", "path": str(places.user), "exists": places.user.exists(), "trust": None}
    ]
    if project is not None:
        found = config_trust.state(places, project)
        files.append({"kind": "project", "path": str(project), "exists": True, "trust": found})
    result = {
        "home": str(places.home),
        "files": files,
        "trust_store": str(places.trust),
        "environment": {name: env[name] for name in WHERE if env.get(name)},
    }
    view = _view(app)
    rows = [
        [file["kind"], file["trust"] or ("there" if file["exists"] else "not there"), file["path"]]
        for file in files
    ]
    text = view.table(["FILE", "STATE", "PATH"], rows, flexible=2)
    if project is None:
        text += f"\nno .dispatch/config.toml at or above {output.printable(str(directory))}"
    output.result(app.invocation, result, text)
    return 0


def _get(app: App, key: str, directory: Path, presets: tuple[str, ...]) -> int:
    row = pick(_read(app, directory, presets).rows, key)
    result = {"key": row.key, "value": row.value, "source": row.source}
    if row.source == CODEX and not app.invocation.json:
        output.note(f"{row.key} is not set; Codex decides")
    output.result(app.invocation, result, "" if row.value is None else _shown(row.value))
    return 0


def _explain(app: App, key: str | None, directory: Path, presets: tuple[str, ...]) -> int:
    found = _read(app, directory, presets)
    chosen = found.rows if key is None else [pick(found.rows, key)]
    result = {"keys": [row.to_dict() for row in chosen], "notes": found.notes}
    text = _all(app, found) if key is None else _one(app, chosen[0], found)
    legend = "".join(
        f"\n{kind} config: {output.printable(path)}" for kind, path in found.files.items()
    )
    output.result(app.invocation, result, f"{text}\n{legend}" if legend else text)
    if not app.invocation.json:
        for note in found.notes:
            output.note(note)
    return 0


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is to show. files: path by kind."""

    rows: list[Explained]
    notes: list[str]
    files: dict[str, str]

    def brief(self, source: str) -> str:
        return brief(source, self.files)


def _read(app: App, directory: Path, presets: tuple[str, ...]) -> _Found:
    env = app.invocation.env
    configuration = Configuration.read(Places.from_env(env), directory)
    return _Found(
        rows=explain(configuration, env, cwd=str(directory), presets=presets),
        notes=list(configuration.resolve(presets=presets).notes),
        files={file.kind: str(file.path) for file in configuration.files if file.content},
    )


def _all(app: App, found: _Found) -> str:
    rows = [row for row in found.rows if row.source != CODEX]
    table = [[row.key, _shown(row.value), found.brief(row.source)] for row in rows]
    left = ", ".join(row.key.partition(".")[2] for row in found.rows if row.source == CODEX)
    text = _view(app).table(["KEY", "VALUE", "SOURCE"], table, flexible=1)
    return f"{text}\n\nnot set, so Codex decides:\n{_wrapped(left, app)}" if left else text


def _one(app: App, row: Explained, found: _Found) -> str:
    view = _view(app)
    value = "not set, so Codex decides" if row.source == CODEX else _shown(row.value)
    source = found.brief(row.source)
    head = view.fields([("key", row.key), ("value", output.printable(value)), ("source", source)])
    if not row.says:
        return head
    table = [[say.fate, _shown(say.value), found.brief(say.source)] for say in row.says]
    reasons = [
        _wrapped(f"{found.brief(say.source)}: {found.brief(say.reason)}", app)
        for say in row.says
        if say.reason
    ]
    shown = view.table(["", "VALUE", "SOURCE"], table, flexible=1)
    return "\n".join([head, "", shown, *([""] if reasons else []), *reasons])


def _wrapped(text: str, app: App) -> str:
    import textwrap

    return textwrap.fill(
        output.printable(text),
        app.invocation.width(),
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else dumps(value)


def _view(app: App) -> View:
    color = app.invocation.color(sys.stdout)
    return View(app.invocation.width(), color=color, now=datetime.now(UTC))
