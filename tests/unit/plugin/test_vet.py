"""Vet: who may be imported, decided without importing anybody."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from dispatch_core.plugin.refs import vet


@dataclass
class Switches:
    disable: tuple[str, ...] = ()
    mode: str = "all"
    enable: tuple[str, ...] = ()
    safe: bool = False


def state(report):
    return (report.state, report.stage)


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ("dispatch.v2.plugins", "needs plugin API version 2"),
        ("dispatch.v0.plugins", "needs plugin API version 0"),
        ("dispatch.v1.widgets", "unknown entry-point group"),
        ("dispatch.vnext.plugins", "unknown entry-point group"),
        ("dispatch.v1.plugins.more", "unknown entry-point group"),
    ],
)
def test_only_our_groups_of_this_version_are_used(make_report, group, reason):
    report = make_report(group=group)

    vet([report], Switches())

    assert state(report) == ("quarantined", "vet")
    assert reason in report.reason


@pytest.mark.parametrize("value", ["", "acme plugin", "acme:", "acme:a:b", "acme [extra]", "os;x"])
def test_an_entry_point_that_is_no_module_path_is_not_imported(make_report, value):
    report = make_report(value=value)

    vet([report], Switches())

    assert state(report) == ("quarantined", "scan")


def test_our_own_plugin_keeps_its_name(make_report):
    ours = make_report("send", dist="codex-dispatch", first_party=True)
    theirs = make_report("send")

    vet([theirs, ours], Switches())

    assert state(ours) == ("loaded", None)
    assert state(theirs) == ("quarantined", "vet")
    assert "codex-dispatch, which keeps it" in theirs.reason


@pytest.mark.parametrize("count", [2, 3])
def test_of_rival_third_parties_none_is_loaded(make_report, count):
    rivals = [make_report("acme", dist=f"dist-{number}") for number in range(count)]

    vet(rivals, Switches())

    assert {state(report) for report in rivals} == {("quarantined", "vet")}
    assert "dist-1" in rivals[0].reason
    assert "dist-0" not in rivals[0].reason


def test_a_disabled_rival_claims_nothing(make_report):
    wanted, unwanted = make_report(dist="wanted"), make_report(dist="unwanted")

    vet([wanted, unwanted], Switches(disable=("unwanted",)))

    assert (wanted.state, unwanted.state) == ("loaded", "disabled")


def test_the_same_name_in_two_groups_is_no_conflict(make_report):
    reports = [make_report(), make_report(group="dispatch.v1.storage", dist="other")]

    vet(reports, Switches())

    assert [report.state for report in reports] == ["loaded", "loaded"]


@pytest.mark.parametrize(
    ("switches", "ours", "theirs"),
    [
        (Switches(), "loaded", "loaded"),
        (Switches(disable=("*",)), "disabled", "disabled"),
        (Switches(disable=("dist-*",)), "loaded", "disabled"),
        (Switches(mode="listed"), "loaded", "disabled"),
        (Switches(mode="listed", enable=("ac*",)), "loaded", "loaded"),
        (Switches(mode="listed", enable=("*",), disable=("acme",)), "loaded", "disabled"),
        (Switches(safe=True), "loaded", "disabled"),
        (Switches(safe=True, mode="listed", enable=("*",)), "loaded", "disabled"),
    ],
)
def test_switches_leave_plugins_out(make_report, switches, ours, theirs):
    first_party = make_report("send", dist="codex-dispatch", first_party=True)
    third_party = make_report()

    vet([first_party, third_party], switches)

    assert (first_party.state, third_party.state) == (ours, theirs)
