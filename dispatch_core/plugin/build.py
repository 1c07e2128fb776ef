"""Build the manifest: run all five steps and write down what came of them.

Runs as a process of its own (``python -m dispatch_core.plugin.build``), because importing a plugin can do anything, also end the
process. It says what it is about to import, so that whoever started it knows the culprit.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core.errors import DispatchError
from dispatch_core.plugin import catalog as catalogs
from dispatch_core.plugin.host import Host
from dispatch_core.plugin.load import load
from dispatch_core.plugin.manifest import FORMAT
from dispatch_core.plugin.refs import FIRST_PARTY, scan, vet
from dispatch_core.settings import PluginSwitches, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dispatch_core.plugin.host import Contribution
    from dispatch_core.plugin.report import PluginReport

SOURCE_LIMIT = 2000  # files watched for an editable install


def build(
    settings: Settings,
    switches: PluginSwitches,
    *,
    skip: Mapping[str, str],
    announce: Callable[[str | None], None],
) -> dict[str, Any]:
    """Return the manifest, without its key.

    skip: reasons by plugin key; these plugins are quarantined unseen. announce: told each plugin's key before its code
    runs, and None when that is over.
    """
    reports = scan()
    vet(reports, switches)
    host = Host(settings)
    contributions = []
    for report in reports:
        if report.state == "loaded" and report.key in skip:
            report.quarantine("load", skip[report.key])
        if report.state != "loaded":
            continue
        announce(report.key)
        plugin = load(report)
        contribution = host.declare(report, plugin) if plugin is not None else None
        if contribution is not None:
            contributions.append((report, contribution))
    catalogs.freeze(contributions)
    entries = [
        _describe(report, contribution, announce)
        for report, contribution in contributions
        if report.state == "loaded"
    ]
    announce(None)
    sources = _sources(reports)
    return {
        "format": FORMAT,
        "version": version(FIRST_PARTY),
        "build": _build_id(sources),
        "ops": sorted((op for e in entries for op in e["ops"]), key=lambda op: str(op["name"])),
        "surfaces": [surface for e in entries for surface in e["surfaces"]],
        "kinds": [kind for e in entries for kind in e["kinds"]],
        "plugins": [report.to_dict() for report in reports],
        "sources": sources,
    }


def _build_id(sources: list[list[Any]]) -> str:
    """Return a digest of our code and of editable plugins, so that a client can tell whether a daemon runs the same."""
    root = Path(__file__).parents[2]
    digest = hashlib.blake2b(digest_size=6)
    for package in ("dispatch_core", "dispatch_plugins"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.read_bytes())
    digest.update(json.dumps(sources).encode())
    return digest.hexdigest()


def _describe(
    report: PluginReport, contribution: Contribution, announce: Callable[[str | None], None]
) -> dict[str, list[dict[str, Any]]]:
    """Return the manifest's entries for one plugin; none, after quarantining it, when one of them cannot be written as JSON."""
    announce(report.key)
    entries: dict[str, list[dict[str, Any]]] = {"ops": [], "kinds": [], "surfaces": []}
    what = ""
    try:
        for op in contribution.ops:
            what = f"op {op.name}"
            entries["ops"].append(_json(asdict(catalogs.describe(op, report))))
        for kind in contribution.kinds:
            what = f"trigger kind {kind.name}"
            schema = kind.config.model_json_schema()
            entry = {"name": kind.name, "summary": kind.summary, "schema": schema}
            entries["kinds"].append(_json(entry))
        for surface in contribution.surfaces:
            what = f"surface {surface.name}"
            entry = {**asdict(surface), "plugin": report.name, "dist": report.dist}
            entries["surfaces"].append(_json(entry))
    except Exception as error:  # noqa: BLE001 -- whatever its models and examples raise is the plugin's fault
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        report.quarantine("freeze", f"{what} cannot be written as JSON: {reason}", error)
        return {"ops": [], "kinds": [], "surfaces": []}
    return entries


def _json(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry if every program can read its JSON; raise TypeError or ValueError otherwise."""
    json.dumps(entry, allow_nan=False, ensure_ascii=False).encode()
    return entry


def _sources(reports: Iterable[PluginReport]) -> list[list[Any]]:
    """Return [path, mtime_ns] of the Python files of plugins that were installed editable, whose metadata does not change."""
    roots: set[Path] = set()
    for report in reports:
        if report.state == "disabled" or report.group == "?":
            continue
        if _editable(report.dist):
            file = _origin(report.value.partition(":")[0].partition(".")[0])
            if report.first_party:
                roots.add(Path(__file__).parents[1])
            if file:
                roots.add(Path(file).parent if Path(file).name == "__init__.py" else Path(file))
    files = [f for root in roots for f in ([root] if root.is_file() else root.rglob("*.py"))]
    return [[str(file), file.stat().st_mtime_ns] for file in sorted(files)[:SOURCE_LIMIT]]


def _origin(package: str) -> str | None:
    """Return the file of a top-level module, also of one that could not be imported: its next version may be sound."""
    if package in sys.modules:
        return getattr(sys.modules[package], "__file__", None)
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec is not None and spec.has_location else None


def _editable(dist: str) -> bool:
    try:
        origin = json.loads(distribution(dist).read_text("direct_url.json") or "{}")
    except (ValueError, PackageNotFoundError):
        return False
    return bool(origin.get("dir_info", {}).get("editable"))


def main() -> None:
    """Read the order from argv, write progress and the manifest as JSON lines on what was stdout.

    A plugin that prints while it is imported prints to stderr.
    """
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    order = json.loads(sys.argv[1])

    def say(message: dict[str, Any]) -> None:
        lines.write(json.dumps(message) + "\n")
        lines.flush()

    try:
        settings = Settings.read(order["config"])
        switches = PluginSwitches(settings, os.environ, safe=order["safe"])
        manifest = build(
            settings, switches, skip=order["skip"], announce=lambda key: say({"loading": key})
        )
    except DispatchError as error:
        say({"error": error.to_dict()})
    else:
        say({"manifest": manifest})
    # A plugin may have left a thread behind that never ends; nobody waits for it.
    os._exit(0)


if __name__ == "__main__":
    main()
