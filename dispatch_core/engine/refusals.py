"""What is refused whoever asks for it: a name that is none, a thread that is put away, a directory that is gone."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import anyio

from dispatch_core.contracts.records import Source
from dispatch_core.contracts.view import printable
from dispatch_core.errors import (
    AuthorityDenied,
    CapabilityUnavailable,
    CodexError,
    LaneHeld,
    NotFound,
    ValidationFailed,
)

if TYPE_CHECKING:
    from dispatch_core.appserver.thread_messages import Started
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


def in_doubt(thread: ThreadRecord, delivery_id: str) -> LaneHeld:
    """Return the error for a thread that is held until a person says what became of an earlier message."""
    return LaneHeld(
        thread.ref,
        f"it is not known what became of an earlier message to {thread.handle} ({thread.ref})",
        f"dispatch delivery get {delivery_id}, then dispatch delivery resolve; or add --queue to wait for that",
    )


def vanished(thread: ThreadRecord) -> NotFound:
    """Return the error for a thread that Codex has lost."""
    details = {"thread": thread.ref, "id": thread.native_id}
    another = f"dispatch new NAME TEXT starts another thread, dispatch archive {thread.ref} takes this one off the list"
    if thread.ephemeral:
        return NotFound(
            f"{thread.handle} ({thread.ref}) was ephemeral: it ended with the Codex process that held it",
            hint=another,
            details=details,
        )
    return NotFound(
        f"Codex has no thread {thread.native_id} any more, which {thread.handle} ({thread.ref}) was",
        hint=f"its history was deleted, or CODEX_HOME is another one: dispatch daemon status; {another}",
        details=details,
    )


def differs(thread: ThreadRecord, loaded: Started) -> bool:
    """Return whether Codex holds a thread with another sandbox, or elsewhere, than it was made."""
    return _difference(thread, loaded) is not None


def refuse_other_settings(thread: ThreadRecord, loaded: Started) -> None:
    """Raise CodexError when Codex holds a thread with another sandbox, or elsewhere, than it was made; nothing is sent then."""
    if (difference := _difference(thread, loaded)) is None:
        return
    setting, wanted, found = difference
    raise CodexError(
        f"Codex has loaded {thread.handle} ({thread.ref}) with the {_SETTINGS[setting]} {printable(found)}, and it was made with "
        f"{printable(wanted)}; nothing was sent",
        hint=f"dispatch fork {thread.ref} NAME --{setting} {shlex.quote(wanted)} goes on with it as it was made",
        details={"thread": thread.ref, "setting": setting, "found": found, "expected": wanted},
    )


_SETTINGS = {"sandbox": "sandbox", "cwd": "working directory"}


def _difference(thread: ThreadRecord, loaded: Started) -> tuple[str, str, str] | None:
    """Return the option that Codex does not hold as we asked for it, what it was and what it is.

    The others go with every turn. Where a thread works that somebody else made is theirs to change.
    """
    sandbox = thread.settings.sandbox
    if None not in (sandbox, loaded.sandbox) and sandbox != loaded.sandbox:
        return "sandbox", str(sandbox), str(loaded.sandbox)
    if thread.source is Source.OWN and loaded.cwd and not _same(thread.cwd, loaded.cwd):
        return "cwd", thread.cwd, loaded.cwd
    return None


def _same(directory: str, other: str) -> bool:
    return directory == other or os.path.realpath(directory) == os.path.realpath(other)


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
