"""What the user can switch off, and that nothing of it is imported then."""

from __future__ import annotations

import json

import pytest

THIRD_PARTY = {"counted", "echo", "loud"}
VET = """
import json, sys
from types import SimpleNamespace
from dispatch_core.plugin.refs import scan, vet

reports = scan()
vet(reports, SimpleNamespace(disable=(), mode="all", enable=(), safe=False))
roots = ("broken_", "dispatch_echo", "dispatch_plugins")
print(json.dumps([len(reports), [name for name in sys.modules if name.startswith(roots)]]))
"""
# As in the daemon: what a plugin prints while it is imported and the threads that it leaves behind are its own affair.
ACTIVATE = """
import json, os
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import DispatchError
from dispatch_core.plugin import manifest
from dispatch_core.plugin.activate import Plugins
from dispatch_core.settings import Settings

paths = Paths.from_env(os.environ)
stdout = os.dup(1)
os.dup2(2, 1)
try:
    plugins = Plugins(manifest.load(paths), Settings.read(paths.config))
    plugins.note()
    answer = {"ops": sorted(plugins.catalog().ops)}
except DispatchError as error:
    answer = {"error": error.to_dict()}
os.write(stdout, json.dumps(answer).encode())
os._exit(0)
"""


def states(manifest):
    """The state of every third-party plugin, and of first-party ones that are not loaded."""
    return {
        plugin["name"]: plugin["state"]
        for plugin in manifest["plugins"]
        if not plugin["first_party"] or plugin["state"] != "loaded"
    }


@pytest.fixture
def counter(tmp_path):
    """A file into which the example ``counted`` writes a line per import."""
    return tmp_path / "imports"


def test_every_plugin_is_used_unless_something_is_switched_off(sound, counter):
    site = sound(BROKEN_COUNTER=str(counter))

    manifest = site.manifest()

    assert states(manifest) == dict.fromkeys(THIRD_PARTY, "loaded")
    assert counter.read_text() == "imported\n"


def test_scanning_and_vetting_import_nothing(everything):
    count, imported = everything.json("-c", VET)

    assert count > len(THIRD_PARTY)
    assert imported == []


@pytest.mark.parametrize("switch", ["argument", "environment"])
def test_safe_mode_leaves_third_parties_out_and_never_imports_them(sound, counter, switch):
    env = {"DISPATCH_SAFE": "1"} if switch == "environment" else {}
    site = sound(BROKEN_COUNTER=str(counter), **env)

    manifest = site.manifest(safe=switch == "argument")

    assert states(manifest) == dict.fromkeys(THIRD_PARTY, "disabled")
    assert {op["dist"] for op in manifest["ops"]} == {"codex-dispatch"}
    assert not counter.exists()


def test_the_safe_option_is_for_one_command(sound, counter):
    site = sound(BROKEN_COUNTER=str(counter))

    safe = site.dispatch("--safe", "plugins", "--json")

    assert states(safe) == dict.fromkeys(THIRD_PARTY, "disabled")
    assert not counter.exists()
    assert states(site.dispatch("plugins", "--json")) == dict.fromkeys(THIRD_PARTY, "loaded")


def test_safe_mode_works_with_a_broken_configuration_of_plugins(sound):
    site = sound()
    site.configure("[plugins]\ndisable = 7\n")

    assert site.answer()["error"]["details"] == {"key": "plugins.disable"}
    assert states(site.manifest(safe=True)) == dict.fromkeys(THIRD_PARTY, "disabled")


@pytest.mark.parametrize("pattern", ["counted", "count*", "broken-counted", "*-counted"])
def test_a_disabled_plugin_is_not_imported(sound, counter, pattern):
    site = sound(BROKEN_COUNTER=str(counter))
    site.configure(f'[plugins]\ndisable = ["{pattern}"]\n')

    manifest = site.manifest()

    assert states(manifest) == {"counted": "disabled", "echo": "loaded", "loud": "loaded"}
    (plugin,) = [p for p in manifest["plugins"] if p["name"] == "counted"]
    assert plugin["reason"] == f"disabled by the pattern {pattern!r}"
    assert not counter.exists()


def test_the_environment_adds_to_the_patterns_of_the_configuration(sound):
    site = sound(DISPATCH_PLUGINS_DISABLE="echo, time_*")
    site.configure('[plugins]\ndisable = ["counted"]\n')

    manifest = site.manifest()

    expected = {"counted": "disabled", "echo": "disabled", "time_triggers": "disabled"}
    assert states(manifest) == {**expected, "loud": "loaded"}
    assert {kind["name"] for kind in manifest["kinds"]} == {"turn_completed"}


def test_in_listed_mode_only_what_is_listed_is_imported(sound, counter):
    site = sound(BROKEN_COUNTER=str(counter))
    site.configure('[plugins]\nmode = "listed"\nenable = ["dispatch-*"]\n')

    manifest = site.manifest()

    assert states(manifest) == {"counted": "disabled", "echo": "loaded", "loud": "disabled"}
    assert not counter.exists()


def test_the_daemon_loads_what_the_manifest_found_sound(everything):
    ops = everything.json("-c", ACTIVATE)["ops"]

    assert ops == sorted(op["name"] for op in everything.manifest()["ops"])


def test_strict_mode_refuses_to_run_with_a_plugin_that_failed(installed, make_site):
    patterns = "slow_import,kill_at_import"  # they cost time, and one failure is enough
    switches = {"DISPATCH_PLUGINS_DISABLE": patterns, "DISPATCH_STRICT_PLUGINS": "1"}
    site = make_site(installed.everything, **switches)

    error = site.json("-c", ACTIVATE)["error"]

    assert (error["code"], error["exit_code"]) == ("plugin", 13)
    assert "assert_at_import (broken-assert-at-import) failed at load" in error["message"]
    assert "dispatch plugins show assert_at_import" in error["hint"]


def test_a_plugin_sees_its_table_of_the_configuration(sound):
    site = sound()
    site.configure('[echo]\nseparator = 5\n[other]\nanything = "goes"\n')

    manifest = site.manifest()

    (plugin,) = [p for p in manifest["plugins"] if p["name"] == "echo"]
    assert (plugin["state"], plugin["stage"]) == ("quarantined", "declare")
    assert "config.toml: echo.separator" in plugin["reason"]
    assert json.dumps(manifest).count("counted.one") > 0
