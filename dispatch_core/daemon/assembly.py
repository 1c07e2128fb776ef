"""One daemon from its plugins to its end: the registry, then the socket, then the engine and Codex behind it.

What is imported here stands between the start and the socket. Everything heavy is in ``engine``, which is loaded while the socket
already answers: the daemon is "starting" then, and requests wait.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.control.server import ControlServer
from dispatch_core.daemon.host import DaemonHost
from dispatch_core.daemon.lock import private_directory
from dispatch_core.daemon.notify import Notifier
from dispatch_core.daemon.status import DaemonStatus
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.events import EventBus
from dispatch_core.errors import PluginFault, StorageError
from dispatch_core.plugin import manifest as manifests
from dispatch_core.plugin.activate import Plugins
from dispatch_core.settings import SECTIONS, Settings, StorageSection

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from anyio.abc import TaskStatus

    from dispatch_core.contracts.storage import Maintenance, Storage
    from dispatch_core.daemon.engine import Engine
    from dispatch_core.daemon.startup import Launch, ReadyPipe
    from dispatch_core.plugin.catalog import Catalog

log = logging.getLogger(__name__)

# Seconds until a thread that wants to run may interrupt the one that does: a tenth of Python's own, for the event loop must not
# wait for the thread that loads the engine, nor the registry's writer for the loop.
SWITCH_INTERVAL = 0.0005
FAREWELL = 2.0  # seconds for the last answers of a daemon that stops


def run(launch: Launch, settings: Settings, ready: ReadyPipe) -> None:
    """Run the daemon to its end. Raises DispatchError when it cannot start."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    manifest, plugins, storage = _prepare(launch, settings)
    anyio.run(Daemon(launch, settings, manifest, plugins, storage).serve, ready)


def check(launch: Launch, settings: Settings) -> None:
    """Return if the daemon could start: everything is imported, and nothing that is stored is touched. Raises DispatchError."""
    _, plugins, storage = _prepare(launch, settings)
    _load(plugins)
    for report in plugins.quarantined():
        if report.first_party:
            raise PluginFault(
                f"its own part {report.name} is broken: {report.reason}",
                hint=f"install codex-dispatch again; dispatch plugins show {report.name}",
            )
    maintenance: Maintenance | None = getattr(storage, "maintenance", None)
    stored = maintenance.check() if maintenance is not None else None
    if stored is not None and stored.schema is not None and stored.schema > stored.supported:
        raise StorageError(
            f"the registry {stored.path} has schema {stored.schema}, made by a newer dispatch; "
            f"this one knows schema {stored.supported}",
            hint="install that version again, or a newer one",
            details={"path": stored.path, "schema": stored.schema, "known": stored.supported},
        )


def _prepare(launch: Launch, settings: Settings) -> tuple[Mapping[str, Any], Plugins, Storage]:
    # What is wrong is said now, not when it is first needed; [plugins] is the manifest's, which safe mode builds without it.
    for name in SECTIONS.keys() - {"plugins"}:
        settings.section(name, SECTIONS[name])
    manifest = manifests.load(launch.paths, safe=launch.safe)
    plugins = Plugins(manifest, settings)
    plugins.note()
    backend = settings.section("storage", StorageSection).backend
    folder = private_directory(launch.paths.data(offline=launch.offline))
    return manifest, plugins, plugins.storage(backend, folder)


class Daemon:
    """One daemon, and the order in which its parts start and stop."""

    def __init__(
        self,
        launch: Launch,
        settings: Settings,
        manifest: Mapping[str, Any],
        plugins: Plugins,
        storage: Storage,
    ) -> None:
        self._launch = launch
        self._settings = settings
        self._plugins = plugins
        self._storage = storage
        self._clock = SystemClock()
        self._sessions = {s["name"]: s["session"] for s in manifest["surfaces"] if s["session"]}
        self._status = DaemonStatus(
            launch.paths, manifest, plugins, offline=launch.offline, storage=storage
        )

    async def serve(self, ready: ReadyPipe) -> None:
        """Run until asked to stop, then drain and stop everything in reverse order."""
        async with AsyncExitStack() as stack:
            await self._storage.open(stack)
            path = Path(self._launch.paths.socket)
            listener = open_listener(path)
            stack.callback(close_listener, listener, path)
            events = EventBus(self._clock)
            host = DaemonHost(self._status, events, self._plugins.entries, self._sessions)
            notifier = Notifier(os.environ)
            async with anyio.create_task_group() as tasks:
                server = ControlServer(host)
                await tasks.start(server.serve, listener)
                await tasks.start(
                    _watch_signals, host
                )  # whoever knows that we are ready may end us
                ready.say({"ready": True, "pid": os.getpid(), "state": self._status.state})
                tasks.start_soon(notifier.run)
                log.info("dispatchd %s listens on %s", self._status.version, path)
                engine = await self._engine(events)
                await engine.start(tasks)
                host.open(engine.dispatcher, engine.busy)
                # Off since the start, see main. What is here now stays: no collection has to look at it again.
                gc.freeze()
                gc.enable()
                await host.stopping.wait()
                notifier.stopping()
                await engine.drain(host)
                with anyio.move_on_after(FAREWELL):
                    await server.retire()
                tasks.cancel_scope.cancel()

    async def _engine(self, events: EventBus) -> Engine:
        """Load the engine in a thread, so that the socket answers meanwhile."""
        parts, catalog = await to_thread.run_sync(_load, self._plugins)
        base = parts.Base(
            launch=self._launch,
            settings=self._settings,
            plugins=self._plugins,
            storage=self._storage,
            events=events,
            clock=self._clock,
            status=self._status,
        )
        engine: Engine = parts.Engine(base, catalog)
        return engine


def _load(plugins: Plugins) -> tuple[ModuleType, Catalog]:
    # Imported for start-up, see above.
    from dispatch_core.daemon import engine  # noqa: PLC0415

    return engine, plugins.catalog()


async def _watch_signals(host: DaemonHost, *, task_status: TaskStatus[None]) -> None:
    """The first SIGTERM or SIGINT drains, the second one does not wait."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        task_status.started()
        async for number in received:
            log.info("signal %s", number.name)
            host.shutdown(0.0 if host.stopping.is_set() else None)
