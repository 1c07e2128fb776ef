"""The name of a new thread: what was given, after its prefix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dispatch_core.api import ValidationFailed, printable
from dispatch_plugins.ops.shared.access import NAME_LIMIT
from dispatch_plugins.ops.shared.places import nearest_repository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VARIABLE = re.compile(r"\$\{([^}]*)\}?")
VARIABLES = ("DISPATCH.CWD.REPO", "DISPATCH.CWD.BASENAME", "DISPATCH.PRESET")


def full_name(given: str, prefix: str | None, cwd: Path, presets: Sequence[str]) -> str:
    """Return the name after its prefix; one that begins with the prefix already stays as it is.

    Raises ValidationFailed for a name that is empty, too long or has control characters, and for an unknown variable.
    """
    name = given.strip().removeprefix("@").strip()
    if not name or name != printable(name):
        raise ValidationFailed(
            "new: name: give a name of printable characters", hint="dispatch new builder"
        )
    front = expand(prefix or "", cwd, presets).strip()
    if front and name != front and not name.startswith(f"{front} "):
        name = f"{front} {name}"
    if name != printable(name) or name.startswith("@"):
        raise ValidationFailed(
            f"new: prefix: {front!r} cannot stand before a name",
            hint="give another with --prefix, or none with --prefix ''",
            details={"field": "prefix"},
        )
    if len(name) > NAME_LIMIT:
        raise ValidationFailed(
            f"new: name: {name[:40]!r}… has {len(name)} characters with its prefix; {NAME_LIMIT} are allowed",
            hint="give a shorter name, or --prefix ''",
            details={"field": "name"},
        )
    return name


def expand(prefix: str, cwd: Path, presets: Sequence[str]) -> str:
    """Return a prefix with its variables filled in. Nothing of the environment can be."""

    def value(match: re.Match[str]) -> str:
        variable = match[1]
        if not match[0].endswith("}") or variable not in VARIABLES:
            known = ", ".join(f"${{{name}}}" for name in VARIABLES)
            raise ValidationFailed(
                f"new: prefix: there is no variable {match[0]}; there are {known}",
                hint="mend the prefix, or give another with --prefix",
                details={"field": "prefix"},
            )
        if variable == "DISPATCH.PRESET":
            if not presets:
                raise ValidationFailed(
                    "new: prefix: ${DISPATCH.PRESET} needs a preset, and none was given",
                    hint="add --preset NAME, or give another prefix with --prefix",
                    details={"field": "prefix"},
                )
            return presets[-1]
        return (
            (nearest_repository(cwd) or cwd) if variable == "DISPATCH.CWD.REPO" else cwd
        ).name or "/"

    return VARIABLE.sub(value, prefix)
