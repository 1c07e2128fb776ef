"""What Codex sends, read tolerantly: a value of another type than the expected one counts as none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def joined(parts: Iterable[str]) -> str:
    """Return the parts that are not empty, a line each."""
    return "\n".join(part for part in parts if part)


def string(value: object) -> str:
    """Return a string, or an empty one."""
    return value if isinstance(value, str) else ""


def items(value: object) -> list[Any]:
    """Return a list, or an empty one."""
    return value if isinstance(value, list) else []


def objects(value: object) -> list[dict[str, Any]]:
    """Return the JSON objects of a list."""
    return [part for part in items(value) if isinstance(part, dict)]
