"""What a project's own configuration can do: every key, before and after it is trusted."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import fields

import pytest

from dispatch_core.config.explain import explain, pick
from dispatch_core.config.files import read_project
from dispatch_core.config.keys import KEYS, NEVER, SAFE, TRUST, ProjectClass
from dispatch_core.config.trust import Trust, TrustStore, bundle_of, difference
from dispatch_core.errors import ValidationFailed
from dispatch_core.settings import PROJECT, SECTIONS

OUTSIDE = "../../elsewhere"


def samples(key):
    """Yield (value, its class) for a key: every choice, and paths in and out of the project."""
    if key.choices:
        yield from ((v, SAFE if v in key.safe_values else key.project) for v in key.choices)
    elif key.path:
        yield "inside", key.project
        yield OUTSIDE, key.outside
    else:
        yield {"string": "word", "boolean": True, "integer": 7, "table": {}}[key.type], key.project


CASES = [
    pytest.param(table, key.name, value, found, id=f"{table}-{key.name}-{value}")
    for table in ("defaults", "presets.p")
    for key in KEYS.values()
    for value, found in samples(key)
]


def toml(table, name, value):
    shown = "{}" if value == {} else json.dumps(value)
    return f"[{table}]\n{name} = {shown}\n"


def counts(setup, table, name):
    found = setup.resolve(*(["p"] if table != "defaults" else []))
    return name in found.used(), found.notes


def test_every_key_of_every_section_is_classified():
    for model in SECTIONS.values():
        for known in fields(model):
            assert ProjectClass(known.metadata[PROJECT]) is NEVER
    for key in KEYS.values():
        assert isinstance(key.project, ProjectClass)
        assert (key.outside is not None) == bool(key.path)


@pytest.mark.parametrize(("table", "name", "value", "expected"), CASES)
def test_a_key_of_an_untrusted_project_counts_only_if_it_is_safe(
    setup, table, name, value, expected
):
    (setup.repo / "inside").write_text("{}")
    setup.project(toml(table, name, value))

    used, notes = counts(setup, table, name)

    assert used is (expected is SAFE)
    assert any(f"{table}.{name} ignored" in note for note in notes) is not used


@pytest.mark.parametrize(("table", "name", "value", "expected"), CASES)
def test_trust_lets_keys_that_need_it_count_until_one_byte_changes(
    setup, table, name, value, expected
):
    (setup.repo / "inside").write_text("{}")
    setup.project(toml(table, name, value))
    setup.trust()

    trusted, _ = counts(setup, table, name)
    setup.project(toml(table, name, value) + " ")
    changed, _ = counts(setup, table, name)

    assert trusted is (expected in (SAFE, TRUST))
    assert changed is (expected is SAFE)
    assert setup.read().trust is Trust.CHANGED


@pytest.mark.parametrize(
    "key", [f"{name}.{known.name}" for name, model in SECTIONS.items() for known in fields(model)]
)
def test_no_other_section_of_a_project_has_an_effect_even_trusted(setup, key):
    section, _, name = key.partition(".")
    setup.project(f'[{section}]\n{name} = "from the project"\n')
    setup.trust()

    row = pick(explain(setup.read(), {}), key)

    assert row.source == "built-in"
    assert [say.fate for say in row.says] == ["used", "ignored"]
    assert f"[{section}] ignored" in setup.resolve().notes[0]


def test_a_changed_prompt_file_takes_the_trust_away(setup):
    prompt = setup.repo / "prompt.md"
    prompt.write_text("Be careful.")
    setup.project('[defaults]\ndeveloper_file = "prompt.md"\n')
    setup.trust()
    assert "developer_file" in setup.values()

    prompt.write_text("Be careless")

    assert "developer_file" not in setup.values()
    assert "has changed since it was trusted" in setup.resolve().notes[0]


def test_what_was_trusted_is_what_is_used(setup):
    prompt = setup.repo / "prompt.md"
    prompt.write_text("Be careful.")
    setup.project('[defaults]\nbase_file = "prompt.md"\n')
    setup.trust()

    found = setup.resolve().used()["base_file"]

    assert found.content == b"Be careful."
    assert str(found.source) == f"project config {setup.config} (trusted)"


def test_a_link_out_of_the_project_is_outside(setup):
    secret = setup.repo.parent / "secret"
    secret.write_text("key")
    (setup.repo / "prompt.md").symlink_to(secret)
    setup.project('[defaults]\ndeveloper_file = "prompt.md"\n')
    setup.trust()

    assert "developer_file" not in setup.values()
    assert str(setup.repo / "prompt.md") not in bundle_of(read_project(setup.config)).parts


def test_a_circle_of_links_is_nothing_that_can_be_trusted(setup):
    (setup.repo / "prompt.md").symlink_to("prompt.md")
    setup.project('[defaults]\ndeveloper_file = "prompt.md"\nmodel = "m"\n')

    found = setup.resolve()

    assert set(found.used()) == {"model"}
    assert bundle_of(read_project(setup.config)).parts[str(setup.repo / "prompt.md")] is None


def test_a_project_cannot_replace_the_permissions_of_the_user(setup):
    setup.user('[defaults]\npermissions = ":read-only"\n')
    setup.project('[defaults]\nsandbox = "read-only"\napproval_policy = "untrusted"\n')

    found = setup.resolve()

    assert set(found.used()) == {"permissions"}
    assert "cannot replace the permissions :read-only" in found.notes[0]


def test_a_project_cannot_speak_about_its_own_trust(setup):
    setup.project('[trust]\ntrusted = true\n[defaults]\ntext = "hi"\n')

    assert setup.values() == {}
    assert setup.read().trust is Trust.UNTRUSTED


def test_trust_is_kept_in_a_private_file(setup):
    setup.project('[defaults]\ntext = "hi"\n')

    setup.trust()

    assert stat.S_IMODE(setup.places.trust.stat().st_mode) == 0o600
    assert stat.S_IMODE(setup.places.home.stat().st_mode) == 0o700
    assert sorted(p.name for p in setup.places.home.iterdir()) == ["trust.json", "trust.json.lock"]


def test_trust_that_is_taken_away_is_gone(setup):
    setup.project('[defaults]\ntext = "hi"\n')
    setup.trust()
    store = TrustStore(setup.places.trust)

    assert store.remove(str(setup.config)) is True

    assert store.remove(str(setup.config)) is False
    assert setup.read().trust is Trust.UNTRUSTED


def test_a_second_look_shows_the_difference_alone(setup):
    setup.project('[defaults]\nmodel = "a"\ntext = "hi"\n')
    before = setup.trust()
    setup.project('[defaults]\nmodel = "a"\ntext = "ho"\n')

    shown = difference(before, bundle_of(read_project(setup.config))).splitlines()

    assert [line for line in shown if line[:1] in "+-" and line[:3] not in ("+++", "---")] == [
        '-text = "hi"',
        '+text = "ho"',
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"format": 9}', '{"format": 1, "trusted": []}'])
def test_a_damaged_store_trusts_nothing_and_says_so(setup, content):
    setup.project('[defaults]\ntext = "hi"\n')
    setup.trust()
    setup.places.trust.write_text(content)

    with pytest.raises(ValidationFailed, match=r"trust\.json cannot be used"):
        setup.read()


def test_trust_is_bound_to_the_place(setup):
    setup.project('[defaults]\ntext = "hi"\n')
    setup.trust()
    other = setup.repo.parent / "copy"
    setup.repo.rename(other)

    assert setup.read(other).trust is Trust.UNTRUSTED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_file_of_ours_that_another_user_put_there_is_ignored(setup, what):
    setup.project('[defaults]\nmodel = "m"\n')
    real = setup.config.rename(setup.repo / "real.toml")
    setup.config.symlink_to(real)
    given = setup.config.parent if what == "folder" else setup.config

    os.chown(given, 65534, 65534, follow_symlinks=False)

    assert setup.values() == {}
    assert "belongs to another user" in setup.resolve().notes[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_not_even_read(setup):
    setup.project("this is no TOML")
    os.chown(setup.config, 65534, 65534)

    assert setup.values() == {}
    assert "belongs to another user" in setup.resolve().notes[0]
