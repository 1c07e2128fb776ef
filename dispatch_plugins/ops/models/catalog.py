"""What Codex offers, page by page, and kept for when it is not there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dispatch_core.api import CodexError, OutcomeUnknown, StorageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from dispatch_core.api import OpContext

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was found. value: None when nothing is known. warning: why the cache had to do."""

    value: Any
    source: Literal["app-server", "cache"]
    at: datetime | None
    warning: str | None = None


async def look(
    context: OpContext, name: str, ask: Callable[[], Awaitable[Any]], *, refresh: bool
) -> Look:
    """Return what ``ask`` says, kept under a name; without refresh, or when Codex is not there, what was kept.

    Raises what ``ask`` raises when nothing was kept.
    """
    if not refresh:
        return await _kept(context, name)
    try:
        value = await ask()
    except (CodexError, OutcomeUnknown) as error:
        kept = await _kept(context, name, warning=error.message)
        if kept.at is None:
            raise
        return kept
    at = context.clock.now()
    try:
        await context.store.cache.put(name, value, at)
    except StorageError as error:
        log.warning("%s is not kept: %s", name, error)  # the answer is as good without
    return Look(value=value, source="app-server", at=at)


async def _kept(context: OpContext, name: str, warning: str | None = None) -> Look:
    record = await context.store.cache.get(name)
    if record is None:
        return Look(value=None, source="cache", at=None, warning=warning)
    return Look(value=record.value, source="cache", at=record.at, warning=warning)
