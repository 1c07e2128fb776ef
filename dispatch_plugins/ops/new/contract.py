"""What ``new`` takes and what it answers."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field, JsonValue

from dispatch_core.api import OpInput, OpOutput, ThreadView, TurnView, cli_field
from dispatch_plugins.ops.shared.access import (
    NAME_LIMIT,
    ApprovalPolicy,
    Sandbox,
)


class Reviewer(StrEnum):
    """Who answers what Codex asks."""

    USER = "user"
    AUTO_REVIEW = "auto_review"
    GUARDIAN_SUBAGENT = "guardian_subagent"


class Summary(StrEnum):
    """How the model's reasoning is summed up."""

    AUTO = "auto"
    CONCISE = "concise"
    DETAILED = "detailed"
    NONE = "none"


class Personality(StrEnum):
    """How the model speaks."""

    NONE = "none"
    FRIENDLY = "friendly"
    PRAGMATIC = "pragmatic"


class NewInput(OpInput):
    """What a new thread is to be. What is left out comes from presets and configuration, then from Codex itself."""

    name: str = cli_field(
        description="Name of the thread; its handle is @NAME.",
        argument=True,
        min_length=1,
        max_length=NAME_LIMIT,
    )
    text: str | None = cli_field(None, description="First message.", argument=True, stdin=True)
    input_file: str | None = cli_field(
        None, description="UTF-8 file with the first message.", file=True, min_length=1
    )
    image: list[str] = cli_field(
        [], description="Picture that goes with the first message.", file=True
    )
    preset: list[str] = cli_field(
        [],
        description="Preset of the configuration; later ones win.",
        complete="preset",
    )
    cwd: str | None = cli_field(
        None,
        description="Working directory of the thread; otherwise the configured one, or where "
        "the command is given.",
        path=True,
        min_length=1,
    )
    caller_cwd: str | None = cli_field(
        None,
        description="Where the command is given; used when cwd is not.",
        path=True,
        default_cwd=True,
        hidden=True,
        min_length=1,
    )
    prefix: str | None = cli_field(
        None, description="What stands before the name; an empty one for nothing."
    )
    sandbox: Sandbox | None = cli_field(None, description="What commands may touch.")
    approval_policy: ApprovalPolicy | None = cli_field(None, description="When Codex asks first.")
    approvals_reviewer: Reviewer | None = cli_field(
        None, description="Who answers what Codex asks."
    )
    permissions: str | None = cli_field(
        None,
        description="Permission profile, in place of sandbox and approvals.",
        min_length=1,
    )
    model: str | None = cli_field(
        None,
        description="Model, by its id; dispatch models lists them.",
        min_length=1,
        complete="model",
    )
    model_provider: str | None = cli_field(
        None,
        description="Provider that serves the model.",
        min_length=1,
        aliases=("provider",),
    )
    effort: str | None = cli_field(
        None, description="How much the model reasons, as the model offers it.", min_length=1
    )
    summary: Summary | None = cli_field(None, description="How reasoning is summed up.")
    personality: Personality | None = cli_field(None, description="How the model speaks.")
    service_tier: str | None = cli_field(
        None, description="Service tier, by id or name, such as fast.", min_length=1
    )
    ephemeral: bool | None = cli_field(None, description="Keep no history of the thread.")
    output_schema: dict[str, Any] | None = cli_field(
        None, description="JSON schema of every final answer."
    )
    output_schema_file: str | None = cli_field(
        None, description="JSON file with that schema.", file=True, min_length=1
    )
    base_instructions: str | None = cli_field(
        None, description="What replaces the model's own instructions.", min_length=1
    )
    base_file: str | None = cli_field(
        None, description="UTF-8 file with the base instructions.", file=True, min_length=1
    )
    developer_instructions: str | None = cli_field(
        None, description="What is said to the model in addition.", min_length=1
    )
    developer_file: str | None = cli_field(
        None, description="UTF-8 file with the developer instructions.", file=True, min_length=1
    )
    goal: str | None = cli_field(
        None, description="What the thread works towards by itself.", min_length=1
    )
    goal_budget: int | None = cli_field(
        None, description="Tokens after which the goal stops.", ge=1
    )
    goal_unbounded: bool = cli_field(
        False, description="Let the goal go on without a budget; it needs this or a budget."
    )
    send: bool = cli_field(True, description="Send the text at once.")
    dry_run: bool = cli_field(
        False, description="Show what would be done, and where each value comes from."
    )


class PlannedSetting(OpOutput):
    """One setting of the thread to be, and where it comes from."""

    name: str = Field(description="The setting.")
    value: JsonValue = Field(description="Its value; null when it is left to Codex.")
    source: str = Field(
        description="built-in, user config PATH, project config PATH, preset NAME in PATH, option, "
        "or codex."
    )


class PlannedText(OpOutput):
    """One text that would go to Codex: its size and digest, not the text."""

    name: str = Field(description="text, base_instructions, developer_instructions or goal.")
    bytes: int = Field(description="Size in UTF-8.")
    sha256: str = Field(description="Digest of the UTF-8.")
    path: str | None = Field(description="The file it was read from.")
    source: str = Field(description="Where it, or its file, was named.")


class Plan(OpOutput):
    """What would be done."""

    name: str = Field(description="Name of the thread, with its prefix.")
    handle: str = Field(description="Its handle.")
    cwd: str = Field(description="Its working directory.")
    settings: list[PlannedSetting] = Field(description="Every setting, with its source.")
    texts: list[PlannedText] = Field(description="The texts, by size and digest.")
    files: dict[str, str] = Field(
        description="The configuration that was read: path by user and project."
    )
    images: list[str] = Field(description="Pictures that go with the first message.")
    would_send: bool = Field(description="Whether a first message would be sent.")
    goal: str | None = Field(description="The goal that would be set.")
    goal_budget: int | None = Field(description="Its budget in tokens.")


class NewOutput(OpOutput):
    """The thread, and its first turn if a message was sent; or, of a dry run, the plan."""

    thread: ThreadView | None = Field(description="The new thread; null for a dry run.")
    plan: Plan | None = Field(description="What would be done; null unless it is a dry run.")
    message_accepted: bool = Field(description="Whether a first message was handed to Codex.")
    goal_set: bool = Field(description="Whether a goal was set.")
    turn: TurnView | None = Field(description="The turn it started; null when nothing was sent.")
    notes: list[str] = Field(
        description="What was passed over: keys of a project's configuration that do not count."
    )
