"""What Codex sent is shown whole, and nothing of it acts on the terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dispatch_core.appserver.request_answers import choices
from dispatch_core.appserver.requests import FileChanges, read_request
from dispatch_core.contracts.requests import RequestState
from dispatch_core.contracts.view import View
from dispatch_plugins.ops.requests.contract import ChoiceView, RequestView, ShowOutput
from dispatch_plugins.ops.requests.text import render_show

NOW = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
HOSTILE = "a\x1b[2J\x1b]0;t\x07\r\u202eb\u2066\u200b\u2028\x9b1A\ud800\U000e0041z"
COMMAND = "item/commandExecution/requestApproval"
FILES = "item/fileChange/requestApproval"
CASES = {
    "command": (COMMAND, {"command": HOSTILE, "cwd": HOSTILE, "reason": HOSTILE}),
    "network": (COMMAND, {"networkApprovalContext": {"host": HOSTILE, "protocol": HOSTILE}}),
    "files": (FILES, {"reason": HOSTILE, "grantRoot": HOSTILE}),
    "permissions": (
        "item/permissions/requestApproval",
        {"permissions": {HOSTILE: [HOSTILE]}, "reason": HOSTILE},
    ),
    "questions": (
        "item/tool/requestUserInput",
        {
            "questions": [
                {
                    "id": HOSTILE,
                    "header": HOSTILE,
                    "question": HOSTILE,
                    "options": [{"label": HOSTILE, "description": HOSTILE}],
                }
            ]
        },
    ),
    "tool": (
        "item/tool/call",
        {"tool": HOSTILE, "namespace": HOSTILE, "arguments": {HOSTILE: HOSTILE}},
    ),
    "mcp": (
        "mcpServer/elicitation/request",
        {
            "serverName": HOSTILE,
            "message": HOSTILE,
            "_meta": {
                "codex_approval_kind": "mcp_tool_call",
                "tool_name": HOSTILE,
                "tool_params": {HOSTILE: HOSTILE},
            },
        },
    ),
    "form": (
        "mcpServer/elicitation/request",
        {
            "serverName": HOSTILE,
            "mode": "form",
            "message": HOSTILE,
            "requestedSchema": {HOSTILE: 1},
        },
    ),
}


def shown(method, params):
    changes = FileChanges()
    change = {"path": HOSTILE, "kind": {"type": "add"}, "diff": f"first\n{HOSTILE}\n\tlast line"}
    item = {"type": "fileChange", "id": "i", "changes": [change]}
    changes.notified("item/started", {"threadId": "t", "item": item})
    asked = read_request(method, {"threadId": "t", "itemId": "i", **params}, changes)
    return ShowOutput(
        thread=None,
        request=RequestView(
            id="01a00000-0000-7000-8000-000000000000",
            kind=asked.kind,
            state=RequestState.OPEN,
            summary=asked.summary,
            turn_id=None,
            asked_at=NOW,
            deadline=NOW + timedelta(minutes=5),
            answered_by=None,
            decision=None,
            closed_at=None,
            detail=None,
        ),
        method=method,
        digest="0" * 64,
        body=dict(asked.body),
        cut=False,
        choices=[
            ChoiceView(
                command=f"dispatch request respond ID {choice.options}", meaning=choice.meaning
            )
            for choice in choices(asked.kind, asked.body)
        ],
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [20, 80])
def test_no_character_of_codex_acts_on_the_terminal(case, width):
    text = render_show(shown(*CASES[case]), View(width, False, NOW))

    bad = {char for char in text if char != "\n" and not char.isprintable()}
    assert bad == set()
    assert "\\x1b[2J" in text.replace("\n", "").replace(" ", "")


def test_every_line_of_a_diff_is_shown():
    text = render_show(shown(FILES, {}), View(200, False, NOW))

    assert "first" in text
    assert "last line" in text


def test_an_open_request_says_how_long_it_waits_and_how_to_answer():
    output = shown(COMMAND, {"command": "ls"})

    text = render_show(output, View(80, False, NOW))
    closed = output.request.model_copy(update={"state": RequestState.EXPIRED})
    after = render_show(
        output.model_copy(update={"request": closed, "choices": []}), replace(View(80, False, NOW))
    )

    assert "5m" in text
    assert "dispatch request respond ID --accept" in text
    assert "--accept" not in after
