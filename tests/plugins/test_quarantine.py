"""Every example of dispatch-broken, all installed at once: each costs itself and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

BROKEN = Path(__file__).parents[2] / "plugins" / "examples" / "dispatch-broken"
HARMLESS = ("counted", "loud", "thread-at-import")
FAILURES = {
    "missing-module": (
        "load",
        "ModuleNotFoundError: No module named 'broken_missing_module_plugin'",
    ),
    "missing-dependency": ("load", "No module named 'broken_library_that_is_not_installed'"),
    "assert-at-import": ("load", "AssertionError: arithmetic is not what it was"),
    "exit-at-import": ("load", "SystemExit: this library is a program"),
    "kill-at-import": ("load", "importing it ended the process with status 3"),
    "slow-import": ("load", "importing it took longer than 6 s"),
    "syntax-error": ("load", "SyntaxError"),
    "half-way": ("declare", "RuntimeError: the second hook gave up"),
    "unknown-hook": ("declare", "unknown hook 'dispatch_opz'"),
    "wrong-type": ("declare", "dispatch_ops returned 'wrongtype.one', which is not Op"),
    "not-iterable": ("declare", "dispatch_ops returned 7, which is no list"),
    "keyword-only": ("declare", "missing 1 required keyword-only argument: 'settings'"),
    "loose-input": ("declare", "op loose.one: the input model must be frozen with extra='forbid'"),
    "undescribed-field": ("declare", "op mute.one: IdleInput.count has no description"),
    "bare-name": ("freeze", "'bare' has no namespace"),
    "reserved-namespace": ("freeze", "'goal' belongs to dispatch"),
    "shadowed-command": ("freeze", "'send' belongs to dispatch"),
    "surface-name": ("freeze", "'list' belongs to dispatch"),
    "twice": ("freeze", "declares the op twice.one twice"),
    "rival-op-a": ("freeze", "op rivals.one is also declared by rival_op_b (broken-rival-op-b)"),
    "rival-op-b": ("freeze", "op rivals.one is also declared by rival_op_a (broken-rival-op-a)"),
    "no-schema": ("freeze", "op schemaless.one cannot be written as JSON"),
    "kind-no-schema": ("freeze", "trigger kind oddkind.odd cannot be written as JSON"),
    "odd-example": ("freeze", "op oddexample.one cannot be written as JSON"),
    "taken-name": ("vet", "'send' is also claimed by codex-dispatch, which keeps it"),
    "rival-name-a": ("vet", "'twin' is also claimed by broken-rival-name-b, so neither is loaded"),
    "rival-name-b": ("vet", "'twin' is also claimed by broken-rival-name-a, so neither is loaded"),
    "future-api": ("vet", "needs plugin API version 2; this dispatch provides version 1"),
    "unknown-group": ("vet", "unknown entry-point group 'dispatch.v1.widgets'"),
}


def found(site, folder):
    (plugin,) = [p for p in site.manifest()["plugins"] if p["dist"] == f"broken-{folder}"]
    return plugin


def test_every_folder_of_broken_examples_has_its_expectation():
    folders = {path.parent.name for path in BROKEN.glob("*/pyproject.toml")}

    assert folders == {*FAILURES, *HARMLESS}


@pytest.mark.parametrize("folder", sorted(FAILURES))
def test_a_broken_plugin_is_named_with_stage_and_reason(everything, folder):
    stage, reason = FAILURES[folder]

    plugin = found(everything, folder)

    assert (plugin["state"], plugin["stage"]) == ("quarantined", stage)
    assert reason in plugin["reason"]
    assert "\n" not in plugin["reason"]
    assert plugin["provides"] == {}


@pytest.mark.parametrize("folder", HARMLESS)
def test_what_only_looks_broken_stays_loaded(everything, folder):
    plugin = found(everything, folder)

    assert (plugin["state"], plugin["reason"]) == ("loaded", None)


def test_broken_plugins_cost_nothing_but_themselves(everything, make_site):
    alone = make_site([]).manifest()

    together = everything.manifest()

    ours = {plugin["name"]: plugin for plugin in together["plugins"] if plugin["first_party"]}
    assert ours == {plugin["name"]: plugin for plugin in alone["plugins"]}
    names = {op["name"] for op in together["ops"]}
    third_party = {"counted.one", "echo.say", "loud.one", "threaded.one"}
    assert names == {op["name"] for op in alone["ops"]} | third_party
    assert together["surfaces"] == alone["surfaces"]
    kinds = [kind["name"] for kind in together["kinds"]]
    assert kinds == [*(kind["name"] for kind in alone["kinds"]), "echo.never"]


def test_a_traceback_is_kept_of_what_raised(everything):
    raised = found(everything, "half-way")

    assert "broken_half_way.py" in raised["traceback"]
    assert found(everything, "future-api")["traceback"] is None


def test_the_plugins_command_shows_each_failure(everything):
    listed = everything.dispatch("plugins", "--json")["plugins"]
    (shown,) = everything.dispatch("plugins", "show", "half_way", "--json")["plugins"]

    stages = {p["dist"]: p["stage"] for p in listed if p["state"] == "quarantined"}
    assert stages == {f"broken-{name}": stage for name, (stage, _) in FAILURES.items()}
    assert "the second hook gave up" in shown["traceback"]


def test_the_other_commands_have_their_help(everything):
    done = everything.run("-m", "dispatch_core.boot", "list", "--help")

    assert done.returncode == 0, done.stderr
    assert "dispatch list" in done.stdout


@pytest.mark.e2e
def test_a_daemon_with_all_of_them_works_and_ends(everything, codex_binary):
    everything.env["DISPATCH_OFFLINE"] = "1"
    everything.env["DISPATCH_CODEX_BIN"] = codex_binary

    listed = everything.dispatch("list")
    said = everything.dispatch("loud", "one")
    status = everything.dispatch("daemon", "status")
    stopped = everything.dispatch("down", "--grace", "0")

    assert (listed["threads"], listed["next"]) == ([], None)
    assert said == {}
    assert len(status["plugins"]["quarantined"]) == len(FAILURES)
    assert stopped["status"] == "stopped"
