"""What stands behind the control socket: greeting, ops, sessions, shutdown."""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from dispatch_core.contracts.surface import SurfaceSession
from dispatch_core.control.wire import PROTOCOL
from dispatch_core.errors import DaemonStale, DispatchError, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from anyio.abc import ByteStream

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.surface import OpReply
    from dispatch_core.daemon.status import DaemonStatus
    from dispatch_core.engine.dispatcher import Dispatcher
    from dispatch_core.engine.events import EventBus

log = logging.getLogger(__name__)


class DaemonHost:
    """The daemon as its clients see it.

    It greets from the moment it exists; what needs the ops waits until ``open``. entries: the ops of the manifest.
    sessions: for each surface that has them, "module:function". stopping: set, with the grace, when somebody asks it to stop.
    hurried: set when somebody asks again.
    """

    def __init__(
        self,
        status: DaemonStatus,
        events: EventBus,
        entries: Iterable[Mapping[str, Any]],
        sessions: Mapping[str, str],
    ) -> None:
        self._status = status
        self._entries = {entry["name"]: entry for entry in entries}
        self._sessions = sessions
        self._dispatcher: Dispatcher | None = None
        self._busy: Callable[[], Collection[str]] = tuple
        self._opened = anyio.Event()
        self._open_sessions = 0
        self.events = events
        self.instance = status.instance
        self.grace: float | None = None
        self.stopping = anyio.Event()
        self.hurried = anyio.Event()

    def open(self, dispatcher: Dispatcher, busy: Callable[[], Collection[str]]) -> None:
        """Let requests through. busy: returns the threads in which something goes on that a restart would end."""
        self._dispatcher = dispatcher
        self._busy = busy
        self._opened.set()

    def hello(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return who we are.

        Raises DaemonStale for a client with other plugins or another build, if stopping us costs nothing.
        """
        active = len(self._busy())
        expected = params.get("manifest")
        stale = expected is not None and expected not in (
            self._status.manifest_key,
            self._status.identity,
        )
        greeting = {
            "protocol": PROTOCOL,
            "version": self._status.version,
            "build": self._status.build,
            "instance": self.instance,
            "pid": os.getpid(),
            "manifest": self._status.manifest_key,
            "state": self._status.state,
            "active_turns": active,
            "sessions": self._open_sessions,
            "offline": self._status.offline,
            "stale": stale,
        }
        if stale and not active and not self._open_sessions:
            raise DaemonStale(
                "the running daemon was started with other plugins, another configuration or another build",
                hint="dispatch upgrade",
                details=greeting,
            )
        return greeting

    def cancellable(self, name: str) -> bool:
        """Return whether a running op may be cancelled without leaving anything half done."""
        entry = self._entries.get(name)
        return entry is not None and entry["intent"] == "read"

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        schema: str | None,
        view: Mapping[str, Any] | None,
    ) -> OpReply:
        """Run an op, unless its contract is not the one the client knows. Raises DaemonStale, having done nothing, then."""
        dispatcher = await self._ready()
        known = self._entries.get(name)
        if schema is not None and (known is None or schema != known["schema_hash"]):
            raise self._stale(name)
        return await dispatcher.call(name, args, caller, view=view)

    def _stale(self, name: str) -> DaemonStale:
        turns, sessions = len(self._busy()), self._open_sessions
        going_on = " and ".join(
            f"{count} {noun}{'s' * (count > 1)}"
            for count, noun in ((turns, "turn"), (sessions, "session"))
            if count
        )
        own = f"the daemon that runs ({self._status.version}, build {self._status.build})"
        return DaemonStale(
            f"{own} has another version of {name}; nothing was done"
            + (f". It is not replaced by itself while it has {going_on}" if going_on else ""),
            hint="dispatch upgrade replaces it now, and gives turns time to end"
            if going_on
            else "dispatch upgrade",
            details={
                "op": name,
                "instance": self.instance,
                "version": self._status.version,
                "build": self._status.build,
                "offline": self._status.offline,
                "active_turns": turns,
                "sessions": sessions,
            },
        )

    def shutdown(self, grace: float | None) -> None:
        """Begin to stop. Asked again, the new grace counts from then on if it is shorter."""
        self.grace = grace
        if self.stopping.is_set():
            self.hurried.set()
        self.stopping.set()

    async def open_session(
        self,
        surface: str,
        stream: ByteStream,
        caller: Caller,
        options: Mapping[str, Any],
        started: Callable[[], Awaitable[None]],
    ) -> None:
        """Serve one session of a surface. Its module is imported when the first session asks for it."""
        path = self._sessions.get(surface)
        if path is None:
            raise NotFound(
                f"no surface {surface!r} serves sessions",
                hint="dispatch plugins shows what is installed",
            )
        module, _, function = path.partition(":")
        serve = getattr(await to_thread.run_sync(import_module, module), function)
        session = SurfaceSession(
            ops=await self._ready(),
            caller=caller,
            options=dict(options),
            version=self._status.version,
        )
        await started()
        self._open_sessions += 1
        try:
            await serve(stream, session)
        finally:
            self._open_sessions -= 1

    async def _ready(self) -> Dispatcher:
        await self._opened.wait()
        if self._dispatcher is None:
            raise DispatchError("the daemon has no ops")
        return self._dispatcher
