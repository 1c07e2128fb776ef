"""What Codex asks of us: its requests, read into the words of their kinds, and what tells that a question has gone away.

Read tolerantly: what is missing or of another type is None or empty, and the person who is asked sees that. How each request is
answered is in ``request_answers``.
"""

from __future__ import annotations

import json
import shlex
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.appserver.shapes import objects
from dispatch_core.contracts.requests import RequestKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SUMMARY_LIMIT = 200  # characters
CHANGES_KEPT = 256  # file changes that were announced and not yet done
CHANGES_CHARACTERS = 32 << 20  # of their diffs together
MCP_APPROVAL = "mcp_tool_call"
RESOLVED = "serverRequest/resolved"
ELICITATION_FORMS = frozenset({"form", "openai/form", "openaiForm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request. body: what is asked, in the words of its kind. summary: one line, as Codex sent it."""

    method: str
    kind: RequestKind
    thread_id: str
    turn_id: str | None
    item_id: str | None
    summary: str
    body: Mapping[str, Any]


class FileChanges:
    """The file changes that Codex has announced: a request to make one names it and does not show it."""

    def __init__(self) -> None:
        self._announced: OrderedDict[tuple[str, str], list[dict[str, Any]]] = OrderedDict()
        self._size = 0

    def notified(self, method: str, params: Mapping[str, Any]) -> None:
        """Take in a notification: remember what is announced, forget what is done. Never waits."""
        item, thread_id = params.get("item"), params.get("threadId")
        if not isinstance(item, dict) or item.get("type") != "fileChange":
            return
        key = (str(thread_id), str(item.get("id")))
        if method in ("item/started", "item/completed"):
            self._size -= _size(self._announced.pop(key, []))
        if method == "item/started":
            self._announced[key] = changes = [_change(c) for c in objects(item.get("changes"))]
            self._size += _size(changes)
        while len(self._announced) > CHANGES_KEPT or self._size > CHANGES_CHARACTERS:
            _, dropped = self._announced.popitem(last=False)
            self._size -= _size(dropped)

    def of(self, thread_id: str, item_id: str | None) -> list[dict[str, Any]] | None:
        """Return the changes of an item, None when they are not known."""
        return self._announced.get((thread_id, str(item_id)))

    def clear(self) -> None:
        """Codex is gone, and what it was about to do."""
        self._announced.clear()
        self._size = 0


def read_request(method: str, params: Mapping[str, Any], changes: FileChanges) -> Asked | None:
    """Return what is asked, or None for a method that is not for a person to answer."""
    reader = _READERS.get(method)
    if reader is None:
        return None
    thread_id = params.get("threadId", params.get("conversationId"))
    item_id = _string(params.get("itemId")) or _string(params.get("callId"))
    known = changes.of(str(thread_id), item_id)
    kind, summary, body = reader(params, known)
    return Asked(
        method=method,
        kind=kind,
        thread_id=str(thread_id),
        turn_id=_string(params.get("turnId")),
        item_id=item_id,
        summary=summary[:SUMMARY_LIMIT],
        body=body,
    )


def resolved(method: str, params: Mapping[str, Any]) -> str | None:
    """Return the id, as JSON text, of the request that Codex says is answered or gone."""
    request_id = params.get("requestId")
    if method != RESOLVED or not isinstance(request_id, int | str):
        return None
    return rpc_text(request_id)


def rpc_text(request_id: int | str) -> str:
    """Return a JSON-RPC id as JSON text: 7 and "7" are two ids."""
    return json.dumps(request_id)


_Read = tuple[RequestKind, str, dict[str, Any]]


def _command(params: Mapping[str, Any], _: object) -> _Read:
    command, reason = _string(params.get("command")), _string(params.get("reason"))
    to_terminal = params.get("kind") == "writeStdin"
    network = params.get("networkApprovalContext")
    body = {
        "command": command,
        "cwd": _string(params.get("cwd")),
        "reason": reason,
        "to_terminal": to_terminal,
        "environment": _string(params.get("environmentId")),
        "actions": objects(params.get("commandActions")),
        "additional_permissions": params.get("additionalPermissions"),
        "network": network if isinstance(network, dict) else None,
    }
    if isinstance(network, dict):
        return RequestKind.COMMAND, f"reach {network.get('host')} ({command or 'network'})", body
    head = "type into a terminal" if to_terminal else "run"
    return RequestKind.COMMAND, f"{head}: {command or '(no command was sent)'}", body


def _old_command(params: Mapping[str, Any], _: object) -> _Read:
    argv = params.get("command")
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    return _command({**params, "command": shlex.join(words) or None}, None)


def _files(params: Mapping[str, Any], changes: list[dict[str, Any]] | None) -> _Read:
    root = _string(params.get("grantRoot"))
    body = {
        "changes": changes,
        "reason": _string(params.get("reason")),
        "grant_root": root,
    }
    return RequestKind.FILE_CHANGE, _files_summary(changes, root), body


def _old_files(params: Mapping[str, Any], _: object) -> _Read:
    found = params.get("fileChanges")
    changes = [
        {
            "path": path,
            "change": str(change.get("type")),
            "moved_to": _string(change.get("move_path")),
            "diff": _string(change.get("unified_diff")) or _string(change.get("content")) or "",
        }
        for path, change in (found.items() if isinstance(found, dict) else ())
        if isinstance(change, dict)
    ]
    return _files(params, changes or None)


def _permissions(params: Mapping[str, Any], _: object) -> _Read:
    wanted = params.get("permissions")
    wanted = wanted if isinstance(wanted, dict) else {}
    named = ", ".join(name for name, value in wanted.items() if value) or "nothing"
    body = {
        "permissions": wanted,
        "reason": _string(params.get("reason")),
        "cwd": _string(params.get("cwd")),
    }
    return RequestKind.PERMISSIONS, f"more permissions: {named}", body


def _questions(params: Mapping[str, Any], _: object) -> _Read:
    questions = [
        {
            "id": str(question.get("id")),
            "header": _string(question.get("header")),
            "question": _string(question.get("question")) or "",
            "options": [
                {
                    "label": str(option.get("label")),
                    "description": _string(option.get("description")),
                }
                for option in objects(question.get("options"))
            ],
            "other": question.get("isOther") is True,
            "secret": question.get("isSecret") is True,
        }
        for question in objects(params.get("questions"))
    ]
    first = questions[0]["question"] if questions else "(no question was sent)"
    more = f" (and {len(questions) - 1} more)" if len(questions) > 1 else ""
    return RequestKind.USER_INPUT, f"{first}{more}", {"questions": questions}


def _tool_call(params: Mapping[str, Any], _: object) -> _Read:
    namespace, tool = _string(params.get("namespace")), str(params.get("tool"))
    body = {"namespace": namespace, "tool": tool, "arguments": params.get("arguments")}
    return RequestKind.TOOL_CALL, f"the result of {_dotted(namespace, tool)}", body


def _elicitation(params: Mapping[str, Any], _: object) -> _Read:
    meta, message = params.get("_meta"), _string(params.get("message")) or ""
    server, mode = str(params.get("serverName")), str(params.get("mode"))
    meta = meta if isinstance(meta, dict) else {}
    if meta.get("codex_approval_kind") == MCP_APPROVAL:
        body = {
            "server": server,
            "tool": _string(meta.get("tool_name")),
            "description": _string(meta.get("tool_description")),
            "arguments": meta.get("tool_params"),
            "message": message,
        }
        named = _dotted(server, _string(meta.get("tool_name")) or "(no tool was named)")
        return RequestKind.MCP_TOOL, f"call the tool {named}", body
    form = mode in ELICITATION_FORMS
    body = {
        "server": server,
        "mode": "form" if form else mode,
        "message": message or _string(params.get("description")) or "",
        "schema": params.get("requestedSchema") if form else None,
        "url": _string(params.get("url")),
    }
    return RequestKind.ELICITATION, f"{server} asks: {body['message']}", body


def _change(change: Mapping[str, Any]) -> dict[str, Any]:
    kind = change.get("kind")
    kind = kind if isinstance(kind, dict) else {"type": kind}
    return {
        "path": str(change.get("path")),
        "change": str(kind.get("type")),
        "moved_to": _string(kind.get("move_path")),
        "diff": _string(change.get("diff")) or "",
    }


def _files_summary(changes: list[dict[str, Any]] | None, root: str | None) -> str:
    if changes is None:
        return "change files; Codex did not say which"
    paths = ", ".join(f"{change['change']} {change['path']}" for change in changes)
    also = f", and write below {root} from now on" if root else ""
    return f"{paths or 'change nothing'}{also}"


def _size(changes: list[dict[str, Any]]) -> int:
    return sum(len(change["path"]) + len(change["diff"]) for change in changes)


def _dotted(head: str | None, tail: str) -> str:
    return f"{head}.{tail}" if head else tail


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


_READERS: dict[str, Callable[[Mapping[str, Any], Any], _Read]] = {
    "item/commandExecution/requestApproval": _command,
    "item/fileChange/requestApproval": _files,
    "item/permissions/requestApproval": _permissions,
    "item/tool/requestUserInput": _questions,
    "item/tool/call": _tool_call,
    "mcpServer/elicitation/request": _elicitation,
    # Of the first version of the protocol, which the schema still lists.
    "applyPatchApproval": _old_files,
    "execCommandApproval": _old_command,
}
METHODS = frozenset(_READERS)
