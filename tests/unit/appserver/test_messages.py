from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dispatch_core.appserver.client import OPT_OUT
from dispatch_core.appserver.items import item_text
from dispatch_core.appserver.messages import (
    Capabilities,
    ClientInfo,
    CommandsCleanParams,
    CommandsListParams,
    CommandTerminateParams,
    InitializeParams,
    ThreadInjectItemsParams,
    TurnInfo,
    TurnInterruptParams,
    TurnStartParams,
    TurnSteerParams,
    context_item,
    message_input,
    text_input,
)
from dispatch_core.appserver.thread_messages import (
    ThreadForkParams,
    ThreadIdParams,
    ThreadItemsListParams,
    ThreadNameSetParams,
    ThreadResumeParams,
    ThreadRevertParams,
    ThreadStartParams,
    ThreadTurnsListParams,
)
from dispatch_core.contracts.records import Image, Message

SENT = [
    (
        "initialize",
        InitializeParams(
            client_info=ClientInfo(name="dispatch", title="dispatch", version="1"),
            capabilities=Capabilities(experimental_api=True, opt_out_notification_methods=OPT_OUT),
        ),
    ),
    ("thread/start", ThreadStartParams(cwd="/w")),
    *(
        (
            "thread/start",
            ThreadStartParams(
                cwd="/w",
                sandbox=mode,
                approval_policy=policy,
                model="m",
                model_provider="p",
                thread_source="dispatch",
                config={"model_reasoning_effort": "low"},
            ),
        )
        for mode in ("read-only", "workspace-write", "danger-full-access")
        for policy in ("untrusted", "on-request", "never")
    ),
    ("thread/resume", ThreadResumeParams(thread_id="t")),
    *(
        (
            "thread/start",
            ThreadStartParams(
                cwd="/w",
                permissions=":read-only",
                approvals_reviewer=reviewer,
                service_tier="flex",
                base_instructions="b",
                developer_instructions="d",
                personality=personality,
                ephemeral=True,
            ),
        )
        for reviewer in ("user", "auto_review", "guardian_subagent")
        for personality in ("none", "friendly", "pragmatic")
    ),
    (
        "thread/resume",
        ThreadResumeParams(
            thread_id="t",
            service_tier="flex",
            personality="none",
            base_instructions="b",
            developer_instructions="d",
            config={"model_reasoning_summary": "concise"},
        ),
    ),
    (
        "thread/fork",
        ThreadForkParams(
            thread_id="t", last_turn_id="u", cwd="/w", sandbox="read-only", thread_source="dispatch"
        ),
    ),
    *(
        (method, ThreadIdParams(thread_id="t"))
        for method in ("thread/read", "thread/archive", "thread/unarchive", "thread/compact/start")
    ),
    ("thread/revert", ThreadRevertParams(thread_id="t", before_turn_id="u")),
    ("thread/items/list", ThreadItemsListParams(thread_id="t", limit=5)),
    ("thread/items/list", ThreadItemsListParams(thread_id="t", limit=5, cursor="c")),
    ("thread/name/set", ThreadNameSetParams(thread_id="t", name="n")),
    ("thread/turns/list", ThreadTurnsListParams(thread_id="t")),
    ("thread/turns/list", ThreadTurnsListParams(thread_id="t", limit=5, cursor="c")),
    ("turn/start", TurnStartParams(thread_id="t", input=(text_input("x"),))),
    (
        "turn/start",
        TurnStartParams(
            thread_id="t",
            input=(text_input("x"), text_input("y")),
            client_user_message_id="u",
            model="m",
            effort="high",
            approval_policy="never",
            cwd="/w",
        ),
    ),
    *(
        (
            "turn/start",
            TurnStartParams(
                thread_id="t",
                input=message_input(
                    Message(text="x", images=(Image(path="/p.png", detail=detail),))
                ),
                summary=summary,
                personality=personality,
                service_tier="flex",
                output_schema={"type": "object"},
                approvals_reviewer=reviewer,
                permissions=":workspace",
            ),
        )
        for detail, summary, personality, reviewer in (
            (None, "auto", "none", "user"),
            ("auto", "concise", "friendly", "auto_review"),
            ("high", "detailed", "pragmatic", "guardian_subagent"),
            ("original", "none", None, None),
        )
    ),
    (
        "turn/steer",
        TurnSteerParams(
            thread_id="t",
            expected_turn_id="u",
            input=message_input(Message(text="x", images=(Image(path="/p.png"),))),
            client_user_message_id="m",
        ),
    ),
    ("turn/interrupt", TurnInterruptParams(thread_id="t", turn_id="u")),
    ("thread/inject_items", ThreadInjectItemsParams(thread_id="t", items=(context_item("x"),))),
    ("thread/backgroundTerminals/list", CommandsListParams(thread_id="t")),
    ("thread/backgroundTerminals/list", CommandsListParams(thread_id="t", cursor="c")),
    ("thread/backgroundTerminals/clean", CommandsCleanParams(thread_id="t")),
    (
        "thread/backgroundTerminals/terminate",
        CommandTerminateParams(thread_id="t", process_id="p"),
    ),
]


