"""What dispatch remembers: whether the registry and the search index are whole. Nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core.plugin.activate import Plugins
from dispatch_core.settings import Settings, StorageSection
from dispatch_plugins.cli.doctor.installation import unlisted
from dispatch_plugins.cli.doctor.report import Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatch_core.api import RegistryReport
    from dispatch_plugins.cli.doctor.report import Status, Subject

MIB = 1 << 20
INDEX = "index.db"


def registry(subject: Subject) -> Check:
    """Whether the registry is whole and of the version that this build writes."""
    if subject.unlisted:
        return unlisted("registry")
    backend = Settings.read(subject.paths.config).section("storage", StorageSection).backend
    plugin = next(
        (
            plugin
            for plugin in subject.manifest["plugins"]
            if plugin["name"] == backend and plugin["group"].endswith(".storage")
        ),
        None,
    )
    if plugin is None or plugin["state"] != "loaded":
        return Check(
            name="registry",
            status="fail",
            summary=f"the storage backend {backend!r} cannot be used: {plugin['reason'] if plugin else 'it is not installed'}",
            recovery=f"dispatch plugins; [storage] backend in {subject.paths.config}",
        )
    if not plugin["first_party"]:
        return Check(
            name="registry",
            status="ok",
            summary=f"{backend} is of {plugin['dist']} and is not looked into here",
            recovery="dispatch registry check asks it",
        )
    reports = [_report(subject, backend, offline=offline) for offline in _modes(subject)]
    return _judged([report for report in reports if report is not None], backend)


def index(subject: Subject) -> Check:
    """How large the search index is; it can be built anew at any time."""
    files = [Path(subject.paths.data(offline=offline)) / INDEX for offline in _modes(subject)]
    sizes = {str(file): file.stat().st_size for file in files if file.exists()}
    if not sizes:
        return Check(
            name="index", status="ok", summary="there is none; dispatch sync --full builds it"
        )
    summary = ", ".join(f"{path}: {size / MIB:.1f} MiB" for path, size in sizes.items())
    return Check(name="index", status="ok", summary=summary, data={"bytes": sizes})


def _modes(subject: Subject) -> Sequence[bool]:
    """Return which registries there are: offline threads have one of their own."""
    offline = Path(subject.paths.data(offline=True))
    if subject.offline:
        return (True,)
    return (False, True) if offline.exists() else (False,)


def _report(subject: Subject, backend: str, *, offline: bool) -> RegistryReport | None:
    """Return what the backend says; it is the only plugin that is loaded, and it is our own."""
    plugins = Plugins(subject.manifest, Settings.read(subject.paths.config))
    storage = plugins.storage(backend, Path(subject.paths.data(offline=offline)))
    return storage.maintenance.check() if storage.maintenance is not None else None


def _judged(reports: Sequence[RegistryReport], backend: str) -> Check:
    if not reports:
        return Check(
            name="registry", status="ok", summary=f"{backend} has nothing that could be looked at"
        )
    problems = [f"{report.path}: {text}" for report in reports for text in report.problems]
    old = [r.path for r in reports if r.schema is not None and r.schema < r.supported]
    new = [r.path for r in reports if r.schema is not None and r.schema > r.supported]
    data = {report.path: _data(report) for report in reports}
    status: Status = "fail" if problems or new else "warn" if old else "ok"
    if new:
        summary, recovery = f"{new[0]} was written by a newer dispatch", "upgrade dispatch"
    elif problems:
        summary, recovery = (
            problems[0],
            "dispatch registry check says all of it; dispatch registry restore puts the newest good backup in its place",
        )
    elif old:
        summary, recovery = f"{old[0]} is of an older version", "dispatch registry migrate"
    else:
        known = [text for report in reports if report.exists for text in _told(report)]
        summary, recovery = "; ".join(known) or "there is none yet", ""
    return Check(
        name="registry",
        status=status,
        summary=summary,
        detail="\n".join(problems) or None,
        recovery=recovery or None,
        data=data,
    )


def _told(report: RegistryReport) -> Sequence[str]:
    """Return what is in a registry, and what its backend remarks on it."""
    counts = ", ".join(f"{count} {noun}" for noun, count in report.counts.items())
    return (f"{report.path}: {counts or 'empty'}", *_notes(report))


def _notes(report: RegistryReport) -> Sequence[str]:
    """Return remarks that a backend may add to its report: what is worth knowing and not wrong."""
    return tuple(map(str, getattr(report, "notes", ())))


def _data(report: RegistryReport) -> dict[str, Any]:
    return {
        "exists": report.exists,
        "schema": report.schema,
        "supported": report.supported,
        "counts": dict(report.counts),
        "problems": list(report.problems),
        "notes": list(_notes(report)),
    }
