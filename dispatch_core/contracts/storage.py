"""What a storage backend provides: a few narrow stores over frozen records.

Every method is one transaction: when it returns, the change is durable; when it raises StorageError, nothing was changed.
Cancelling a caller never splits a transaction. ``dispatch_core.testing.storage`` is the suite every backend passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AsyncExitStack
    from datetime import datetime
    from pathlib import Path

    from dispatch_core.contracts.deliveries import DeliveryStore
    from dispatch_core.contracts.history import HistoryIndex
    from dispatch_core.contracts.records import (
        ActionRecord,
        CachedRecord,
        FiringRecord,
        FiringStatus,
        ThreadRecord,
        TriggerRecord,
        TurnRecord,
    )
    from dispatch_core.contracts.requests import RequestStore
    from dispatch_core.errors import StorageError

LookupField = Literal["ref", "native_id", "handle", "title", "title_like"]


class ThreadStore(Protocol):
    """Managed threads and the latest turn of each."""

    async def add(self, thread: ThreadRecord, refs: Sequence[str]) -> ThreadRecord:
        """Store a new thread under the first of refs that no thread has, and return it with that ref.

        thread.ref is ignored. Adding a (provider, native_id) that is already there returns the stored record unchanged.
        Raises StorageError if every ref is taken; nothing is stored then.
        """
        ...

    async def get(self, key: str) -> ThreadRecord | None:
        """Return the thread with our own key, with its latest turn."""
        ...

    async def find(self, by: LookupField, value: str) -> tuple[ThreadRecord, ...]:
        """Return the threads that match, oldest first.

        "title": equals the title, the handle, or the handle without its ``@``. "title_like": one of these three contains value,
        ignoring ASCII case; ``%`` and ``_`` in value stand for themselves. The other fields match exactly.
        """
        ...

    async def list(
        self, *, archived: bool = False, limit: int = 1000, after: str | None = None
    ) -> tuple[ThreadRecord, ...]:
        """Return threads in order of key (creation), at most limit, after the key ``after``; archived ones only if asked."""
        ...

    async def update(self, key: str, **changes: Any) -> ThreadRecord:
        """Change named fields of ThreadRecord, except key, ref, created_at and turn, and return the new record.

        updated_at must be among the changes. Raises LookupError for an unknown key and TypeError for an unknown field.
        """
        ...

    async def set_turn(self, key: str, turn: TurnRecord | None, **changes: Any) -> ThreadRecord:
        """Replace the latest turn, or forget it, and in the same transaction change the given fields as ``update`` does.

        turn: None when the thread has no turn any more; that it had none before is no error.
        """
        ...


class ActionLog(Protocol):
    """The audit log of what was asked for and how it ended."""

    async def append(self, action: ActionRecord) -> None: ...

    async def latest(self, limit: int) -> tuple[ActionRecord, ...]:
        """Return at most limit actions, newest first."""
        ...


class TriggerStore(Protocol):
    """Triggers."""

    async def add(self, trigger: TriggerRecord) -> None:
        """Store a new trigger. Raises ValueError if its id is taken."""
        ...

    async def get(self, trigger_id: str) -> TriggerRecord | None: ...

    async def list(self) -> tuple[TriggerRecord, ...]:
        """Return all triggers in order of creation."""
        ...

    async def remove(self, trigger_id: str) -> bool:
        """Remove a trigger and its firings; True if it was there."""
        ...

    async def update(
        self, trigger_id: str, *, enabled: bool | None = None, next_at: datetime | None = None
    ) -> bool:
        """Change enabled unless it is None, set next_at (None clears it); True if the trigger is there."""
        ...


class FiringStore(Protocol):
    """The ledger that makes every occasion fire once."""

    async def claim(self, trigger_id: str, key: str, at: datetime) -> bool:
        """Record a firing as CLAIMED and say whether it is new.

        True exactly once per (trigger_id, key), also across restarts and concurrent callers.
        key: at most 200 characters, chosen by the trigger kind; never reused for another occasion.
        Raises StorageError if the registry cannot be written; the firing is then not recorded.
        """
        ...

    async def finish(
        self, trigger_id: str, key: str, status: FiringStatus, detail: str | None = None
    ) -> None:
        """Record the outcome of a claimed firing; does nothing if the trigger is gone."""
        ...

    async def latest(self, trigger_id: str) -> FiringRecord | None:
        """Return the newest firing of a trigger."""
        ...

    async def claimed(self) -> tuple[FiringRecord, ...]:
        """Return every firing that is CLAIMED, oldest first: at the daemon's start, what the former one had not finished."""
        ...


class CacheStore(Protocol):
    """What Codex said and may be asked again: the model catalog, the permission profiles."""

    async def get(self, name: str) -> CachedRecord | None:
        """Return what was put under this name last."""
        ...

    async def put(self, name: str, value: Any, at: datetime) -> None:
        """Keep a JSON value under a name, in place of the one before. Raises TypeError or ValueError unless it is JSON."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryReport:
    """What a look at the registry found, without changing it.

    schema: version of the data, None when there is none. supported: the version this build writes. problems: what is wrong, in
    sentences; empty when nothing is. counts: rows by noun.
    """

    path: str
    exists: bool
    schema: int | None
    supported: int
    problems: tuple[str, ...]
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What a migration did. backup: the copy that was made before, None when nothing was to be done or none was wanted."""

    path: str
    before: int
    after: int
    backup: str | None


class Maintenance(Protocol):
    """What a person does to the data while no daemon runs. Blocking; nothing needs to be open."""

    def check(self) -> RegistryReport:
        """Look at the data: whether it is whole, of which version, and how much there is. Never raises for bad data."""
        ...

    def backup(self, target: Path | None = None) -> Path:
        """Write a complete, private copy and return its path; also while a daemon runs. Never overwrites a file.

        Raises StorageError.
        """
        ...

    def migrate(self, *, backup: bool = True) -> MigrationReport:
        """Bring the data to the version this build writes, all or nothing. Raises StorageError."""
        ...


class Storage(Protocol):
    """One backend.

    full: there is no room for anything new; what was accepted can still be brought to its end. index: full-text search over
    histories, None for a backend without one. maintenance: None for a backend that needs none.
    """

    name: str
    threads: ThreadStore
    actions: ActionLog
    triggers: TriggerStore
    firings: FiringStore
    cache: CacheStore
    deliveries: DeliveryStore
    requests: RequestStore
    index: HistoryIndex | None
    maintenance: Maintenance | None

    @property
    def full(self) -> bool:
        """Whether messages have to be refused because there is no room to keep them."""
        ...

    @property
    def fault(self) -> StorageError | None:
        """Why nothing is written any more until another daemon opens the backend; None while all is well."""
        ...

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the backend, bring its schema up to date, and push its cleanup on the caller's stack.

        Raises StorageError, with the path and the way out, when the data is newer than this build, damaged or not ours.
        """
        ...
