"""The permission profile, checked against those that Codex has for the directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from dispatch_core.api import CodexError, ValidationFailed
from dispatch_plugins.ops.shared.pages import every

if TYPE_CHECKING:
    from dispatch_core.api import Codex
    from dispatch_plugins.ops.new.draft import Draft


class _Profile(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)
    id: str
    allowed: bool = True


async def check(codex: Codex, draft: Draft) -> None:
    """Raise ValidationFailed for a profile that Codex does not have, or does not allow; without one Codex is not asked."""
    wanted = draft.value("permissions")
    if wanted is None:
        return
    profiles = await _read(codex, draft.cwd)
    allowed = [profile.id for profile in profiles if profile.allowed]
    if wanted in allowed:
        return
    there = any(profile.id == wanted for profile in profiles)
    problem = "is not allowed here" if there else "is unknown"
    from difflib import get_close_matches  # noqa: PLC0415 -- for memory: only mistakes need it

    near = get_close_matches(wanted, allowed, n=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise ValidationFailed(
        f"new: permissions: {wanted!r} {problem}; the profiles are {', '.join(allowed)}",
        hint=f"{meant}dispatch permissions lists what there is",
        details={"field": "permissions", "known": allowed, "similar": near},
    )


async def _read(codex: Codex, cwd: str) -> list[_Profile]:
    listed = await every(codex, "permissionProfile/list", {"cwd": cwd})
    try:
        return [_Profile.model_validate(entry) for entry in listed]
    except ValidationError as error:
        raise CodexError(
            f"Codex described its permission profiles in a way that is not understood: {error.errors()[0]['msg']}",
            hint="dispatch daemon status shows the version of Codex",
        ) from error
