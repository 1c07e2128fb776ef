"""Ops on triggers: trigger.add, trigger.list, trigger.rm, trigger.pause, trigger.resume."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpInput,
    TriggerNotFound,
    TriggerRecord,
    ValidationFailed,
    cli_field,
    hookimpl,
)
from dispatch_plugins.ops.trigger_views import (
    HELP,
    RemovedTrigger,
    TriggerList,
    TriggerView,
    render_list,
    render_one,
    render_removed,
    view_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatch_core.api import OpContext, OpInfo, PluginSettings, ThreadRecord

SURFACE = "trigger"
QUEUE = "queue"  # the input field of an action that can wait for its thread to be free
NAME = r"^\w[\w.-]*$"


class AddTrigger(OpInput):
    """When, what and where to."""

    name: str = cli_field(
        description="Name, unique among the triggers.",
        argument=True,
        min_length=1,
        max_length=64,
        pattern=NAME,
    )
    when: str = cli_field(
        description="What to wait for: interval, cron, turn_completed or a plugin's kind.",
        min_length=1,
    )
    thread: str = cli_field(
        description="The thread the action goes to, resolved when it fires.",
        min_length=1,
        complete="thread",
    )
    action: str = cli_field("send", description="The op to run.", min_length=1)
    text: str | None = cli_field(None, description="The message for the action.", min_length=1)
    seconds: int | None = cli_field(
        None, description="interval: seconds between two firings; the first comes after one.", ge=1
    )
    cron: str | None = cli_field(
        None, description="cron: minute, hour, day of month, month, day of week."
    )
    timezone: str | None = cli_field(
        None, description="cron: IANA name of the time zone; UTC when left out."
    )
    on: str | None = cli_field(
        None,
        description="turn_completed: the thread whose turns are watched.",
        min_length=1,
        complete="thread",
    )
    option: dict[str, Any] = cli_field(
        {}, description="A further option of the kind, such as statuses=failed.", repeated=True
    )
    allow_loop: bool = cli_field(
        default=False,
        description="Allow an action on the thread that is watched; it may fire itself.",
    )


class OneTrigger(OpInput):
    """A trigger by id or name."""

    trigger: str = cli_field(
        description="Id or name of the trigger.",
        argument=True,
        min_length=1,
        complete="trigger",
    )


class NoInput(OpInput):
    """Nothing."""


async def add(ctx: OpContext, given: AddTrigger) -> TriggerView:
    """Store and arm a new trigger.

    Raises ValidationFailed naming the field, also for a trigger that would act on the thread it
    watches unless allow_loop is set; ThreadNotFound, AmbiguousSelector and AuthorityDenied.
    """
    config = _config(given)
    args: dict[str, Any] = {} if given.text is None else {"text": given.text}
    target = await _target(ctx, given, args)
    if QUEUE in _fields(ctx, given.action):
        args[QUEUE] = True  # an occasion does not come again because the thread was busy
    source = config.get("thread")
    if isinstance(source, str) and not given.allow_loop:
        await _refuse_loop(ctx, given, source, target)
    trigger = TriggerRecord(
        id=secrets.token_hex(4),
        name=given.name,
        kind=given.when,
        config=config,
        thread=given.thread,
        op=given.action,
        args=args,
        created_at=ctx.clock.now().replace(microsecond=0),
    )
    try:
        added = await ctx.triggers.add(trigger)
    except ValidationFailed as error:
        if "field" not in error.details:
            raise
        raise _in_terms_of_input(error, given) from None
    return await _view(ctx, added)


async def list_all(ctx: OpContext, given: NoInput) -> TriggerList:  # noqa: ARG001 -- no input
    """Return every trigger with its newest firing."""
    return TriggerList(triggers=[await _view(ctx, t) for t in await ctx.store.triggers.list()])


async def remove(ctx: OpContext, given: OneTrigger) -> RemovedTrigger:
    """Forget a trigger and its firings. Raises TriggerNotFound."""
    trigger = await _find(ctx, given.trigger)
    await ctx.triggers.remove(trigger.id)
    return RemovedTrigger(id=trigger.id, name=trigger.name)


async def pause(ctx: OpContext, given: OneTrigger) -> TriggerView:
    """Disarm a trigger; what falls due meanwhile does not fire. Raises TriggerNotFound."""
    trigger = await _find(ctx, given.trigger)
    return await _view(ctx, await ctx.triggers.enable(trigger.id, enabled=False))


async def resume(ctx: OpContext, given: OneTrigger) -> TriggerView:
    """Arm a paused trigger again. Raises TriggerNotFound."""
    trigger = await _find(ctx, given.trigger)
    return await _view(ctx, await ctx.triggers.enable(trigger.id, enabled=True))


def _config(given: AddTrigger) -> dict[str, Any]:
    named = {
        "seconds": given.seconds,
        "cron": given.cron,
        "timezone": given.timezone,
        "thread": given.on,
    }
    config = {name: value for name, value in named.items() if value is not None}
    if twice := sorted(config.keys() & given.option.keys()):
        raise ValidationFailed(
            f"'option' repeats {', '.join(twice)}",
            hint=f"give each option once; {HELP}",
            details={"field": "option"},
        )
    return {**given.option, **config}


async def _target(ctx: OpContext, given: AddTrigger, args: dict[str, Any]) -> ThreadRecord:
    """Return the thread the action would go to now; the action exists and takes these arguments."""
    actions: dict[str, OpInfo] = {info.name: info for info in ctx.ops.ops(SURFACE)}
    if given.action not in actions:
        raise ValidationFailed(
            f"'action': there is no op {given.action!r}",
            hint="dispatch --help lists the ops",
            details={"field": "action"},
        )
    schema = actions[given.action].schema
    filled = {"thread", *args}
    unused = sorted(filled - set(schema.get("properties", {})))
    missing = sorted(set(schema.get("required", ())) - filled)
    if unused or missing:
        problem = f"does not use {unused[0]!r}" if unused else f"needs {missing[0]!r}"
        raise ValidationFailed(
            f"action {given.action!r} {problem}",
            hint=HELP,
            details={"field": (unused or missing)[0], "action": given.action},
        )
    if actions[given.action].intent == Intent.READ:
        return await ctx.lanes.resolve(given.thread)
    return await ctx.lanes.writable(given.thread)


def _fields(ctx: OpContext, action: str) -> set[str]:
    """Return the input fields of an op."""
    schemas = (info.schema for info in ctx.ops.ops(SURFACE) if info.name == action)
    return {field for schema in schemas for field in schema.get("properties", {})}


async def _refuse_loop(
    ctx: OpContext, given: AddTrigger, source: str, target: ThreadRecord
) -> None:
    if (await ctx.lanes.resolve(source)).key != target.key:
        return
    raise ValidationFailed(
        f"{given.thread} is the thread that the trigger watches: each action would fire it again",
        hint="name another thread, or pass --allow-loop if the loop is meant",
        details={"field": "allow_loop", "thread": target.ref},
    )


def _in_terms_of_input(error: ValidationFailed, given: AddTrigger) -> ValidationFailed:
    """Return the engine's error with the names of the input's fields: ``when`` for kind, ``on`` for
    thread.
    """
    names = {"kind": "when"}
    if "thread" not in given.option:
        names["thread"] = "on"
    message, details = error.message, dict(error.details)
    for theirs, ours in names.items():
        message = message.replace(f"'{theirs}'", f"'{ours}'")
        if details.get("field") == theirs:
            details["field"] = ours
        if "fields" in details:
            details["fields"] = [ours if name == theirs else name for name in details["fields"]]
    return ValidationFailed(message, hint=error.hint, details=details)


async def _view(ctx: OpContext, trigger: TriggerRecord) -> TriggerView:
    return view_of(trigger, await ctx.store.firings.latest(trigger.id))


async def _find(ctx: OpContext, selector: str) -> TriggerRecord:
    triggers = await ctx.store.triggers.list()
    for trigger in (*(t for t in triggers if t.id == selector), *triggers):
        if selector in (trigger.id, trigger.name):
            return trigger
    raise TriggerNotFound(selector)


ADD = Op(
    name="trigger.add",
    summary="Run an op on a thread every so often, or when something happens.",
    noun="trigger",
    input=AddTrigger,
    output=TriggerView,
    handler=add,
    intent=Intent.WRITE,
    idempotent=False,
    render=render_one,
    examples=(
        Example(
            title="Pass the work on whenever a turn is done",
            input={
                "name": "review",
                "when": "turn_completed",
                "on": "@builder",
                "thread": "@reviewer",
                "text": "Review what builder has just done.",
            },
            output={
                "name": "review",
                "kind": "turn_completed",
                "action": "send",
                "thread": "@reviewer",
                "enabled": True,
                "next_at": None,
                "last_firing": None,
            },
        ),
        Example(
            title="Ask every hour",
            input={
                "name": "hourly",
                "when": "interval",
                "seconds": 3600,
                "thread": "@builder",
                "text": "Is anything left to do?",
            },
            output={"when": "every 3600 s", "config": {"seconds": 3600}, "enabled": True},
        ),
        Example(
            title="On working days at nine",
            input={
                "name": "standup",
                "when": "cron",
                "cron": "0 9 * * 1-5",
                "timezone": "Europe/Berlin",
                "thread": "@reviewer",
                "text": "What is open?",
            },
            output={"when": "cron 0 9 * * 1-5 Europe/Berlin"},
        ),
        Example(
            title="A trigger that would fire itself",
            input={
                "name": "loop",
                "when": "turn_completed",
                "on": "@builder",
                "thread": "@builder",
                "text": "Go on.",
            },
            error="validation",
        ),
    ),
)
LIST = Op(
    name="trigger.list",
    summary="List the triggers, when they fire next and how they fired last.",
    noun="trigger",
    input=NoInput,
    output=TriggerList,
    handler=list_all,
    intent=Intent.READ,
    idempotent=True,
    render=render_list,
    examples=(
        Example(
            title="the trigger of the example world",
            input={},
            output={
                "triggers": [{"name": "nightly", "when": "cron 0 3 * * * UTC", "enabled": True}]
            },
        ),
    ),
)
REMOVE = Op(
    name="trigger.rm",
    summary="Remove a trigger and the record of its firings.",
    noun="trigger",
    input=OneTrigger,
    output=RemovedTrigger,
    handler=remove,
    intent=Intent.DESTROY,
    idempotent=False,
    render=render_removed,
    examples=(
        Example(input={"trigger": "nightly"}, output={"name": "nightly"}),
        Example(input={"trigger": "nobody"}, error="not_found"),
    ),
)
PAUSE = Op(
    name="trigger.pause",
    summary="Pause a trigger; what falls due meanwhile does not fire.",
    noun="trigger",
    input=OneTrigger,
    output=TriggerView,
    handler=pause,
    intent=Intent.WRITE,
    idempotent=True,
    render=render_one,
    examples=(
        Example(
            input={"trigger": "nightly"},
            output={"name": "nightly", "enabled": False, "next_at": None},
        ),
    ),
)
RESUME = Op(
    name="trigger.resume",
    summary="Arm a paused trigger again.",
    noun="trigger",
    input=OneTrigger,
    output=TriggerView,
    handler=resume,
    intent=Intent.WRITE,
    idempotent=True,
    render=render_one,
    examples=(Example(input={"trigger": "nightly"}, output={"name": "nightly", "enabled": True}),),
)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on triggers."""
    return (ADD, LIST, REMOVE, PAUSE, RESUME)
