"""What is behind the socket: ops, lanes, triggers and Codex, put together. Imported once the daemon listens."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import failpoints
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.events import EventKind
from dispatch_core.daemon.codex_link import SupervisedCodex
from dispatch_core.daemon.proven import ProvenVersions
from dispatch_core.daemon.supervisor import CodexPlan, Supervisor
from dispatch_core.engine.clock import boot_id, boot_time
from dispatch_core.engine.dispatcher import Dispatcher
from dispatch_core.engine.goals import Goals
from dispatch_core.engine.history.histories import Histories
from dispatch_core.engine.lanes import Lanes
from dispatch_core.engine.requests.desk import Desk
from dispatch_core.engine.requests.inbox import Inbox
from dispatch_core.engine.triggers import TriggerEngine
from dispatch_core.settings import CodexSection, DaemonSection, PolicySection, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskGroup

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.storage import Storage
    from dispatch_core.daemon.host import DaemonHost
    from dispatch_core.daemon.startup import Launch
    from dispatch_core.daemon.status import DaemonStatus
    from dispatch_core.engine.clock import SystemClock
    from dispatch_core.engine.events import EventBus
    from dispatch_core.plugin.activate import Plugins
    from dispatch_core.plugin.catalog import Catalog

log = logging.getLogger(__name__)

INTERRUPT_GRACE = 5.0  # seconds for interrupted turns to end before Codex is stopped
WRITE_GRACE = 5.0  # seconds for ops that change something, so that Codex and the registry agree
REST_GRACE = 5.0  # seconds for active goals to be paused before turns are waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What the engine is built on, there before the socket is."""

    launch: Launch
    settings: Settings
    plugins: Plugins
    storage: Storage
    events: EventBus
    clock: SystemClock
    status: DaemonStatus


