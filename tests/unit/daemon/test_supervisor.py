"""One app-server is kept alive, and what is wrong with it is said."""

from __future__ import annotations

import json
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from dispatch_core.appserver.process import spawn, start_time_of
from dispatch_core.contracts.events import EventKind
from dispatch_core.daemon.health import Health
from dispatch_core.daemon.heartbeat import HeartbeatPlan
from dispatch_core.daemon.restarts import RestartPlan
from dispatch_core.daemon.supervisor import CodexPlan, Patience, Supervisor
from dispatch_core.daemon.watch import WatchPlan
from dispatch_core.engine.clock import SystemClock, boot_id
from dispatch_core.engine.events import EventBus
from dispatch_core.errors import CodexUnavailable, OutcomeUnknown
from dispatch_plugins.ops.daemon import CodexStatus

pytestmark = pytest.mark.anyio

FAKE = Path(__file__).with_name("fake_codex.py")


class Setup:
    def __init__(self, tmp_path, mode="", binary=None, patience=None, **env):
        self.script = tmp_path / "codex"
        self.script.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE} "$@"\n')
        self.script.chmod(0o755)
        self.pid_file = tmp_path / "codex.pid"
        self.count = tmp_path / "count"
        self.heard, self.calls, self.idle = [], [], False
        self.events = EventBus(SystemClock())
        plan = CodexPlan(
            configured=str(binary or self.script),
            env={"PATH": "/usr/bin:/bin", "FAKE_CODEX": mode, "FAKE_COUNT": str(self.count), **env},
            cwd=tmp_path,
            pid_file=self.pid_file,
            version="1",
        )
        self.supervisor = Supervisor(
            plan,
            self.events,
            Health(),
            on_notification=lambda method, params: self.heard.append(method),
            on_request=None,
            patience=patience or Patience(restarts=RestartPlan(first=0.2, longest=0.2)),
        )

    async def ready(self):
        self.calls.append("ready")

    @asynccontextmanager
    async def running(self):
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._run)
                yield self.supervisor
                tasks.cancel_scope.cancel()

    async def _run(self):
        await self.supervisor.run(
            on_ready=self.ready,
            on_lost=lambda: self.calls.append("lost"),
            on_stranded=lambda: self.calls.append("stranded"),
            idle=lambda: self.idle,
        )

    async def until(self, condition):
        async with self.events.subscribe(after=0) as stream:
            async for event in stream:
                if condition(event):
                    return event
        raise AssertionError("the stream has ended")


async def beaten(supervisor):
    while supervisor.health.rss_bytes is None:  # noqa: ASYNC110 -- no event tells of a heartbeat
        await anyio.sleep(0.01)


async def begun(supervisor, generation):
    while supervisor.generation < generation:  # noqa: ASYNC110 -- no event tells of it
        await anyio.sleep(0.01)


async def test_requests_wait_for_the_first_start(tmp_path):
    setup = Setup(tmp_path)
    async with setup.running() as supervisor:
        answer = await supervisor.request("model/list", {})

        assert answer == {"echo": "model/list"}
        assert supervisor.health.state == "ready"
        assert supervisor.health.version == "0.169.0"
        assert json.loads(setup.pid_file.read_text())["pid"] == supervisor.health.pid
        assert setup.calls == ["ready"]
    assert setup.calls == ["ready", "lost"]


async def test_what_codex_warns_of_is_kept_as_a_note(tmp_path):
    setup = Setup(tmp_path)
    async with setup.running() as supervisor:
        await supervisor.request("model/list", {})

        assert supervisor.health.notes == ["Invalid configuration; using defaults.: line 3"]
        assert set(setup.heard) == {"thread/closed"}


async def test_a_dead_app_server_is_replaced_and_its_death_is_visible(tmp_path):
    setup = Setup(tmp_path)
    async with setup.running() as supervisor:
        await supervisor.request("model/list", {})
        with pytest.raises(OutcomeUnknown):
            await supervisor.request("die", {})
        died = await setup.until(lambda event: event.data["state"] == "degraded")

        # A request made meanwhile waits for the restart instead of being refused.
        assert await supervisor.request("model/list", {}) == {"echo": "model/list"}
        assert "status 9" in died.data["reason"]
        assert (supervisor.generation, supervisor.health.restarts.total) == (2, 1)
        assert supervisor.health.reason is None
        assert len(supervisor.health.notes) == 1
        assert setup.calls == ["ready", "lost", "ready"]


async def test_a_restart_that_fails_lets_nobody_wait_for_it(tmp_path):
    setup = Setup(tmp_path, "refuse-second")
    async with setup.running() as supervisor:
        await supervisor.request("model/list", {})
        with pytest.raises(OutcomeUnknown):
            await supervisor.request("die", {})
        failed = await setup.until(lambda event: "no licence" in (event.data["reason"] or ""))
        await setup.until(lambda event: event.seq > failed.seq and event.data["state"] == "ready")
        await supervisor.request("model/list", {})

        assert setup.calls == ["ready", "lost", "stranded", "ready"]


async def test_an_app_server_that_keeps_dying_is_given_a_pause_that_is_said(tmp_path):
    setup = Setup(tmp_path, "refuse")
    async with setup.running() as supervisor:
        event = await setup.until(lambda event: "next try" in (event.data["reason"] or ""))

        assert event.kind is EventKind.CODEX_STATE
        assert "5 times" in supervisor.health.reason
        assert len(setup.count.read_text()) == 5
        assert supervisor.health.fix


