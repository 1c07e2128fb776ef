"""What a person could look for in an item of a rollout: its role and its text.

Left out: what Codex puts before the model and nobody said (base instructions, developer messages, the environment), and reasoning
that is encrypted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dispatch_core.appserver.shapes import items, joined, objects, string

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MESSAGE_LIMIT: Final = 100_000  # characters of a message
OUTPUT_LIMIT: Final = 4000  # characters of what a tool was given, and of what it gave back

Found = tuple[str, str]  # role and text


def item_text(item: Mapping[str, Any]) -> Found | None:
    """Return role and text of an item of the paginated mode; of an unknown type, its field ``text``."""
    reader = _ITEMS.get(str(item.get("type")))
    if reader is None:
        return "other", string(item.get("text"))[:MESSAGE_LIMIT]
    return reader(item)


def event_text(payload: Mapping[str, Any]) -> Found | None:
    """Return role and text of a message of the legacy mode; None for any other event."""
    role = _EVENTS.get(str(payload.get("type")))
    if role is None:
        return None
    text = string(payload.get("message")) or string(payload.get("text"))
    return role, text[:MESSAGE_LIMIT]


def response_text(payload: Mapping[str, Any]) -> Found | None:
    """Return role and text of a tool call or its output in the legacy mode; None for a message, which is an event as well."""
    reader = _RESPONSES.get(str(payload.get("type")))
    return None if reader is None else ("tool", joined(reader(payload)))


def _message(role: str) -> Callable[[Mapping[str, Any]], Found]:
    def read(item: Mapping[str, Any]) -> Found:
        parts = (string(part.get("text")) for part in objects(item.get("content")))
        return role, (joined(parts) or string(item.get("text")))[:MESSAGE_LIMIT]

    return read


def _reasoning(item: Mapping[str, Any]) -> Found:
    parts = [string(part) for part in items(item.get("summary_text"))]
    if not any(parts):
        parts = [string(part) for part in items(item.get("raw_content"))]
    return "reasoning", joined(parts)[:MESSAGE_LIMIT]


def _command(item: Mapping[str, Any]) -> Found:
    return "tool", joined(
        (_short(_command_line(item.get("command"))), _short(string(item.get("aggregated_output"))))
    )


def _file_change(item: Mapping[str, Any]) -> Found:
    changes = item.get("changes")
    parts: list[str] = []
    for path, change in changes.items() if isinstance(changes, dict) else ():
        parts.append(string(path))
        if isinstance(change, dict):
            parts.append(_short(string(change.get("unified_diff") or change.get("content"))))
    return "tool", joined(parts)[:MESSAGE_LIMIT]


def _tool_call(item: Mapping[str, Any]) -> Found:
    result, error = item.get("result"), item.get("error")
    return "tool", joined(
        (
            joined(string(item.get(name)) for name in ("server", "namespace", "tool")),
            _short(_as_text(item.get("arguments"))),
            _short(_as_text(result if result is not None else item.get("content_items"))),
            _short(_as_text(error)),
        )
    )


def _fields(*names: str) -> Callable[[Mapping[str, Any]], Found]:
    def read(item: Mapping[str, Any]) -> Found:
        return "tool", joined(_short(_as_text(item.get(name))) for name in names)

    return read


def _call(payload: Mapping[str, Any]) -> Iterable[str]:
    yield string(payload.get("name"))
    yield _short(string(payload.get("arguments")) or string(payload.get("input")))


def _shell_call(payload: Mapping[str, Any]) -> Iterable[str]:
    action = payload.get("action")
    if isinstance(action, dict):
        yield _short(_command_line(action.get("command")))


def _output(payload: Mapping[str, Any]) -> Iterable[str]:
    yield _short(_as_text(payload.get("output")))


def _web_search(payload: Mapping[str, Any]) -> Iterable[str]:
    action = payload.get("action")
    if isinstance(action, dict):
        yield string(action.get("query"))
        yield string(action.get("url"))


def _command_line(value: object) -> str:
    """Return a command without the shell that runs it."""
    if isinstance(value, list):
        words = [string(word) for word in value]
        if len(words) == 3 and words[1] in ("-c", "-lc"):
            return words[2]
        return " ".join(words)
    return string(value)


def _as_text(value: object) -> str:
    """Return a string as it is, the texts of a list of content parts, and anything else as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, dict) and isinstance(value.get("content"), (list, str)):
        return _as_text(value["content"])
    texts = [part["text"] for part in objects(value) if isinstance(part.get("text"), str)]
    return joined(texts) if texts else json.dumps(value, ensure_ascii=False)


def _short(text: str) -> str:
    """Return the beginning and the end of a long text, cut between words."""
    if len(text) <= OUTPUT_LIMIT:
        return text
    half = OUTPUT_LIMIT // 2
    return f"{text[:half].rpartition(' ')[0] or text[:half]} … {text[-half:].partition(' ')[2] or text[-half:]}"


_ITEMS: dict[str, Callable[[Mapping[str, Any]], Found | None]] = {
    "UserMessage": _message("user"),
    "AgentMessage": _message("agent"),
    "Plan": _message("agent"),
    "Reasoning": _reasoning,
    "CommandExecution": _command,
    "FileChange": _file_change,
    "McpToolCall": _tool_call,
    "DynamicToolCall": _tool_call,
    "CollabAgentToolCall": _fields("tool", "prompt"),
    "WebSearch": _fields("query"),
    "ImageView": _fields("path"),
    "ImageGeneration": _fields("revised_prompt", "saved_path"),
    "ContextCompaction": lambda _: None,
}
_EVENTS: dict[str, str] = {
    "user_message": "user",
    "agent_message": "agent",
    "agent_reasoning": "reasoning",
}
_RESPONSES: dict[str, Callable[[Mapping[str, Any]], Iterable[str]]] = {
    "function_call": _call,
    "custom_tool_call": _call,
    "local_shell_call": _shell_call,
    "function_call_output": _output,
    "custom_tool_call_output": _output,
    "web_search_call": _web_search,
}
