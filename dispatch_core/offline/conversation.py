"""What a model request says: who asks, what the user wrote, how often the model has answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# Codex puts context into messages of the user's role; nobody typed those, so they are not what a
# reply answers.
CONTEXT_PREFIXES = (
    "# AGENTS.md instructions",
    "<codex_internal_context",
    "<environment_context>",
    "<model_switch>",
    "<skill>",
    "<skills_instructions>",
    "<subagent_notification>",
    "<turn_aborted>",
    "<user_instructions>",
    "<user_shell_command>",
)
# A compacted history begins with the user's messages, without the replies, and ends with a summary
# that starts like this.
SUMMARY_PREFIX = "Another language model started to solve this problem"
OUTPUT_TYPES = frozenset({"function_call", "custom_tool_call", "local_shell_call"})


@dataclass(frozen=True, slots=True)
class UserMessage:
    """One message of the user.

    position: its index in the input. replies_after: how often the model has answered since.
    summarised: the history was compacted since, so that those answers are gone.
    """

    text: str
    position: int
    replies_after: int
    summarised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One model request, reduced to what a reply depends on.

    messages: in order, without the context that Codex adds.
    """

    model: str
    thread_id: str | None
    turn_id: str | None
    messages: tuple[UserMessage, ...]

    @property
    def last_text(self) -> str:
        """The text of the last user message, empty when there is none."""
        return self.messages[-1].text if self.messages else ""


def read_conversation(body: Mapping[str, Any]) -> Conversation:
    """Return what a request body says; whatever is missing or of another type reads as absent.

    Outputs of the model (messages, tool calls, reasoning) that follow each other directly are one
    reply.
    """
    raw = body.get("input")
    found: list[tuple[str, int, int]] = []
    replies = 0
    summary = -1
    in_reply = False
    for position, item in enumerate(raw if isinstance(raw, list) else []):
        if not isinstance(item, dict):
            continue
        kind, role = _string(item, "type") or "message", _string(item, "role")
        if kind in OUTPUT_TYPES or (kind == "message" and role == "assistant"):
            replies += not in_reply
            in_reply = True
        elif kind != "reasoning":
            in_reply = False
        if kind == "message" and role == "user":
            text = _text(item.get("content"))
            if text.startswith(SUMMARY_PREFIX):
                summary = position
            elif not text.lstrip().startswith(CONTEXT_PREFIXES):
                found.append((text, position, replies))
    metadata = body.get("client_metadata")
    return Conversation(
        model=_string(body, "model") or "",
        thread_id=_string(metadata, "thread_id") or _string(body, "prompt_cache_key"),
        turn_id=_string(metadata, "turn_id"),
        messages=tuple(
            UserMessage(text, at, replies - before, at < summary) for text, at, before in found
        ),
    )


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(text for part in parts if (text := _string(part, "text")) is not None)


def _string(value: object, key: str) -> str | None:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None
