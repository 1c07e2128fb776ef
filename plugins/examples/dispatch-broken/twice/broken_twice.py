"""The same op, twice."""

from __future__ import annotations

from dispatch_core.api import Example, Intent, Op, OpContext, OpInput, OpOutput, hookimpl


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
    return [op("twice.one"), op("twice.one")]
