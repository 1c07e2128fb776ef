"""Every request of Codex gets an answer, and none of them is a yes."""

from __future__ import annotations

import json

import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.engine.approvals import Approvals
from dispatch_core.engine.events import EventBus

CASES = {
    "item/commandExecution/requestApproval": {"kind": "command", "command": "touch x"},
    "item/fileChange/requestApproval": {"grantRoot": None},
    "item/permissions/requestApproval": {"permissions": {"network": {"enabled": True}}},
    "item/tool/requestUserInput": {"questions": [{"id": "q1", "question": "?"}]},
    "item/tool/call": {"tool": "t", "arguments": {}},
    "mcpServer/elicitation/request": {"mode": "form", "message": "?"},
    "applyPatchApproval": {"callId": "c"},
    "execCommandApproval": {"callId": "c"},
}
UNSUPPORTED = ["account/chatgptAuthTokens/refresh", "attestation/generate", "currentTime/read"]


@pytest.fixture
def events(world):
    return EventBus(world.clock)


@pytest.mark.parametrize("method", CASES)
def test_an_approval_is_declined_and_told(events, method):
    approvals = Approvals(events, {"t1": "key-1"}.get)
    params = {"threadId": "t1", "turnId": "turn-1", "itemId": "i", **CASES[method]}

    answer = approvals.answer(method, params)

    said = json.dumps(answer).lower()
    assert "accept" not in said
    assert "approved" not in said
    [event] = events._ring
    assert (event.kind, event.thread) == (EventKind.APPROVAL_REQUESTED, "key-1")
    assert (event.turn_id, event.data) == ("turn-1", {"method": method, "answer": "declined"})


@pytest.mark.parametrize("method", UNSUPPORTED)
def test_what_dispatch_cannot_do_is_refused_as_unknown(events, method):
    assert Approvals(events, {}.get).answer(method, {}) is None
    assert events._ring[0].data["answer"] == "unsupported"


def test_a_request_of_a_thread_we_do_not_manage_is_answered_as_well(events):
    answer = Approvals(events, {}.get).answer(
        "item/commandExecution/requestApproval", {"threadId": ["odd"]}
    )

    assert answer == {"decision": "decline"}
