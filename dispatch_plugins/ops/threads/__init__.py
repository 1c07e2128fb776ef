"""Threads: list them, look at one and at its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import Example, Intent, Op, PluginSettings, Stream, hookimpl
from dispatch_plugins.ops.threads.conversation import render_tail
from dispatch_plugins.ops.threads.listing import (
    ListInput,
    ListOutput,
    list_threads,
    render_list,
)
from dispatch_plugins.ops.threads.show import GetInput, GetOutput, get, render_get
from dispatch_plugins.ops.threads.tail import TailInput, TailOutput, tail

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLLOWING = 90.0  # seconds; a call that waits for more of a history takes 60 of them at most


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on threads."""
    return (_list(), _get(), _tail())


def _list() -> Op[ListInput, ListOutput]:
    return Op(
        name="list",
        summary="List threads, what changed last first",
        noun="thread",
        input=ListInput,
        output=ListOutput,
        handler=list_threads,
        intent=Intent.READ,
        idempotent=True,
        timeout=60.0,
        examples=(
            Example(
                title="threads that are archived",
                input={"status": ["archived"]},
                output={
                    "threads": [
                        {
                            "thread": {"handle": "@retired", "managed": True},
                            "turn": {"status": "completed"},
                        }
                    ],
                    "next": None,
                },
            ),
            Example(
                title="threads of Codex that are not managed",
                input={"unmanaged": True},
                output={"threads": [], "next": None},
            ),
            Example(title="everything", input={"archived": True}, output={"next": None}),
            Example(title="a directory in no repository", input={"repo": "/"}, error="validation"),
        ),
        render=render_list,
    )


def _get() -> Op[GetInput, GetOutput]:
    return Op(
        name="get",
        summary="Show what is known about a thread",
        noun="thread",
        input=GetInput,
        output=GetOutput,
        handler=get,
        intent=Intent.READ,
        idempotent=True,
        examples=(
            Example(
                title="by handle",
                input={"thread": "@builder"},
                output={
                    "thread": {"handle": "@builder", "status": "idle"},
                    "turn": {"status": "completed"},
                    "writable": True,
                },
            ),
            Example(
                title="with the last item of its history",
                input={"thread": "@builder", "items": 1},
                output={"items": [{"type": "agentMessage", "text": "Offline reply: Say hello"}]},
            ),
            Example(
                title="an archived thread says how to get it back",
                input={"thread": "@retired"},
                output={"thread": {"status": "archived"}, "writable": False},
            ),
            Example(title="an unknown name", input={"thread": "@nobody"}, error="not_found"),
        ),
        render=render_get,
    )


def _tail() -> Op[TailInput, TailOutput]:
    return Op(
        name="tail",
        summary="Show the end of a thread's history",
        noun="thread",
        input=TailInput,
        output=TailOutput,
        handler=tail,
        intent=Intent.READ,
        idempotent=True,
        timeout=FOLLOWING,
        stream=Stream(rows="items"),
        examples=(
            Example(
                title="the answer of the latest turn",
                input={"thread": "@builder", "limit": 1},
                output={"items": [{"type": "agentMessage", "text": "Offline reply: Say hello"}]},
            ),
            Example(
                title="what was asked",
                input={"thread": "@builder", "role": ["user"]},
                output={"items": [{"role": "user", "text": "Say hello"}], "older": None},
            ),
            Example(
                title="a thread without history",
                input={"thread": "@reviewer"},
                output={"items": []},
            ),
            Example(
                title="a cursor that is none",
                input={"thread": "@builder", "after": "here"},
                error="validation",
            ),
        ),
        render=render_tail,
    )
