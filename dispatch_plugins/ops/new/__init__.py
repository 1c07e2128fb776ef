"""``new``: a thread comes into being, with its settings, its goal and its first message."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpContext,
    PluginSettings,
    hookimpl,
    thread_view,
    turn_view,
)
from dispatch_core.config import Places
from dispatch_plugins.ops.new import catalog, making, profiles
from dispatch_plugins.ops.new.contract import NewInput, NewOutput
from dispatch_plugins.ops.new.draft import draft
from dispatch_plugins.ops.new.render import render_new

if TYPE_CHECKING:
    from collections.abc import Iterable


async def new(context: OpContext, request: NewInput) -> NewOutput:
    """Start a thread in Codex with what options, presets and configuration say, register it, and send its first message.

    Whatever can be refused is refused before there is a thread. Raises PartialSuccess for what fails after that.
    """
    places = Places.from_env(os.environ)
    found = await to_thread.run_sync(draft, request, places)
    making.check(context, found)
    found = await catalog.resolve(context.codex, found)
    await profiles.check(context.codex, found)
    if request.dry_run:
        await making.check_name(context, found)
        return NewOutput(
            thread=None,
            plan=found.plan(),
            message_accepted=False,
            goal_set=False,
            turn=None,
            notes=list(found.notes),
        )
    made = await making.make(context, found)
    return NewOutput(
        thread=thread_view(made.thread),
        plan=None,
        message_accepted=made.turn is not None,
        goal_set=made.goal_set,
        turn=turn_view(made.turn),
        notes=list(found.notes),
    )


EXAMPLES = (
    Example(
        title="a thread that starts to work at once",
        input={"name": "tester", "text": "Write a test for the parser", "cwd": "/"},
        output={"message_accepted": True, "thread": {"handle": "@tester", "source": "own"}},
    ),
    Example(
        title="a thread that may only read, without a message yet",
        input={"name": "reader", "cwd": "/", "sandbox": "read-only", "send": False},
        output={"message_accepted": False, "turn": None},
    ),
    Example(
        title="what would be done, without doing it",
        input={"name": "planned", "text": "Look around", "cwd": "/", "dry_run": True},
        output={
            "thread": None,
            "plan": {"handle": "@planned", "cwd": "/", "would_send": True, "goal": None},
        },
    ),
    Example(
        title="a directory that does not exist is refused",
        input={"name": "lost", "cwd": "/no/such/directory"},
        error="validation",
    ),
    Example(
        title="a preset that is in no file is refused",
        input={"name": "lost", "cwd": "/", "preset": ["no-such-preset"]},
        error="validation",
    ),
)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the op."""
    return (
        Op(
            name="new",
            summary="Create a thread and send its first message",
            noun="thread",
            input=NewInput,
            output=NewOutput,
            handler=new,
            intent=Intent.WRITE,
            idempotent=False,
            timeout=90.0,
            examples=EXAMPLES,
            render=render_new,
        ),
    )
