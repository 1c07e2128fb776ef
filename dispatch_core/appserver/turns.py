"""Codex's turn methods as plain calls: typed in, the few facts we need out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatch_core.appserver import history
from dispatch_core.appserver.calls import TurnGone, call, typed
from dispatch_core.appserver.messages import (
    CommandsCleanParams,
    CommandsListParams,
    CommandTerminateParams,
    ThreadInjectItemsParams,
    TurnInterruptParams,
    TurnStartParams,
    TurnSteerParams,
    context_item,
    message_input,
)
from dispatch_core.appserver.signals import turn_status
from dispatch_core.errors import CodexError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from dispatch_core.contracts.context import Codex
    from dispatch_core.contracts.records import Message, ThreadSettings, TurnStatus

MAX_PAGES = 100


@dataclass(frozen=True, slots=True)
class FoundTurn:
    """What history says about a turn. has_message: whether the message that was looked for is in it."""

    id: str
    status: TurnStatus
    error: str | None
    has_message: bool


@dataclass(frozen=True, slots=True)
class RunningCommand:
    """A command that runs. item_id: of the item it is in its turn; process_id: Codex's own, by which it is ended."""

    item_id: str
    process_id: str


async def start(
    codex: Codex, thread_id: str, message: Message, message_id: str, settings: ThreadSettings
) -> str:
    """Start a turn with one message and return its id.

    The thread's own settings go with every turn, except the sandbox: here Codex takes a whole policy instead of a mode, and that
    would undo the user's own network access and writable roots. The mode is given when the thread is started or loaded.
    """
    params = TurnStartParams(
        thread_id=thread_id,
        input=message_input(message),
        client_user_message_id=message_id,
        model=settings.model,
        effort=settings.effort,
        summary=settings.summary,
        personality=settings.personality,
        service_tier=settings.service_tier,
        output_schema=None if settings.output_schema is None else dict(settings.output_schema),
        approval_policy=settings.approval_policy,
        approvals_reviewer=settings.approvals_reviewer,
        permissions=settings.permissions,
    )
    result = await call(codex, "turn/start", params)
    return str(result["turn"]["id"])


async def steer(
    codex: Codex, thread_id: str, message: Message, message_id: str, *, turn_id: str
) -> str:
    """Hand a message to the running turn and return the id of the turn that took it.

    That Codex takes it does not mean that it is said: a turn that is interrupted while a command runs drops it. Raises TurnGone
    when this turn does not run, and NotSteerable when it takes no messages; then nothing was said.
    """
    params = TurnSteerParams(
        thread_id=thread_id,
        expected_turn_id=turn_id,
        input=message_input(message),
        client_user_message_id=message_id,
    )
    result = await call(codex, "turn/steer", params)
    return str(result.get("turnId") or turn_id)


async def interrupt(codex: Codex, thread_id: str, turn_id: str) -> None:
    """Ask Codex to end a turn; one that has ended meanwhile is no error."""
    params = TurnInterruptParams(thread_id=thread_id, turn_id=turn_id)
    with suppress(TurnGone):
        await call(codex, "turn/interrupt", params)


async def inject(codex: Codex, thread_id: str, text: str) -> None:
    """Put text into the context of a loaded thread, as a message of the user that starts no turn."""
    params = ThreadInjectItemsParams(thread_id=thread_id, items=(context_item(text),))
    await call(codex, "thread/inject_items", params)


async def stop_commands(codex: Codex, thread_id: str, *, keep: AbstractSet[str]) -> int:
    """End the commands that run in a thread, except the items in keep, and return how many those were.

    Raises CapabilityUnavailable when this Codex cannot.
    """
    running = await running_commands(codex, thread_id)
    doomed = [command for command in running if command.item_id not in keep]
    if doomed and len(doomed) == len(running):
        params = CommandsCleanParams(thread_id=thread_id)
        await call(codex, "thread/backgroundTerminals/clean", params)
        return len(doomed)
    for command in doomed:
        await call(
            codex,
            "thread/backgroundTerminals/terminate",
            CommandTerminateParams(thread_id=thread_id, process_id=command.process_id),
        )
    return len(doomed)


async def running_commands(codex: Codex, thread_id: str) -> list[RunningCommand]:
    """Return the commands that run in a loaded thread. Raises CapabilityUnavailable when this Codex cannot tell."""
    found: list[RunningCommand] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        params = CommandsListParams(thread_id=thread_id, cursor=cursor)
        answer = await call(codex, "thread/backgroundTerminals/list", params)
        data = answer.get("data")
        found += [
            RunningCommand(str(entry.get("itemId")), str(entry["processId"]))
            for entry in (data if isinstance(data, list) else ())
            if isinstance(entry, dict) and "processId" in entry
        ]
        cursor = answer.get("nextCursor")
        if not isinstance(cursor, str):
            break
    return found


async def find_turn(
    codex: Codex, thread_id: str, *, turn_id: str | None, message_id: str | None
) -> FoundTurn | None:
    """Return the turn that a message became, from history, or None when history has none."""
    try:
        turn = await history.find_turn(codex, thread_id, turn_id=turn_id, client_id=message_id)
    except CodexError as error:
        raise typed(error) from error
    if turn is None:
        return None
    has_message = message_id is not None and turn.holds_message(message_id)
    return FoundTurn(turn.id, turn_status(turn.status), turn.error_message, has_message)
