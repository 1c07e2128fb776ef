"""What is sent to Codex, exactly, and what is read of its answers, tolerantly."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from dispatch_core.errors import ValidationFailed

SandboxMode = Literal["read-only", "workspace-write", "danger-full-access"]
ApprovalPolicy = Literal["untrusted", "on-request", "never"]
ItemsView = Literal["notLoaded", "summary", "full"]

SANDBOX_TYPES = {
    "read-only": "readOnly",
    "workspace-write": "workspaceWrite",
    "danger-full-access": "dangerFullAccess",
}


class Params(BaseModel):
    """Base of what is sent; what is None is left out, so that Codex's own configuration applies."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        defer_build=True,
    )

    def wire(self) -> dict[str, Any]:
        """Return the JSON object in Codex's spelling."""
        return self.model_dump(by_alias=True, exclude_none=True)


class ClientInfo(Params):
    """Who connects."""

    name: str = Field(description="Stored by Codex as the originator of every thread.")
    title: str = Field(description="The name for people.")
    version: str = Field(description="Our version.")


class Capabilities(Params):
    """What the connection wants."""

    experimental_api: bool = Field(description="Whether experimental methods and fields work.")
    opt_out_notification_methods: tuple[str, ...] = Field(
        default=(), description="Notifications that are not to be sent, by exact name."
    )


class InitializeParams(Params):
    """``initialize``: the first request."""

    client_info: ClientInfo = Field(description="Who connects.")
    capabilities: Capabilities = Field(description="What the connection wants.")


class ThreadStartParams(Params):
    """``thread/start``. Nothing is on disk before the first turn; a missing cwd is not noticed."""

    cwd: str = Field(description="Absolute working directory.")
    sandbox: SandboxMode | None = Field(default=None, description="What commands may touch.")
    approval_policy: ApprovalPolicy | None = Field(default=None, description="When to ask.")
    model: str | None = Field(default=None, description="Model id.")
    model_provider: str | None = Field(default=None, description="Provider id.")
    thread_source: str | None = Field(default=None, description="Our mark, stored and returned.")
    config: dict[str, Any] | None = Field(default=None, description="Codex settings, by key.")


class ThreadResumeParams(Params):
    """``thread/resume``: load a thread from disk and subscribe to it."""

    thread_id: str = Field(description="Codex's thread id.")
    exclude_turns: bool = Field(default=True, description="Leave the history out of the answer.")


class ThreadNameSetParams(Params):
    """``thread/name/set``."""

    thread_id: str = Field(description="Codex's thread id.")
    name: str = Field(min_length=1, description="The name.")


class ThreadTurnsListParams(Params):
    """``thread/turns/list``: one page of history."""

    thread_id: str = Field(description="Codex's thread id.")
    limit: int | None = Field(default=None, ge=1, description="Turns per page.")
    cursor: str | None = Field(default=None, description="Where the last page ended; opaque.")
    sort_direction: Literal["asc", "desc"] = Field(default="desc", description="Newest first.")
    items_view: ItemsView = Field(default="full", description="How much of each turn.")


class TextInput(Params):
    """A piece of a message."""

    type: Literal["text"] = Field(default="text", description="The kind of piece.")
    text: str = Field(description="The text.")


class TurnStartParams(Params):
    """``turn/start``. In a busy thread it does not start a turn: it steers the running one."""

    thread_id: str = Field(description="Codex's thread id.")
    input: tuple[TextInput, ...] = Field(description="The message.")
    client_user_message_id: str | None = Field(
        default=None, description="Stored with the message; no protection against repetition."
    )
    model: str | None = Field(default=None, description="Model id, also for later turns.")
    effort: str | None = Field(default=None, description="Reasoning effort, also later.")
    approval_policy: ApprovalPolicy | None = Field(default=None, description="When to ask.")
    sandbox_policy: dict[str, Any] | None = Field(default=None, description="See sandbox_policy.")
    cwd: str | None = Field(default=None, description="Working directory, also for later turns.")


class TurnInterruptParams(Params):
    """``turn/interrupt``. Refused between the answer to turn/start and turn/started."""

    thread_id: str = Field(description="Codex's thread id.")
    turn_id: str = Field(description="The running turn.")


def text_input(text: str) -> TextInput:
    """Return a message, or a piece of it."""
    return TextInput(text=text)


def sandbox_policy(mode: str) -> dict[str, Any]:
    """Return the form that ``turn/start`` wants of a sandbox mode. Raises ValidationFailed."""
    try:
        return {"type": SANDBOX_TYPES[mode]}
    except KeyError:
        raise ValidationFailed(
            f"{mode!r} is no sandbox mode", hint=f"use one of {', '.join(SANDBOX_TYPES)}"
        ) from None


def _text_or_none(value: object) -> object:
    return value if isinstance(value, str) else None


def _number_or_none(value: object) -> object:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _dicts(value: object) -> object:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else ()


# What Codex changes or leaves out must not cost the rest of the answer.
Text = Annotated[str | None, BeforeValidator(_text_or_none)]
Seconds = Annotated[float | None, BeforeValidator(_number_or_none)]
Items = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_dicts)]


class Received(BaseModel):
    """Base of what is read: unknown fields are ignored, and only the id must be there."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        defer_build=True,
    )

    id: str = Field(description="Codex's id.")


class TurnInfo(Received):
    """A turn. status: inProgress, completed, failed or interrupted."""

    status: Text = Field(default=None, description="Where it stands.")
    items: Items = Field(default=(), description="As many as the answer holds, oldest first.")
    error_message: Text = Field(
        default=None, validation_alias=AliasPath("error", "message"), description="Why it failed."
    )
    started_at: Seconds = Field(default=None, description="Unix time.")
    completed_at: Seconds = Field(default=None, description="Unix time.")

    def holds_message(self, client_id: str) -> bool:
        """Say whether a user message with this clientUserMessageId is among the items."""
        return any(
            item.get("type") == "userMessage" and item.get("clientId") == client_id
            for item in self.items
        )
