"""One app-server is kept alive, and what is wrong with it is said."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from dispatch_core.contracts.events import EventKind
from dispatch_core.daemon.health import Health
from dispatch_core.daemon.supervisor import BREAKER_EXITS, CodexPlan, Supervisor
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.events import EventBus
from dispatch_core.errors import CodexUnavailable, OutcomeUnknown

pytestmark = pytest.mark.anyio

FAKE = Path(__file__).with_name("fake_codex.py")


class Setup:
    def __init__(self, tmp_path, mode="", binary=None, **env):
        self.script = tmp_path / "codex"
        self.script.write_text(f'#!/bin/sh\nexec {sys.executable} -S {FAKE} "$@"\n')
        self.script.chmod(0o755)
        self.pid_file = tmp_path / "codex.pid"
        self.count = tmp_path / "count"
        self.heard, self.calls = [], []
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
            backoff=(0.2, 0.2),
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
        )

    async def until(self, condition):
        async with self.events.subscribe(after=0) as stream:
            async for event in stream:
                if condition(event):
                    return event
        raise AssertionError("the stream has ended")


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
        assert setup.heard == ["thread/closed"]


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
        assert (supervisor.generation, supervisor.health.restarts) == (2, 1)
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
        assert f"{BREAKER_EXITS} times" in supervisor.health.reason
        assert len(setup.count.read_text()) == BREAKER_EXITS
        assert supervisor.health.fix


@pytest.mark.parametrize("binary", ["/no/such/codex", "/bin/echo"])
async def test_a_binary_that_is_none_is_not_tried_again(tmp_path, binary):
    setup = Setup(tmp_path, binary=binary)
    async with setup.running() as supervisor:
        with pytest.raises(CodexUnavailable) as caught:
            await supervisor.request("model/list", {})
        await anyio.wait_all_tasks_blocked()

        assert binary in caught.value.message
        assert (supervisor.health.state, supervisor.health.restarts) == ("degraded", 0)
        assert setup.calls == ["stranded"]


async def test_a_pid_file_that_cannot_be_read_or_written_costs_nothing(tmp_path):
    setup = Setup(tmp_path)
    setup.pid_file.mkdir()

    async with setup.running() as supervisor:
        assert await supervisor.request("model/list", {}) == {"echo": "model/list"}
