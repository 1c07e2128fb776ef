"""What is asked about Codex's offer, and what is answered."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import Literal

from pydantic import Field

from dispatch_core.api import OpInput, OpOutput, cli_field

Origin = Literal["app-server", "cache"]
REFRESH = "Ask Codex; otherwise show what it said last, with its age."


class ModelsInput(OpInput):
    """Which models to show, and where to look."""

    refresh: bool = cli_field(True, description=REFRESH)
    hidden: bool = cli_field(
        False, description="Show the models as well that Codex leaves out of its own list."
    )


class PermissionsInput(OpInput):
    """Which permission profiles to show, and where to look."""

    cwd: str | None = cli_field(
        None,
        description="The directory whose project configuration counts.",
        path=True,
        default_cwd=True,
    )
    disallowed: bool = cli_field(
        False, description="Show the profiles as well that may not be chosen here."
    )
    refresh: bool = cli_field(True, description=REFRESH)


class Effort(OpOutput):
    """How much a model may think."""

    id: str = Field(description="Value for --effort.")
    description: str | None = Field(description="What it means.")


class Tier(OpOutput):
    """How a model may be served."""

    id: str = Field(description="The id that Codex knows.")
    name: str = Field(description="Its name.")
    description: str | None = Field(description="What it means.")


class Model(OpOutput):
    """A model that Codex offers."""

    id: str = Field(description="Value for --model.")
    provider: str | None = Field(description="The provider it is asked at; null if unknown.")
    name: str = Field(description="Its name.")
    description: str | None = Field(description="What it is for.")
    default: bool = Field(description="Whether Codex takes it when nothing else is said.")
    hidden: bool = Field(description="Whether Codex leaves it out of its own list.")
    default_effort: str | None = Field(description="Effort when nothing else is said.")
    efforts: list[Effort] = Field(description="The efforts it takes.")
    default_service_tier: str | None = Field(description="Tier when nothing else is said.")
    service_tiers: list[Tier] = Field(description="The tiers it can be served in.")
    aliases: dict[str, str] = Field(
        description="Further names of its tiers, such as fast, with the id behind each."
    )
    input_modalities: list[str] = Field(description="What a message may hold: text, image, audio.")
    upgrade: str | None = Field(description="The model that Codex suggests in its place.")


class Configured(OpOutput):
    """What Codex's own configuration says; null where it says nothing."""

    model: str | None = Field(default=None, description="The model.")
    model_provider: str | None = Field(default=None, description="The provider.")
    effort: str | None = Field(default=None, description="The reasoning effort.")
    service_tier: str | None = Field(default=None, description="The service tier.")


class ModelsOutput(OpOutput):
    """The models, and how fresh the list is."""

    catalog_state: Literal["ready", "empty"] = Field(description="empty: no model is known.")
    hint: str | None = Field(description="What to do when there is nothing to show.")
    source: Origin = Field(description="app-server: Codex was asked. cache: it said so earlier.")
    refreshed_at: datetime | None = Field(description="When Codex said it; null if it never did.")
    warning: str | None = Field(description="Why the cache was read though Codex was to be asked.")
    configured: Configured = Field(description="What applies when a thread says nothing.")
    models: list[Model] = Field(description="The models.")


class Profile(OpOutput):
    """A permission profile: what commands may touch, and what must be asked for."""

    id: str = Field(description="Value for --permissions.")
    description: str | None = Field(description="What it allows.")
    allowed: bool = Field(description="Whether it may be chosen here.")
    built_in: bool = Field(
        description="Whether it is Codex's own, and not from a configuration file."
    )


class PermissionsOutput(OpOutput):
    """The permission profiles of a directory, and how fresh the list is."""

    catalog_state: Literal["ready", "empty", "unsupported"] = Field(
        description="empty: there is none. unsupported: this Codex knows no profiles."
    )
    hint: str | None = Field(description="What to do when there is nothing to show.")
    source: Origin = Field(description="app-server: Codex was asked. cache: it said so earlier.")
    refreshed_at: datetime | None = Field(description="When Codex said it; null if it never did.")
    warning: str | None = Field(description="Why the cache was read though Codex was to be asked.")
    cwd: str | None = Field(description="The directory whose project configuration counts.")
    profiles: list[Profile] = Field(description="The profiles.")
