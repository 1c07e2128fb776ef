"""Follow an op whose answer goes on: each row is printed as soon as it is there, until somebody has had enough."""

from __future__ import annotations

import os
import select
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any

from dispatch_core.daemon.paths import Paths
from dispatch_core.daemon.reach import reach
from dispatch_core.errors import DaemonUnreachable, DispatchError, TimedOut
from dispatch_plugins.cli import output
from dispatch_plugins.cli.call import asked, hello, notice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_core.control.sync_client import Connection
    from dispatch_core.control.wire import Reply
    from dispatch_plugins.cli.invocation import Invocation

AFTER, LIMIT, TIMEOUT, CURSOR, GAP = "after", "limit", "timeout", "cursor", "gap"
PATIENCE = 10.0  # seconds for a daemon that was stopped to be there again
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
# Seconds: an op that answers nothing so quickly is asked again after the pause.
QUICK, PAUSE = 0.2, 1.0


def follow(invocation: Invocation, op: Mapping[str, Any], args: Mapping[str, Any]) -> int:
    """Print rows until Ctrl-C, until the reader of the output goes away, or until a bound is reached; then return 0.

    limit: rows in all for an op that is always followed, else of the first answer; timeout: seconds in all. Raises what a call
    raises; DaemonUnreachable names the cursor to go on from.
    """
    return _Follow(invocation, op, args).run()


class _Follow:
    def __init__(
        self, invocation: Invocation, op: Mapping[str, Any], args: Mapping[str, Any]
    ) -> None:
        self._invocation = invocation
        self._op = op
        self._rows = op["stream"]["rows"]
        self._paths = Paths.from_env(invocation.env)
        self._cursor: str | None = None
        self._args = {name: value for name, value in args.items() if name != TIMEOUT}
        seconds = args.get(TIMEOUT)
        self._deadline = None if seconds is None else monotonic() + seconds
        self._left = args.get(LIMIT) if op["stream"]["always"] else None
        if self._left is not None:
            self._args[LIMIT] = (
                1  # each row by itself, for no more than are wanted can be asked for as they come
            )

    def run(self) -> int:
        start = not self._invocation.no_start
        try:
            reach(self._paths, self._session, start=start, note=output.note)
            while not self._done():
                self._again()
        except TimedOut:
            if self._deadline is None or monotonic() < self._deadline:
                raise
        return 0

    def _session(self, connection: Connection) -> None:
        """Ask and print until enough is known, or the connection is lost after the first answer."""
        with connection:
            connection.waiting = lambda seconds: _poll(connection.fileno(), seconds)
            greeting = hello(self._invocation)
            if self._cursor is not None:
                greeting["manifest"] = (
                    None  # which daemon answers now is not for a follower to decide
                )
            answer, reply = connection.first_call(
                greeting, self._op["name"], self._next(), **self._asked()
            )
            if self._cursor is None:
                notice(answer)
            self._take(reply)
            while not self._done():
                began = monotonic()
                try:
                    reply = connection.request(self._op["name"], self._next(), **self._asked())
                except DispatchError as error:
                    if _away(error):
                        return
                    raise
                self._take(reply)
                if not reply.result[self._rows] and monotonic() - began < QUICK:
                    self._pause(PAUSE)

    def _again(self) -> None:
        """Go on with the daemon that is there after the connection was lost.

        One that crashed leaves its socket behind and is started again; one that was stopped is not, but waited for a while: it
        may be on its way back.
        """
        deadline = monotonic() + PATIENCE
        pause = FIRST_PAUSE
        while (lost := self._attempt(start=self._crashed())) is not None:
            if monotonic() >= deadline:
                raise self._gone(lost) from lost
            self._pause(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _attempt(self, *, start: bool) -> DispatchError | None:
        """Go on with the daemon that answers now; return why there is none."""
        try:
            reach(self._paths, self._session, start=start, note=output.note)
        except DispatchError as error:
            if _away(error):
                return error
            raise
        return None

    def _crashed(self) -> bool:
        return not self._invocation.no_start and os.path.lexists(self._paths.socket)

    def _gone(self, error: DispatchError) -> DaemonUnreachable:
        return DaemonUnreachable(
            f"the daemon went away and was not back within {PATIENCE:g} s",
            hint=f"dispatch up starts it; --after {self._cursor} goes on from here",
            details={**error.details, CURSOR: self._cursor},
        )

    def _next(self) -> dict[str, Any]:
        if self._cursor is not None:
            return {**self._args, AFTER: self._cursor}
        # Where it begins is to be known before anything happens: without a cursor, a daemon that goes away could not be followed.
        here = {TIMEOUT: 0} if TIMEOUT in self._op["schema"]["properties"] else {}
        return {**self._args, **here}

    def _asked(self) -> dict[str, Any]:
        asking = asked(self._invocation, self._op, text_only=False)
        if self._deadline is not None:
            left = max(0.0, self._deadline - monotonic())
            asking["timeout"] = min(left, asking["timeout"] or left)
        return asking

    def _take(self, reply: Reply) -> None:
        result = reply.result
        rows = result[self._rows]
        if self._cursor is None and self._left is None:
            self._args.pop(LIMIT, None)
        if self._invocation.json or reply.text is None:
            marks = [{GAP: True, CURSOR: result[CURSOR]}] if result.get(GAP) else []
            output.lines([*marks, *rows])
        elif rows or result.get(GAP):
            output.result(self._invocation, result, reply.text)
        self._cursor = result[CURSOR]
        if self._left is not None:
            self._left -= len(rows)

    def _done(self) -> bool:
        if self._left is not None and self._left <= 0:
            return True
        return self._deadline is not None and monotonic() >= self._deadline

    def _pause(self, seconds: float) -> None:
        """Wait, and end when the reader of the output has gone, or the time is over."""
        if self._deadline is not None:
            seconds = min(seconds, max(0.0, self._deadline - monotonic()))
        _poll(None, seconds)


def _away(error: DispatchError) -> bool:
    """Return whether there is no daemon, or one that said, when it stopped, that it did nothing more."""
    return isinstance(error, DaemonUnreachable) or error.code == DaemonUnreachable.code


def _poll(descriptor: int | None, seconds: float | None) -> None:
    """Return when a descriptor can be read or the time is over. Raises BrokenPipeError when nobody reads stdout any more."""
    poll = select.poll()
    stdout = sys.stdout.fileno()
    poll.register(stdout, 0)  # only what is never asked for: that the other end is closed
    if descriptor is not None:
        poll.register(descriptor, select.POLLIN)
    ready = poll.poll(None if seconds is None else max(0.0, seconds) * 1000)
    if any(found == stdout and flags & (select.POLLERR | select.POLLHUP) for found, flags in ready):
        raise BrokenPipeError
