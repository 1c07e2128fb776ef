"""The inbox: what Codex asks while a turn runs, and the answers that people give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import Example, Intent, Op, PluginSettings, hookimpl
from dispatch_plugins.ops.requests import handlers, text
from dispatch_plugins.ops.requests.contract import (
    DeferInput,
    DeferOutput,
    ListInput,
    ListOutput,
    RespondInput,
    RespondOutput,
    ShowInput,
    ShowOutput,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

NOUN = "request"
NOBODY = "01a00000-0000-7000-8000-000000000000"
# What speaks MCP is an agent, and none answers for a person.
PEOPLE_ONLY = frozenset({"mcp"})

LIST = Op(
    name="request.list",
    summary="List what Codex asks and nobody has answered yet",
    noun=NOUN,
    input=ListInput,
    output=ListOutput,
    handler=handlers.list_requests,
    intent=Intent.READ,
    idempotent=True,
    render=text.render_list,
    examples=(
        Example(title="nothing is asked", input={}, output={"requests": [], "next": None}),
        Example(title="no such thread", input={"thread": "@nobody"}, error="not_found"),
    ),
)
SHOW = Op(
    name="request.show",
    summary="Show what Codex asks in full, and how to answer it",
    noun=NOUN,
    input=ShowInput,
    output=ShowOutput,
    handler=handlers.show,
    intent=Intent.READ,
    idempotent=True,
    render=text.render_show,
    examples=(
        Example(title="an id that no request has", input={"request": NOBODY}, error="not_found"),
    ),
)
RESPOND = Op(
    name="request.respond",
    summary="Answer what Codex asks, once",
    noun=NOUN,
    input=RespondInput,
    output=RespondOutput,
    handler=handlers.respond,
    intent=Intent.WRITE,
    idempotent=False,
    hidden_from=PEOPLE_ONLY,
    render=text.render_respond,
    examples=(
        Example(
            title="an id that no request has",
            input={"request": NOBODY, "accept": True},
            error="not_found",
        ),
        Example(
            title="a yes that is a no as well",
            input={"request": NOBODY, "accept": True, "decline": True},
            error="validation",
        ),
    ),
)
DEFER = Op(
    name="request.defer",
    summary="Give a request more time before it is declined",
    noun=NOUN,
    input=DeferInput,
    output=DeferOutput,
    handler=handlers.defer,
    intent=Intent.WRITE,
    idempotent=True,
    hidden_from=PEOPLE_ONLY,
    render=text.render_defer,
    examples=(
        Example(
            title="an id that no request has",
            input={"request": NOBODY, "seconds": 600},
            error="not_found",
        ),
    ),
)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on requests."""
    return (LIST, SHOW, RESPOND, DEFER)
