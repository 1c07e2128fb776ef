"""How Codex's requests are answered: the shape of every yes and no, by method, and which answers a request takes.

Never one that lasts: no ``acceptForSession``, no amendment of a policy, nothing that is remembered for the next time.
"""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.forms import check_form
from dispatch_core.contracts.requests import RequestChoice, RequestKind
from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

ACCEPT, DECLINE, CANCEL, ANSWER = "accept", "decline", "cancel", "answer"
NOBODY = "nobody answered for dispatch; the request was declined"
OLD = frozenset({"applyPatchApproval", "execCommandApproval"})
TEXT, IMAGE, AUDIO = "inputText", "inputImage", "inputAudio"
PARTS = {TEXT: "text", IMAGE: "imageUrl", AUDIO: "audioUrl"}

TAKES: Mapping[RequestKind, tuple[str, ...]] = {
    RequestKind.COMMAND: (ACCEPT, DECLINE, CANCEL),
    RequestKind.FILE_CHANGE: (ACCEPT, DECLINE, CANCEL),
    RequestKind.PERMISSIONS: (ACCEPT, DECLINE),
    RequestKind.USER_INPUT: (ANSWER, DECLINE),
    RequestKind.TOOL_CALL: (ANSWER, DECLINE),
    RequestKind.MCP_TOOL: (ACCEPT, DECLINE, CANCEL),
    RequestKind.ELICITATION: (ACCEPT, ANSWER, DECLINE, CANCEL),
    RequestKind.UNKNOWN: (),
}


def for_the_host(method: str, now: datetime) -> dict[str, Any] | None:
    """Return the answer to a request that is none for a person, None when it must be refused as an unknown method.

    Tokens and attestations are the business of the program that a person has signed in with, which dispatch is not.
    """
    return {"currentTimeAt": int(now.timestamp())} if method == "currentTime/read" else None


def wire_answer(
    method: str,
    kind: RequestKind,
    body: Mapping[str, Any],
    decision: str,
    *,
    answers: Mapping[str, Sequence[str]] | None = None,
    content: Any = None,
) -> dict[str, Any]:
    """Return the result to send. Raises ValidationFailed for an answer that the request does not take.

    decision: accept, decline, cancel or answer, which goes with answers or content. A decline or cancel of a known method never
    raises when nothing else is given.
    """
    taken = takes(kind, body)
    if decision not in taken:
        raise ValidationFailed(
            f"a {kind.value} request takes {' or '.join(taken) or 'no answer'}, not {decision}",
            hint="dispatch request show ID shows what can be answered",
        )
    if decision != ANSWER and (answers or content is not None):
        raise ValidationFailed(f"{decision} goes without --answer and --content")
    if method in OLD:
        return {"decision": _OLD_DECISIONS[decision]}
    return _SHAPES[kind](body, _Given(decision, answers or {}, content))


def denial(method: str, kind: RequestKind) -> dict[str, Any]:
    """Return the answer that grants nothing, for a request of a known method."""
    return wire_answer(method, kind, {}, DECLINE)


