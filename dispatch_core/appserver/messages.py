"""What is sent to Codex, exactly, and what is read of its answers, tolerantly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from dispatch_core.contracts.records import Message

SandboxMode = Literal["read-only", "workspace-write", "danger-full-access"]
ApprovalPolicy = Literal["untrusted", "on-request", "never"]
ItemsView = Literal["notLoaded", "summary", "full"]
ImageDetail = Literal["auto", "low", "high", "original"]


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


class TextInput(Params):
    """A piece of a message."""

    type: Literal["text"] = Field(default="text", description="The kind of piece.")
    text: str = Field(description="The text.")


class LocalImageInput(Params):
    """A picture in a message. Codex reads the file when the turn asks the model."""

    type: Literal["localImage"] = Field(default="localImage", description="The kind of piece.")
    path: str = Field(description="Absolute path.")
    detail: ImageDetail | None = Field(default=None, description="How closely it is looked at.")


InputPiece = TextInput | LocalImageInput


class TurnStartParams(Params):
    """``turn/start``. In a busy thread it does not start a turn: it steers the running one."""

    thread_id: str = Field(description="Codex's thread id.")
    input: tuple[InputPiece, ...] = Field(description="The message.")
    client_user_message_id: str | None = Field(
        default=None, description="Stored with the message; no protection against repetition."
    )
    model: str | None = Field(default=None, description="Model id, also for later turns.")
    effort: str | None = Field(default=None, description="Reasoning effort, also later.")
    summary: str | None = Field(default=None, description="Reasoning summary, also later.")
    personality: str | None = Field(default=None, description="Personality, also later.")
    service_tier: str | None = Field(default=None, description="Service tier, also later.")
    output_schema: dict[str, Any] | None = Field(
        default=None, description="JSON schema of the final message of this turn."
    )
    approval_policy: ApprovalPolicy | None = Field(default=None, description="When to ask.")
    approvals_reviewer: str | None = Field(default=None, description="Who is asked.")
    permissions: str | None = Field(
        default=None, description="A permission profile, in place of a sandbox mode."
    )
    cwd: str | None = Field(default=None, description="Working directory, also for later turns.")


class TurnSteerParams(Params):
    """``turn/steer``. The reply that is being streamed is dropped and asked for anew."""

    thread_id: str = Field(description="Codex's thread id.")
    expected_turn_id: str = Field(description="The running turn; refused when another runs.")
    input: tuple[InputPiece, ...] = Field(description="The message.")
    client_user_message_id: str | None = Field(
        default=None, description="Stored with the message; no protection against repetition."
    )


class ThreadInjectItemsParams(Params):
    """``thread/inject_items``: the model sees them, and no list of turns or items has them."""

    thread_id: str = Field(description="Codex's thread id.")
    items: tuple[dict[str, Any], ...] = Field(description="Items of the Responses API.")


class CommandsListParams(Params):
    """``thread/backgroundTerminals/list``: the commands that run now, also in the running turn."""

    thread_id: str = Field(description="Codex's thread id.")
    cursor: str | None = Field(default=None, description="Where the last page ended; opaque.")


class CommandsCleanParams(Params):
    """``thread/backgroundTerminals/clean``: end every command of the thread."""

    thread_id: str = Field(description="Codex's thread id.")


class CommandTerminateParams(Params):
    """``thread/backgroundTerminals/terminate``: end one command."""

    thread_id: str = Field(description="Codex's thread id.")
    process_id: str = Field(description="Codex's id of the process, as the list has it.")


class TurnInterruptParams(Params):
    """``turn/interrupt``. Refused between the answer to turn/start and turn/started."""

    thread_id: str = Field(description="Codex's thread id.")
    turn_id: str = Field(description="The running turn.")


def text_input(text: str) -> TextInput:
    """Return a message, or a piece of it."""
    return TextInput(text=text)


def message_input(message: Message) -> tuple[InputPiece, ...]:
    """Return a message as its pieces: the text, then the pictures."""
    pictures = (LocalImageInput(path=image.path, detail=image.detail) for image in message.images)
    return (text_input(message.text), *pictures)


def context_item(text: str) -> dict[str, Any]:
    """Return text as the item of the Responses API that a message of the user is."""
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


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
