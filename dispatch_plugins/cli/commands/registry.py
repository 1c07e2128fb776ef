"""``dispatch registry``: what a person does to the stored data by hand, without a daemon, also with data that it would refuse."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dispatch_core.daemon.lock import hold, private_directory
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import (
    PROJECTIONS,
    AlreadyRunning,
    CapabilityUnavailable,
    Declined,
    StorageError,
    ValidationFailed,
)
from dispatch_core.plugin import manifest as manifests
from dispatch_core.plugin.activate import Plugins
from dispatch_core.settings import Settings, StorageSection
from dispatch_core.switches import is_on
from dispatch_plugins.cli import output
from dispatch_plugins.cli.arguments import refuse
from dispatch_plugins.cli.invocation import is_terminal
from dispatch_plugins.cli.params import global_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dispatch_core.contracts.storage import Maintenance
    from dispatch_plugins.cli.app import App

HELP = """Look at the stored data, copy it, put a copy back, or bring it up to date.

None of these starts the daemon.

\b
dispatch registry check
dispatch registry backup ~/backups
dispatch registry restore
dispatch registry migrate
"""
CHECK_HELP = """Look whether the registry is whole, and change nothing.

Exit status 1 when something is wrong. Lines with a dot are worth knowing and not wrong.
"""
BACKUP_HELP = """Write a complete, private copy of the registry, also while the daemon runs.

TARGET is a file that does not exist yet, or a folder; without it the copy is put beside the registry.
"""
MIGRATE_HELP = """Bring the registry to the schema of this version, all of it or nothing.

The daemon does the same when it starts; this does it beforehand, and refuses while a daemon runs.
"""
RESTORE_HELP = """Put a backup in the place of the registry; what is there now is kept aside.

