"""What of a thread's settings the model is told: when it is started, forked, and after Codex was started anew."""

from __future__ import annotations

import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from dispatch_core.appserver import threads
from dispatch_core.appserver.client import connect
from dispatch_core.contracts.records import ModelInUse, ThreadSettings
from dispatch_core.errors import CodexError, ValidationFailed
from dispatch_core.offline.codex_home import write_codex_home
from dispatch_core.offline.model import OfflineModel

from .conftest import until

pytestmark = pytest.mark.anyio

SETTINGS = ThreadSettings(
    sandbox="read-only",
    approval_policy="never",
    model="offline-mini",
    effort="low",
    summary="concise",
    service_tier="flex",
    base_instructions="BASE",
    developer_instructions="DEVELOPER",
)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Wire:
    """A relay between Codex and the model that keeps what the model was asked."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._said: list[bytearray] = []

    async def serve(self, *, task_status) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))
            await listener.serve(self._relay)

    async def _relay(self, near) -> None:
        said = bytearray()
        self._said.append(said)
        async with (
            near,
            await anyio.connect_tcp("127.0.0.1", self._port) as far,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._copy, far, near, None, tasks.cancel_scope)
            await self._copy(near, far, said, tasks.cancel_scope)

    async def _copy(self, source, sink, said, scope) -> None:
        try:
            async for chunk in source:
                if said is not None:
                    said += chunk
                await sink.send(chunk)
        except (BrokenResourceError, ClosedResourceError, EndOfStream):
            pass
        scope.cancel()

    def last(self) -> dict:
        """Return the body of the newest model request."""
        found = []
        for said in self._said:
            rest = bytes(said)
            while b"\r\n\r\n" in rest:
                head, _, rest = rest.partition(b"\r\n\r\n")
                size = int(length[1]) if (length := LENGTH.search(head)) else 0
                body, rest = rest[:size], rest[size:]
                if b"/responses" in head:
                    found.append(json.loads(body))
        return max(found, key=lambda body: body["client_metadata"]["turn_id"])


@pytest.fixture
def codexes(codex_binary, short_tmp, seen):
    """Start one Codex after the other in the same home; yields (connect, wire)."""

    @asynccontextmanager
    async def open_():
        home = short_tmp / "home"
        env = {"PATH": os.defpath, "HOME": str(short_tmp), "CODEX_HOME": str(home)}
        model = OfflineModel()
        with anyio.fail_after(40):
            async with anyio.create_task_group() as tasks:
                port = await tasks.start(model.serve)
                wire = Wire(port)
                own = await tasks.start(wire.serve)
                url = urlsplit(model.base_url)
                write_codex_home(home, url._replace(netloc=f"127.0.0.1:{own}").geturl())

                def start():
                    return connect(
                        codex_binary,
                        env=env,
                        cwd=short_tmp,
                        on_notification=seen.notified,
                        on_request=seen.requested,
                        version="1",
                    )

                yield start, wire
                tasks.cancel_scope.cancel()

    return open_


async def turn(server, seen, thread_id: str) -> None:
    before = seen.methods().count("turn/completed")
    await server.request(
        "turn/start", {"threadId": thread_id, "input": [{"type": "text", "text": "go"}]}
    )
    await until(lambda: seen.methods().count("turn/completed") > before)


async def compacted(server, seen, thread_id: str) -> None:
    before = seen.methods().count("turn/completed")
    await threads.compact(server, thread_id)
    await until(lambda: seen.methods().count("turn/completed") > before)


def told(body: dict) -> dict:
    developer = [
        part["text"]
        for item in body["input"]
        if item.get("role") == "developer"
        for part in item["content"]
    ]
    return {
        "model": body["model"],
        "tier": body.get("service_tier"),
        "reasoning": body["reasoning"],
        "base": developer[0],
        "developer": "DEVELOPER" in developer,
    }


ALL = {
    "model": "offline-mini",
    "tier": "flex",
    "reasoning": {"effort": "low", "summary": "concise"},
    "base": "BASE",
    "developer": True,
}
IN_USE = ModelInUse(provider="offline", model="offline-mini", effort="low", service_tier="flex")


async def test_the_model_is_told_all_settings_also_after_codex_was_started_anew(codexes, seen):
    async with codexes() as (codex, wire):
        async with codex() as server:
            started = await threads.start(server, cwd="/", settings=SETTINGS)
            await turn(server, seen, started.id)
            first = told(wire.last())
        async with codex() as server:
            resumed = await threads.resume(server, started.id, SETTINGS)
            await turn(server, seen, started.id)
            second = told(wire.last())
            await compacted(server, seen, started.id)
            await turn(server, seen, started.id)
            third = told(wire.last())

    assert (first, second, third) == (ALL, ALL, ALL)
    assert (started.in_use, resumed.in_use) == (IN_USE, IN_USE)


async def test_a_fork_is_told_the_settings_that_it_inherits(codexes, seen):
    async with codexes() as (codex, wire):
        async with codex() as server:
            started = await threads.start(server, cwd="/", settings=SETTINGS)
            await turn(server, seen, started.id)
        async with codex() as server:
            forked = await threads.fork(
                server, started.id, settings=SETTINGS, cwd=None, last_turn=None
            )
            await turn(server, seen, forked.id)
            body = told(wire.last())

    assert body == ALL
    assert forked.in_use == IN_USE
    assert forked.cwd == "/"


async def test_a_permission_profile_and_a_sandbox_exclude_each_other(connect_codex):
    both = ThreadSettings(sandbox="read-only", permissions=":read-only")
    async with connect_codex() as server:
        with pytest.raises(ValidationFailed, match="exclude"):
            await threads.start(server, cwd="/", settings=both)

        profile = ThreadSettings(permissions=":read-only")
        started = await threads.start(server, cwd="/", settings=profile)

    assert started.in_use.provider == "offline"


@pytest.mark.parametrize(
    "settings", [ThreadSettings(sandbox="yolo"), ThreadSettings(personality="grim")]
)
async def test_a_value_that_codex_does_not_know_is_refused_before_it_is_asked(
    connect_codex, seen, settings
):
    async with connect_codex() as server:
        with pytest.raises(ValidationFailed) as caught:
            await threads.start(server, cwd="/", settings=settings)

    assert caught.value.hint
    assert "thread/started" not in seen.methods()


async def test_a_provider_that_is_not_configured_is_an_error_of_codex(connect_codex):
    async with connect_codex() as server:
        with pytest.raises(CodexError, match="nope"):
            await threads.start(server, cwd="/", settings=ThreadSettings(model_provider="nope"))


async def test_what_codex_says_of_a_thread_is_read_without_loading_it(codexes, seen):
    async with codexes() as (codex, _):
        async with codex() as server:
            started = await threads.start(server, cwd="/", settings=SETTINGS)
            fresh = await threads.read(server, started.id)
            await turn(server, seen, started.id)
            await threads.rename(server, started.id, "a name")
        async with codex() as server:
            stored = await threads.read(server, started.id)
            loaded = await server.request("thread/loaded/list", {})
            await threads.archive(server, started.id)
            away = await threads.read(server, started.id)

    assert (fresh.status, fresh.stored) == ("idle", False)
    assert (stored.status, stored.stored, stored.name) == ("unknown", True, "a name")
    assert (stored.cwd, stored.preview, stored.in_use.model) == ("/", "go", "offline-mini")
    assert loaded["data"] == []
    assert (away.status, away.archived) == ("archived", True)
    assert Path(stored.cwd).is_absolute()
