"""Run one op: complete the input, ask when it destroys, call the daemon, print the answer."""

from __future__ import annotations

import sys

from dispatch_plugins.cli import output
from dispatch_plugins.cli.arguments import complete, refuse
from dispatch_plugins.cli.call import call
from dispatch_plugins.cli.invocation import is_terminal
from dispatch_plugins.cli.names import command_of

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dispatch_plugins.cli.fast import Plan
    from dispatch_plugins.cli.invocation import Invocation

NAMED = 10  # targets that a question names


def run(
    invocation: Invocation, plan: Plan, *, confirmed: bool = False, interactive: bool = True
) -> int:
    """Run an op and print what it answers.

    confirmed: whether --yes was given; interactive: whether a question may be asked otherwise. Raises DispatchError, with
    nothing printed on stdout but the rows of a stream.
    """
    command = command_of(plan.op["name"])
    args = complete(command, plan.fields, plan.values, invocation.env)
    if plan.op["intent"] == "destroy" and not confirmed:
        _confirm(command, plan, args, interactive=interactive)
    if plan.op.get("stream") and _follows(plan):
        from dispatch_plugins.cli.follow import follow

        return follow(invocation, plan.op, args)
    reply = call(invocation, plan.op, args)
    output.result(invocation, reply.result, reply.text)
    return 0


def _follows(plan: Plan) -> bool:
    if plan.follow is not None:
        return plan.follow
    return bool(plan.op["stream"]["always"]) and not plan.values.keys() & {"limit", "timeout"}


def _confirm(command: str, plan: Plan, args: Mapping[str, Any], *, interactive: bool) -> None:
    if not (interactive and is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        reason = "there is no terminal to ask on" if interactive else "nothing may be asked"
        refuse(
            f"{command} asks before it acts, and {reason}",
            f"add --yes to confirm: {command} … --yes",
            flag="--yes",
        )
    targets = [
        str(one)
        for field in plan.fields
        if field.argument and field.name in args
        for one in (args[field.name] if field.many else [args[field.name]])
    ]
    about = ", ".join(map(output.printable, targets[:NAMED]))
    if len(targets) > NAMED:
        about += f" and {len(targets) - NAMED} more"
    if len(targets) > 1:
        about = f"{len(targets)} targets: {about}"
    about = f" ({about})" if about else ""
    chosen = [field.option for field in plan.fields if args.get(field.name) is True]
    sys.stderr.write(
        f"{' '.join([command, *chosen])}: {plan.op['summary'].rstrip('.')}{about}. Continue? [y/N] "
    )
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        from dispatch_core.errors import Declined

        raise Declined("declined; nothing was done")
