"""Switches in the environment, read in one way. Standard library only: the fast path of the CLI reads them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

TRUTHY = frozenset({"1", "true", "yes", "on"})


def is_on(value: str | None) -> bool:
    """Return whether an environment switch is set to 1, true, yes or on."""
    return (value or "").strip().lower() in TRUTHY


def safe_mode(env: Mapping[str, str]) -> bool:
    """Return whether the environment asks for first-party plugins only."""
    return is_on(env.get("DISPATCH_SAFE"))
