"""Lists of Codex, read to their last page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import CodexError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_core.api import Codex


async def every(codex: Codex, method: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of every page of a list. Raises CodexError when a page leads back to one that was read."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    cursor: str | None = None
    while True:
        page = await codex.request(method, {**params, **({"cursor": cursor} if cursor else {})})
        data = page.get("data")
        found += [entry for entry in data if isinstance(entry, dict)] if data else []
        cursor = page.get("nextCursor")
        if not isinstance(cursor, str) or not cursor:
            return found
        if cursor in seen:
            raise CodexError(
                f"{method} goes round in circles: page {cursor!r} was read already",
                hint="dispatch doctor says whether this Codex is one that dispatch is tested with",
                details={"method": method, "cursor": cursor},
            )
        seen.add(cursor)
