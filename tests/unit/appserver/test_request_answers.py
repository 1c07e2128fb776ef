"""Every answer to a request of Codex is one that Codex understands, and none of them lasts."""

from __future__ import annotations

import json
import shlex

import pytest
from jsonschema import Draft7Validator

from dispatch_core.appserver.forms import check_form
from dispatch_core.appserver.request_answers import choices, takes, wire_answer
from dispatch_core.appserver.requests import METHODS, FileChanges, read_request
from dispatch_core.errors import ValidationFailed

RESPONSES = {
    "item/commandExecution/requestApproval": "CommandExecutionRequestApprovalResponse",
    "item/fileChange/requestApproval": "FileChangeRequestApprovalResponse",
    "item/permissions/requestApproval": "PermissionsRequestApprovalResponse",
    "item/tool/requestUserInput": "ToolRequestUserInputResponse",
    "item/tool/call": "DynamicToolCallResponse",
    "mcpServer/elicitation/request": "McpServerElicitationRequestResponse",
    "applyPatchApproval": "ApplyPatchApprovalResponse",
    "execCommandApproval": "ExecCommandApprovalResponse",
}
# What each method asks, as far as the answer depends on it.
PARAMS = {
    "item/permissions/requestApproval": {"permissions": {"network": {"enabled": True}}},
    "item/tool/requestUserInput": {
        "questions": [{"id": "q", "question": "?", "header": "h", "options": None}]
    },
    "mcpServer/elicitation/request": {
        "mode": "form",
        "serverName": "s",
        "message": "?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    },
}
GIVEN = {
    "item/tool/requestUserInput": {"answers": {"q": ["anything"]}},
    "item/tool/call": {
        "content": {"contentItems": [{"type": "inputImage", "imageUrl": "u"}], "success": False}
    },
    "mcpServer/elicitation/request": {"content": {"name": "n"}},
}
LASTING = ("Session", "session", "Amendment", "amendment", "always", "persist")
FORM = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 2, "maxLength": 4},
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "share": {"type": "number"},
        "sure": {"type": "boolean"},
        "color": {"type": "string", "enum": ["red", "blue"]},
        "titled": {"type": "string", "oneOf": [{"const": "a", "title": "A"}]},
        "many": {"type": "array", "items": {"enum": ["x", "y"]}},
        "named": {"type": "array", "items": {"anyOf": [{"const": "n", "title": "N"}]}},
    },
}


def asked_by(method):
    return read_request(method, {"threadId": "t", **PARAMS.get(method, {})}, FileChanges())


def test_the_methods_are_those_that_codex_lists_for_a_person(schema_dir):
    listed = json.loads((schema_dir / "ServerRequest.json").read_text())["oneOf"]
    names = {name for entry in listed for name in entry["properties"]["method"]["enum"]}

    assert names - METHODS == {
        "account/chatgptAuthTokens/refresh",
        "attestation/generate",
        "currentTime/read",
    }
    assert names >= METHODS


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_answer_follows_the_schema_and_grants_nothing_that_lasts(schema_dir, method):
    asked = asked_by(method)
    [path] = schema_dir.rglob(f"{RESPONSES[method]}.json")
    validator = Draft7Validator(json.loads(path.read_text()))

    for decision in takes(asked.kind, asked.body):
        given = GIVEN.get(method, {}) if decision == "answer" else {}
        answer = wire_answer(method, asked.kind, asked.body, decision, **given)

        validator.validate(answer)
        assert not [word for word in LASTING if word in json.dumps(answer)]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_choice_is_said_with_what_follows_from_it(method):
    asked = asked_by(method)

    offered = choices(asked.kind, asked.body)

    assert len(offered) == len(takes(asked.kind, asked.body)) > 1
    assert all(choice.meaning and choice.options.startswith("--") for choice in offered)


@pytest.mark.parametrize("mode", ["url", "form", "openai/form", "openai/userVerification", "new"])
def test_what_cannot_be_given_is_not_offered(mode):
    params = {"threadId": "t", "serverName": "s", "mode": mode, "message": "?"}
    asked = read_request("mcpServer/elicitation/request", params, FileChanges())

    taken = takes(asked.kind, asked.body)

    assert ("accept" in taken, "answer" in taken) == (mode == "url", "form" in mode)
    assert {"decline", "cancel"} <= set(taken)


def test_the_id_of_a_question_is_one_word_of_the_command_that_answers_it():
    question = {"id": "q; rm -rf $HOME", "question": "?"}
    asked = read_request(
        "item/tool/requestUserInput", {"threadId": "t", "questions": [question]}, FileChanges()
    )

    offered = choices(asked.kind, asked.body)[0].options

    assert shlex.split(offered) == ["--answer", "q; rm -rf $HOME=VALUE"]


def test_a_permission_is_granted_as_it_was_asked_for_and_for_this_turn():
    asked = asked_by("item/permissions/requestApproval")

    answer = wire_answer(asked.method, asked.kind, asked.body, "accept")

    assert answer == {"permissions": {"network": {"enabled": True}}, "scope": "turn"}


@pytest.mark.parametrize(
    "content",
    [
        {"name": "abc"},
        {"name": "abcd", "size": 9, "share": 0.5, "sure": False, "color": "red"},
        {"name": "ab", "size": 3.0, "titled": "a", "many": ["x", "y"], "named": []},
    ],
)
def test_a_form_is_filled_in(content):
    check_form(FORM, content)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a"}, "name"),
        ({"name": "abcde"}, "name"),
        ({"name": "abc", "size": 0}, "size"),
        ({"name": "abc", "size": 1.5}, "size"),
        ({"name": "abc", "size": True}, "size"),
        ({"name": "abc", "share": "1"}, "share"),
        ({"name": "abc", "sure": "yes"}, "sure"),
        ({"name": "abc", "color": "green"}, "color"),
        ({"name": "abc", "titled": "b"}, "titled"),
        ({"name": "abc", "many": ["z"]}, "many"),
        ({"name": "abc", "many": "x"}, "many"),
        ({"name": "abc", "other": 1}, "other"),
    ],
)
def test_a_form_that_is_filled_in_wrongly_is_refused_by_field(content, field):
    with pytest.raises(ValidationFailed) as caught:
        check_form(FORM, content)

    assert caught.value.details == {"field": field}


@pytest.mark.parametrize("content", [None, [], "name=abc", 7])
def test_a_form_is_an_object(content):
    with pytest.raises(ValidationFailed, match="object"):
        check_form(FORM, content)
