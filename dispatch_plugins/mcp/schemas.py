"""JSON schemas in two sizes: the shape of a field, and an op's whole input in a tool. Pure."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dispatch_core.api import OpInfo

NESTING = 4  # shapes deeper than this are left open; a recursive type would never end
NULL = {"type": "null"}


def shape(schema: Mapping[str, Any], defs: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """Return type, choices and item type of a field; no limits, defaults or fields of objects.

    {} stands for anything. An optional field is one that can be left out, so null is not among its
    types. defs: the definitions that the schema refers to.
    """
    if depth > NESTING:
        return {}
    if "$ref" in schema:
        return shape(defs.get(str(schema["$ref"]).rpartition("/")[2], {}), defs, depth + 1)
    if "enum" in schema or "const" in schema:
        return _choice(list(schema["enum"]) if "enum" in schema else [schema["const"]])
    variants = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    if variants:
        return merge(shape(sub, defs, depth + 1) for sub in variants if sub != NULL)
    kept = {"type": schema["type"]} if "type" in schema else {}
    items = schema.get("items")
    inner = shape(items, defs, depth + 1) if isinstance(items, dict) else {}
    return {**kept, "items": inner} if inner else kept


def merge(shapes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the shape that admits what any of several admits."""
    variants: list[dict[str, Any]] = []
    choices: list[Any] = []
    for one in shapes:
        if not one:
            return {}
        for variant in one.get("anyOf", [one]):
            if "enum" in variant:
                choices += [choice for choice in variant["enum"] if choice not in choices]
            elif variant not in variants:
                variants.append(dict(variant))
    text = {"type": "string"} in variants and all(isinstance(choice, str) for choice in choices)
    if choices and not text:
        variants.append(_choice(choices))
    return variants[0] if len(variants) == 1 else {"anyOf": variants} if variants else {}


def describe(text: str, limit: int) -> str:
    """Return a text within limit characters: whole, its first sentence, or cut between words."""
    words = " ".join(text.split())
    if limit == 0 or len(words) <= limit:
        return words[:limit]
    sentence = words.partition(". ")[0]
    return sentence if len(sentence) <= limit else textwrap.shorten(words, limit, placeholder=" …")


def full_input(op: OpInfo, shown: Mapping[str, str]) -> dict[str, Any]:
    """Return the whole input schema of an op with its fields under the names a tool shows.

    shown: from the name in the tool to the name in the op; fields that are not in it are left out.
    """
    properties = op.schema.get("properties", {})
    required = op.schema.get("required", [])
    schema: dict[str, Any] = without_marks(dict(op.schema))
    schema["type"] = "object"
    schema["properties"] = {name: plain(properties[field]) for name, field in shown.items()}
    schema["required"] = [name for name, field in shown.items() if field in required]
    return schema


def is_path(field: Mapping[str, Any]) -> bool:
    """Return whether a field holds a path, which the command line makes absolute."""
    marks = field.get("x-cli", {})
    return bool(marks.get("path") or marks.get("file"))


def plain(field: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a field for a client that has no working directory."""
    schema: dict[str, Any] = without_marks(dict(field))
    if is_path(field):
        schema["description"] = f"Absolute path. {schema.get('description', '')}".rstrip()
    return schema


def without_marks(schema: Any) -> Any:
    """Return a schema without our own ``x-`` keywords, which mean nothing to an MCP client."""
    if isinstance(schema, list):
        return [without_marks(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: without_marks(sub) for name, sub in value.items()}
        if key in ("properties", "$defs")
        else without_marks(value)
        for key, value in schema.items()
        if not key.startswith("x-")
    }


def _choice(values: list[Any]) -> dict[str, Any]:
    if all(isinstance(value, str) for value in values):
        return {"type": "string", "enum": values}
    return {"enum": values}


def size(document: Mapping[str, Any]) -> int:
    """Return the bytes a document takes on the wire."""
    return len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
