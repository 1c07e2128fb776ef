"""What a person would read of an item of a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.shapes import items, joined, objects, string

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OUTPUT_LIMIT = 4000


def item_text(item: Mapping[str, Any]) -> str | None:
    """Return an item's text: a message, a command with the end of its output, a list of changes.

    None when there is nothing to read. Output is cut to its last 4000 characters. An item of an
    unknown type is shown by its own field ``text``. Never raises, whatever the item holds.
    """
    reader = _READERS.get(str(item.get("type")), _own_text)
    return reader(item) or None


def role_of(item: Mapping[str, Any]) -> str:
    """Return who speaks in an item: "user", "agent", "reasoning", "tool" or "other"."""
    return _ROLES.get(str(item.get("type")), "other")


def _own_text(item: Mapping[str, Any]) -> str:
    return string(item.get("text"))


def _user_message(item: Mapping[str, Any]) -> str:
    return joined(
        string(part.get("text")) or f"[{string(part.get('type')) or 'attachment'}]"
        for part in objects(item.get("content"))
    )


def _reasoning(item: Mapping[str, Any]) -> str:
    for key in ("summary", "content"):
        if text := joined(string(part) for part in items(item.get(key))):
            return text
    return ""


def _command(item: Mapping[str, Any]) -> str:
    lines = [f"$ {string(item.get('command'))}", _tail(string(item.get("aggregatedOutput")))]
    exit_code = item.get("exitCode")
    if exit_code not in (0, None):
        lines.append(f"[exit {exit_code}]")
    elif item.get("status") in ("failed", "declined"):
        lines.append(f"[{item['status']}]")
    return joined(lines)


def _file_change(item: Mapping[str, Any]) -> str:
    lines = []
    for change in objects(item.get("changes")):
        kind = change.get("kind")
        word = kind.get("type") if isinstance(kind, dict) else kind
        lines.append(f"{string(word) or 'change'} {string(change.get('path'))}")
    return joined(lines)


def _tool_call(item: Mapping[str, Any]) -> str:
    names = (item.get("server"), item.get("namespace"), item.get("tool"))
    lines = [".".join(name for name in map(string, names) if name)]
    result, error = item.get("result"), item.get("error")
    content = result.get("content") if isinstance(result, dict) else item.get("contentItems")
    lines.append(_tail(joined(string(part.get("text")) for part in objects(content))))
    if isinstance(error, dict):
        lines.append(f"[failed] {string(error.get('message'))}")
    return joined(lines)


def _agent_call(item: Mapping[str, Any]) -> str:
    return joined([string(item.get("tool")), string(item.get("prompt"))])


def _field(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda item: string(item.get(name))


def _tail(text: str) -> str:
    text = text.rstrip("\n")
    return text if len(text) <= OUTPUT_LIMIT else "…" + text[-OUTPUT_LIMIT:]


_READERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "userMessage": _user_message,
    "reasoning": _reasoning,
    "commandExecution": _command,
    "fileChange": _file_change,
    "mcpToolCall": _tool_call,
    "dynamicToolCall": _tool_call,
    "collabAgentToolCall": _agent_call,
    "functionCallOutput": _field("name"),
    "webSearch": _field("query"),
    "imageView": _field("path"),
    "imageGeneration": _field("savedPath"),
    "enteredReviewMode": _field("review"),
    "exitedReviewMode": _field("review"),
    "contextCompaction": lambda _: "the conversation so far was summarised",
}
_ROLES = {
    "userMessage": "user",
    "agentMessage": "agent",
    "reasoning": "reasoning",
    "commandExecution": "tool",
    "fileChange": "tool",
    "mcpToolCall": "tool",
    "dynamicToolCall": "tool",
    "collabAgentToolCall": "tool",
    "functionCallOutput": "tool",
    "webSearch": "tool",
    "imageView": "tool",
    "imageGeneration": "tool",
}
