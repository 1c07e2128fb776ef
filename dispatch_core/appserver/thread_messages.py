"""What is sent to Codex about a thread as a whole, and what it says of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from dispatch_core.appserver.messages import ApprovalPolicy, ItemsView, Params, SandboxMode
from dispatch_core.contracts.records import ModelInUse, ThreadStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

ApprovalsReviewer = Literal["user", "auto_review", "guardian_subagent"]
Personality = Literal["none", "friendly", "pragmatic"]

ARCHIVE = "archived_sessions"  # the directory that tells an archived thread from another
WAITING = ("waitingOnApproval", "waitingOnUserInput")


class ThreadChoices(Params):
    """How a thread is to work; what ``thread/start``, ``thread/resume`` and ``thread/fork`` have in common."""

    cwd: str | None = Field(default=None, description="Absolute working directory.")
    sandbox: SandboxMode | None = Field(default=None, description="What commands may touch.")
    permissions: str | None = Field(
        default=None, description="Id of a permission profile; not together with sandbox."
    )
    approval_policy: ApprovalPolicy | None = Field(default=None, description="When to ask.")
    approvals_reviewer: ApprovalsReviewer | None = Field(default=None, description="Who is asked.")
    model: str | None = Field(default=None, description="Model id.")
    model_provider: str | None = Field(default=None, description="Provider id.")
    service_tier: str | None = Field(default=None, description="Id of a service tier.")
    base_instructions: str | None = Field(
        default=None, description="In place of Codex's own instructions."
    )
    developer_instructions: str | None = Field(default=None, description="Beside Codex's own.")
    config: dict[str, Any] | None = Field(default=None, description="Codex settings, by key.")


class ThreadStartParams(ThreadChoices):
    """``thread/start``. Nothing is on disk before the first turn; a missing cwd is not noticed."""

    personality: Personality | None = Field(default=None, description="How the model talks.")
    ephemeral: bool | None = Field(default=None, description="Never write it to disk.")
    thread_source: str | None = Field(default=None, description="Our mark, stored and returned.")


class ThreadResumeParams(ThreadChoices):
    """``thread/resume``: load a thread from disk and subscribe to it."""

    thread_id: str = Field(description="Codex's thread id.")
    exclude_turns: bool = Field(default=True, description="Leave the history out of the answer.")
    personality: Personality | None = Field(default=None, description="How the model talks.")


class ThreadForkParams(ThreadChoices):
    """``thread/fork``: another thread that begins with the history of this one."""

    thread_id: str = Field(description="The thread whose history it is.")
    last_turn_id: str | None = Field(default=None, description="The last turn to take over.")
    exclude_turns: bool = Field(default=True, description="Leave the history out of the answer.")
    thread_source: str | None = Field(default=None, description="Our mark, stored and returned.")


class ThreadIdParams(Params):
    """``thread/archive``, ``thread/unarchive``, ``thread/read`` and ``thread/compact/start``."""

    thread_id: str = Field(description="Codex's thread id.")


class ThreadNameSetParams(Params):
    """``thread/name/set``."""

    thread_id: str = Field(description="Codex's thread id.")
    name: str = Field(min_length=1, description="The name.")


class ThreadRevertParams(Params):
    """``thread/revert``. A turn that runs is interrupted; files are not touched."""

    thread_id: str = Field(description="Codex's thread id.")
    before_turn_id: str = Field(description="The first turn to forget.")


class ThreadItemsListParams(Params):
    """``thread/items/list``: one page of items; not for threads with the older history format."""

    thread_id: str = Field(description="Codex's thread id.")
    limit: int = Field(ge=1, description="Items per page; Codex gives at most 100.")
    cursor: str | None = Field(default=None, description="Where the last page ended; opaque.")
    sort_direction: Literal["asc", "desc"] = Field(default="desc", description="Newest first.")


class ThreadTurnsListParams(Params):
    """``thread/turns/list``: one page of turns."""

    thread_id: str = Field(description="Codex's thread id.")
    limit: int | None = Field(default=None, ge=1, description="Turns per page.")
    cursor: str | None = Field(default=None, description="Where the last page ended; opaque.")
    sort_direction: Literal["asc", "desc"] = Field(default="desc", description="Newest first.")
    items_view: ItemsView = Field(default="notLoaded", description="How much of each turn.")


SANDBOXES = {
    "readOnly": "read-only",
    "workspaceWrite": "workspace-write",
    "dangerFullAccess": "danger-full-access",
}


@dataclass(frozen=True, slots=True)
class Started:
    """A thread that Codex holds now. name: in Codex's own lists. sandbox: the mode, None if it is none that we know."""

    id: str
    name: str | None
    cwd: str | None
    in_use: ModelInUse
    sandbox: str | None = None


@dataclass(frozen=True, slots=True)
class ThreadFacts:
    """What Codex says of a thread without loading it.

    status: UNKNOWN unless this Codex holds it. stored: it is on disk. path: of the file in which it is, or will be.
    """

    id: str
    name: str | None
    preview: str | None
    cwd: str
    status: ThreadStatus
    stored: bool
    ephemeral: bool
    in_use: ModelInUse
    path: str | None = None

    @property
    def archived(self) -> bool:
        return self.status is ThreadStatus.ARCHIVED


def read_started(answer: Mapping[str, Any]) -> Started:
    """Return what the answer to ``thread/start``, ``thread/resume`` or ``thread/fork`` says. Raises KeyError without an id."""
    thread = _object(answer.get("thread"))
    return Started(
        id=str(thread["id"]),
        name=_text(thread.get("name")),
        cwd=_text(answer.get("cwd")) or _text(thread.get("cwd")),
        in_use=_in_use(answer),
        sandbox=SANDBOXES.get(str(_object(answer.get("sandbox")).get("type"))),
    )


def read_facts(answer: Mapping[str, Any]) -> ThreadFacts:
    """Return what the answer to ``thread/read`` or ``thread/unarchive`` says. Raises KeyError without an id."""
    thread = _object(answer.get("thread"))
    path, preview = _text(thread.get("path")), _text(thread.get("preview"))
    kind = _object(thread.get("status")).get("type")
    return ThreadFacts(
        id=str(thread["id"]),
        name=_text(thread.get("name")),
        preview=preview,
        cwd=_text(thread.get("cwd")) or "/",
        status=_status(thread, path),
        # A thread without a turn has a path and no file; only one that Codex holds can be without.
        stored=path is not None and (preview is not None or kind == "notLoaded"),
        ephemeral=thread.get("ephemeral") is True,
        in_use=_in_use(thread),
        path=path,
    )


def _status(thread: Mapping[str, Any], path: str | None) -> ThreadStatus:
    if path is not None and PurePath(path).parent.name == ARCHIVE:
        return ThreadStatus.ARCHIVED
    status = _object(thread.get("status"))
    if status.get("type") == "active":
        flags = status.get("activeFlags")
        waiting = isinstance(flags, list) and any(flag in WAITING for flag in flags)
        return ThreadStatus.WAITING_APPROVAL if waiting else ThreadStatus.BUSY
    words = {"idle": ThreadStatus.IDLE, "systemError": ThreadStatus.ERROR}
    return words.get(str(status.get("type")), ThreadStatus.UNKNOWN)


def _in_use(said: Mapping[str, Any]) -> ModelInUse:
    return ModelInUse(
        provider=_text(said.get("modelProvider")),
        model=_text(said.get("model")),
        effort=_text(said.get("reasoningEffort")),
        service_tier=_text(said.get("serviceTier")),
    )


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
