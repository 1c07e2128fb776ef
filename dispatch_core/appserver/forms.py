"""Forms that MCP servers ask to be filled in: flat objects of texts, numbers, switches and choices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping


def check_form(schema: object, content: Any) -> None:
    """Raise ValidationFailed, naming the field, unless content fills in the form.

    What the schema says beyond the form language of MCP is left to the server, which checks as well.
    """
    if not isinstance(content, dict):
        raise ValidationFailed("content: a form is filled in with a JSON object")
    schema = schema if isinstance(schema, dict) else {}
    fields = schema.get("properties")
    fields = fields if isinstance(fields, dict) else {}
    required = schema.get("required")
    for name in required if isinstance(required, list) else ():
        if name not in content:
            raise _wrong(str(name), "is required")
    for name, value in content.items():
        if name not in fields:
            raise _wrong(name, f"is no field; there are {', '.join(fields) or 'none'}")
        field = fields[name]
        if isinstance(field, dict) and (problem := _problem(field, value)):
            raise _wrong(name, problem)


def _problem(field: Mapping[str, Any], value: Any) -> str | None:
    kind = field.get("type")
    if kind == "array":
        if not isinstance(value, list):
            return "must be a list"
        items = field.get("items")
        allowed = _choices(items) if isinstance(items, dict) else None
        return next((_not_one_of(allowed, each) for each in value if _is_not(allowed, each)), None)
    allowed = _choices(field)
    if _is_not(allowed, value):
        return _not_one_of(allowed, value)
    return _wrong_type(kind, value) or _out_of_bounds(field, value)


def _wrong_type(kind: object, value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "number": number,
        "integer": number and float(value).is_integer(),
    }
    return None if fits.get(str(kind), True) else f"must be a {kind}"


def _out_of_bounds(field: Mapping[str, Any], value: Any) -> str | None:
    size = len(value) if isinstance(value, str) else value
    if isinstance(size, bool) or not isinstance(size, int | float):
        return None
    least, most = ("minLength", "maxLength") if isinstance(value, str) else ("minimum", "maximum")
    if isinstance(field.get(least), int | float) and size < field[least]:
        return f"must be at least {field[least]}{' characters' if isinstance(value, str) else ''}"
    if isinstance(field.get(most), int | float) and size > field[most]:
        return f"must be at most {field[most]}{' characters' if isinstance(value, str) else ''}"
    return None


def _choices(field: Mapping[str, Any]) -> list[Any] | None:
    """Return the values a field takes, None when it takes any."""
    if isinstance(field.get("enum"), list):
        return list(field["enum"])
    titled = field.get("oneOf", field.get("anyOf"))
    if isinstance(titled, list):
        return [option.get("const") for option in titled if isinstance(option, dict)]
    return None


def _is_not(allowed: list[Any] | None, value: Any) -> bool:
    return allowed is not None and value not in allowed


def _not_one_of(allowed: list[Any] | None, value: Any) -> str:
    return f"{value!r} is none of {', '.join(map(str, allowed or ()))}"


def _wrong(name: str, problem: str) -> ValidationFailed:
    return ValidationFailed(f"content: {name} {problem}", details={"field": name})
