"""Which value counts: the later layer, key by key, with every place it was found in."""

from __future__ import annotations

import json
import tomllib

import jsonschema
import pytest

from dispatch_core.config.explain import explain, pick
from dispatch_core.config.files import Places
from dispatch_core.config.keys import KEYS
from dispatch_core.config.layers import brief
from dispatch_core.config.schema import schema
from dispatch_core.errors import NotFound, ValidationFailed

USER = """
[defaults]
model = "user-model"
effort = "low"
summary = "auto"
[presets.review]
effort = "high"
sandbox = "workspace-write"
[presets.quick]
effort = "minimal"
"""


def test_later_layers_win_key_by_key(setup):
    setup.user(USER)
    setup.project('[defaults]\nmodel = "project-model"\n[presets.review]\nsummary = "none"\n')

    values = setup.values("review", "quick", effort="max")

    assert values == {
        "model": "project-model",
        "summary": "none",
        "sandbox": "workspace-write",
        "effort": "max",
    }


def test_presets_count_in_the_order_given(setup):
    setup.user(USER)

    assert setup.values("review", "quick")["effort"] == "minimal"
    assert setup.values("quick", "review")["effort"] == "high"


def test_every_value_names_its_source(setup):
    setup.user(USER)
    setup.project('[defaults]\nmodel = "project-model"\n')

    used = setup.resolve("review", personality="none").used()

    assert {key: str(one.source) for key, one in used.items()} == {
        "model": f"project config {setup.config}",
        "summary": f"user config {setup.places.user}",
        "effort": f"preset review in {setup.places.user}",
        "sandbox": f"preset review in {setup.places.user}",
        "personality": "option",
    }
    files = {"user": str(setup.places.user), "project": str(setup.config)}
    assert brief(str(used["effort"].source), files) == "preset review (user)"


def test_an_unknown_preset_is_refused_with_the_near_one(setup):
    setup.user(USER)

    with pytest.raises(ValidationFailed) as caught:
        setup.resolve("revew")

    assert "there are quick, review" in caught.value.message
    assert caught.value.hint.startswith("did you mean review?")


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("permissions", "sandbox"), {"sandbox"}),
        (("sandbox", "permissions"), {"permissions"}),
        (("base_file", "base_instructions"), {"base_instructions"}),
        (("base_instructions", "base_file"), {"base_file"}),
        (("output_schema", "output_schema_file"), {"output_schema_file"}),
    ],
)
def test_a_later_layer_of_another_kind_clears_the_earlier(setup, layers, expected):
    values = {
        "permissions": '":workspace"',
        "sandbox": '"read-only"',
        "base_file": '"/b.md"',
        "base_instructions": '"hi"',
        "output_schema": "{}",
        "output_schema_file": '"/s.json"',
    }
    first, second = layers
    setup.user(f"[defaults]\n{first} = {values[first]}\n[presets.p]\n{second} = {values[second]}\n")

    assert set(setup.values("p")) == expected


def test_text_comes_before_a_file_in_the_same_table(setup):
    setup.user('[defaults]\nbase_file = "/b.md"\nbase_instructions = "hi"\n')

    found = setup.resolve()

    assert set(found.used()) == {"base_instructions"}
    assert {one.key: one.fate for one in found.candidates}["base_file"] == "overridden"


def test_the_table_of_instructions_is_flattened_and_keys_beside_it_win(setup):
    setup.user(
        '[defaults]\nbase_instructions = "outer"\n'
        '[defaults.instructions]\nbase_instructions = "inner"\ndeveloper_instructions = "dev"\n'
    )

    assert setup.values() == {"base_instructions": "outer", "developer_instructions": "dev"}


def test_relative_paths_start_where_the_file_belongs(setup, monkeypatch):
    monkeypatch.setenv("HOME", str(setup.places.home.parent))
    setup.user('[defaults]\nbase_file = "texts/b.md"\ndeveloper_file = "~/d.md"\n')
    setup.project('[defaults]\ncwd = "src"\n')

    values = setup.values()

    assert values["base_file"] == str(setup.places.home.parent / "texts" / "b.md")
    assert values["developer_file"] == str(setup.places.home.parent / "d.md")
    assert values["cwd"] == str(setup.repo / "src")


def test_the_nearest_project_counts_from_any_directory_below(setup):
    setup.project('[defaults]\nmodel = "outer"\n')
    inner = setup.repo / "a" / "b"
    (setup.repo / "a" / ".dispatch").mkdir(parents=True)
    (setup.repo / "a" / ".dispatch" / "config.toml").write_text('[defaults]\nmodel = "inner"\n')
    inner.mkdir()

    found = setup.read(inner).resolve().used()

    assert found["model"].value == "inner"


