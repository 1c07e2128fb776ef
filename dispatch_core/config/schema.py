"""The JSON Schema of the configuration file, for editors and for checks of one's own."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dispatch_core.config.keys import DEFAULTS, INSTRUCTIONS, KEYS, PRESETS, Key
from dispatch_core.settings import LEAST, PROJECT, SECTIONS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
CLASS = "x-project-class"


def schema() -> dict[str, Any]:
    """Return the schema. Further tables are allowed: they belong to plugins."""
    return {
        "$schema": DRAFT,
        "title": "Configuration of dispatch",
        "type": "object",
        "properties": {
            **{name: _section(name) for name in SECTIONS},
            DEFAULTS: {
                **_thread(),
                "description": "What every new thread starts with.",
            },
            PRESETS: {
                "type": "object",
                "description": "Sets of values by name, for dispatch new --preset NAME.",
                "additionalProperties": _thread(),
            },
        },
        "additionalProperties": {"type": "object"},
    }


def _section(name: str) -> dict[str, Any]:
    # Imported here: nothing else that people run needs it.
    from pydantic import TypeAdapter  # noqa: PLC0415

    model = SECTIONS[name]
    found: dict[str, Any] = TypeAdapter(model).json_schema()
    properties = {}
    for known in fields(model):
        entry = _whole(found["properties"][known.name], found.get("$defs", {}))
        if (least := known.metadata.get(LEAST)) is not None:
            entry["minimum"] = least
        properties[known.name] = {**entry, CLASS: known.metadata[PROJECT]}
    return {
        "type": "object",
        "description": " ".join((model.__doc__ or "").split()),
        "properties": properties,
        "additionalProperties": False,
    }


def _whole(entry: Any, definitions: dict[str, Any]) -> Any:
    """Return a part of a schema with what it refers to in its place."""
    if isinstance(entry, list):
        return [_whole(one, definitions) for one in entry]
    if not isinstance(entry, dict):
        return entry
    if "$ref" in entry:
        return _whole(definitions[entry["$ref"].rpartition("/")[2]], definitions)
    return {name: _whole(one, definitions) for name, one in entry.items()}


def _thread() -> dict[str, Any]:
    inner = {key.name: _key(key) for key in KEYS.values() if key.instructions}
    return {
        "type": "object",
        "properties": {
            **{key.name: _key(key) for key in KEYS.values()},
            INSTRUCTIONS: {
                "type": "object",
                "description": "The same keys once more, in a table of their own.",
                "properties": inner,
                "additionalProperties": False,
            },
        },
        "dependentSchemas": {
            "permissions": {
                "properties": dict.fromkeys(KEYS["permissions"].replaces, False),
            }
        },
        "additionalProperties": False,
    }


def _key(key: Key) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "object" if key.type == "table" else key.type,
        "description": key.about,
        CLASS: key.project.value,
    }
    if key.choices:
        entry["enum"] = list(key.choices)
    if key.type == "integer":
        entry["minimum"] = 1
    if key.type == "string" and not key.choices and key.name != "prefix":
        entry["minLength"] = 1
    if key.safe_values:
        entry["x-project-safe"] = list(key.safe_values)
    if key.outside is not None:
        entry["x-project-class-outside"] = key.outside.value
    return entry
