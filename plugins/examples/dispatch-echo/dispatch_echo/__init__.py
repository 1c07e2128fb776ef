"""``dispatch echo say`` and the trigger kind ``echo.never``: a plugin to copy.

One module, one entry point. Everything it needs comes from ``dispatch_core.api``, and nothing happens when it is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    TriggerConfig,
    TriggerKind,
    View,
    cli_field,
    hookimpl,
    safe_block,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from dispatch_core.api import PluginSettings

MOST = 100


class EchoSettings(BaseModel):
    """The table ``[echo]`` of the configuration file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    separator: str = Field(default=" ", description="What stands between two repetitions.")


class SayInput(OpInput):
    """What to say, and how often."""

    text: str = cli_field(description="What to say.", argument=True, min_length=1)
    times: int = cli_field(1, description="How often to say it.", ge=1, le=MOST)


class SayOutput(OpOutput):
    """What was said."""

    text: str = Field(description="The text, as often as it was asked for.")


class NeverConfig(TriggerConfig):
    """There is nothing to configure."""

    kind: Literal["echo.never"] = Field(default="echo.never", description="The kind itself.")


def never(config: NeverConfig, moment: datetime) -> datetime | None:
    """Return the next instant after moment at which a trigger of this kind fires: there is none."""
    del config, moment
    return None


def say(separator: str) -> Op[SayInput, SayOutput]:
    """Return the op that repeats a text with a separator."""

    async def handler(context: OpContext, request: SayInput) -> SayOutput:
        del context  # threads, storage, events, other ops: this one needs none of them
        return SayOutput(text=separator.join([request.text] * request.times))

    return Op(
        name="echo.say",
        summary="Say something back",
        noun="echo",
        input=SayInput,
        output=SayOutput,
        handler=handler,
        intent=Intent.READ,
        idempotent=True,
        examples=(
            Example(title="Say hi", input={"text": "hi"}, output={"text": "hi"}),
            Example(title="Refuse to say nothing", input={"text": ""}, error="validation"),
        ),
        render=_as_text,
    )


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[SayInput, SayOutput]]:
    """Return the op, made for the configuration."""
    return [say(settings.section("echo", EchoSettings).separator)]


@hookimpl
def dispatch_trigger_kinds() -> Iterable[TriggerKind[NeverConfig]]:
    """Return the trigger kind. A hook names the parameters it wants; this one wants none."""
    return [
        TriggerKind(
            name="echo.never",
            summary="Never: a trigger to pause, resume and remove",
            config=NeverConfig,
            next_after=never,
        )
    ]


def _as_text(output: SayOutput, view: View) -> str:
    del view  # one line needs no layout
    return safe_block(output.text)
