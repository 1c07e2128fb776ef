"""A supervisor without the rest of the daemon, over the real Codex or a scripted one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import codex_cli_bin

from dispatch_core.appserver.rpc import RpcRefusal
from dispatch_core.daemon.health import Health
from dispatch_core.daemon.supervisor import CodexPlan, Patience, Supervisor
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.events import EventBus
from dispatch_core.offline.codex_home import write_codex_home
from dispatch_core.offline.model import OfflineModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SCRIPT = Path(__file__).with_name("scripted_codex.py")


@dataclass
class Kept:
    """A supervised app-server. heard: the methods of its notifications. calls: what the supervisor told of it."""

    supervisor: Supervisor
    events: EventBus
    home: Path
    heard: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    idle: bool = False
    seen: int = 0

    @property
    def pid(self) -> int:
        epoch = self.supervisor.epoch
        assert epoch is not None
        return epoch.pid

    async def state(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the data of the next event of Codex's state that fulfils a condition."""
        async with self.events.subscribe(after=self.seen) as stream:
            async for event in stream:
                self.seen = event.seq
                if condition(dict(event.data)):
                    return dict(event.data)
        raise AssertionError("the stream has ended")


def scripted_binary(directory: Path) -> Path:
    """Make the scripted Codex a program."""
    path = directory / "codex"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -S {SCRIPT} "$@"\n')
    path.chmod(0o755)
    return path


async def _refuse(*_: object) -> dict[str, Any]:
    raise RpcRefusal


@asynccontextmanager
async def supervised(
    *, real: bool, patience: Patience | None = None, seconds: float = 60, **env: str
) -> AsyncIterator[Kept]:
    """Keep an app-server running while the context lasts; for at most so many seconds."""
    home = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    model = OfflineModel()
    codex_home = home / "codex-home"
    binary = Path(codex_cli_bin.bundled_codex_path()) if real else scripted_binary(home)
    plan = CodexPlan(
        configured=str(binary),
        env={"PATH": os.defpath, "HOME": str(home), "CODEX_HOME": str(codex_home), **env},
        cwd=home,
        pid_file=home / "codex.pid",
        version="1",
    )
    events = EventBus(SystemClock())
    kept: Kept

    async def ready() -> None:
        kept.calls.append("ready")

    supervisor = Supervisor(
        plan,
        events,
        Health(),
        on_notification=lambda method, params: kept.heard.append(method),
        on_request=_refuse,
        patience=patience,
    )
    kept = Kept(supervisor, events, home)
    try:
        with anyio.fail_after(seconds):
            async with anyio.create_task_group() as tasks:
                if real:
                    await tasks.start(model.serve)
                    write_codex_home(codex_home, model.base_url)
                tasks.start_soon(
                    lambda: supervisor.run(
                        on_ready=ready,
                        on_lost=lambda: kept.calls.append("lost"),
                        on_stranded=lambda: kept.calls.append("stranded"),
                        idle=lambda: kept.idle,
                    )
                )
                yield kept
                tasks.cancel_scope.cancel()
    finally:
        shutil.rmtree(home, ignore_errors=True)
