"""Threads, in a dictionary."""

from __future__ import annotations

from dataclasses import fields, replace
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Any

from dispatch_core.api import StorageError, ThreadNotFound, ThreadRecord, ThreadStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dispatch_core.api import LookupField, TurnRecord

CHANGEABLE = {field.name for field in fields(ThreadRecord)} - {"key", "ref", "created_at", "turn"}
LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


class MemoryThreads:
    """A ThreadStore in a dictionary by key."""

    def __init__(self) -> None:
        self._threads: dict[str, ThreadRecord] = {}

    async def add(self, thread: ThreadRecord, refs: Sequence[str]) -> ThreadRecord:
        known = self._owner(thread.provider, thread.native_id)
        if known is not None:
            return known
        if thread.key in self._threads:
            raise StorageError(f"the key {thread.key} is taken", hint="use a new key")
        taken = {other.ref for other in self._threads.values()}
        free = next((ref for ref in refs if ref not in taken), None)
        if free is None:
            raise StorageError("all refs for this thread are taken", hint="use its full id instead")
        return self._put(replace(thread, ref=free))

    async def get(self, key: str) -> ThreadRecord | None:
        return self._threads.get(key)

    async def find(self, by: LookupField, value: str) -> tuple[ThreadRecord, ...]:
        if by == "title":
            found = [t for t in self._threads.values() if value in _names(t)]
        elif by == "title_like":
            part = value.translate(LOWER)
            found = [
                thread
                for thread in self._threads.values()
                if any(part in name.translate(LOWER) for name in _names(thread))
            ]
        else:
            found = [t for t in self._threads.values() if getattr(t, by) == value]
        return tuple(sorted(found, key=lambda thread: (thread.created_at, thread.key)))

    async def list(
        self, *, archived: bool = False, limit: int = 1000, after: str | None = None
    ) -> tuple[ThreadRecord, ...]:
        page = [
            thread
            for key, thread in sorted(self._threads.items())
            if key > (after or "") and (archived or thread.status is not ThreadStatus.ARCHIVED)
        ]
        return tuple(page[: max(limit, 0)])

    async def update(self, key: str, **changes: Any) -> ThreadRecord:
        return self._put(self._changed(key, changes))

    async def set_turn(self, key: str, turn: TurnRecord | None, **changes: Any) -> ThreadRecord:
        return self._put(replace(self._changed(key, changes), turn=turn))

    def _changed(self, key: str, changes: dict[str, Any]) -> ThreadRecord:
        wrong = sorted(changes.keys() - CHANGEABLE)
        if wrong:
            raise TypeError(f"these fields of a thread cannot be changed: {', '.join(wrong)}")
        if "updated_at" not in changes:
            raise TypeError("updated_at must be among the changes")
        if key not in self._threads:
            raise ThreadNotFound(key)
        changed = replace(self._threads[key], **changes)
        owner = self._owner(changed.provider, changed.native_id)
        if owner is not None and owner.key != key:
            raise StorageError(f"{changed.native_id} is another thread's", hint="use that thread")
        return changed

    def _owner(self, provider: str, native_id: str) -> ThreadRecord | None:
        wanted = (provider, native_id)
        threads = self._threads.values()
        return next((t for t in threads if (t.provider, t.native_id) == wanted), None)

    def _put(self, thread: ThreadRecord) -> ThreadRecord:
        self._threads[thread.key] = thread
        return thread


def _names(thread: ThreadRecord) -> Iterable[str]:
    title = () if thread.title is None else (thread.title,)
    return (*title, thread.handle, thread.handle.removeprefix("@"))