@pytest.mark.parametrize("binary", ["/no/such/codex", "/bin/echo"])
async def test_a_binary_that_is_none_is_not_tried_again(tmp_path, binary):
    setup = Setup(tmp_path, binary=binary)
    async with setup.running() as supervisor:
        with pytest.raises(CodexUnavailable) as caught:
            await supervisor.request("model/list", {})
        await anyio.wait_all_tasks_blocked()

        assert binary in caught.value.message
        assert (supervisor.health.state, supervisor.health.restarts.total) == ("degraded", 0)
        assert setup.calls == ["stranded"]


async def test_a_pid_file_that_cannot_be_read_or_written_costs_nothing(tmp_path):
    setup = Setup(tmp_path)
    setup.pid_file.mkdir()

    async with setup.running() as supervisor:
        assert await supervisor.request("model/list", {}) == {"echo": "model/list"}


async def test_the_process_that_holds_the_threads_is_named_and_its_end_is_known(tmp_path):
    setup = Setup(tmp_path)
    async with setup.running() as supervisor:
        before = supervisor.epoch
        await supervisor.request("model/list", {})
        first = supervisor.epoch
        alive = supervisor.reaped(1)
        with pytest.raises(OutcomeUnknown):
            await supervisor.request("die", {})
        await supervisor.request("model/list", {})

        assert before is None
        assert (first.generation, first.boot_id) == (1, boot_id())
        named = json.loads(setup.pid_file.read_text())
        now = supervisor.epoch
        assert named == {"pid": now.pid, "start_time": now.start_time, "boot_id": now.boot_id}
        assert supervisor.epoch.generation == 2
        assert alive is False
        assert [supervisor.reaped(n) for n in (0, 1, 2, 3)] == [False, True, False, False]
    assert supervisor.epoch is None
    assert supervisor.reaped(2)
    assert not setup.pid_file.exists()


async def test_an_app_server_that_outlived_its_daemon_is_ended_first(tmp_path):
    setup = Setup(tmp_path, patience=Patience(predecessor=0.1))
    async with spawn(["/bin/sleep", "60"], env={}, cwd=tmp_path) as left:
        named = {"pid": left.pid, "start_time": start_time_of(left.pid), "boot_id": boot_id()}
        setup.pid_file.write_text(json.dumps(named))

        async with setup.running() as supervisor:
            await supervisor.request("model/list", {})

            assert left.returncode == -9


@pytest.mark.parametrize("change", [{"boot_id": "another"}, {"start_time": 1}])
async def test_a_process_that_only_has_the_number_of_the_former_one_is_left_alone(tmp_path, change):
    setup = Setup(tmp_path, patience=Patience(predecessor=0.1))
    async with spawn(["/bin/sleep", "60"], env={}, cwd=tmp_path) as other:
        named = {"pid": other.pid, "start_time": start_time_of(other.pid), "boot_id": boot_id()}
        setup.pid_file.write_text(json.dumps(named | change))

        async with setup.running() as supervisor:
            await supervisor.request("model/list", {})

            assert other.returncode is None


async def test_one_that_holds_too_much_memory_is_renewed_once_nothing_runs(tmp_path):
    watch = WatchPlan(heartbeat=HeartbeatPlan(period=0.05), memory=1)
    setup = Setup(tmp_path, patience=Patience(watch=watch))
    async with setup.running() as supervisor:
        await supervisor.request("model/list", {})
        await beaten(supervisor)
        busy = supervisor.generation
        setup.idle = True
        await begun(supervisor, 2)
        setup.idle = False
        event = await setup.until(lambda event: "memory" in (event.data["reason"] or ""))

        assert busy == 1
        assert event.data["state"] == "starting"
        assert supervisor.health.restarts.recent(time.monotonic()) == 0
        assert setup.calls[:2] == ["ready", "lost"]


async def test_one_that_holds_far_too_much_memory_is_killed(tmp_path):
    watch = WatchPlan(heartbeat=HeartbeatPlan(period=0.05), memory=1, memory_hard=2)
    patience = Patience(watch=watch, restarts=RestartPlan(first=0.01, longest=0.01))
    setup = Setup(tmp_path, patience=patience)
    async with setup.running():
        event = await setup.until(lambda event: "GiB of memory" in (event.data["reason"] or ""))

        assert event.data["state"] == "degraded"


async def test_the_status_has_everything_about_codex(tmp_path):
    watch = WatchPlan(heartbeat=HeartbeatPlan(period=0.05))
    setup = Setup(tmp_path, patience=Patience(watch=watch))
    async with setup.running() as supervisor:
        await supervisor.request("model/list", {})
        await beaten(supervisor)
        codex = CodexStatus.model_validate(supervisor.health.codex())

    gone = CodexStatus.model_validate(supervisor.health.codex())
    assert (codex.generation, codex.restarts, codex.breaker.state) == (1, 0, "closed")
    assert codex.heartbeat.missed == 0
    assert codex.heartbeat.at
    assert (codex.traffic.in_flight, codex.traffic.limit) == (0, 32)
    assert codex.rss_bytes > 1 << 20
    assert codex.epoch.endswith("/1/0.169.0")
    assert (gone.pid, gone.heartbeat, gone.traffic) == (None, None, None)
