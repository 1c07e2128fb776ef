"""What is refused whoever asks for it: a name that is none, a thread that is put away, a directory that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from dispatch_core.contracts.view import printable
from dispatch_core.errors import AuthorityDenied, CapabilityUnavailable, ValidationFailed

if TYPE_CHECKING:
    from dispatch_core.contracts.records import ThreadRecord

NAME_LIMIT = 100  # characters


def checked_name(name: str) -> str:
    """Return a name without the ``@`` of its handle. Raises ValidationFailed for one that is empty, too long or unprintable."""
    bare = name.strip().removeprefix("@").strip()
    if not bare or bare != printable(bare) or len(bare) > NAME_LIMIT:
        raise ValidationFailed(
            f"a name has 1 to {NAME_LIMIT} printable characters",
            hint="dispatch list shows the names",
        )
    return bare


def archived(thread: ThreadRecord) -> AuthorityDenied:
    """Return the error for an archived thread that was to be written."""
    if thread.ephemeral:
        return AuthorityDenied(
            f"{thread.handle} ({thread.ref}) is archived, and was ephemeral: it does not come back",
            hint="dispatch new NAME TEXT starts another one",
        )
    return AuthorityDenied(
        f"{thread.handle} ({thread.ref}) is archived", hint=f"dispatch restore {thread.ref}"
    )


async def check_directory(thread: ThreadRecord) -> None:
    """Raise ValidationFailed when the directory a thread works in is gone, for every command of a turn would fail there."""
    directory = anyio.Path(thread.cwd)
    try:
        found = await directory.is_dir()
    except OSError:
        return  # whether Codex may enter it, Codex has to say
    if not found:
        onwards = f"fork {thread.ref}" if thread.materialized else "new"
        raise ValidationFailed(
            f"{printable(thread.cwd)}, where {thread.handle} ({thread.ref}) works, is not a directory any more",
            hint=f"make it again, or go on in another one: dispatch {onwards} NAME --cwd DIRECTORY",
            details={"thread": thread.ref, "path": thread.cwd},
        )


def refuse_ephemeral(thread: ThreadRecord, what: str) -> None:
    """Raise CapabilityUnavailable for a thread of which Codex keeps no history. what: "be forked"."""
    if thread.ephemeral:
        raise CapabilityUnavailable(
            f"{thread.handle} ({thread.ref}) is ephemeral: Codex keeps no history of it that could {what}",
            hint="dispatch new NAME without --ephemeral makes a thread that is stored",
        )
