"""Triggers and their firings, in dictionaries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from dispatch_core.api import FiringRecord, FiringStatus

if TYPE_CHECKING:
    from datetime import datetime

    from dispatch_core.api import TriggerRecord


class MemoryFirings:
    """A FiringStore in a dictionary of dictionaries: trigger id, then key, in order of claiming."""

    def __init__(self) -> None:
        self._firings: dict[str, dict[str, FiringRecord]] = {}

    def track(self, trigger_id: str) -> None:
        """Accept claims for a trigger from now on."""
        self._firings[trigger_id] = {}

    def forget(self, trigger_id: str) -> None:
        """Drop a trigger's firings and refuse further claims."""
        self._firings.pop(trigger_id, None)

    async def claim(self, trigger_id: str, key: str, at: datetime) -> bool:
        ledger = self._firings.get(trigger_id)
        if ledger is None or key in ledger:
            return False
        ledger[key] = FiringRecord(
            trigger_id=trigger_id, key=key, status=FiringStatus.CLAIMED, at=at
        )
        return True

    async def finish(
        self, trigger_id: str, key: str, status: FiringStatus, detail: str | None = None
    ) -> None:
        ledger = self._firings.get(trigger_id, {})
        if key in ledger:
            ledger[key] = replace(ledger[key], status=status, detail=detail)

    async def latest(self, trigger_id: str) -> FiringRecord | None:
        newest_first = reversed(self._firings.get(trigger_id, {}).values())
        return max(newest_first, key=lambda firing: firing.at, default=None)

    async def claimed(self) -> tuple[FiringRecord, ...]:
        firings = (firing for ledger in self._firings.values() for firing in ledger.values())
        return tuple(firing for firing in firings if firing.status is FiringStatus.CLAIMED)


class MemoryTriggers:
    """A TriggerStore in a dictionary by id; it tells the firings which triggers there are."""

    def __init__(self, firings: MemoryFirings) -> None:
        self._triggers: dict[str, TriggerRecord] = {}
        self._firings = firings

    async def add(self, trigger: TriggerRecord) -> None:
        if trigger.id in self._triggers:
            raise ValueError(f"the trigger id {trigger.id!r} is taken")
        self._triggers[trigger.id] = trigger
        self._firings.track(trigger.id)

    async def get(self, trigger_id: str) -> TriggerRecord | None:
        return self._triggers.get(trigger_id)

    async def list(self) -> tuple[TriggerRecord, ...]:
        return tuple(sorted(self._triggers.values(), key=lambda trigger: trigger.created_at))

    async def remove(self, trigger_id: str) -> bool:
        self._firings.forget(trigger_id)
        return self._triggers.pop(trigger_id, None) is not None

    async def update(
        self, trigger_id: str, *, enabled: bool | None = None, next_at: datetime | None = None
    ) -> bool:
        trigger = self._triggers.get(trigger_id)
        if trigger is None:
            return False
        kept = trigger.enabled if enabled is None else enabled
        self._triggers[trigger_id] = replace(trigger, enabled=kept, next_at=next_at)
        return True
