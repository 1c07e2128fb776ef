"""Records with every field filled, and records that differ from one another, for tests of backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from dispatch_core.api import (
    DeliveryRecord,
    DeliveryState,
    Epoch,
    Image,
    Message,
    RequestKind,
    RequestRecord,
    Source,
    Storage,
    ThreadRecord,
    ThreadSettings,
    ThreadStatus,
    TriggerRecord,
    TurnRecord,
    TurnStatus,
    When,
)

OpenStorage: TypeAlias = Callable[[AsyncExitStack], Awaitable[Storage]]

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = START + timedelta(minutes=1)
EVERY_SETTING = ThreadSettings(
    sandbox="workspace-write",
    approval_policy="never",
    approvals_reviewer="auto",
    permissions="careful",
    model="m",
    model_provider="p",
    effort="high",
    summary="concise",
    personality="friendly",
    service_tier="priority",
    output_schema={"type": "object", "properties": {"ü": {"enum": [1, None, True, 0.5, []]}}},
    base_instructions="Ünïcode\n✓",
    developer_instructions="",
)
EPOCH = Epoch(
    boot_id="0b0b0b0b-0000-4000-8000-000000000001", pid=4711, start_time=12345, generation=7
)
EVERY_DELIVERY = DeliveryRecord(
    id="id-every",
    thread="key-0001",
    state=DeliveryState.RUNNING,
    when=When.INTERJECT,
    digest="0f" * 32,
    principal="agent:key-0002",
    created_at=START,
    message=Message(
        text="Ünïcode ✓\n",
        images=(Image(path="/srv/ä.png", detail="high"), Image(path="/srv/b.png")),
    ),
    position=1,
    key="key of the sender",
    attempt=2,
    deaths=1,
    epoch=EPOCH,
    turn_id="turn-1",
    merged=True,
    evidence="history",
    reason="a reason",
    retry_of="id-before",
    expires_at=START + timedelta(hours=1),
    claimed_at=START + timedelta(seconds=1),
    ended_at=START + timedelta(seconds=2),
)
# The epoch is what a move is compared with.
NOT_CHANGED_ALONE = {"id", "thread", "state", "created_at", "epoch"}
PATIENCE = 20.0  # seconds; a backend that waits for ever fails instead of hanging the run


def a_thread(number: int = 1, **fields: Any) -> ThreadRecord:
    """Return a thread that differs from that of every other number in key, native id, handle and age."""
    plain = ThreadRecord(
        key=f"key-{number:04}",
        provider="codex",
        native_id=f"native-{number}",
        ref="",
        handle=f"@thread-{number}",
        title=None,
        source=Source.OWN,
        status=ThreadStatus.IDLE,
        cwd="/srv/project",
        settings=ThreadSettings(),
        created_at=START + timedelta(seconds=number),
        updated_at=START + timedelta(seconds=number),
    )
    return replace(plain, **fields)


def a_turn(**fields: Any) -> TurnRecord:
    """Return a turn that has been submitted."""
    plain = TurnRecord(
        message_id="message-1", id=None, status=TurnStatus.SUBMITTED, started_at=START
    )
    return replace(plain, **fields)


def a_trigger(number: int = 1, **fields: Any) -> TriggerRecord:
    """Return a trigger that differs from that of every other number in id, name and age."""
    plain = TriggerRecord(
        id=f"trigger-{number}",
        name=f"on-{number}",
        kind="interval",
        config={"every": 60, "labels": ["é", None]},
        thread="@thread-1",
        op="send",
        args={"text": "go"},
        created_at=START + timedelta(seconds=number),
    )
    return replace(plain, **fields)


def a_delivery(number: int = 1, **fields: Any) -> DeliveryRecord:
    """Return a queued delivery for the first thread; that of every other number differs in id and age."""
    plain = DeliveryRecord(
        id=f"id-{number:04}",
        thread="key-0001",
        state=DeliveryState.QUEUED,
        when=When.IDLE,
        digest="d",
        principal="human",
        created_at=START + timedelta(seconds=number),
        message=Message(text=f"message {number}"),
    )
    return replace(plain, **fields)


async def deliveries_in_every_state(storage: Storage) -> list[DeliveryRecord]:
    """Add, to each of two threads, a delivery in each state; of those in flight a thread has one."""
    states = [s for s in DeliveryState if s not in (DeliveryState.SENDING, DeliveryState.SUBMITTED)]
    added = []
    for number in (1, 2):
        await storage.threads.add(a_thread(number), [f"0AAAA{number}"])
    for number, state in enumerate(2 * states):
        thread = f"key-{1 + number // len(states):04}"
        added.append(await storage.deliveries.add(a_delivery(number, thread=thread, state=state)))
    return added


def a_request(number: int = 1, **fields: Any) -> RequestRecord:
    """Return an open request that differs from that of every other number in id, rpc id and deadline."""
    plain = RequestRecord(
        id=f"request-{number:04}",
        thread="key-0001",
        turn_id="turn-1",
        item_id=None,
        method="item/commandExecution/requestApproval",
        kind=RequestKind.COMMAND,
        rpc_id=str(number),
        epoch="epoch-1",
        summary="run: Ünïcode",
        digest="0" * 64,
        body={"command": "touch \u202e x", "actions": [], "network": None},
        asked_at=START,
        deadline=START + timedelta(seconds=number),
    )
    return replace(plain, **fields)
