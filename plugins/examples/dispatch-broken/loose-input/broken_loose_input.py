"""An op that accepts whatever it is given."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dispatch_core.api import Example, Intent, Op, OpContext, OpOutput, hookimpl


class IdleInput(BaseModel):
    """Anything."""

    model_config = ConfigDict(frozen=True, extra="allow")


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
    return [op("loose.one")]
