"""Ops become few tools with true annotations, within a budget."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from dispatch_core.api import ValidationFailed
from dispatch_plugins.mcp.grouping import TOOL_BYTES, tools
from dispatch_plugins.mcp.schemas import describe, merge, shape

LIST_BYTES = 24_000
DESCRIPTIONS = {
    "thread": "Ref, id, handle or title of the thread; @name stands for a handle, and a unique "
    "part of a title is enough.",
    "text": "The message; at most 1,048,576 characters. A dash on the command line reads it from "
    "standard input.",
    "limit": "How many entries to return at most, the newest ones.",
    "cwd": "Absolute working directory of the thread; a relative one is resolved by the caller "
    "and must exist.",
}
TABLE = """
new thread write name! text cwd model sandbox approval_policy effort tier goal no_send dry_run
attach thread write thread! sync
sync thread write thread! full
rename thread write thread! name!
send message write thread! text! mode files images model effort sandbox approval intro dry_run
stop thread write thread!
restore thread write thread!
fork thread write thread! name cwd dry_run
compact thread write thread!
open thread write name! cwd
goal.set goal write thread! objective budget status dry_run
archive thread destroy thread!
revert thread destroy thread! turns! dry_run
goal.clear goal destroy thread!
list thread read archived unmanaged limit cwd cursor
get thread read thread!
tail thread read thread! limit full cursor
watch thread read thread! after timeout
wait thread read thread! timeout
goal.get goal read thread!
search thread read query! thread cwd since until limit role cursor
request.list thread read thread
request.get thread read request!
trigger.list trigger read thread
trigger.add trigger write name! when! thread! op! args enabled cooldown max_firings dry_run
trigger.pause trigger write trigger!
trigger.resume trigger write trigger!
trigger.rm trigger destroy trigger!
daemon.status daemon read
daemon.log daemon read limit daemon
models daemon read provider
"""


@pytest.fixture
def realistic(make_op):
    ops = []
    for line in TABLE.strip().splitlines():
        name, noun, intent, *words = line.split()
        fields = [word.rstrip("!") for word in words]
        described = {
            field: {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "default": None,
                "description": DESCRIPTIONS.get(
                    field, f"The {field} that {name} uses, when it is given; else Codex's own."
                ),
            }
            for field in fields
        }
        required = [word.rstrip("!") for word in words if word.endswith("!")]
        summary = f"{name.title()} the {noun} in the way that a summary of usual length says"
        ops.append(make_op(name, noun, intent, described, required=required, summary=summary))
    return ops


def size(specs):
    return len(json.dumps([spec.wire() for spec in specs], separators=(",", ":")).encode())


def test_every_op_is_in_one_tool_of_its_own_intent(realistic):
    specs = tools(realistic)

    placed = [name for spec in specs for name in spec.ops]
    assert sorted(placed) == sorted(op.name for op in realistic)
    assert all(op.intent == spec.intent for spec in specs for op in spec.ops.values())
    assert [spec.name for spec in specs] == [
        "dispatch_daemon_read",
        "dispatch_thread_read",
        "dispatch_thread_write",
        "dispatch_thread_destroy",
        "dispatch_trigger_read",
        "dispatch_trigger_write",
        "dispatch_trigger_destroy",
    ]


def test_the_tools_stay_within_their_budget(realistic):
    specs = tools(realistic)

    assert max(size([spec]) for spec in specs) <= TOOL_BYTES
    assert size(specs) <= LIST_BYTES


@pytest.mark.parametrize("profile", ["default", "readonly", "flat", "worker"])
def test_every_input_schema_is_a_schema_of_an_object(realistic, profile):
    specs = tools(realistic, profile, thread_id="t1")

    for spec in specs:
        Draft202012Validator.check_schema(spec.input_schema)
        assert spec.input_schema["type"] == "object"


def test_a_group_of_a_hundred_ops_gives_up_detail_and_keeps_every_op(make_op):
    fields = {
        name: {"type": "string", "description": "word " * 30} for name in ("alpha", "beta", "gamma")
    }
    ops = [make_op(f"acme.op{n}", "acme", "read", fields, summary="s" * 72) for n in range(100)]

    (spec,) = tools(ops)

    assert size([spec]) <= TOOL_BYTES
    assert set(spec.input_schema["properties"]["op"]["enum"]) == {op.name for op in ops} | {
        "schema"
    }


def test_annotations_say_what_the_ops_do(make_op):
    ops = [
        make_op("get", "thread", "read", {}),
        make_op("send", "message", "write", {}, idempotent=False),
        make_op("stop", "thread", "write", {}),
        make_op("goal.clear", "goal", "destroy", {}),
    ]

    hints = {spec.name: spec.wire()["annotations"] for spec in tools(ops)}

    assert hints == {
        "dispatch_thread_read": {
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
        },
        "dispatch_thread_write": {
            "readOnlyHint": False,
            "destructiveHint": False,
            "idempotentHint": False,
        },
        "dispatch_thread_destroy": {
            "readOnlyHint": False,
            "destructiveHint": True,
            "idempotentHint": True,
        },
    }


def test_a_third_party_noun_is_a_group_that_names_its_distribution(make_op):
    ops = [
        make_op(
            "acme.deploy", "acme.cloud", "write", {"env": {"type": "string"}}, dist="acme-dispatch"
        )
    ]

    (spec,) = tools(ops)

    assert spec.name == "dispatch_acme_cloud_write"
    assert "acme-dispatch" in spec.description
    assert "- acme.deploy(env?): Do acme.deploy" in spec.description


def test_a_group_takes_one_flat_object_with_shared_fields_once(make_op):
    thread = {"type": "string", "description": "The thread."}
    limit = {
        "anyOf": [{"type": "integer"}, {"type": "null"}],
        "default": 9,
        "description": "How many.",
    }
    ops = [
        make_op("get", "thread", "read", {"thread": thread}, required=["thread"]),
        make_op("tail", "thread", "read", {"thread": thread, "limit": limit}, required=["thread"]),
    ]

    (spec,) = tools(ops)

    assert spec.input_schema == {
        "type": "object",
        "properties": {
            "op": {"type": "string", "enum": ["get", "tail", "schema"]},
            "of": {"type": "string", "description": "With op schema: the op to describe."},
            "thread": {"type": "string", "description": "The thread."},
            "limit": {"type": "integer", "description": "How many."},
        },
        "required": ["op"],
    }
    assert "- tail(thread, limit?): Do tail" in spec.description


def test_fields_that_collide_with_the_tools_own_get_an_underscore(make_op):
    fields = {name: {"type": "string"} for name in ("op", "op_", "confirm", "of")}
    op = make_op("trigger.rm", "trigger", "destroy", fields)

    (spec,) = tools([op])

    assert spec.fields(op) == {"op__": "op", "op_": "op_", "confirm_": "confirm", "of": "of"}
    assert spec.input_schema["properties"]["confirm"]["type"] == "boolean"


def test_an_op_that_is_called_schema_stays_reachable(make_op):
    (spec,) = tools([make_op("schema", "thread", "read", {})])

    assert spec.input_schema["properties"] == {"op": {"type": "string", "enum": ["schema"]}}


def test_the_readonly_profile_reads(realistic):
    specs = tools(realistic, "readonly")

    assert {spec.name for spec in specs} == {
        f"dispatch_{noun}_read" for noun in ("thread", "trigger", "daemon")
    }


def test_the_flat_profile_is_one_tool_per_op_with_whole_schemas(make_op):
    text = {"type": "string", "minLength": 1, "x-cli": {"argument": True}}
    output = {"$ref": "#/$defs/T", "$defs": {"T": {"type": "object"}}}
    ops = [
        make_op("goal.set", "goal", "write", {"text": text}, required=["text"], output=output),
        make_op("goal_set", "goal", "destroy", {"text": text}),
    ]

    first, second = tools(ops, "flat")

    assert (first.name, second.name) == ("dispatch_goal_set", "dispatch_goal_set_")
    assert first.input_schema["properties"] == {"text": {"type": "string", "minLength": 1}}
    assert first.input_schema["required"] == ["text"]
    assert first.output_schema == {"type": "object", **output}
    assert second.input_schema["required"] == ["confirm"]


def test_a_worker_has_only_ops_on_its_own_thread(realistic):
    specs = tools(realistic, "worker", thread_id="t1")

    ops = {name for spec in specs for name in spec.ops}
    assert {"get", "send", "archive", "trigger.list"} <= ops
    assert not {"list", "new", "trigger.add", "daemon.status"} & ops
    assert all("thread" not in spec.input_schema["properties"] for spec in specs)
    assert all(dict(spec.fixed) == {"thread": "t1"} for spec in specs)


@pytest.mark.parametrize(("profile", "thread_id"), [("worker", None), ("everything", "t1")])
def test_a_profile_that_cannot_be_served_is_refused(realistic, profile, thread_id):
    with pytest.raises(ValidationFailed) as caught:
        tools(realistic, profile, thread_id=thread_id)

    assert caught.value.hint


def test_shapes_keep_types_and_choices_and_drop_the_rest():
    defs = {
        "Mode": {"enum": ["plain", "steer"], "type": "string"},
        "Tree": {
            "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Tree"}}, {"type": "string"}]
        },
        "When": {"type": "object", "properties": {"kind": {"const": "cron"}}},
    }

    shapes = [
        shape({"$ref": "#/$defs/Mode"}, defs),
        shape({"anyOf": [{"$ref": "#/$defs/When"}, {"type": "null"}], "default": None}, defs),
        shape({"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 1}, defs),
        shape({"const": 3}, defs),
        shape({}, defs),
    ]

    assert shapes == [
        {"type": "string", "enum": ["plain", "steer"]},
        {"type": "object"},
        {"type": "array", "items": {"type": "string"}},
        {"enum": [3]},
        {},
    ]
    assert shape({"$ref": "#/$defs/Tree"}, defs)["anyOf"][1] == {"type": "string"}


def test_fields_of_several_ops_admit_what_any_of_them_admits():
    word, number = {"type": "string"}, {"type": "integer"}
    low, high = {"type": "string", "enum": ["low"]}, {"type": "string", "enum": ["low", "high"]}

    assert merge([word, word]) == word
    assert merge([word, number]) == {"anyOf": [word, number]}
    assert merge([low, high]) == high
    assert merge([low, word]) == word
    assert merge([low, number]) == {"anyOf": [number, low]}
    assert merge([word, {}]) == {}


def test_descriptions_are_whole_or_one_sentence_or_cut_between_words():
    assert describe("Short.", 10) == "Short."
    assert describe("One thing. Another thing.", 12) == "One thing"
    assert describe("a very long sentence", 12) == "a very …"
