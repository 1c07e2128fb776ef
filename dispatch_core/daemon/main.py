"""``dispatchd``: lock first, then registry, then socket, then Codex. The one place where the parts are put together."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.appserver.rpc import RpcRefusal
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.events import EventKind
from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.control.server import ControlServer
from dispatch_core.daemon import logs
from dispatch_core.daemon.host import DaemonHost
from dispatch_core.daemon.lock import hold, private_directory
from dispatch_core.daemon.paths import Paths
from dispatch_core.daemon.status import DaemonStatus
from dispatch_core.daemon.supervisor import CodexPlan, Supervisor
from dispatch_core.engine.approvals import Approvals
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.dispatcher import Dispatcher
from dispatch_core.engine.events import EventBus
from dispatch_core.engine.lanes import Lanes
from dispatch_core.engine.triggers import TriggerEngine
from dispatch_core.errors import DispatchError
from dispatch_core.plugin import manifest as manifests
from dispatch_core.plugin.activate import Plugins, activate
from dispatch_core.settings import CodexSection, DaemonSection, Settings, StorageSection, is_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskGroup

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.storage import Storage

log = logging.getLogger(__name__)

INTERRUPT_GRACE = 5.0  # seconds for interrupted turns to end before Codex is stopped
USAGE = "usage: dispatchd run [--offline] [--safe]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How this daemon was started."""

    paths: Paths
    offline: bool
    safe: bool


class ReadyPipe:
    """The pipe on which whoever started us waits for one line: ready, or the error that ended us."""

    def __init__(self, env: Mapping[str, str]) -> None:
        descriptor = env.get("DISPATCHD_READY_FD", "")
        self._descriptor = int(descriptor) if descriptor.isdigit() else None
        if self._descriptor is not None:
            os.set_inheritable(self._descriptor, False)

    def say(self, message: dict[str, Any]) -> None:
        """Write the line; only the first one counts."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
        os.close(self._descriptor)
        self._descriptor = None


def main(argv: list[str] | None = None) -> int:
    """Run the daemon in the foreground and return its exit status."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] != ["run"] or not set(words[1:]) <= {"--offline", "--safe"}:
        sys.stderr.write(f"{USAGE}\nTo start it in the background: dispatch up\n")
        return 0 if words[:1] in (["--help"], ["-h"]) else 2
    ready = ReadyPipe(os.environ)
    launch = Launch(
        paths=Paths.from_env(os.environ),
        offline="--offline" in words or is_on(os.environ.get("DISPATCH_OFFLINE")),
        safe="--safe" in words or is_on(os.environ.get("DISPATCH_SAFE")),
    )
    try:
        return _run(launch, ready)
    except DispatchError as error:
        code = (
            "already_running"
            if type(error).__name__ == "AlreadyRunning"
            else error.to_dict()["code"]
        )
        ready.say({"error": {**error.to_dict(), "code": code}})
        sys.stderr.write(f"dispatchd: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        return error.projection.exit_code


def _run(launch: Launch, ready: ReadyPipe) -> int:
    os.umask(0o077)
    private_directory(launch.paths.home)
    private_directory(Path(launch.paths.socket).parent)
    with hold(launch.paths.lock):
        settings = Settings.read(launch.paths.config)
        daemon = settings.section("daemon", DaemonSection)
        handler = logs.configure(launch.paths.log, max_bytes=daemon.log_bytes)
        try:
            manifest = manifests.load(launch.paths, safe=launch.safe)
            backend = settings.section("storage", StorageSection).backend
            plugins = activate(manifest, settings, backend=backend)
            data = private_directory(launch.paths.data(offline=launch.offline))
            storage = plugins.storage(settings, backend, data)
            assembly = Daemon(launch, settings, manifest, plugins, storage)
            anyio.run(assembly.serve, ready)
        except DispatchError as error:
            log.error("the daemon ends: %s", error)  # noqa: TRY400 -- a reason, not a crash
            raise
        except Exception:
            log.exception("the daemon ends")
            raise
        finally:
            log.info("stopped")
            handler.close()
    return 0


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
        env = {name: value for name, value in os.environ.items() if name != "DISPATCHD_READY_FD"}
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
        await supervisor.run(on_ready=lanes.recover, on_lost=lanes.lost, task_status=task_status)

    async def _watch_signals(self, host: DaemonHost) -> None:
        """The first SIGTERM or SIGINT drains, the second one does not wait."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
            async for number in received:
                log.info("signal %s", number.name)
                host.shutdown(0.0 if host.stopping.is_set() else None)

    async def _drain(self, host: DaemonHost, lanes: Lanes, events: EventBus) -> None:
        """Take no more work, let running turns end within the grace, interrupt the rest."""
        self._status.draining = True
        events.publish(EventKind.DAEMON_STATE, data={"state": "draining"})
        grace = self._settings.section("daemon", DaemonSection).grace
        if host.grace is not None:
            grace = host.grace
        log.info("draining: %d turns run; waiting up to %g s", len(lanes.active()), grace)
        with anyio.move_on_after(grace):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_until_hurried, host, grace, tasks.cancel_scope)
                await lanes.quiet()
                tasks.cancel_scope.cancel()
        if lanes.active():
            log.info("interrupting %d turns", len(lanes.active()))
            with anyio.move_on_after(INTERRUPT_GRACE):
                await lanes.interrupt_all()
        await lanes.flush()


async def _until_hurried(host: DaemonHost, grace: float, scope: anyio.CancelScope) -> None:
    """Cancel the scope when a second request to stop asks for less patience than the first."""
    while True:
        host.stopping = anyio.Event()
        await host.stopping.wait()
        if host.grace is not None and host.grace < grace:
            scope.cancel()


async def _answer(approvals: Approvals, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    result = approvals.answer(method, params)
    if result is None:
        raise RpcRefusal
    return result


def entry() -> None:
    """Exit with the status of ``main``."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
