"""The operation: authored once, projected onto every surface."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dispatch_core.contracts.context import OpContext
    from dispatch_core.contracts.view import View

NAME = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*(?:\.[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*)?")
SUMMARY_LIMIT = 72

I = TypeVar("I", bound=BaseModel)  # noqa: E741 -- the input of an op
O = TypeVar("O", bound=BaseModel)  # noqa: E741 -- the output of an op


class OpInput(BaseModel):
    """Base of every op input: frozen, and an unknown field is an error. Validators are built on first use."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class OpOutput(BaseModel):
    """Base of every op output: a frozen JSON object."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Intent(StrEnum):
    """What an op does to the world: MCP hints, confirmation on the CLI and authority follow from it."""

    READ = "read"
    WRITE = "write"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Documentation and test at once: an input and what must come of it.

    Run in the example world of the test kit (threads ``@builder``, with one finished turn, and ``@reviewer``, without any).
    output: the fields that must be equal; fields left out are not compared. error: the code that must be raised instead.
    """

    input: Mapping[str, Any]
    output: Mapping[str, Any] | None = None
    error: str | None = None
    title: str = ""

    def __post_init__(self) -> None:
        if (self.output is None) == (self.error is None):
            raise ValueError("an example has an output or an error, and not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An op whose answer goes on: the input has ``after``, the output ``cursor``, and the call is repeated from there.

    A call with ``after`` waits until there is something, or for its ``timeout``. An output field ``gap``, if there is one, says
    whether rows are missing before the first. rows: the list in the output. always: the command line follows unless the call is
    bounded by ``limit`` or ``timeout``; otherwise it follows only when asked (--follow).
    """

    rows: str
    always: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Op(Generic[I, O]):
    """One operation; CLI command, MCP tool, control method, schema and reference page are derived from it.

    name: "send", "goal.set", third party "acme.deploy"; a dot is a CLI group. summary: imperative, one line, at most 72
    characters. noun: what it acts on ("thread", "message", "trigger", "daemon", a third party's namespace); help sections and MCP
    tools are grouped by it. idempotent: permits one retry after a reconnect; an input field ``idempotency_key`` says that calls
    with the same key have the effect of one, and triggers fill it in. render: text for people, laid out for
    the width and colours of the view. timeout: seconds, None for ops that wait. hidden_from: names of surfaces. stream: how
    the answer goes on, for ops that can be followed. progress: while it runs the op publishes ``op.progress`` events with
    {"op", "text", "done", "total"}, which a terminal shows.
    """

    name: str
    summary: str
    noun: str
    input: type[I]
    output: type[O]
    handler: Callable[[OpContext, I], Awaitable[O]]
    intent: Intent
    idempotent: bool
    examples: tuple[Example, ...]
    render: Callable[[O, View], str] | None = None
    timeout: float | None = 30.0
    hidden_from: frozenset[str] = field(default_factory=frozenset)
    stream: Stream | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"op name {self.name!r}: lower-case words, at most one dot")
        if not self.summary or len(self.summary) > SUMMARY_LIMIT or "\n" in self.summary:
            raise ValueError(
                f"op {self.name}: the summary is one line of 1 to {SUMMARY_LIMIT} characters"
            )
        if not self.examples:
            raise ValueError(f"op {self.name}: at least one example")
        if self.input.model_config.get("extra") != "forbid" or not self.input.model_config.get(
            "frozen"
        ):
            raise ValueError(
                f"op {self.name}: the input model must be frozen with extra='forbid' (use OpInput)"
            )
        if self.stream is not None and not (
            "after" in self.input.model_fields
            and {"cursor", self.stream.rows} <= self.output.model_fields.keys()
        ):
            raise ValueError(
                f"op {self.name}: a stream needs input 'after' and output 'cursor' and {self.stream.rows!r}"
            )
        for model in (self.input, self.output):
            missing = [name for name, info in model.model_fields.items() if not info.description]
            if missing:
                raise ValueError(
                    f"op {self.name}: {model.__name__}.{missing[0]} has no description"
                )
