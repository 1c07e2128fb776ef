"""A trigger kind whose configuration cannot be written down."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 -- pydantic reads it
from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import Literal

from pydantic import Field

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    TriggerConfig,
    TriggerKind,
    hookimpl,
)


class IdleInput(OpInput):
    """Nothing to say."""


class IdleOutput(OpOutput):
    """Nothing to answer."""


async def do(context: OpContext, request: IdleInput) -> IdleOutput:
    del context, request
    return IdleOutput()


def op(name: str) -> Op[IdleInput, IdleOutput]:
    return Op(
        name=name,
        summary="Do nothing",
        noun=name.partition(".")[0],
        input=IdleInput,
        output=IdleOutput,
        handler=do,
        intent=Intent.READ,
        idempotent=True,
        examples=(Example(input={}, output={}),),
    )


@hookimpl
def dispatch_ops() -> list[Op[IdleInput, IdleOutput]]:
    return [op("oddkind.one")]


class OddConfig(TriggerConfig):
    """A function, which is not JSON."""

    kind: Literal["oddkind.odd"] = Field(default="oddkind.odd", description="The kind itself.")
    callback: Callable[[], None] = Field(description="What to call.")


def never(config: OddConfig, moment: datetime) -> datetime | None:
    del config, moment
    return None


@hookimpl
def dispatch_trigger_kinds() -> list[TriggerKind[OddConfig]]:
    return [
        TriggerKind(name="oddkind.odd", summary="Never", config=OddConfig, next_after=never),
    ]
