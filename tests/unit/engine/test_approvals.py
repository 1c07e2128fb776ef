"""Every request of Codex gets an answer, and none of them is a yes."""

from __future__ import annotations

import pytest

from dispatch_core.appserver.requests import NOBODY
from dispatch_core.contracts.events import EventKind
from dispatch_core.engine.approvals import Approvals
from dispatch_core.engine.events import EventBus

# What is asked, and the one answer that grants nothing.
CASES = {
    "item/commandExecution/requestApproval": (
        {"kind": "command", "command": "touch x"},
        {"decision": "decline"},
    ),
    "item/fileChange/requestApproval": ({"grantRoot": None}, {"decision": "decline"}),
    "item/permissions/requestApproval": (
        {"permissions": {"network": {"enabled": True}}},
        {"permissions": {}, "scope": "turn"},
    ),
    "item/tool/requestUserInput": (
        {"questions": [{"id": "q1", "question": "?"}]},
        {"answers": {}},
    ),
    "item/tool/call": (
        {"tool": "t", "arguments": {}},
        {"contentItems": [{"type": "inputText", "text": NOBODY}], "success": False},
    ),
    "mcpServer/elicitation/request": (
        {"mode": "form", "message": "?"},
        {"action": "decline", "content": None, "_meta": None},
    ),
    "applyPatchApproval": ({"callId": "c"}, {"decision": "denied"}),
    "execCommandApproval": ({"callId": "c"}, {"decision": "denied"}),
}
UNSUPPORTED = ["account/chatgptAuthTokens/refresh", "attestation/generate", "currentTime/read"]


@pytest.fixture
def events(world):
    return EventBus(world.clock)


@pytest.mark.parametrize("method", CASES)
def test_an_approval_is_declined_and_told(events, method):
    asked, expected = CASES[method]
    approvals = Approvals(events, {"t1": "key-1"}.get)
    params = {"threadId": "t1", "turnId": "turn-1", "itemId": "i", **asked}

    answer = approvals.answer(method, params)

    assert answer == expected
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