def test_the_file_of_the_user_is_never_a_projects(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    home = tmp_path / ".dispatch"
    home.mkdir()
    (home / "config.toml").write_text("[defaults]\n")
    below = tmp_path / "work"
    below.mkdir()

    assert Places.from_env({}).project(below) is None
    assert Places.from_env({"DISPATCH_HOME": str(tmp_path / "other")}).project(below) is None


def test_the_file_in_the_home_is_no_projects_when_another_one_counts(tmp_path):
    home = tmp_path / ".dispatch"
    home.mkdir()
    (home / "config.toml").write_text("[defaults]\n")
    env = {"DISPATCH_HOME": str(home), "DISPATCH_CONFIG": str(tmp_path / "mine.toml")}

    assert Places.from_env(env).project(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[defaults]\nmodle = "x"\n', "defaults.modle"),
        ("[defaults]\nmodel = 3\n", "defaults.model"),
        ('[defaults]\nmodel = " "\n', "defaults.model"),
        ('[presets.p]\nsandbox = "none"\n', "presets.p.sandbox"),
        ("[presets.p]\nephemeral = 1\n", "presets.p.ephemeral"),
        ("[presets.p]\ngoal_budget = true\n", "presets.p.goal_budget"),
        ("[presets.p]\ngoal_budget = 0\n", "presets.p.goal_budget"),
        ("presets.p = 3\n", "presets.p"),
        ("defaults = 3\n", "defaults"),
        ("[defaults]\noutput_schema = {at = 2026-01-01}\n", "defaults.output_schema"),
        ('[defaults.instructions]\nmodel = "x"\n', "defaults.instructions.model"),
        ('[defaults]\npermissions = "p"\nsandbox = "read-only"\n', "defaults.permissions"),
        ("loose = 1\n", "loose"),
    ],
)
@pytest.mark.parametrize("kind", ["user", "project"])
def test_a_wrong_key_or_value_is_refused_by_file_and_key(setup, kind, text, key):
    getattr(setup, kind)(text)
    path = setup.places.user if kind == "user" else setup.config

    with pytest.raises(ValidationFailed) as caught:
        setup.read()

    assert str(path) in caught.value.message
    assert caught.value.details["key"] == key
    assert str(path) in caught.value.hint


def test_the_environment_is_a_source_too(setup):
    setup.user('[plugins]\ndisable = ["a"]\n')
    env = {"DISPATCH_CODEX_BIN": "/opt/codex", "DISPATCH_PLUGINS_DISABLE": "b, c"}

    rows = explain(setup.read(), env)

    assert (pick(rows, "codex.bin").value, pick(rows, "codex.bin").source) == (
        "/opt/codex",
        "environment DISPATCH_CODEX_BIN",
    )
    assert pick(rows, "plugins.disable").value == ["a", "b", "c"]


def test_a_configured_binary_comes_before_the_environment(setup):
    setup.user('[codex]\nbin = "/mine"\n')

    row = pick(explain(setup.read(), {"DISPATCH_CODEX_BIN": "/opt/codex"}), "codex.bin")

    assert row.value == "/mine"
    assert [say.fate for say in row.says] == ["overridden", "used", "overridden"]


def test_safe_mode_is_shown_to_leave_the_plugins_out(setup):
    setup.user('[plugins]\nmode = "listed"\n')

    row = pick(explain(setup.read(), {"DISPATCH_SAFE": "1"}), "plugins.mode")

    assert (row.value, row.source) == ("all", "built-in")
    assert "DISPATCH_SAFE" in row.says[1].reason


def test_a_key_is_found_with_and_without_its_table(setup):
    setup.user(USER)
    rows = explain(setup.read(), {})

    assert pick(rows, "model") == pick(rows, "defaults.model")
    assert pick(rows, "presets.review.effort").value == "high"
    assert pick(rows, "presets.review.text").source == "codex"
    with pytest.raises(NotFound, match="no key 'modell'"):
        pick(rows, "modell")


SAMPLES = {"string": '"word"', "boolean": "true", "integer": "7", "table": "{}"}


@pytest.mark.parametrize("name", KEYS)
def test_the_schema_allows_what_is_read_and_refuses_what_is_not(setup, name):
    key = KEYS[name]
    good = json.dumps(key.choices[0]) if key.choices else SAMPLES[key.type]
    bad = "7" if key.type == "string" else '"word"'
    for value, fine in ((good, True), (bad, False)):
        text = f"[presets.p]\n{name} = {value}\n"
        setup.user(text)

        valid = jsonschema.Draft202012Validator(schema()).is_valid(tomllib.loads(text))

        assert valid is fine
        if fine:
            setup.read()
        else:
            with pytest.raises(ValidationFailed):
                setup.read()


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("[daemon]\ngrace = -1\n", False),
        ("[daemon]\ngarce = 1\n", False),
        ("[acme]\nanything = 1\n", True),
        ('[defaults]\nmodle = "x"\n', False),
        ('[defaults]\npermissions = "p"\nsandbox = "read-only"\n', False),
        ('[defaults.instructions]\nbase_file = "b.md"\n', True),
        ('[plugins]\ndisable = ["a*"]\n', True),
    ],
)
def test_the_schema_knows_the_sections(text, fine):
    assert jsonschema.Draft202012Validator(schema()).is_valid(tomllib.loads(text)) is fine
