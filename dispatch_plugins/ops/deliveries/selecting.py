"""Which delivery a person means: by id, by a part of it that is easy to type, or by the key they gave it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from dispatch_core.api import DeliveryFilter, DeliveryNotFound, ValidationFailed, printable

if TYPE_CHECKING:
    from dispatch_core.api import DeliveryRecord, OpContext

PART = re.compile(r"[0-9a-f-]{6,36}")
PAGE = 500  # deliveries that are looked through at once
NAMED = 3  # that a message names


async def find_delivery(context: OpContext, selector: str) -> DeliveryRecord:
    """Return the one delivery with this id or key of the caller, or whose id begins or ends with at least 6 characters.

    Raises DeliveryNotFound, or ValidationFailed when there are several.
    """
    wanted, store = selector.strip(), context.store.deliveries
    exact = await store.get(wanted.lower()) or await store.keyed(context.caller.principal, wanted)
    if exact is not None:
        return exact
    part = wanted.lower()
    found = await _with_part(context, part) if PART.fullmatch(part) else []
    if not found:
        raise DeliveryNotFound(printable(wanted))
    if len(found) > 1:
        ids = ", ".join(one.id for one in found[:NAMED]) + (" …" if len(found) > NAMED else "")
        raise ValidationFailed(
            f"{part!r} is a part of the ids of several deliveries: {ids}",
            hint="give the whole id; dispatch delivery list --json shows it",
            details={"field": "delivery", "candidates": [one.id for one in found]},
        )
    return found[0]


async def _with_part(context: OpContext, part: str) -> list[DeliveryRecord]:
    """Return the deliveries whose id begins with a part, else those whose id ends with it, at most a few."""
    store = context.store.deliveries
    found = list(await store.find(part, NAMED + 1))
    before: str | None = None
    while not found:
        page = await store.list(DeliveryFilter(before=before), PAGE)
        found = [one for one in page if one.id.endswith(part)]
        if len(page) < PAGE:
            break
        before = page[-1].id
        await checkpoint()  # a store may answer at once, and nobody else would have a turn
    return found