def takes(kind: RequestKind, body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the decisions that a request takes."""
    if kind is not RequestKind.ELICITATION:
        return TAKES[kind]
    mode = body.get("mode")
    if mode == "form":
        return (ANSWER, DECLINE, CANCEL)
    # What an unknown mode wants in return cannot be given: a proof of who sits there, for one.
    return (ACCEPT, DECLINE, CANCEL) if mode == "url" else (DECLINE, CANCEL)


def choices(kind: RequestKind, body: Mapping[str, Any]) -> tuple[RequestChoice, ...]:
    """Return the ways in which a request can be answered, as options of the command line."""
    return tuple(
        RequestChoice(options=_options(kind, body, decision), meaning=_meaning(kind, decision))
        for decision in takes(kind, body)
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """An answer as it was given."""

    decision: str
    answers: Mapping[str, Sequence[str]]
    content: Any


def _decision(_: Mapping[str, Any], given: _Given) -> dict[str, Any]:
    return {"decision": given.decision}


def _grant(body: Mapping[str, Any], given: _Given) -> dict[str, Any]:
    """Exactly what was asked for, and for this turn only."""
    granted = body["permissions"] if given.decision == ACCEPT else {}
    return {"permissions": granted, "scope": "turn"}


def _said(body: Mapping[str, Any], given: _Given) -> dict[str, Any]:
    if given.decision == DECLINE:
        return {"answers": {}}
    if given.content is not None:
        raise ValidationFailed("questions are answered with --answer QUESTION=VALUE")
    questions = {question["id"]: question for question in body["questions"]}
    unknown = sorted(given.answers.keys() - questions)
    missing = sorted(questions.keys() - given.answers)
    if unknown or missing:
        what = f"there is no question {unknown[0]}" if unknown else f"{missing[0]} is not answered"
        raise ValidationFailed(
            f"{what}; the questions are {', '.join(questions)}",
            hint="--answer QUESTION=VALUE for each of them",
        )
    for name, values in given.answers.items():
        _check_choice(questions[name], values)
    return {"answers": {name: {"answers": list(values)} for name, values in given.answers.items()}}


def _check_choice(question: Mapping[str, Any], values: Sequence[str]) -> None:
    labels = [option["label"] for option in question["options"]]
    wrong = [value for value in values if value not in labels]
    if not values or not all(values):
        raise ValidationFailed(f"{question['id']}: the answer is empty")
    if labels and wrong and not question["other"]:
        raise ValidationFailed(
            f"{question['id']}: {wrong[0]!r} is none of the choices: {', '.join(labels)}"
        )


def _tool_result(_: Mapping[str, Any], given: _Given) -> dict[str, Any]:
    if given.decision == DECLINE:
        return {"contentItems": [{"type": TEXT, "text": NOBODY}], "success": False}
    content = given.content
    if given.answers or content is None:
        raise ValidationFailed("the result of a tool is given with --content JSON")
    if isinstance(content, str):
        return {"contentItems": [{"type": TEXT, "text": content}], "success": True}
    if isinstance(content, dict) and content.keys() == {"contentItems", "success"}:
        parts, success = content["contentItems"], content["success"]
        if isinstance(success, bool) and isinstance(parts, list) and all(map(_is_part, parts)):
            return content
    raise ValidationFailed(
        "content: a tool's result is a text, or an object with contentItems and success",
        hint='--content TEXT, or --content \'{"contentItems": [{"type": "inputText", "text": "…"}], "success": true}\'',
    )


def _is_part(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    name = PARTS.get(str(part.get("type")))
    return name is not None and part.keys() == {"type", name} and isinstance(part[name], str)


def _elicited(body: Mapping[str, Any], given: _Given) -> dict[str, Any]:
    if given.decision != ANSWER:
        return {"action": given.decision, "content": None, "_meta": None}
    if given.answers or given.content is None:
        raise ValidationFailed("what is asked for is given with --content JSON")
    check_form(body.get("schema"), given.content)
    return {"action": ACCEPT, "content": given.content, "_meta": None}


_SHAPES: Mapping[RequestKind, Callable[[Mapping[str, Any], _Given], dict[str, Any]]] = {
    RequestKind.COMMAND: _decision,
    RequestKind.FILE_CHANGE: _decision,
    RequestKind.PERMISSIONS: _grant,
    RequestKind.USER_INPUT: _said,
    RequestKind.TOOL_CALL: _tool_result,
    RequestKind.MCP_TOOL: _elicited,
    RequestKind.ELICITATION: _elicited,
}
_OLD_DECISIONS: Mapping[str, Any] = {
    ACCEPT: "approved",
    DECLINE: {"denied": {"rejection": "declined"}},
    CANCEL: "abort",
}


def _options(kind: RequestKind, body: Mapping[str, Any], decision: str) -> str:
    if decision != ANSWER:
        return f"--{decision}"
    if kind is RequestKind.USER_INPUT:
        # Codex chose the ids, and a person is going to copy the line into a shell.
        words = (quote(f"{question['id']}=VALUE") for question in body["questions"])
        return " ".join(f"--answer {word}" for word in words)
    return "--content JSON"


def _meaning(kind: RequestKind, decision: str) -> str:
    return _MEANINGS.get((kind, decision)) or _MEANINGS[None, decision]


_MEANINGS: Mapping[tuple[RequestKind | None, str], str] = {
    (RequestKind.COMMAND, ACCEPT): "run it, this once; it may leave its sandbox",
    (RequestKind.COMMAND, DECLINE): "do not run it; the turn goes on",
    (RequestKind.FILE_CHANGE, ACCEPT): "make these changes, this once",
    (RequestKind.FILE_CHANGE, DECLINE): "do not change anything; the turn goes on",
    (RequestKind.PERMISSIONS, ACCEPT): "grant exactly this, until the turn ends",
    (RequestKind.MCP_TOOL, ACCEPT): "call the tool, this once",
    (RequestKind.ELICITATION, ACCEPT): "say that you have done what the page asks",
    (RequestKind.ELICITATION, CANCEL): "give no answer",
    (RequestKind.TOOL_CALL, ANSWER): "give the tool's result, as text or as JSON",
    (RequestKind.TOOL_CALL, DECLINE): "say that the tool failed",
    (None, ANSWER): "give the answer",
    (None, DECLINE): "say no; the turn goes on",
    (None, CANCEL): "say no, and interrupt the turn",
}
