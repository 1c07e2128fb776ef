"""The parts of one daemon, put together: registry, then socket, then Codex. ``run`` is the daemon, from plugins to its end."""

from __future__ import annotations

import gc
import logging
import os
import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import appserver
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.events import EventKind
from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.control.server import ControlServer
from dispatch_core.daemon.host import DaemonHost
from dispatch_core.daemon.lock import private_directory
from dispatch_core.daemon.status import DaemonStatus
from dispatch_core.daemon.supervisor import CodexPlan, Supervisor
from dispatch_core.engine.approvals import Approvals
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.dispatcher import Dispatcher
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.lanes import Lanes
from dispatch_core.engine.triggers import TriggerEngine
from dispatch_core.plugin import manifest as manifests
from dispatch_core.plugin.activate import Plugins, activate
from dispatch_core.settings import CodexSection, DaemonSection, Settings, StorageSection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskGroup

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.daemon.main import Launch, ReadyPipe

log = logging.getLogger(__name__)

INTERRUPT_GRACE = 5.0  # seconds for interrupted turns to end before Codex is stopped


def run(launch: Launch, settings: Settings, ready: ReadyPipe) -> None:
    """Load the plugins and run the daemon to its end. Raises DispatchError when it cannot start."""
    manifest = manifests.load(launch.paths, safe=launch.safe)
    backend = settings.section("storage", StorageSection).backend
    plugins = activate(manifest, settings, backend=backend)
    data = private_directory(launch.paths.data(offline=launch.offline))
    storage = plugins.storage(settings, backend, data)
    anyio.run(Daemon(launch, settings, manifest, plugins, storage).serve, ready)


class Daemon:
    """All parts of one daemon, and the order in which they start and stop."""

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
        self._status = DaemonStatus(launch.paths, manifest, plugins, offline=launch.offline)

    async def serve(self, ready: ReadyPipe) -> None:
        """Run until asked to stop, then drain and stop everything in reverse order."""
        async with AsyncExitStack() as stack:
            await self._storage.open(stack)
            path = Path(self._launch.paths.socket)
            listener = open_listener(path)
            stack.callback(close_listener, listener, path)
            events = EventBus(self._clock)
            async with anyio.create_task_group() as tasks:
                host, lanes, supervisor = self._assemble(events)
                await tasks.start(lanes.run)
                await tasks.start(ControlServer(host).serve, listener)
                ready.say({"ready": True, "pid": os.getpid(), "state": self._status.state})
                # Off since the start, see main. What is here now stays: no collection has to look at it again.
                gc.freeze()
                gc.enable()
                log.info("dispatchd %s listens on %s", self._status.version, path)
                tasks.start_soon(self._watch_signals, host)
                await tasks.start(self._triggers.run)
                await tasks.start(partial(self._run_codex, supervisor, lanes, tasks))
                await host.stopping.wait()
                await self._drain(host, lanes, events)
                tasks.cancel_scope.cancel()

    def _assemble(self, events: EventBus) -> tuple[DaemonHost, Lanes, Supervisor]:
        paths = self._launch.paths
        supervisor = Supervisor(
            CodexPlan(
                configured=self._settings.section("codex", CodexSection).bin,
                env=self._codex_env(),
                cwd=Path(paths.home),
                pid_file=Path(paths.codex_pid),
                version=self._status.version,
            ),
            events,
            on_notification=lambda method, params: lanes.notified(method, params),  # noqa: PLW0108 -- lanes comes later
            on_request=lambda _, method, params: _answer(approvals, method, params),
        )
        self._status.health = supervisor.health
        lanes = Lanes(self._storage, events, self._clock, supervisor)
        approvals = Approvals(events, lanes.key_of)

        def context(caller: Caller) -> OpContext:
            return OpContext(
                caller=caller,
                lanes=lanes,
                codex=supervisor,
                store=self._storage,
                events=events,
                clock=self._clock,
                triggers=self._triggers,
                daemon=self._status,
                ops=dispatcher,
            )

        dispatcher = Dispatcher(self._plugins.catalog, self._plugins.infos, context)
        self._triggers = TriggerEngine(
            kinds=self._plugins.catalog.kinds,
            storage=self._storage,
            events=events,
            clock=self._clock,
            call=dispatcher.call,
            resolve=lanes.resolve,
        )
        host = DaemonHost(
            status=self._status,
            dispatcher=dispatcher,
            lanes=lanes,
            events=events,
            sessions=self._sessions,
        )
        return host, lanes, supervisor

    def _codex_env(self) -> dict[str, str]:
        env = dict(self._launch.env)
        if not self._launch.offline:
            return env
        # Imported for start-up: only offline mode needs it.
        from dispatch_core.offline.codex_home import offline_environ  # noqa: PLC0415

        return offline_environ(self._codex_home(), env)

    def _codex_home(self) -> Path:
        return Path(self._launch.paths.offline) / "codex"

    async def _run_codex(
        self, supervisor: Supervisor, lanes: Lanes, tasks: TaskGroup, *, task_status: Any
    ) -> None:
        if self._launch.offline:
            # Imported for start-up: only offline mode needs them.
            from dispatch_core.offline.codex_home import write_codex_home  # noqa: PLC0415
            from dispatch_core.offline.model import OfflineModel  # noqa: PLC0415

            model = OfflineModel(log=Path(self._launch.paths.offline) / "model.jsonl")
            await tasks.start(model.serve)
            write_codex_home(self._codex_home(), model.base_url)
        await supervisor.run(
            on_ready=lanes.recover,
            on_lost=lanes.lost,
            on_stranded=lanes.stranded,
            task_status=task_status,
        )

    async def _watch_signals(self, host: DaemonHost) -> None:
        """The first SIGTERM or SIGINT drains, the second one does not wait."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                log.info("signal %s", number.name)
                host.shutdown(0.0 if host.stopping.is_set() else None)

    async def _drain(self, host: DaemonHost, lanes: Lanes, events: EventBus) -> None:
        """Take no more work, let running turns end within the grace, interrupt the rest."""
        self._status.draining = True
        host.close()
        events.publish(EventKind.DAEMON_STATE, data={"state": "draining"})
        grace = self._settings.section("daemon", DaemonSection).grace
        if host.grace is not None:
            grace = host.grace
        log.info("draining: %d turns run; waiting up to %g s", len(lanes.active()), grace)
        with anyio.move_on_after(grace) as patience:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hurry, host, patience)
                await lanes.quiet()
                tasks.cancel_scope.cancel()
        if lanes.active():
            log.info("interrupting %d turns", len(lanes.active()))
            with anyio.move_on_after(INTERRUPT_GRACE):
                await lanes.interrupt_all()
        await lanes.flush()


async def hurry(host: DaemonHost, patience: anyio.CancelScope) -> None:
    """Shorten the scope's deadline whenever a further request to stop asks for less patience."""
    while True:
        await host.hurried.wait()
        host.hurried = anyio.Event()
        if host.grace is not None:
            patience.deadline = min(patience.deadline, anyio.current_time() + host.grace)


async def _answer(approvals: Approvals, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    result = approvals.answer(method, params)
    if result is None:
        raise appserver.rpc.RpcRefusal
    return result
