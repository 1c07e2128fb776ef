"""What the model answers: directives in the user's text, their steps, and the unscripted reply."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from dispatch_core.offline.conversation import UserMessage

if TYPE_CHECKING:
    from typing import Self

    from dispatch_core.offline.conversation import Conversation

MARKER = "offline:"
LINE_LIMIT = 200
TEXT_LIMIT = 32 * 1024 * 1024
FAULTS = ("http", "failed", "incomplete", "cut", "hang")
# These describe the body that is sent; a script that replaced them would break the framing, not the
# model.
RESERVED_HEADERS = frozenset({"connection", "content-length", "content-type", "transfer-encoding"})

Seconds = Annotated[float, Field(ge=0, le=3600)]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
HeaderValue = Annotated[str, Field(pattern=r"^[ -~]*$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Call(_Frozen):
    """A tool call with JSON arguments, such as exec_command."""

    name: str = Field(min_length=1, description="The tool.")
    arguments: dict[str, Any] | str = Field(
        default_factory=dict, description="Its arguments: an object, or a string sent as it is."
    )
    namespace: str | None = Field(None, description="The namespace of the tool, as mcp__NAME.")


class CustomCall(_Frozen):
    """A tool call with free text, such as apply_patch."""

    name: str = Field(min_length=1, description="The tool.")
    input: str = Field(description="The text the tool gets.")


class HttpReply(_Frozen):
    """A reply that is an HTTP error and no stream."""

    status: int = Field(ge=400, le=599, description="The HTTP status.")
    body: dict[str, Any] | None = Field(
        None, description="The JSON body; an OpenAI error object if left out."
    )


class Failure(_Frozen):
    """The error of a response that failed half-way."""

    code: str = Field(description="The error code, such as context_length_exceeded.")
    message: str = Field(
        "the offline model was told to fail", description="The sentence for people."
    )


class Usage(_Frozen):
    """The tokens the reply claims to have used."""

    input_tokens: int = Field(ge=0, description="Tokens read.")
    output_tokens: int = Field(ge=0, description="Tokens written.")
    cached_tokens: int = Field(0, ge=0, description="Of those read, how many came from the cache.")
    reasoning_tokens: int = Field(0, ge=0, description="Of those written, how many were reasoning.")


def _as_list(value: object) -> object:
    return value if isinstance(value, (list, tuple)) else [value]


def _as_http(value: object) -> object:
    return {"status": value} if isinstance(value, int) else value


class Step(_Frozen):
    """One reply of the model. At most one of the faults http, failed, incomplete, cut and hang."""

    text: str | None = Field(None, description="The message; left out, the unscripted sentence.")
    repeat: int = Field(1, ge=1, description="How many times the text is repeated.")
    chunks: int = Field(
        1, ge=1, le=1_000_000, description="Into how many deltas the text is split."
    )
    chunk_delay: Seconds = Field(0, description="Seconds after each delta.")
    delay: Seconds = Field(0, description="Seconds before the first byte of the reply.")
    first_delay: Seconds = Field(
        0, description="Seconds between the head of the reply and its content."
    )
    reasoning: str | None = Field(None, description="A reasoning summary before the message.")
    call: Annotated[tuple[Call, ...], BeforeValidator(_as_list)] = Field(
        (), description="Tool calls with JSON arguments: one object or a list."
    )
    custom: Annotated[tuple[CustomCall, ...], BeforeValidator(_as_list)] = Field(
        (), description="Tool calls with free text: one object or a list."
    )
    http: Annotated[HttpReply | None, BeforeValidator(_as_http)] = Field(
        None, description="An HTTP error: a status, or {status, body}."
    )
    failed: Failure | None = Field(None, description="End with response.failed: {code, message}.")
    incomplete: str | None = Field(
        None, description="End with response.incomplete for this reason, such as max_output_tokens."
    )
    cut: bool = Field(default=False, description="Close the connection after the deltas.")
    hang: bool = Field(default=False, description="Never finish after the deltas.")
    times: int | None = Field(
        None,
        ge=1,
        description="The fault hits only the first so many requests; later ones get the rest.",
    )
    usage: Usage | None = Field(
        None, description="The tokens the reply claims; left out, a guess by size."
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict,
        description="Response headers to add, such as x-codex-primary-used-percent.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = [name for name in FAULTS if getattr(self, name)]
        if len(faults) > 1:
            raise ValueError(f"{' and '.join(faults)} exclude each other")
        if self.times is not None and not faults:
            raise ValueError(f"times needs one of {', '.join(FAULTS)}")
        if len(self.text or "x" * LINE_LIMIT) * self.repeat > TEXT_LIMIT:
            raise ValueError(f"the repeated text is longer than {TEXT_LIMIT} characters")
        if reserved := RESERVED_HEADERS & {name.lower() for name in self.headers}:
            raise ValueError(f"the header {min(reserved)} cannot be set")
        return self

    def without_fault(self) -> Step:
        """Return the same step with no fault in it."""
        return self.model_copy(
            update={"http": None, "failed": None, "incomplete": None, "cut": False, "hang": False}
        )

    def message(self, prompt: str) -> str | None:
        """Return the text of the assistant message, or None when the step has none.

        A step that says nothing of its text answers the prompt, unless it calls tools or fails.
        """
        if self.text is None and (self.call or self.custom or self.failed):
            return None
        return (unscripted_reply(prompt) if self.text is None else self.text) * self.repeat


class Script(_Frozen):
    """Steps in order; the last one repeats."""

    steps: tuple[Step, ...] = Field(min_length=1, description="The replies, in order.")

    @classmethod
    def parse(cls, value: object) -> Script:
        """Return the script that a JSON value describes: {"steps": [...]}, or one step.

        Raises ScriptError.
        """
        try:
            if isinstance(value, dict) and "steps" in value:
                return cls.model_validate(value)
            return cls(steps=(Step.model_validate(value),))
        except ValidationError as error:
            raise ScriptError(_first_lines(error)) from error


UNSCRIPTED = Script(steps=(Step.model_validate({}),))
NOBODY = UserMessage("", position=-1, replies_after=0, summarised=False)


class ScriptError(ValueError):
    """A script says something that no step can say; the message names the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The reply to one request.

    index: how often the model has answered since the message that decides. prompt: the last user
    message without its directive. occasion: equal for a request and its retries, and for nothing
    else.
    """

    step: Step
    index: int
    prompt: str
    occasion: tuple[str | None, int, int]


def plan(conversation: Conversation, default: Script | None = None) -> Plan:
    """Return what to answer: as the last directive says, else the default, else unscripted."""
    prompt = _without_directive(conversation.last_text)
    for message in reversed(conversation.messages):
        if (directive := _find_directive(message.text)) is not None:
            return _plan(conversation, directive.script, message, prompt)
    last = conversation.messages[-1] if conversation.messages else NOBODY
    return _plan(conversation, default or UNSCRIPTED, last, prompt)


def unscripted_reply(prompt: str) -> str:
    """Return the sentence that answers a prompt nobody scripted.

    "Offline reply: " and the first line with text in it, without the space around it, cut to 200
    characters.
    """
    lines = (line.strip() for line in re.split(r"[\r\n]+", prompt))
    return f"Offline reply: {next(filter(None, lines), '(no text)')[:LINE_LIMIT]}"


@dataclass(frozen=True, slots=True)
class _Directive:
    script: Script
    start: int
    end: int


def _plan(conversation: Conversation, script: Script, message: UserMessage, prompt: str) -> Plan:
    last = len(script.steps) - 1
    # After a compaction nobody can tell how far the script had come; starting over would repeat its
    # tool calls.
    index = max(message.replies_after, last) if message.summarised else message.replies_after
    return Plan(
        step=script.steps[min(index, last)],
        index=index,
        prompt=prompt,
        occasion=(conversation.thread_id, message.position, index),
    )


def _find_directive(text: str) -> _Directive | None:
    start = text.find(MARKER + "{")
    if start < 0:
        return None
    begin = start + len(MARKER)
    try:
        value, end = json.JSONDecoder().raw_decode(text, begin)
    except (ValueError, RecursionError) as error:
        return _Directive(_complaint(f"not JSON: {error}"), start, len(text))
    try:
        return _Directive(Script.parse(value), start, end)
    except ScriptError as error:
        return _Directive(_complaint(str(error)), start, end)


def _without_directive(text: str) -> str:
    found = _find_directive(text)
    return text if found is None else text[: found.start] + text[found.end :]


def _complaint(reason: str) -> Script:
    return Script(steps=(Step.model_validate({"text": f"Offline script error: {reason}"}),))


def _first_lines(error: ValidationError) -> str:
    found = [
        f"{'.'.join(map(str, item['loc'])) or 'the step'}: {item['msg']}"
        for item in error.errors(include_url=False, include_input=False)
    ]
    return "; ".join(found[:5])
