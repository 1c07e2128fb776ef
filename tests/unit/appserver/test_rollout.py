"""Lines of rollout files: which text they hold, what they say about the thread, and what is wrong with them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from dispatch_core.appserver import rollout
from dispatch_core.contracts.history import SourceFacts

AT = "2026-03-01T10:00:00.250Z"
THREAD = "01a202e0-a48d-7c31-bdb0-95222b9a22de"
TURN = "01a202e0-a49b-70a3-a937-28003cd84c02"


def line(kind: str, payload: dict[str, Any], ordinal: int | None = None) -> bytes:
    record: dict[str, Any] = {"timestamp": AT}
    if ordinal is not None:
        record["ordinal"] = ordinal
    record |= {"type": kind, "payload": payload}
    return json.dumps(record, separators=(",", ":")).encode()


def item(**fields: Any) -> bytes:
    return line("event_msg", {"type": "item_completed", "turn_id": TURN, "item": fields}, 5)


def meta(**fields: Any) -> bytes:
    return line("session_meta", {"id": THREAD, "cwd": "/srv/a", **fields}, 0)


def reader(mode: str = "paginated") -> rollout.Reader:
    return rollout.Reader(SourceFacts(native_id=THREAD, history_mode=mode))


@pytest.mark.parametrize(
    ("fields", "role", "text"),
    [
        ({"type": "UserMessage", "content": [{"type": "text", "text": "hi"}]}, "user", "hi"),
        ({"type": "AgentMessage", "content": [{"type": "Text", "text": "yo"}]}, "agent", "yo"),
        ({"type": "Reasoning", "summary_text": ["a", "b"]}, "reasoning", "a\nb"),
        (
            {
                "type": "CommandExecution",
                "command": ["/bin/bash", "-lc", "make test"],
                "aggregated_output": "ok\n",
            },
            "tool",
            "make test\nok\n",
        ),
        (
            {"type": "FileChange", "changes": {"/a.txt": {"type": "add", "content": "okapi\n"}}},
            "tool",
            "/a.txt\nokapi\n",
        ),
        (
            {"type": "McpToolCall", "server": "s", "tool": "t", "arguments": {"q": "gnu"}},
            "tool",
            's\nt\n{"q": "gnu"}',
        ),
        ({"type": "WebSearch", "query": "what is"}, "tool", "what is"),
        ({"type": "SomethingNew", "text": "later"}, "other", "later"),
    ],
)
def test_an_item_of_the_paginated_mode_is_a_document(
    fields: dict[str, Any], role: str, text: str
) -> None:
    document = reader().read(item(**fields), 77)

    assert document is not None
    assert (document.role, document.text, document.offset) == (role, text, 77)
    assert document.turn_id == TURN
    assert document.at == datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "message", "role": "developer", "content": [{"text": "be good"}]},
        {"type": "message", "role": "user", "content": [{"text": "<environment_context>"}]},
        {"type": "reasoning", "encrypted_content": "gAAAA", "summary": []},
        {"type": "function_call_output", "output": "twice"},
    ],
)
def test_what_the_paginated_mode_repeats_for_the_model_is_no_document(
    payload: dict[str, Any],
) -> None:
    assert reader().read(line("response_item", payload, 6), 0) is None


@pytest.mark.parametrize(
    ("kind", "payload", "role", "text"),
    [
        ("event_msg", {"type": "user_message", "message": "hi"}, "user", "hi"),
        ("event_msg", {"type": "agent_message", "message": "yo"}, "agent", "yo"),
        ("event_msg", {"type": "agent_reasoning", "text": "hm"}, "reasoning", "hm"),
        (
            "response_item",
            {"type": "function_call", "name": "exec_command", "arguments": '{"cmd":"ls"}'},
            "tool",
            'exec_command\n{"cmd":"ls"}',
        ),
        ("response_item", {"type": "function_call_output", "output": "a.txt"}, "tool", "a.txt"),
        (
            "response_item",
            {"type": "function_call_output", "output": {"content": "b.txt", "success": True}},
            "tool",
            "b.txt",
        ),
        (
            "response_item",
            {"type": "local_shell_call", "action": {"command": ["bash", "-lc", "ls -a"]}},
            "tool",
            "ls -a",
        ),
    ],
)
def test_a_message_or_tool_call_of_the_legacy_mode_is_a_document(
    kind: str, payload: dict[str, Any], role: str, text: str
) -> None:
    document = reader("legacy").read(line(kind, payload), 3)

    assert document is not None
    assert (document.role, document.text) == (role, text)


def test_a_message_of_the_legacy_mode_is_not_found_twice() -> None:
    message = {"type": "message", "role": "user", "content": [{"text": "hi"}]}

    assert reader("legacy").read(line("response_item", message), 0) is None


def test_the_turn_of_a_legacy_message_is_the_one_that_was_begun_before() -> None:
    legacy = reader("legacy")
    legacy.read(line("event_msg", {"type": "task_started", "turn_id": TURN}), 0)

    document = legacy.read(line("event_msg", {"type": "user_message", "message": "hi"}), 90)

    assert document is not None
    assert document.turn_id == TURN


def test_the_first_line_says_who_the_thread_is() -> None:
    fresh = rollout.Reader(SourceFacts(native_id="from-the-name"))
    fresh.read(
        meta(
            timestamp="2026-02-28T09:00:00.001Z",
            source="vscode",
            thread_source="dispatch",
            model_provider="openai",
            history_mode="paginated",
            forked_from_id="parent",
            history_base={"thread_id": "segment", "end_byte_offset": 123},
            base_instructions={"text": "never searched"},
        ),
        0,
    )

    facts = fresh.facts()

    assert facts.native_id == THREAD
    assert (facts.cwd, facts.origin, facts.model_provider) == ("/srv/a", "dispatch", "openai")
    assert (facts.history_mode, facts.forked_from) == ("paginated", "parent")
    assert facts.base == ("segment", 123)
    assert facts.created_at == datetime(2026, 2, 28, 9, 0, 0, 1000, tzinfo=UTC)


def test_the_first_line_of_a_parent_that_a_fork_has_copied_does_not_count() -> None:
    fork = rollout.Reader(SourceFacts(native_id="x"))

    fork.read(meta(), 0)
    fork.read(line("session_meta", {"id": "parent", "cwd": "/elsewhere"}), 1)

    assert (fork.facts().native_id, fork.facts().cwd) == (THREAD, "/srv/a")


def test_the_newest_turn_says_where_and_with_what_the_thread_works() -> None:
    latest = reader()
    latest.read(line("turn_context", {"cwd": "/old", "model": "m1"}, 1), 0)
    latest.read(line("turn_context", {"cwd": "/new", "model": "m2", "effort": "high"}, 2), 0)
    latest.read(line("event_msg", {"type": "task_complete", "turn_id": TURN}, 3), 0)

    facts = latest.facts()

    assert (facts.cwd, facts.model, facts.effort) == ("/new", "m2", "high")
    assert facts.latest_turn_id == TURN
    assert facts.latest_event_at == datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)


def test_what_lies_before_what_is_known_does_not_change_the_newest_facts() -> None:
    known = SourceFacts(native_id=THREAD, history_mode="paginated", model="new", cwd="/new")
    older = rollout.Reader(known, old=True)

    older.read(line("turn_context", {"cwd": "/old", "model": "old"}, 1), 0)

    assert older.facts() == known


def test_the_first_message_is_the_preview_on_one_line() -> None:
    fresh = reader()

    fresh.read(item(type="UserMessage", content=[{"type": "text", "text": "a\n b " * 100}]), 0)
    fresh.read(item(type="UserMessage", content=[{"type": "text", "text": "second"}]), 0)

    preview = fresh.facts().preview
    assert preview is not None
    assert preview.startswith("a b a b")
    assert len(preview) == 200


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"timestamp":"x","type":"event_msg"}',
        b'{"timestamp":"x","type":"event_msg","payload":7}',
        b'{"timestamp":"x","type":"event_msg","payload":{"type":"item_completed","item":{}',
        b"[" * 100_000,
    ],
)
def test_a_malformed_line_is_counted_and_nothing_else(broken: bytes) -> None:
    tolerant = reader()

    document = tolerant.read(broken, 0)

    assert document is None
    assert (tolerant.lines, tolerant.malformed) == (1, 1)


@pytest.mark.parametrize(
    "payload",
    [
        {"type": "item_completed", "item": None},
        {"type": "item_completed", "item": {"type": "UserMessage", "content": 7}},
        {"type": "item_completed", "item": {"type": "FileChange", "changes": [1]}},
        {"type": "item_completed", "item": {"type": ["odd"], "text": {}}},
        {"type": "item_completed", "turn_id": 4, "item": {"type": "Reasoning"}},
    ],
)
def test_a_line_with_odd_values_is_no_document(payload: dict[str, Any]) -> None:
    assert reader().read(line("event_msg", payload, 1), 0) is None


def test_a_line_with_its_members_in_another_order_is_read() -> None:
    record = {
        "payload": {"item": {"type": "Plan", "text": "go"}, "type": "item_completed"},
        "type": "event_msg",
        "timestamp": AT,
    }

    document = reader().read(json.dumps(record).encode(), 0)

    assert document is not None
    assert document.text == "go"


def test_long_output_is_cut_in_the_middle() -> None:
    output = "begin " + "x " * 10_000 + "end"

    document = reader().read(
        item(type="CommandExecution", command="run", aggregated_output=output), 0
    )

    assert document is not None
    assert document.text.startswith("run\nbegin x")
    assert document.text.endswith("x end")
    assert len(document.text) < 5000


def test_lines_come_with_their_places_and_without_a_torn_last_one() -> None:
    file = io.BytesIO(b"one\ntwo\nthr")

    found = list(rollout.lines(file, 0, 11))

    assert found == [(0, 4, b"one"), (4, 8, b"two")]


def test_a_line_that_begins_in_the_range_is_read_to_its_end() -> None:
    file = io.BytesIO(b"one\ntwo\nthree\n")

    found = list(rollout.lines(file, 4, 9))

    assert found == [(4, 8, b"two"), (8, 14, b"three")]


@pytest.mark.parametrize(("position", "start"), [(0, 0), (1, 4), (4, 4), (5, 8), (8, 8), (9, 11)])
def test_the_first_line_at_or_after_a_position(position: int, start: int) -> None:
    assert rollout.line_start(io.BytesIO(b"one\ntwo\nthr"), position) == start


def test_a_document_is_read_again_from_its_place(tmp_path: Any) -> None:
    path = tmp_path / "r.jsonl"
    first = meta(history_mode="paginated")
    path.write_bytes(first + b"\n" + item(type="Plan", text="the plan") + b"\n")

    document = rollout.read_document(path, len(first) + 1)

    assert document is not None
    assert (document.text, document.turn_id) == ("the plan", TURN)


@pytest.mark.parametrize("offset", [3, 100_000])
def test_nothing_is_read_from_a_place_where_no_line_begins(tmp_path: Any, offset: int) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(item(type="Plan", text="the plan") + b"\n")

    assert rollout.read_document(path, offset) is None


def test_the_turn_of_a_legacy_document_is_looked_up_before_it(tmp_path: Any) -> None:
    path = tmp_path / "r.jsonl"
    before = line("event_msg", {"type": "task_started", "turn_id": TURN}) + b"\n"
    path.write_bytes(before + line("event_msg", {"type": "user_message", "message": "hi"}) + b"\n")

    document = rollout.read_document(path, len(before))

    assert document is not None
    assert document.turn_id == TURN


def test_a_line_over_the_limit_is_passed_over() -> None:
    long = b"x" * (2 * rollout.LINE_LIMIT + 5)
    file = io.BytesIO(b"short\n" + long + b"\nafter\n")

    found = list(rollout.lines(file, 0, 100))

    assert [(start, content) for start, _, content in found] == [(0, b"short"), (6, None)]
    assert found[1][1] == 6 + len(long) + 1
