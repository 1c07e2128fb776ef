"""One call to the daemon, which is started when it is not running and replaced when it is out of date and idle."""

from __future__ import annotations

import sys

from dispatch_core.control.wire import PROTOCOL
from dispatch_core.daemon.paths import Paths
from dispatch_core.daemon.reach import reach
from dispatch_core.plugin.manifest import identity
from dispatch_plugins.cli import output
from dispatch_plugins.cli.invocation import is_terminal

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dispatch_core.control.sync_client import Connection
    from dispatch_core.control.wire import Reply
    from dispatch_plugins.cli.invocation import Invocation

MARGIN = 5.0  # seconds on top of the op's own timeout, so that the daemon's answer comes first
STALE = "the daemon runs other plugins or another build; dispatch upgrade replaces it"


def call(invocation: Invocation, op: Mapping[str, Any], args: Mapping[str, Any]) -> Reply:
    """Return what the op answers.

    Raises RemoteError with the daemon's error, DaemonUnreachable, DaemonStale, or OutcomeUnknown when the daemon went away.
    """
    greetings = [hello(invocation)]

    def ask(connection: Connection) -> Reply:
        greeting = greetings.pop() if greetings else anyone(invocation)
        with connection:
            if op.get("progress") and is_terminal(sys.stderr):
                from dispatch_plugins.cli.progress import progress_of

                notice(connection.hello(greeting))
                with progress_of(connection, op["name"]) as heard:
                    return connection.request(
                        op["name"], args, heard=heard, **asked(invocation, op)
                    )
            answer, reply = connection.first_call(
                greeting, op["name"], args, **asked(invocation, op)
            )
            notice(answer)
            return reply

    paths = Paths.from_env(invocation.env)
    return reach(paths, ask, start=not invocation.no_start, note=output.note)


def hello(invocation: Invocation) -> dict[str, Any]:
    """Return what the command line says of itself when it connects."""
    manifest = invocation.manifest
    return {
        "protocol": PROTOCOL,
        "client": "cli",
        "version": manifest["version"],
        "manifest": None if invocation.safe else identity(manifest),
        "thread_id": invocation.env.get("CODEX_THREAD_ID") or None,
    }


def anyone(invocation: Invocation) -> dict[str, Any]:
    """Return the greeting of a command that goes on: which daemon answers by now is not for it to decide.

    Whether the op is still the one that it knows is checked with the call.
    """
    return {**hello(invocation), "manifest": None}


def asked(
    invocation: Invocation, op: Mapping[str, Any], *, text_only: bool = True
) -> dict[str, Any]:
    """Return how a request for an op is made: its schema, the view, the deadline and whether it only reads.

    text_only: whether a result with a text for people is of no use.
    """
    view = None
    if not invocation.json:
        color = invocation.color(sys.stdout)
        view = {"width": invocation.width(), "color": color, "text_only": text_only}
    return {
        "schema": op["schema_hash"],
        "view": view,
        "timeout": None if op["timeout"] is None else op["timeout"] + MARGIN,
        "read": op["intent"] == "read",
    }


def notice(greeting: Mapping[str, Any]) -> None:
    """Say so when the daemon that answered is about to be replaced."""
    if greeting.get("stale") and is_terminal(sys.stderr):
        output.note(STALE)
