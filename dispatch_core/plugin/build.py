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
from importlib.metadata import Distribution, distribution, version
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

    from dispatch_core.plugin.report import PluginReport

SOURCE_LIMIT = 2000  # files watched for an editable install


def build(
    settings: Settings,
    switches: PluginSwitches,
    *,
    skip: Mapping[str, str],
    announce: Callable[[str], None],
) -> dict[str, Any]:
    """Return the manifest, without its key.

    skip: reasons by plugin key; these plugins are quarantined unseen. announce: told each plugin's key before its import.
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
    frozen = catalogs.freeze(contributions)
    ops = list(_describe_all(frozen))
    return {
        "format": FORMAT,
        "version": version(FIRST_PARTY),
        "build": _build_id(),
        "ops": [op for op in ops if frozen.owners[op["name"]].state == "loaded"],
        "surfaces": [_owned(asdict(s), s.name, contributions) for s in frozen.surfaces.values()],
        "kinds": [
            {"name": kind.name, "summary": kind.summary, "schema": kind.config.model_json_schema()}
            for kind in frozen.kinds.values()
        ],
        "plugins": [report.to_dict() for report in reports],
        "sources": _sources(reports),
    }


def _build_id() -> str:
    """Return a digest of dispatch's own code, so that a client can tell whether a daemon runs the same."""
    root = Path(__file__).parents[2]
    digest = hashlib.blake2b(digest_size=6)
    for package in ("dispatch_core", "dispatch_plugins"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _describe_all(frozen: catalogs.Catalog) -> Iterable[dict[str, Any]]:
    for name, op in sorted(frozen.ops.items()):
        owner = frozen.owners[name]
        if owner.state != "loaded":
            continue
        try:
            yield asdict(catalogs.describe(op, owner))
        except Exception as error:  # noqa: BLE001 -- a model without a JSON schema is its plugin's fault
            owner.quarantine("freeze", f"op {name} has no JSON schema: {error}", error)


def _owned(
    entry: dict[str, Any], name: str, contributions: Iterable[tuple[Any, Any]]
) -> dict[str, Any]:
    owner = next(r for r, c in contributions if any(s.name == name for s in c.surfaces))
    return {**entry, "plugin": owner.name, "dist": owner.dist}


def _sources(reports: Iterable[PluginReport]) -> list[list[Any]]:
    """Return [path, mtime_ns] of the Python files of plugins that were installed editable, whose metadata does not change."""
    roots: set[Path] = set()
    for report in reports:
        if report.state == "disabled" or report.group == "?":
            continue
        if _editable(distribution(report.dist)):
            module = sys.modules.get(report.value.partition(":")[0].partition(".")[0])
            file = getattr(module, "__file__", None)
            if report.first_party:
                roots.add(Path(__file__).parents[1])
            if file:
                roots.add(Path(file).parent if Path(file).name == "__init__.py" else Path(file))
    files = [f for root in roots for f in ([root] if root.is_file() else root.rglob("*.py"))]
    return [[str(file), file.stat().st_mtime_ns] for file in sorted(files)[:SOURCE_LIMIT]]


def _editable(dist: Distribution) -> bool:
    try:
        origin = json.loads(dist.read_text("direct_url.json") or "{}")
    except ValueError:
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


if __name__ == "__main__":
    main()
