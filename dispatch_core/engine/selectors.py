"""Which thread a selector names. The order of the steps is the contract."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dispatch_core.contracts.records import ThreadStatus
from dispatch_core.errors import AmbiguousSelector, ThreadNotFound, ValidationFailed

if TYPE_CHECKING:
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.contracts.storage import LookupField, ThreadStore

SELECTOR_LIMIT = 500
ID_PREFIX = 8
FULL_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ORDER: tuple[LookupField, ...] = ("ref", "native_id", "handle", "title")
AFTER_AT: tuple[LookupField, ...] = ("handle", "title")


async def resolve(store: ThreadStore, selector: str, *, fuzzy: bool = False) -> ThreadRecord:
    """Return the one thread that selector names: exact ref, id, handle, title; with fuzzy, a unique part of a title.

    A selector that starts with ``@`` is never taken for an id. Raises ThreadNotFound, or AmbiguousSelector with the candidates.
    """
    if not selector or len(selector) > SELECTOR_LIMIT:
        raise ValidationFailed(
            f"a thread selector has 1 to {SELECTOR_LIMIT} characters",
            hint="dispatch list shows the refs",
        )
    if any("\ud800" <= char <= "\udfff" for char in selector):
        raise ValidationFailed(
            "the thread selector is not valid Unicode", hint="dispatch list shows the refs"
        )
    for by in AFTER_AT if selector.startswith("@") else ORDER:
        found = await store.find(by, selector)
        if found:
            return _only(selector, found)
    if fuzzy:
        found = await store.find("title_like", selector)
        if found:
            return _only(selector, found)
    error = ThreadNotFound(selector, similar=await _similar(store, selector))
    if FULL_ID.fullmatch(selector):
        error.hint = f"dispatch attach {selector} registers it, if Codex has it"
    raise error


async def locate(store: ThreadStore, selector: str, *, fuzzy: bool = False) -> ThreadRecord | str:
    """Return the managed thread that selector names, or selector itself if it is shaped like the full id of a Codex thread."""
    try:
        return await resolve(store, selector, fuzzy=fuzzy)
    except ThreadNotFound:
        if FULL_ID.fullmatch(selector):
            return selector
        raise


def _only(selector: str, found: tuple[ThreadRecord, ...]) -> ThreadRecord:
    # An archived thread gives its name away: a new thread may have it.
    found = tuple(t for t in found if t.status is not ThreadStatus.ARCHIVED) or found
    if len(found) == 1:
        return found[0]
    raise AmbiguousSelector(
        selector,
        [
            {
                "ref": thread.ref,
                "id_prefix": thread.native_id[:ID_PREFIX],
                "title": thread.title or thread.handle,
                "managed": True,
                "cwd": thread.cwd,
            }
            for thread in found
        ],
    )


async def _similar(store: ThreadStore, selector: str) -> list[str]:
    from difflib import get_close_matches  # noqa: PLC0415 -- for memory: only mistakes need it

    threads = await store.list(limit=500)
    names = [name for thread in threads for name in (thread.handle, thread.ref)]
    wanted = [selector] if selector.startswith("@") else [selector, f"@{selector}"]
    return list(
        dict.fromkeys(m for w in wanted for m in get_close_matches(w, names, n=3, cutoff=0.7))
    )
