"""Messages of Codex, made from its own JSON schema and then spoilt: what a newer one might send."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import codex_cli_bin

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

DEPTH = 6
WORDS = ("", "t1", "inProgress", "completed", "failed", "/tmp", "ünï", "new-kind", "x" * 300)


def schema(out: Path) -> dict[str, dict[str, Any]]:
    """Return the schemas of what the installed Codex sends: {"notification": …, "request": …}."""
    out.mkdir()
    subprocess.run(
        [codex_cli_bin.bundled_codex_path(), "app-server", "generate-json-schema",
         "--out", str(out), "--experimental"],
        env={"PATH": os.defpath, "HOME": str(out), "CODEX_HOME": str(out)},
        check=True,
        capture_output=True,
        timeout=60,
    )  # fmt: skip
    names = {"notification": "ServerNotification", "request": "ServerRequest"}
    return {kind: json.loads((out / f"{name}.json").read_text()) for kind, name in names.items()}


def fuzzed(
    schemas: dict[str, dict[str, Any]], wanted: int, rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Give messages: most are known notifications with something strange in them, the others nobody has heard of."""
    for number in range(wanted):
        kind = rng.choices(("known", "strange", "ask strange", "ask"), (90, 5, 4, 1))[0]
        root = schemas["request" if kind.startswith("ask") else "notification"]
        message = _make(rng.choice(root["oneOf"]), root, rng, 0)
        message["params"] = _spoilt(message.get("params") or {}, rng)
        message.pop("id", None)
        if kind.startswith("ask"):
            message["id"] = f"q{number}" if rng.random() < 0.5 else 10**6 + number
        if kind.endswith("strange"):
            message["method"] = f"strange/{rng.randrange(40)}"
        yield message


def _make(part: Any, root: dict[str, Any], rng: random.Random, depth: int) -> Any:  # noqa: PLR0911 -- kinds of schema
    """Return something that this part of the schema allows, more or less."""
    if not isinstance(part, dict):
        return None
    if "$ref" in part:
        return _make(root["definitions"][part["$ref"].rpartition("/")[2]], root, rng, depth + 1)
    for several in ("oneOf", "anyOf"):
        if several in part:
            return _make(rng.choice(part[several]), root, rng, depth + 1)
    if "allOf" in part:
        return _make(part["allOf"][0], root, rng, depth + 1)
    if "enum" in part:
        return rng.choice(part["enum"])
    kind = part.get("type")
    if isinstance(kind, list):
        kind = rng.choice(kind)
    if kind == "object":
        needed = set(part.get("required", ()))
        return {
            name: _make(value, root, rng, depth + 1)
            for name, value in part.get("properties", {}).items()
            if name in needed or (depth < DEPTH and rng.random() < 0.5)
        }
    if kind == "array":
        return [_make(part.get("items"), root, rng, depth + 1) for _ in range(rng.randrange(3))]
    made = {"string": rng.choice(WORDS), "integer": rng.randrange(-5, 10**9), "number": 0.5}
    return rng.random() < 0.5 if kind == "boolean" else made.get(str(kind))


def _spoilt(value: Any, rng: random.Random) -> Any:
    """Return it with some field gone, added, renamed, of another type, or with a value that is new."""
    if isinstance(value, dict):
        spoilt = {name: _spoilt(v, rng) for name, v in value.items() if rng.random() > 0.04}
        if rng.random() < 0.1:
            spoilt[f"new{rng.randrange(9)}"] = {"deep": [{"er": None}]}
        return spoilt
    if isinstance(value, list):
        return [_spoilt(v, rng) for v in value]
    if rng.random() < 0.06:
        return rng.choice([None, True, -1, 10**30, 1.5, "somethingNew", [], {}, [[1]]])
    return value
