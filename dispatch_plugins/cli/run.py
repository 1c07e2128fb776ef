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
    from dispatch_plugins.cli.fast import Plan
    from dispatch_plugins.cli.invocation import Invocation


def run(invocation: Invocation, plan: Plan, *, confirmed: bool = False) -> int:
    """Run an op and print what it answers.

    confirmed: whether --yes was given. Raises DispatchError, with nothing printed on stdout.
    """
    command = command_of(plan.op["name"])
    args = complete(command, plan.fields, plan.values, invocation.env)
    if plan.op["intent"] == "destroy" and not confirmed:
        _confirm(command, plan.op["summary"])
    reply = call(invocation, plan.op, args)
    output.result(invocation, reply.result, reply.text)
    return 0


def _confirm(command: str, summary: str) -> None:
    if not (is_terminal(sys.stdin) and is_terminal(sys.stderr)):
        refuse(
            f"{command} cannot be undone, and there is no terminal to ask on",
            f"add --yes to confirm: {command} … --yes",
            flag="--yes",
        )
    sys.stderr.write(f"{command}: {summary.rstrip('.')}. Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        from dispatch_core.errors import Declined

        raise Declined("declined; nothing was done")
