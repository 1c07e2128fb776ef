"""Scan: what damaged and doubled metadata of distributions comes to."""

from __future__ import annotations

from importlib.metadata import distributions

import pytest

from dispatch_core.plugin.refs import scan

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
ENTRY = "[dispatch.v1.plugins]\nacme = acme_plugin\n"


@pytest.fixture
def install(tmp_path):
    """Write the metadata of a distribution: ``install("acme", metadata, entry points, directory=…)``; None leaves a file out."""

    def write(name, metadata, entry_points, directory="site"):
        folder = tmp_path / directory / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        for file, text in (("METADATA", metadata), ("entry_points.txt", entry_points)):
            if text is not None:
                (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())

    return write


def found(tmp_path, *directories):
    paths = [str(tmp_path / name) for name in directories or ("site",)]
    return scan(distributions(path=paths))


def test_a_plugin_is_known_by_distribution_and_entry_point(install, tmp_path):
    install("Acme_Tools", METADATA.format(name="Acme_Tools"), ENTRY)

    (report,) = found(tmp_path)

    assert (report.name, report.dist, report.version) == ("acme", "acme-tools", "1.0")
    assert (report.value, report.kind, report.first_party) == ("acme_plugin", "plugins", False)


def test_distributions_without_plugins_are_not_reported(install, tmp_path):
    install("other", METADATA.format(name="other"), "[console_scripts]\nother = other:main\n")
    install("plain", METADATA.format(name="plain"), None)

    assert found(tmp_path) == []


def test_of_two_copies_the_first_one_on_the_path_counts(install, tmp_path):
    install("acme", METADATA.format(name="acme"), ENTRY, "first")
    install("acme", METADATA.format(name="acme"), ENTRY.replace("acme_", "old_"), "second")

    reports = found(tmp_path, "first", "second")

    assert [report.value for report in reports] == ["acme_plugin"]


def test_our_own_plugins_come_first(install, tmp_path):
    install("acme", METADATA.format(name="acme"), ENTRY)
    install("codex_dispatch", METADATA.format(name="codex-dispatch"), ENTRY)

    assert [report.first_party for report in found(tmp_path)] == [True, False]


def test_remains_of_an_uninstalled_distribution_are_not_reported(install, tmp_path):
    install("~emains", None, None)
    install("other", None, "[console_scripts]\nother = other:main\n")

    assert found(tmp_path) == []


@pytest.mark.parametrize("metadata", [None, b"Name: \xff\xfe\n"])
def test_a_plugin_with_damaged_metadata_is_named(install, tmp_path, metadata):
    install("acme", metadata, ENTRY)
    install("sound", METADATA.format(name="sound"), ENTRY.replace("acme", "sound"))

    reports = found(tmp_path)

    named = {r.dist: (r.state, r.stage) for r in reports}
    assert named["sound"] == ("loaded", None)
    assert named["acme-1.0.dist-info"] == ("quarantined", "scan")


def test_unreadable_entry_points_are_named(install, tmp_path):
    install("acme", METADATA.format(name="acme"), b"\xff\xfe[dispatch.v1.plugins]\n")

    (report,) = found(tmp_path)

    assert (report.state, report.stage) == ("quarantined", "scan")
    assert "UnicodeDecodeError" in report.reason
