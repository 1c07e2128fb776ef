from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import codex_cli_bin
import pytest

from dispatch_core.appserver.client import connect
from dispatch_core.appserver.rpc import RpcRefusal
from dispatch_core.offline.codex_home import write_codex_home
from dispatch_core.offline.model import OfflineModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dispatch_core.appserver.client import AppServer

FAKE = Path(__file__).with_name("fake_codex.py")


@dataclass
class Seen:
    """What the handlers of a connection were given."""

    notifications: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    requests: list[tuple[int | str, str, dict[str, Any]]] = field(default_factory=list)

    def methods(self) -> list[str]:
        return [method for method, _ in self.notifications]

    def notified(self, method: str, params: dict[str, Any]) -> None:
        self.notifications.append((method, params))
        if params.get("explode"):
            raise LookupError("as asked")

    async def requested(
        self, id_: int | str, method: str, params: dict[str, Any]
    ) -> dict[str, Any]:
        self.requests.append((id_, method, params))
        if method == "item/known":
            return {"decision": "accept"}
        if method == "item/broken":
            raise LookupError("as asked")
        if method == "item/waiting":
            await anyio.sleep_forever()
        raise RpcRefusal


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def fake_binary(short_tmp: Path) -> Path:
    path = short_tmp / "codex"
    path.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} "$@"\n'
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def codex_binary() -> Path:
    return Path(codex_cli_bin.bundled_codex_path())


@pytest.fixture(scope="session")
def schema_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON schema of everything the installed Codex speaks."""
    out, home = tmp_path_factory.mktemp("schema"), tmp_path_factory.mktemp("home")
    command = [codex_cli_bin.bundled_codex_path(), "app-server", "generate-json-schema"]
    subprocess.run(
        [*command, "--out", str(out), "--experimental"],
        env={"PATH": os.defpath, "HOME": str(home), "CODEX_HOME": str(home)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    return out


@pytest.fixture
def connect_fake(fake_binary: Path, short_tmp: Path, seen: Seen):
    """Connect to the fake program."""

    @asynccontextmanager
    async def connect_(*, on_request: Any = seen.requested, **env: str) -> AsyncIterator[AppServer]:
        with anyio.fail_after(30):
            async with connect(
                fake_binary,
                env={"PATH": os.defpath, **env},
                cwd=short_tmp,
                on_notification=seen.notified,
                on_request=on_request,
                version="1.2.3",
            ) as server:
                yield server

    return connect_


@pytest.fixture
def connect_codex(codex_binary: Path, short_tmp: Path, seen: Seen):
    """Connect to the real Codex in a home of its own, with the offline model behind it."""

    @asynccontextmanager
    async def connect_() -> AsyncIterator[AppServer]:
        home = short_tmp / "home"
        env = {"PATH": os.defpath, "HOME": str(short_tmp), "CODEX_HOME": str(home)}
        model = OfflineModel()
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                await tasks.start(model.serve)
                write_codex_home(home, model.base_url)
                async with connect(
                    codex_binary,
                    env=env,
                    cwd=short_tmp,
                    on_notification=seen.notified,
                    on_request=seen.requested,
                    version="1.2.3",
                ) as server:
                    yield server
                tasks.cancel_scope.cancel()

    return connect_


async def until(condition, *, seconds: float = 10) -> None:
    """Wait for something no event tells of: what another process does, or what a handler recorded."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- there is no event to wait for
            await anyio.sleep(0.01)
