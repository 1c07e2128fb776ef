"""The manifest is made when something it depends on has changed, and only then."""

from __future__ import annotations

import shutil

import pytest


def stamp(site):
    (file,) = site.cached()
    return file.name, file.stat().st_mtime_ns, file.stat().st_ino


def ops(manifest):
    return {op["name"] for op in manifest["ops"]}


@pytest.fixture
def copied(installed, make_site, tmp_path):
    """A site that a test may change: a copy of the sound examples."""
    shutil.copytree(installed.sound, tmp_path / "site")
    return make_site([tmp_path / "site"])


def test_it_is_not_made_again_when_nothing_changed(sound):
    site = sound()
    first = site.manifest()
    before = stamp(site)

    second = site.manifest()

    assert second == first
    assert stamp(site) == before


def test_a_removed_distribution_is_gone_from_it(copied):
    before = copied.manifest()

    for path in copied.directories[0].glob("dispatch_echo*"):
        shutil.rmtree(path)

    assert ops(before) - ops(copied.manifest()) == {"echo.say"}


def test_an_installed_distribution_appears_in_it(copied, tmp_path):
    away = tmp_path / "away"
    away.mkdir()
    echo = list(copied.directories[0].glob("dispatch_echo*"))
    for path in echo:
        path.rename(away / path.name)
    before = copied.manifest()

    for path in echo:
        (away / path.name).rename(path)

    assert ops(copied.manifest()) - ops(before) == {"echo.say"}


def test_a_changed_configuration_counts_at_once(sound):
    site = sound()
    before = site.manifest()

    site.configure('[plugins]\ndisable = ["echo"]\n')

    assert ops(before) - ops(site.manifest()) == {"echo.say"}


def test_switches_have_manifests_of_their_own(sound):
    site = sound()
    site.manifest()
    (normal,) = site.cached()

    site.manifest(safe=True)

    assert normal in site.cached()
    assert len(site.cached()) == 2


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"format": 1}',
        '{"format": 2}',
        '{"format": 2, "ops": [{"name": "list"}]}\n',
        "\0\0\0",
    ],
)
def test_a_damaged_file_is_replaced(sound, content):
    site = sound()
    first = site.manifest()
    (file,) = site.cached()
    file.write_text(content)

    second = site.manifest()

    assert second == first
    assert site.cached() == [file]
    assert len(file.read_text()) > len(content)


def test_a_cache_that_cannot_be_written_costs_only_time(sound):
    site = sound()
    (site.home / "cache").write_text("in the way of the directory")

    manifest = site.manifest()

    assert "echo.say" in ops(manifest)


def test_old_manifests_are_removed(sound):
    site = sound()
    cache = site.home / "cache"
    cache.mkdir()
    for number in range(20):
        (cache / f"manifest-{number}.jsonl").write_text("{}")

    site.manifest()

    assert len(site.cached()) == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[plugins]\ndisable = [}\n", "line 2"),
        ("[plugins]\ndisable = [\n", "end of document"),
        ("one = 1\none = 2\n", "line 2"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_broken_configuration_is_named_with_its_line(sound, text, said):
    site = sound()
    (site.home / "config.toml").write_text(text, encoding="utf-8", errors="surrogateescape")

    answer = site.answer()

    assert answer["type"] == "ValidationFailed"
    assert str(site.home / "config.toml") in answer["error"]["message"]
    assert said in answer["error"]["message"]
    assert answer["error"]["exit_code"] == 2
    assert site.cached() == []


def test_the_plugins_command_says_what_is_wrong_with_the_configuration(sound):
    site = sound()
    site.configure("[plugins\n")

    shown = site.dispatch("plugins", "--json")

    assert shown["error"]["code"] == "validation"
    assert "line 1" in shown["error"]["message"]
