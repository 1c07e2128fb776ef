"""One call to the daemon, which is started when it is not running and replaced when it is out of date and idle."""

from __future__ import annotations

import sys

from dispatch_core.control.sync_client import Connection
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.daemon.paths import Paths
from dispatch_core.plugin.manifest import identity
from dispatch_plugins.cli import output
from dispatch_plugins.cli.invocation import is_terminal

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from dispatch_core.control.wire import Reply
    from dispatch_plugins.cli.invocation import Invocation

CONNECT_TIMEOUT = 5.0  # seconds; a daemon that runs accepts at once
MARGIN = 5.0  # seconds on top of the op's own timeout, so that the daemon's answer comes first


def call(invocation: Invocation, op: Mapping[str, Any], args: Mapping[str, Any]) -> Reply:
    """Return what the op answers.

    Raises RemoteError with the daemon's error, DaemonUnreachable, DaemonStale, or OutcomeUnknown when the daemon went away.
    """
    from dispatch_core.errors import RemoteError

    paths = Paths.from_env(invocation.env)
    try:
        return _attempt(invocation, paths, op, args)
    except RemoteError as error:
        if error.code != "daemon_stale":
            raise
        from dispatch_core.daemon import launch

        launch.replace(paths, error, output.note)
    return _attempt(invocation, paths, op, args)


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


def _attempt(
    invocation: Invocation, paths: Paths, op: Mapping[str, Any], args: Mapping[str, Any]
) -> Reply:
    timeout = None if op["timeout"] is None else op["timeout"] + MARGIN
    view = None
    if not invocation.json:
        view = {"width": invocation.width(), "color": invocation.color(sys.stdout)}
    with _connect(invocation, paths) as connection:
        greeting, reply = connection.first_call(
            hello(invocation),
            op["name"],
            dict(args),
            schema=op["schema_hash"],
            view=view,
            timeout=timeout,
            read=op["intent"] == "read",
        )
    if greeting.get("stale") and is_terminal(sys.stderr):
        output.note(
            "the daemon runs other plugins or another build; it is replaced once no turn runs in it"
        )
    return reply


def _connect(invocation: Invocation, paths: Paths) -> Connection:
    from dispatch_core.errors import DaemonUnreachable

    try:
        return Connection.connect(paths.socket, timeout=CONNECT_TIMEOUT)
    except DaemonUnreachable as error:
        if invocation.no_start:
            raise DaemonUnreachable(
                f"the daemon is not running (nothing answers on {paths.socket})",
                hint="dispatch up starts it",
                details=error.details,
            ) from None
    from dispatch_core.daemon import launch

    launch.up(paths, offline=False)
    return Connection.connect(paths.socket, timeout=CONNECT_TIMEOUT)