@pytest.fixture(scope="session")
def requests(schema_dir):
    """The schema of each method's params, closed against fields that Codex would ignore."""
    whole = json.loads((schema_dir / "ClientRequest.json").read_text())
    found = {}
    for variant in whole["oneOf"]:
        method = variant["properties"]["method"]["enum"][0]
        name = variant["properties"]["params"].get("$ref", "").rpartition("/")[2]
        found[method] = jsonschema.Draft7Validator(
            whole["definitions"].get(name, {})
            | {"additionalProperties": False, "definitions": whole["definitions"]}
        )
    return found


@pytest.mark.parametrize(("method", "params"), SENT)
def test_what_we_send_is_what_the_installed_codex_declares(requests, method, params):
    wire = json.loads(json.dumps(params.wire()))

    requests[method].validate(wire)


def test_the_schema_check_can_fail(requests):
    with pytest.raises(jsonschema.ValidationError):
        requests["thread/name/set"].validate({"threadId": "t", "name": "n", "extra": 1})
    with pytest.raises(jsonschema.ValidationError):
        requests["thread/name/set"].validate({"name": "n"})


def test_what_is_not_set_is_not_sent():
    params = TurnStartParams(thread_id="t", input=(text_input("hi"),))

    assert params.wire() == {"threadId": "t", "input": ({"type": "text", "text": "hi"},)}


def test_a_misspelt_field_is_refused():
    with pytest.raises(ValidationError):
        ThreadStartParams.model_validate({"cwd": "/w", "sandbx": "read-only"})


def test_a_turn_is_read_with_its_error():
    turn = TurnInfo.model_validate(
        {
            "id": "u",
            "status": "failed",
            "error": {"message": "the model is not there", "codexErrorInfo": "modelNotFound"},
            "items": [{"type": "userMessage", "id": "i", "clientId": "c"}, 7],
            "startedAt": 5,
            "new": {"field": 1},
        }
    )

    assert (turn.status, turn.error_message) == ("failed", "the model is not there")
    assert turn.started_at == 5
    assert turn.holds_message("c")
    assert not turn.holds_message("d")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["status", "items", "error", "name", "startedAt"]), JSON))
def test_only_the_id_must_be_as_expected(fields):
    assert TurnInfo.model_validate({**fields, "id": "x"}).id == "x"


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "agentMessage", "text": "hello"}, "hello"),
        ({"type": "agentMessage", "text": ""}, None),
        (
            {
                "type": "userMessage",
                "content": [{"type": "text", "text": "look"}, {"type": "localImage", "path": "/i"}],
            },
            "look\n[localImage]",
        ),
        ({"type": "reasoning", "summary": ["first", "then"], "content": ["long"]}, "first\nthen"),
        ({"type": "reasoning", "summary": [], "content": []}, None),
        (
            {"type": "commandExecution", "command": "ls", "aggregatedOutput": "a\n", "exitCode": 0},
            "$ ls\na",
        ),
        (
            {
                "type": "commandExecution",
                "command": "false",
                "aggregatedOutput": None,
                "exitCode": 1,
            },
            "$ false\n[exit 1]",
        ),
        (
            {"type": "commandExecution", "command": "rm x", "status": "declined"},
            "$ rm x\n[declined]",
        ),
        (
            {
                "type": "fileChange",
                "changes": [{"path": "/a", "kind": {"type": "add"}, "diff": "x"}],
            },
            "add /a",
        ),
        (
            {
                "type": "mcpToolCall",
                "server": "echo",
                "tool": "say",
                "result": {"content": [{"type": "text", "text": "hi"}]},
            },
            "echo.say\nhi",
        ),
        (
            {"type": "mcpToolCall", "server": "s", "tool": "t", "error": {"message": "gone"}},
            "s.t\n[failed] gone",
        ),
        (
            {
                "type": "dynamicToolCall",
                "tool": "t",
                "contentItems": [{"type": "inputText", "text": "r"}],
            },
            "t\nr",
        ),
        ({"type": "collabAgentToolCall", "tool": "spawnAgent", "prompt": "p"}, "spawnAgent\np"),
        ({"type": "webSearch", "query": "q"}, "q"),
        ({"type": "fromTheFuture", "text": "t"}, "t"),
        ({"type": "fromTheFuture"}, None),
        ({}, None),
    ],
)
def test_an_item_is_shown_as_a_person_would_read_it(item, text):
    assert item_text(item) == text


def test_only_the_end_of_a_long_output_is_shown():
    item = {
        "type": "commandExecution",
        "command": "yes",
        "aggregatedOutput": "y\n" * 9999 + "end\n",
    }

    text = item_text(item)

    assert text.startswith("$ yes\n…")
    assert text.endswith("end")
    assert len(text) < 4100


TYPES = ["userMessage", "reasoning", "commandExecution", "fileChange", "mcpToolCall", "webSearch"]
FIELDS = [
    "content",
    "summary",
    "command",
    "status",
    "exitCode",
    "changes",
    "result",
    "error",
    "tool",
]


@given(st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_item_however_malformed_raises(type_, fields):
    item_text({**fields, "type": type_})
