"""A Codex that runs and is of no use is told apart from one that works, on the real one."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import codex_cli_bin
import pytest

from dispatch_core.appserver.client import connect
from dispatch_core.daemon.health import Health
from dispatch_core.daemon.heartbeat import HeartbeatPlan
from dispatch_core.daemon.watch import Watch, WatchPlan
from dispatch_core.errors import CodexError
from dispatch_core.offline.codex_home import write_codex_home

pytestmark = pytest.mark.anyio

PLAN = WatchPlan(heartbeat=HeartbeatPlan(period=0.05))


@pytest.fixture
def codex_home():
    directory = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def codex(home):
    binary = Path(codex_cli_bin.bundled_codex_path())
    env = {"PATH": os.defpath, "HOME": str(home), "CODEX_HOME": str(home)}
    with anyio.fail_after(30):
        async with connect(
            binary,
            env=env,
            cwd=home,
            on_notification=lambda method, params: None,
            on_request=None,
            version="1",
        ) as server:
            yield server


def watch(server, problems, health=None):
    return Watch(server, health or Health(), PLAN, retire=lambda: False, on_problem=problems.append)


async def test_one_that_works_has_no_problem(codex_home):
    write_codex_home(codex_home, "http://127.0.0.1:9")
    problems = []

    async with codex(codex_home) as server:
        await watch(server, problems).check()

    assert problems == [None]


async def test_one_without_a_login_is_of_no_use_and_the_fix_is_said(codex_home):
    problems = []

    async with codex(codex_home) as server:
        await watch(server, problems).check()

    assert problems[0].reason == "Codex is not logged in"
    assert problems[0].fix.startswith("codex login")


async def test_a_configuration_it_cannot_use_is_named_until_it_is_corrected(codex_home):
    write_codex_home(codex_home, "http://127.0.0.1:9")
    config = codex_home / "config.toml"
    good = config.read_text()
    config.write_text("model = [unclosed")
    problems = []

    async with codex(codex_home) as server:
        watched = watch(server, problems)
        await watched.check()
        with pytest.raises(CodexError):
            await server.request("thread/start", {"cwd": str(codex_home)})
        config.write_text(good)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched.run)
            while problems[-1]:  # noqa: ASYNC110 -- a beat looks again
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        thread = await server.request("thread/start", {"cwd": str(codex_home)})

    assert "config.toml:1:18: unclosed array" in problems[0].reason
    assert "config.toml" in problems[0].fix
    assert thread["thread"]["id"]


async def test_a_beat_measures_the_memory_and_the_time(codex_home):
    write_codex_home(codex_home, "http://127.0.0.1:9")
    health, problems = Health(), []

    async with codex(codex_home) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(watch(server, problems, health).run)
        while health.rss_bytes is None:  # noqa: ASYNC110 -- a beat measures it
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()

    assert health.rss_bytes > 10 << 20
    assert health.pulse.latency > 0


class OldCodex:
    """What is asked of a Codex that has no diagnostics."""

    def __init__(self):
        self.asked = []
        self.pid = os.getpid()
        self.in_flight = 0
        self.places = self
        self.limits = []

    async def probe(self, method, params):
        self.asked.append(method)
        if method == "server/diagnostics":
            text = "Invalid request: unknown variant `server/diagnostics`, expected one of `x`"
            raise CodexError(text, details={"method": method, "message": text})
        return {"data": []}

    def widen(self):
        self.limits.append("wider")

    def narrow(self):
        self.limits.append("narrower")


async def test_one_without_diagnostics_is_asked_for_its_threads():
    old, health = OldCodex(), Health()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch(old, [], health).run)
            while len(old.asked) < 3:  # noqa: ASYNC110 -- counted by the beats
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    assert old.asked[:3] == ["server/diagnostics", "thread/loaded/list", "thread/loaded/list"]
    assert health.rss_bytes
