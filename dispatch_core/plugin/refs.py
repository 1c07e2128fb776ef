"""Scan and vet: what is installed, by whom and for which API version. Nothing of a plugin is imported here."""

from __future__ import annotations

import re
from collections import defaultdict
from fnmatch import fnmatchcase
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING, Protocol

from dispatch_core.plugin.report import PluginReport
from dispatch_hookspecs import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FIRST_PARTY = "codex-dispatch"
KINDS = ("plugins", "storage", "surfaces")
GROUP = re.compile(r"dispatch\.v(\d+)\.(\w+)")
VALUE = re.compile(r"[\w.]+(:[\w.]+)?")


class Switches(Protocol):
    """Which plugins the user wants: ``[plugins]`` in the configuration and the DISPATCH_* switches."""

    @property
    def disable(self) -> Sequence[str]: ...
    @property
    def mode(self) -> str: ...
    @property
    def enable(self) -> Sequence[str]: ...
    @property
    def safe(self) -> bool: ...


def scan(dists: Iterable[Distribution] | None = None) -> list[PluginReport]:
    """Return every plugin that an installed distribution declares, first-party ones first, then by distribution and name.

    A distribution found twice on the path counts once, where it is found first, as it would be imported.
    """
    found: dict[str, list[PluginReport]] = {}
    for dist in distributions() if dists is None else dists:
        try:
            name = _normalized(dist.metadata["Name"] or "")
            if not name:
                raise ValueError("its metadata has no name")
            if name not in found:
                found[name] = list(_plugins_of(dist, name))
        except Exception as error:  # noqa: BLE001 -- damaged metadata of one distribution is that distribution's problem
            if _may_be_a_plugin(dist):
                found[str(dist)] = [_unreadable(dist, error)]
    reports = [report for reports in found.values() for report in reports]
    return sorted(reports, key=lambda r: (not r.first_party, r.dist, r.group, r.name))


def vet(reports: Sequence[PluginReport], switches: Switches) -> None:
    """Put out of use what must not be imported: other API versions, unknown groups, rival claimants, what is disabled."""
    for report in reports:
        if report.state == "loaded":
            _vet_one(report, switches)
    claimants: dict[tuple[str, str], list[PluginReport]] = defaultdict(list)
    for report in reports:
        if report.state == "loaded":
            claimants[report.group, report.name].append(report)
    for rivals in claimants.values():
        if len(rivals) > 1:
            _settle(rivals)


def _plugins_of(dist: Distribution, name: str) -> Iterable[PluginReport]:
    for entry in dist.entry_points:
        if entry.group.startswith("dispatch.v"):
            yield PluginReport(
                name=entry.name,
                group=entry.group,
                value=entry.value,
                dist=name,
                version=dist.version or "?",
                first_party=name == FIRST_PARTY,
            )


def _may_be_a_plugin(dist: Distribution) -> bool:
    """Return whether damaged metadata is ours to report: remains of other distributions are common and none of our business."""
    try:
        return "[dispatch.v" in (dist.read_text("entry_points.txt") or "")
    except Exception:  # noqa: BLE001 -- it cannot even be read, so it may be anything
        return True


def _unreadable(dist: Distribution, error: Exception) -> PluginReport:
    name = str(getattr(dist, "_path", dist)).rpartition("/")[2]
    report = PluginReport(
        name=name, group="?", value="?", dist=name, version="?", first_party=False
    )
    report.quarantine(
        "scan", f"its metadata cannot be read: {type(error).__name__}: {error}", error
    )
    return report


def _vet_one(report: PluginReport, switches: Switches) -> None:
    match = GROUP.fullmatch(report.group)
    if match is None or match[2] not in KINDS:
        report.quarantine("vet", f"unknown entry-point group {report.group!r}")
    elif int(match[1]) != API_VERSION:
        report.quarantine(
            "vet",
            f"needs plugin API version {match[1]}; this dispatch provides version {API_VERSION}",
        )
    elif not VALUE.fullmatch(report.value):
        report.quarantine("scan", f"the entry point {report.value!r} is not a module path")
    elif pattern := _disabled_by(report, switches):
        report.disable(pattern)


def _disabled_by(report: PluginReport, switches: Switches) -> str | None:
    names = (report.name, report.dist)
    if switches.safe and not report.first_party:
        return "safe mode: first-party plugins only"
    for pattern in switches.disable:
        if any(fnmatchcase(name, pattern) for name in names):
            return f"disabled by the pattern {pattern!r}"
    if switches.mode == "all" or report.first_party:
        return None
    if any(fnmatchcase(name, pattern) for name in names for pattern in switches.enable):
        return None
    return 'not listed: [plugins] mode = "listed" and no pattern of enable matches'


def _settle(rivals: list[PluginReport]) -> None:
    """First-party names win; between third parties nobody does, or installing a package could take over another's name."""
    first_party = [report for report in rivals if report.first_party]
    for report in rivals:
        others = ", ".join(sorted(r.dist for r in rivals if r is not report))
        if report.first_party:
            continue
        verdict = "which keeps it" if first_party else "so neither is loaded"
        report.quarantine(
            "vet", f"the plugin name {report.name!r} is also claimed by {others}, {verdict}"
        )


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
