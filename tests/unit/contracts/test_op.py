"""What an op, a surface and a trigger kind must say of themselves."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import BaseModel, Field

from dispatch_core.contracts.fields import EXTRA, cli_field
from dispatch_core.contracts.op import Example, Intent, Op, OpInput, OpOutput
from dispatch_core.contracts.surface import Surface
from dispatch_core.contracts.trigger import TriggerConfig, TriggerKind


class In(OpInput):
    thread: str = cli_field(
        description="Which.", argument=True, aliases=("lane",), min_length=1, max_length=5
    )
    plain: int = cli_field(1, description="Plain.")


class Out(OpOutput):
    ok: bool = Field(description="Whether.")


class Bare(OpInput):
    thread: str


class Loose(BaseModel):
    thread: str = Field(description="Which.")


class BareOut(OpOutput):
    ok: bool


async def handler(context, request):
    return Out(ok=True)


GOOD = {
    "name": "poke",
    "summary": "Poke a thread",
    "noun": "thread",
    "input": In,
    "output": Out,
    "handler": handler,
    "intent": Intent.READ,
    "idempotent": True,
    "examples": (Example(input={"thread": "x"}, output={}),),
}


@pytest.mark.parametrize("name", ["send", "goal.set", "acme.deploy-all", "a_b.c2"])
def test_a_name_is_a_command_or_a_group_and_a_command(name):
    assert Op(**GOOD | {"name": name}).name == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "op name"),
        ({"name": "Send"}, "op name"),
        ({"name": "a.b.c"}, "op name"),
        ({"name": "-x"}, "op name"),
        ({"name": "send\n"}, "op name"),
        ({"summary": ""}, "summary"),
        ({"summary": "x" * 73}, "summary"),
        ({"summary": "a\nb"}, "summary"),
        ({"examples": ()}, "at least one example"),
        ({"input": Loose}, "frozen"),
        ({"input": Bare}, "Bare.thread has no description"),
        ({"output": BareOut}, "BareOut.ok has no description"),
    ],
)
def test_an_op_that_does_not_explain_itself_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Op(**GOOD | change)


@pytest.mark.parametrize("fields", [{}, {"output": {}, "error": "not_found"}])
def test_an_example_has_an_output_or_an_error(fields):
    with pytest.raises(ValueError, match="not both"):
        Example(input={}, **fields)


def test_what_the_command_line_needs_is_in_the_schema_and_only_that():
    properties = In.model_json_schema()["properties"]

    assert properties["thread"][EXTRA] == {"argument": True, "aliases": ["lane"]}
    assert (properties["thread"]["minLength"], properties["thread"]["maxLength"]) == (1, 5)
    assert EXTRA not in properties["plain"]


def test_an_input_knows_its_fields_and_does_not_change():
    with pytest.raises(ValueError, match="extra"):
        In(thread="x", other=1)
    with pytest.raises(ValueError, match="frozen"):
        In(thread="x").thread = "y"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "at least one"),
        ({"process": "no-colon"}, "module:function"),
        ({"session": "a:b:c"}, "module:function"),
        ({"process": "a b:c"}, "module:function"),
    ],
)
def test_a_surface_names_its_functions(fields, message):
    with pytest.raises(ValueError, match=message):
        Surface(name="s", summary="S", **fields)


class Config(TriggerConfig):
    kind: Literal["k"] = "k"


class NoKind(TriggerConfig):
    pass


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "exactly one"),
        ({"match": print, "watch": print}, "exactly one"),
        ({"match": print, "config": NoKind}, "no field 'kind'"),
        ({"match": print, "summary": "x" * 73}, "summary"),
    ],
)
def test_a_trigger_kind_has_one_shape_and_a_kind(fields, message):
    with pytest.raises(ValueError, match=message):
        TriggerKind(**{"name": "k", "summary": "S", "config": Config} | fields)
