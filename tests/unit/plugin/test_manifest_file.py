"""The file of the manifest: written whole, read as far as it is needed."""

from __future__ import annotations

import json

import pytest

from dispatch_core.daemon.paths import Paths
from dispatch_core.plugin.manifest import FORMAT, current_key, decode, encode


def op(name, **changes):
    return {
        "name": name,
        "intent": "read",
        "schema": {"properties": {"text": {"description": "Über\nzwei\u2028Zeilen"}}},
        "output_schema": {"type": "object"},
        "examples": [{"title": name, "input": {}}],
        **changes,
    }


MANIFEST = {"format": FORMAT, "version": "1", "ops": [op("a"), op("b.c", examples=[])], "kinds": []}


def test_what_was_written_is_read():
    read = decode(encode(MANIFEST))

    assert read == MANIFEST
    assert [dict(entry) for entry in read["ops"]] == MANIFEST["ops"]
    assert json.loads(json.dumps(read, default=dict)) == MANIFEST


def test_the_first_line_holds_what_every_command_needs():
    first = encode(MANIFEST).partition("\n")[0]

    assert json.loads(first)["ops"] == [
        {"name": "a", "intent": "read"},
        {"name": "b.c", "intent": "read"},
    ]


def test_a_detail_is_decoded_when_it_is_asked_for_and_then_kept():
    lines = encode(MANIFEST).replace('{"type":"object"}', "damaged")
    entry = decode(lines)["ops"][0]

    assert entry["name"] == "a"
    assert entry["schema"] is entry["schema"]
    assert len(entry) == 5
    with pytest.raises(ValueError, match="Expecting value"):
        entry["output_schema"]


def test_a_member_that_there_is_not_is_none():
    entry = decode(encode(MANIFEST))["ops"][0]

    assert entry.get("stream") is None
    assert "stream" not in entry
    assert {**entry, "stream": 1}["stream"] == 1


@pytest.mark.parametrize("missing", [1, 2, 40, 150])
def test_a_file_that_ends_early_is_damaged(missing):
    text = encode(MANIFEST)[:-missing]

    with pytest.raises(ValueError, match="not all of it"):
        decode(text)


@pytest.mark.parametrize("text", ["", "[]", "{", "\0\0"])
def test_a_file_of_something_else_is_refused(text):
    with pytest.raises(ValueError, match=r"another format|char"):
        decode(text)


def test_a_file_of_another_format_is_refused():
    with pytest.raises(ValueError, match="another format"):
        decode(encode({**MANIFEST, "format": FORMAT + 1}))


def test_homes_have_the_same_one_until_one_is_configured(tmp_path):
    homes = [Paths(str(tmp_path / name)) for name in ("one", "another")]
    before = [current_key(home) for home in homes]

    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.toml").touch()

    assert before[0] == before[1] == current_key(homes[1])
    assert current_key(homes[0]) != before[0]