class Engine:
    """The parts that do the work, and the order in which they start and stop."""

    def __init__(self, base: Base, catalog: Catalog) -> None:
        self._base = base
        self.supervisor = Supervisor(
            CodexPlan(
                configured=base.settings.section("codex", CodexSection).bin,
                env=self._codex_env(),
                cwd=Path(base.launch.paths.home),
                pid_file=Path(base.launch.paths.codex_pid),
                version=base.status.version,
            ),
            base.events,
            base.status.health,
            on_notification=self._notified,
            on_request=self._requested,
        )
        self.lanes = Lanes(
            base.storage,
            base.events,
            base.clock,
            SupervisedCodex(self.supervisor, ProvenVersions(base.launch.paths.home)),
            booted_at=boot_time(),
            boot=boot_id(),
            policy=base.settings.section("policy", PolicySection),
        )
        self.histories = Histories(base.storage.index, self._codex_home(), base.clock)
        self.goals = Goals(
            base.storage, base.events, base.clock, self.supervisor, self.lanes.key_of
        )
        self.inbox = Inbox(
            base.storage,
            base.events,
            base.clock,
            self.lanes.key_of,
            base.settings.section("policy", PolicySection),
        )
        self.requests = Desk(base.storage, base.clock, self.inbox)
        self.dispatcher = Dispatcher(catalog, base.plugins.entries, self._context)
        self.triggers = TriggerEngine(
            kinds=catalog.kinds,
            storage=base.storage,
            events=base.events,
            clock=base.clock,
            call=self.dispatcher.call,
            fields=self.dispatcher.fields,
            resolve=self.lanes.resolve,
        )

    async def start(self, tasks: TaskGroup) -> None:
        """Start everything; Codex goes on starting after this returns."""
        await tasks.start(self.lanes.run)
        await tasks.start(self.inbox.run)
        await tasks.start(self.triggers.run)
        await tasks.start(partial(self._run_codex, tasks))

    def busy(self) -> set[str]:
        """Return the keys of the threads in which a turn runs, or an active goal is about to start the next one."""
        return {*self.lanes.active(), *filter(self.lanes.holds, self.goals.active())}

    async def drain(self, host: DaemonHost) -> None:
        """Take no more work, end what is being done, pause active goals, let turns end within the grace, interrupt the rest."""
        self._base.status.draining = True
        self.dispatcher.closed = True
        self.lanes.stop_sending()
        await failpoints.reach("drain.begun")
        self._base.events.publish(EventKind.DAEMON_STATE, data={"state": "draining"})
        grace = self._base.settings.section("daemon", DaemonSection).grace
        if host.grace is not None:
            grace = host.grace
        active = self.lanes.active
        log.info("draining: %d turns run; waiting up to %g s", len(active()), grace)
        with anyio.move_on_after(WRITE_GRACE):
            await self.dispatcher.quiet()
        with anyio.move_on_after(REST_GRACE):
            await self.goals.rest(self.lanes.held())
        with anyio.move_on_after(grace) as patience:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hurry, host, patience)
                await self.lanes.quiet()
                tasks.cancel_scope.cancel()
        if active():
            log.info("interrupting %d turns", len(active()))
            with anyio.move_on_after(INTERRUPT_GRACE):
                await self.goals.rest(
                    self.lanes.held()
                )  # one may have become active while turns were waited for
                await self.lanes.interrupt_all()
        await self.lanes.flush()
        await failpoints.reach("drain.before_stop")

    def _context(self, caller: Caller) -> OpContext:
        return OpContext(
            caller=caller,
            lanes=self.lanes,
            deliveries=self.lanes.deliveries,
            requests=self.requests,
            codex=self.supervisor,
            store=self._base.storage,
            events=self._base.events,
            clock=self._base.clock,
            triggers=self.triggers,
            daemon=self._base.status,
            ops=self.dispatcher,
            history=self.histories,
        )

    def _notified(self, method: str, params: Mapping[str, Any]) -> None:
        self.lanes.notified(method, params)
        self.goals.notified(method, params)
        self.inbox.notified(method, params)

    def _lost(self) -> None:
        failpoints.reach_sync("lost.heard")
        self.lanes.lost()
        self.goals.lost()
        self.inbox.lost()

    async def _requested(
        self, request_id: int | str, method: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        return dict(await self.inbox.asked(request_id, method, params))

    async def _run_codex(self, tasks: TaskGroup, *, task_status: Any) -> None:
        if self._base.launch.offline:
            # Imported for start-up: only offline mode needs them.
            from dispatch_core.offline.codex_home import write_codex_home  # noqa: PLC0415
            from dispatch_core.offline.model import OfflineModel  # noqa: PLC0415

            model = OfflineModel(log=Path(self._base.launch.paths.offline) / "model.jsonl")
            await tasks.start(model.serve)
            write_codex_home(self._codex_home(), model.base_url)
        await self.supervisor.run(
            on_ready=self.lanes.recover,
            on_lost=self._lost,
            on_stranded=self.lanes.stranded,
            idle=lambda: not self.busy(),
            task_status=task_status,
        )

    def _codex_env(self) -> dict[str, str]:
        env = dict(self._base.launch.env)
        if not self._base.launch.offline:
            return env
        # Imported for start-up: only offline mode needs it.
        from dispatch_core.offline.codex_home import offline_environ  # noqa: PLC0415

        return offline_environ(self._codex_home(), env)

    def _codex_home(self) -> Path:
        if self._base.launch.offline:
            return Path(self._base.launch.paths.offline) / "codex"
        configured = self._base.launch.env.get("CODEX_HOME")
        return Path(configured) if configured else Path.home() / ".codex"


async def hurry(host: DaemonHost, patience: anyio.CancelScope) -> None:
    """Shorten the scope's deadline whenever a further request to stop asks for less patience."""
    while True:
        await host.hurried.wait()
        host.hurried = anyio.Event()
        if host.grace is not None:
            patience.deadline = min(patience.deadline, anyio.current_time() + host.grace)
