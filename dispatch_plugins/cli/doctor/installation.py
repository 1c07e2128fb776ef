"""What is installed: programs, Python, the manifest, plugins and configuration."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core import __version__
from dispatch_core.config.files import Places
from dispatch_core.config.layers import Configuration
from dispatch_core.config.trust import Trust
from dispatch_core.errors import DispatchError
from dispatch_core.plugin import manifest as manifests
from dispatch_core.settings import SECTIONS, Settings
from dispatch_core.switches import safe_mode
from dispatch_plugins.cli.doctor.report import Check
from dispatch_plugins.cli.names import FIRST_PARTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatch_plugins.cli.doctor.report import Subject

PROGRAMS = ("dispatch", "dispatchd")
OLDEST_PYTHON = (3, 11)


def path(subject: Subject) -> Check:
    """Whether the programs can be called by name."""
    search = subject.env.get("PATH", os.defpath)
    found = {name: shutil.which(name, path=search) for name in PROGRAMS}
    missing = [name for name, where in found.items() if where is None]
    data = {"python": sys.executable, "path": search.split(os.pathsep), **found}
    if missing:
        return Check(
            name="path",
            status="warn",
            summary=f"{' and '.join(missing)} cannot be found on PATH",
            recovery=f"add {Path(sys.executable).parent} to PATH",
            data=data,
        )
    return Check(name="path", status="ok", summary=f"{found['dispatch']}", data=data)


def python(subject: Subject) -> Check:
    """Whether the interpreter is new enough."""
    del subject
    shown = sys.version.split()[0]
    data = {"version": shown, "executable": sys.executable, "prefix": sys.prefix}
    if sys.version_info[:2] < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return Check(
            name="python",
            status="fail",
            summary=f"Python {shown} is older than {needed}",
            recovery=f"install dispatch with Python {needed} or later",
            data=data,
        )
    return Check(name="python", status="ok", summary=f"Python {shown}", data=data)


def version(subject: Subject) -> Check:
    """Whether the code that runs is what is installed."""
    del subject
    try:
        installed = metadata.version(FIRST_PARTY)
    except metadata.PackageNotFoundError:
        installed = None
    data = {"version": __version__, "installed": installed, "code": str(Path(__file__).parents[3])}
    if installed != __version__:
        return Check(
            name="dispatch",
            status="warn",
            summary=f"dispatch {__version__} runs, and {installed or 'nothing'} is installed",
            recovery=f"pip install --force-reinstall {FIRST_PARTY}",
            data=data,
        )
    return Check(name="dispatch", status="ok", summary=f"dispatch {__version__}", data=data)


def manifest(subject: Subject) -> Check:
    """Whether the list of commands is there and as fresh as what is installed."""
    error = subject.manifest.get("error")
    if error is not None:
        return Check(
            name="manifest",
            status="fail",
            summary=f"the list of commands cannot be built: {error['message']}",
            recovery=error.get("hint") or "dispatch --safe leaves third-party plugins out",
        )
    file = _manifest_file(subject)
    data = {
        "file": str(file),
        "key": subject.manifest["key"],
        "build": subject.manifest.get("build"),
        "ops": len(subject.manifest["ops"]),
    }
    if not file.exists():
        return Check(
            name="manifest",
            status="warn",
            summary=f"{file} is not there, so every command builds it anew, which takes seconds",
            recovery=f"see that {file.parent} can be written, then dispatch doctor --fix",
            data=data,
        )
    return Check(
        name="manifest", status="ok", summary=f"{data['ops']} commands, up to date", data=data
    )


def rebuild_manifest(subject: Subject) -> Sequence[str]:
    """Build the list of commands anew."""
    file = _manifest_file(subject)
    file.unlink(missing_ok=True)
    try:
        manifests.load(subject.paths, safe=_safe(subject))
    except DispatchError:
        return ()
    return (f"built {file} anew",) if file.exists() else ()


def plugins(subject: Subject) -> Check:
    """Whether every plugin that is installed can be used."""
    if subject.unlisted:
        return unlisted("plugins")
    by_state: dict[str, list[str]] = {}
    for plugin in subject.manifest["plugins"]:
        by_state.setdefault(plugin["state"], []).append(plugin["name"])
    failed = by_state.get("quarantined", [])
    disabled = len(by_state.get("disabled", []))
    counts = f"{len(by_state.get('loaded', []))} in use"
    if disabled:
        counts += f", {disabled} disabled"
    if failed:
        reasons = [
            f"{plugin['name']} ({plugin['dist']}): {plugin['stage']}: {plugin['reason']}"
            for plugin in subject.manifest["plugins"]
            if plugin["state"] == "quarantined"
        ]
        return Check(
            name="plugins",
            status="warn",
            summary=f"{len(failed)} failed: {', '.join(failed)}; {counts}",
            detail="\n".join(reasons),
            recovery=f"dispatch plugins show {failed[0]}",
            data=by_state,
        )
    return Check(name="plugins", status="ok", summary=counts, data=by_state)


def config(subject: Subject) -> Check:
    """Whether the configuration file can be read and says nothing that is wrong."""
    file = Path(subject.paths.config)
    data: dict[str, Any] = {"path": str(file), "exists": file.exists()}
    try:
        settings = Settings.read(file)
        for name, section in SECTIONS.items():
            settings.section(name, section)
        Configuration.read(Places.from_env(subject.env), None)
    except DispatchError as error:
        return Check(
            name="config",
            status="fail",
            summary=error.message,
            recovery=error.hint,
            data={**data, **error.details},
        )
    summary = str(file) if data["exists"] else f"there is no {file}; the defaults apply"
    return Check(name="config", status="ok", summary=summary, data=data)


def trust(subject: Subject) -> Check:
    """Whether the configuration of the project in which the command was called is used."""
    if subject.cwd is None:
        return Check(
            name="trust",
            status="warn",
            summary="the current directory is gone, so no project was looked for",
            recovery="cd to a directory that is there",
        )
    try:
        found = Configuration.read(Places.from_env(subject.env), subject.cwd)
    except DispatchError as error:
        return Check(name="trust", status="warn", summary=error.message, recovery=error.hint)
    if found.project is None:
        return Check(name="trust", status="ok", summary="this directory has no project file")
    file, state = str(found.project.path), found.trust
    data = {"path": file, "trust": state}
    if state is Trust.TRUSTED:
        return Check(name="trust", status="ok", summary=f"{file} is trusted", data=data)
    if state is Trust.FOREIGN:
        return Check(
            name="trust",
            status="warn",
            summary=f"{file} belongs to another user, so nothing of it is used",
            recovery=f"look what is in it; make a file of your own to use it: cp {file} …",
            data=data,
        )
    changed = " has changed since it was trusted" if state is Trust.CHANGED else " is not trusted"
    return Check(
        name="trust",
        status="warn",
        summary=f"{file}{changed}, so what needs trust in it is left out",
        recovery="dispatch config trust shows it and asks",
        data=data,
    )


def unlisted(name: str) -> Check:
    """Return the check of something that only the list of commands tells about, when there is none."""
    return Check(
        name=name,
        status="warn",
        summary="not looked at, for the list of commands cannot be built",
        recovery="see manifest, above",
    )


def _manifest_file(subject: Subject) -> Path:
    key = manifests.current_key(subject.paths, safe=_safe(subject))
    return Path(manifests.file_of(subject.paths, key))


def _safe(subject: Subject) -> bool:
    return safe_mode(subject.env)
