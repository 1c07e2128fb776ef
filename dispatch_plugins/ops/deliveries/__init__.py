"""Deliveries: what was accepted and what became of it, what waits, and what a person must decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import Example, Intent, Op, PluginSettings, hookimpl
from dispatch_plugins.ops.deliveries import handlers, text
from dispatch_plugins.ops.deliveries.contract import (
    CancelInput,
    ChangedOutput,
    DeadInput,
    DeliveryOutput,
    EditInput,
    GetOutput,
    ListInput,
    ListOutput,
    OneInput,
    QueueOutput,
    ReorderInput,
    ResolveInput,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

NOUN = "delivery"
NOBODY = "01a00000-0000-7000-8000-000000000000"
NOT_FOUND = Example(
    title="an id that no delivery has", input={"delivery": NOBODY}, error="not_found"
)

LIST = Op(
    name="delivery.list",
    summary="List messages that were accepted, newest first",
    noun=NOUN,
    input=ListInput,
    output=ListOutput,
    handler=handlers.list_deliveries,
    intent=Intent.READ,
    idempotent=True,
    render=text.render_list,
    examples=(
        Example(
            title="what waits in a thread; the newest is the last to be sent",
            input={"thread": "@planner", "state": ["queued"]},
            output={
                "deliveries": [
                    {"preview": "Plan Friday", "state": "queued", "position": 2},
                    {"preview": "Plan Tuesday", "position": 1},
                    {"preview": "Plan Monday", "position": 0, "turn_id": None},
                ],
                "next": None,
            },
        ),
        Example(
            title="what a person must decide",
            input={"state": ["unknown"]},
            output={"deliveries": [], "next": None},
        ),
        Example(title="a cursor that is none", input={"after": "here"}, error="validation"),
    ),
)
GET = Op(
    name="delivery.get",
    summary="Show everything about one message that was accepted",
    noun=NOUN,
    input=OneInput,
    output=GetOutput,
    handler=handlers.get,
    intent=Intent.READ,
    idempotent=True,
    render=text.render_get,
    examples=(
        Example(
            title="by the key that it was sent with",
            input={"delivery": "hello"},
            output={
                "delivery": {"state": "done", "thread": {"handle": "@builder"}, "reason": None},
                "text": "Say hello",
                "attempt": 1,
            },
        ),
        NOT_FOUND,
    ),
)
CANCEL = Op(
    name="delivery.cancel",
    summary="Withdraw messages that are queued",
    noun=NOUN,
    input=CancelInput,
    output=ChangedOutput,
    handler=handlers.cancel,
    intent=Intent.WRITE,
    idempotent=False,
    render=text.render_cancelled,
    examples=(
        Example(
            title="one that waits",
            input={"delivery": ["friday"]},
            output={"deliveries": [{"state": "cancelled", "preview": "Plan Friday"}]},
        ),
        Example(
            title="what was sent cannot be withdrawn",
            input={"delivery": ["hello"]},
            error="delivery_conflict",
        ),
    ),
)
EDIT = Op(
    name="delivery.edit",
    summary="Replace the text of a message that is queued",
    noun=NOUN,
    input=EditInput,
    output=DeliveryOutput,
    handler=handlers.edit,
    intent=Intent.WRITE,
    idempotent=True,
    render=text.render_one,
    examples=(
        Example(
            title="say something else",
            input={"delivery": "monday", "text": "Plan Monday morning"},
            output={"delivery": {"state": "queued", "preview": "Plan Monday morning"}},
        ),
        Example(
            title="what was sent cannot be changed",
            input={"delivery": "hello", "text": "Say goodbye"},
            error="delivery_conflict",
        ),
        Example(title="say nothing", input={"delivery": "monday"}, error="validation"),
    ),
)
REORDER = Op(
    name="delivery.reorder",
    summary="Put a queued message elsewhere in its queue",
    noun=NOUN,
    input=ReorderInput,
    output=QueueOutput,
    handler=handlers.reorder,
    intent=Intent.WRITE,
    idempotent=True,
    render=text.render_queue,
    examples=(
        Example(
            title="before another one",
            input={"delivery": "tuesday", "before": "monday"},
            output={},
        ),
        Example(
            title="what was sent has no place in a queue",
            input={"delivery": "hello", "last": True},
            error="delivery_conflict",
        ),
        Example(title="no place", input={"delivery": "monday"}, error="validation"),
    ),
)
REQUEUE = Op(
    name="delivery.requeue",
    summary="Queue a message that has ended once more",
    noun=NOUN,
    input=OneInput,
    output=DeliveryOutput,
    handler=handlers.requeue,
    intent=Intent.WRITE,
    idempotent=False,
    render=text.render_requeued,
    examples=(
        Example(
            title="one that was withdrawn",
            input={"delivery": "sunday"},
            output={"delivery": {"state": "queued", "preview": "Plan Sunday", "key": None}},
        ),
        Example(
            title="one that waits already",
            input={"delivery": "monday"},
            error="delivery_conflict",
        ),
    ),
)
RESOLVE = Op(
    name="delivery.resolve",
    summary="Decide about a message of which it is unknown whether it ran",
    noun=NOUN,
    input=ResolveInput,
    output=DeliveryOutput,
    handler=handlers.resolve,
    intent=Intent.DESTROY,
    idempotent=False,
    # Only a person may, and what calls a tool is a model.
    hidden_from=frozenset({"mcp", "trigger"}),
    render=text.render_one,
    examples=(
        Example(
            title="nothing is in doubt",
            input={"delivery": "hello", "sent": True},
            error="delivery_conflict",
        ),
        Example(title="no decision", input={"delivery": "hello"}, error="validation"),
    ),
)
DEAD = Op(
    name="dead.list",
    summary="List messages that were given up, newest first",
    noun=NOUN,
    input=DeadInput,
    output=ListOutput,
    handler=handlers.list_dead,
    intent=Intent.READ,
    idempotent=True,
    render=text.render_dead,
    examples=(
        Example(title="none was", input={}, output={"deliveries": [], "next": None}),
        Example(
            title="of a thread that is not there",
            input={"thread": "@nobody"},
            error="not_found",
        ),
    ),
)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on deliveries."""
    return (LIST, GET, CANCEL, EDIT, REORDER, RESOLVE, REQUEUE, DEAD)
