"""What Codex can ask of us, and how each question is answered with no."""

from __future__ import annotations

from typing import Any

NOBODY = "dispatch has nobody to ask; the request was declined"

REFUSALS: dict[str, dict[str, Any]] = {
    "item/commandExecution/requestApproval": {"decision": "decline"},
    "item/fileChange/requestApproval": {"decision": "decline"},
    "item/permissions/requestApproval": {"permissions": {}, "scope": "turn"},
    "item/tool/requestUserInput": {"answers": {}},
    "item/tool/call": {"contentItems": [{"type": "inputText", "text": NOBODY}], "success": False},
    "mcpServer/elicitation/request": {"action": "decline", "content": None, "_meta": None},
    # Of the first version of the protocol, which the schema still lists.
    "applyPatchApproval": {"decision": "denied"},
    "execCommandApproval": {"decision": "denied"},
}