FILE is a backup, by default the newest good one beside the registry. It is checked before anything is touched. Asks first, and
refuses while a daemon runs.
"""
SHOWN = {"path", "exists", "schema", "supported", "problems", "counts", "notes"}
UNITS = ("B", "kB", "MB", "GB", "TB")


def command(app: App) -> click.Command:
    """Return the group."""

    @click.group("registry", help=HELP, invoke_without_command=True, no_args_is_help=False)
    @click.pass_context
    def registry(context: click.Context) -> None:
        if context.invoked_subcommand is None:
            raise ValidationFailed(
                "dispatch registry needs a command: backup, check, migrate, restore",
                hint="dispatch registry --help explains them",
            )

    target = click.Argument(["target"], required=False, type=click.Path(path_type=Path))
    copied = click.Option(
        ["--backup/--no-backup"], default=True, help="Copy the registry first; done by default."
    )
    registry.add_command(_command(app, "check", CHECK_HELP, check))
    registry.add_command(_command(app, "backup", BACKUP_HELP, backup, target))
    registry.add_command(_command(app, "migrate", MIGRATE_HELP, migrate, copied))
    file = click.Argument(["file"], required=False, type=click.Path(path_type=Path))
    yes = click.Option(["--yes"], is_flag=True, help="Do not ask.")
    registry.add_command(_command(app, "restore", RESTORE_HELP, restore, file, yes))
    return registry


def check(app: App, *, offline: bool) -> int:
    """Print what is known of the registry; 1 when something is wrong with it."""
    report = asdict(_maintenance(app, offline=offline).check())
    output.result(app.invocation, report, _report_text(report))
    return PROJECTIONS[StorageError.code].exit_code if report["problems"] else 0


def backup(app: App, *, offline: bool, target: Path | None) -> int:
    """Write a copy and print where it is."""
    wanted = None if target is None else Path(os.path.abspath(target.expanduser()))
    copy = _maintenance(app, offline=offline).backup(wanted)
    size = copy.stat().st_size
    output.result(app.invocation, {"backup": str(copy), "bytes": size}, f"{copy} ({_bytes(size)})")
    return 0


def migrate(app: App, *, offline: bool, backup: bool) -> int:
    """Bring the data up to date while no daemon can start, and print what was done."""
    maintenance = _maintenance(app, offline=offline)
    with _without_daemon(app, "migrated", "migrate; dispatch up migrates as well"):
        report = maintenance.migrate(backup=backup)
    shown = asdict(report)
    output.result(app.invocation, shown, _migration_text(shown))
    return 0


def restore(app: App, *, offline: bool, file: Path | None, yes: bool) -> int:
    """Say what would be done, ask, and put the backup in place while no daemon can start."""
    maintenance: Any = _maintenance(app, offline=offline)
    if not hasattr(maintenance, "plan_restore"):
        raise CapabilityUnavailable(
            "the storage backend has no restore", hint="see what its documentation says"
        )
    source = None if file is None else Path(os.path.abspath(file.expanduser()))
    again = "restore --offline" if offline else "restore"
    with _without_daemon(app, "replaced", again):
        chosen = maintenance.plan_restore(source)
    if not yes:
        _confirm(chosen)
    with _without_daemon(app, "replaced", again):
        plan = maintenance.plan_restore(Path(chosen.backup))
        private_directory(str(Path(plan.path).parent))
        maintenance.restore(plan)
    shown = {**asdict(plan), "made": plan.made.isoformat(), "skipped": dict(chosen.skipped)}
    kept = "".join(f"\nkept aside: {name}" for name in plan.aside.values())
    kept += "".join(f"\nnot used: {reason}" for reason in chosen.skipped.values())
    text = f"restored {plan.path} from {plan.backup} (schema {plan.schema}; {_counted(plan.counts)}){kept}"
    output.result(app.invocation, shown, "\n".join(map(output.printable, text.splitlines())))
    return 0


def _confirm(plan: Any) -> None:
    """Show a plan and ask. Raises ValidationFailed where nobody can be asked, Declined for a no."""
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        refuse(
            "dispatch registry restore asks before it acts, and there is no terminal to ask on",
            "add --yes to confirm: dispatch registry restore … --yes",
            flag="--yes",
        )
    made = plan.made.astimezone().isoformat(sep=" ", timespec="seconds")
    lines = [f"not used: {reason}" for reason in plan.skipped.values()]
    lines.append(f"put {plan.backup} of {made} (schema {plan.schema}; {_counted(plan.counts)})")
    lines.append(f"in the place of {plan.path}")
    lines += [f"keep {old} as {new}" for old, new in plan.aside.items()]
    lines.append("what was written since is then only in the files kept aside")
    sys.stderr.write("\n".join(map(output.printable, lines)) + "\nContinue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("declined; nothing was done")


@contextmanager
def _without_daemon(app: App, done: str, command: str) -> Iterator[None]:
    """Keep daemons from starting. Raises CapabilityUnavailable while one runs."""
    paths = Paths.from_env(app.invocation.env)
    with ExitStack() as stack:
        if Path(paths.home).is_dir():  # else the lock would be the first file in it
            try:
                stack.enter_context(hold(paths.lock))
            except AlreadyRunning as error:
                raise CapabilityUnavailable(
                    f"a daemon is running, and the registry cannot be {done} under it",
                    hint=f"dispatch down, then dispatch registry {command}",
                    details={"reason": "daemon_running", "lock": paths.lock},
                ) from error
        yield


def _command(
    app: App, name: str, text: str, run: Callable[..., int], *own: click.Parameter
) -> click.Command:
    """Return a subcommand that takes --offline and the global options as well."""

    def settled(context: click.Context, **values: Any) -> int:
        app.settle(context)
        return run(app, **values)

    offline = click.Option(
        ["--offline"], is_flag=True, help="The registry of the threads made in offline mode."
    )
    return click.Command(
        name,
        help=text,
        short_help=text.partition(".")[0],
        callback=click.pass_context(settled),
        params=[*own, offline, *global_options()],
    )


def _maintenance(app: App, *, offline: bool) -> Maintenance:
    """Return what the configured backend offers, having imported no other plugin.

    Raises CapabilityUnavailable when it offers nothing, and PluginFault when it cannot be loaded.
    """
    # What is wrong with the plugin is said once, as the error of this command.
    logging.getLogger("dispatch_core").addHandler(logging.NullHandler())
    env = app.invocation.env
    paths = Paths.from_env(env)
    settings = Settings.read(paths.config)
    backend = settings.section("storage", StorageSection).backend
    known = app.invocation.manifest
    if known.get("error") is not None:  # the other plugins are in the way: leave them out
        known = manifests.load(paths, safe=True)
    entries = [p for p in known["plugins"] if (p["name"], _kind(p)) == (backend, "storage")]
    plugins = Plugins({**known, "plugins": entries, "ops": []}, settings)
    folder = Path(paths.data(offline=offline or is_on(env.get("DISPATCH_OFFLINE"))))
    storage = plugins.storage(backend, folder)
    maintenance: Maintenance | None = getattr(storage, "maintenance", None)
    if maintenance is None:
        raise CapabilityUnavailable(
            f"the storage backend {backend!r} has nothing to check, copy or migrate",
            hint=f"[storage] backend in {settings.path} says which one is used",
            details={"backend": backend},
        )
    return maintenance


def _kind(plugin: Mapping[str, Any]) -> str:
    return str(plugin["group"]).rpartition(".")[2]


def _report_text(report: Mapping[str, Any]) -> str:
    problems, notes = report["problems"], report.get("notes") or ()
    state = "✓ whole" if report["exists"] else "○ there is none yet"
    if problems:
        state = "✗ cannot be used as it is"
    pairs = [("registry", report["path"]), ("state", state), ("schema", _schema(report))]
    for name, value in report.items():
        if name not in SHOWN and value is not None:
            label = name.removesuffix("_bytes")
            pairs.append((label, _bytes(value) if label != name else str(value)))
    pairs.append(("rows", _counted(report["counts"])))
    width = max(len(name) for name, _ in pairs)
    lines = [f"{name.ljust(width)}  {value}" for name, value in pairs if value]
    lines += [f"✗ {problem}" for problem in problems]
    lines += [f"· {note}" for note in notes]
    return "\n".join(output.printable(line) for line in lines)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{noun} {count}" for noun, count in counts.items())


def _schema(report: Mapping[str, Any]) -> str:
    if report["schema"] is None:
        return ""
    return f"{report['schema']} (this version writes {report['supported']})"


def _migration_text(report: Mapping[str, Any]) -> str:
    if report["before"] == report["after"]:
        if not report["after"]:
            return f"there is no registry at {report['path']} yet; nothing was done"
        return f"schema {report['after']} is current; nothing was done"
    kept = report["backup"]
    text = f"migrated {report['path']} from schema {report['before']} to {report['after']}"
    return f"{text}\nbackup: {kept}" if kept else f"{text}, without a backup"


def _bytes(size: int) -> str:
    number = float(size)
    for unit in UNITS[:-1]:
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} {UNITS[-1]}"
