"""Turns on the real Codex, down to what the model is asked; and the prose of its errors as types."""

from __future__ import annotations

import base64
import json
import os
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import pytest

from dispatch_core.appserver import calls, threads, turns
from dispatch_core.appserver.client import connect
from dispatch_core.contracts.records import Image, Message, ThreadSettings
from dispatch_core.errors import ActiveWriter, CapabilityUnavailable, CodexError
from dispatch_core.offline.codex_home import write_codex_home
from dispatch_core.offline.model import OfflineModel

from .conftest import until

pytestmark = pytest.mark.anyio

GIF = base64.b64decode("R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=")


class Tap:
    """Passes bytes on to the model and keeps what it was asked."""

    def __init__(self, url):
        self._port = urlsplit(url).port
        self.heard = bytearray()

    def requests(self):
        """Return the bodies of all requests so far."""
        decoder, found, text = json.JSONDecoder(), [], self.heard.decode()
        while (start := text.find("\r\n\r\n{")) >= 0:
            body, end = decoder.raw_decode(text, start + 4)
            found.append(body)
            text = text[end:]
        return found

    async def serve(self, *, task_status):
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with listener:
            task_status.started(f"http://127.0.0.1:{port}/v1")
            await listener.serve(self._pass)

    async def _pass(self, client):
        gone = (anyio.BrokenResourceError, anyio.ClosedResourceError)
        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", self._port) as server,
            anyio.create_task_group() as tasks,
        ):

            async def copy(source, sink, heard):
                try:
                    async for data in source:
                        heard += data
                        await sink.send(data)
                except gone:
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(copy, client, server, self.heard)
            tasks.start_soon(copy, server, client, bytearray())


@pytest.fixture
def tapped_codex(codex_binary, short_tmp, seen):
    """Connect to the real Codex with the offline model behind a tap."""

    @asynccontextmanager
    async def connect_():
        home, model = short_tmp / "home", OfflineModel()
        env = {"PATH": os.defpath, "HOME": str(short_tmp), "CODEX_HOME": str(home)}
        async with anyio.create_task_group() as tasks:
            await tasks.start(model.serve)
            tap = Tap(model.base_url)
            write_codex_home(home, await tasks.start(tap.serve))
            with anyio.fail_after(30):
                async with connect(
                    codex_binary,
                    env=env,
                    cwd=short_tmp,
                    on_notification=seen.notified,
                    on_request=seen.requested,
                    version="1",
                ) as server:
                    yield server, tap
            tasks.cancel_scope.cancel()

    return connect_


async def begin(server, thread, text, *, settings=None, images=()):
    return await turns.start(
        server,
        thread,
        Message(text=text, images=images),
        "m1",
        settings or ThreadSettings(),
    )


def happened(seen, method, turn_id):
    """Whether Codex has told of this turn."""
    return lambda: any(
        m == method and (p.get("turn") or {}).get("id") == turn_id for m, p in seen.notifications
    )


async def test_the_bytes_of_a_picture_reach_the_model(tapped_codex, short_tmp, seen):
    path = short_tmp / "dot.gif"
    path.write_bytes(GIF)
    async with tapped_codex() as (server, tap):
        thread = (await threads.start(server, cwd="/", settings=ThreadSettings())).id

        images = (Image(path=str(path), detail="high"),)
        turn = await begin(server, thread, "what is it?", images=images)
        await until(happened(seen, "turn/completed", turn))

    content = tap.requests()[-1]["input"][-1]["content"]
    pictures = [part for part in content if part["type"] == "input_image"]
    assert content[0] == {"type": "input_text", "text": "what is it?"}
    assert [part["detail"] for part in pictures] == ["high"]
    assert pictures[0]["image_url"].startswith("data:image/")


async def test_settings_of_a_turn_reach_the_model(tapped_codex, seen):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    settings = ThreadSettings(model="offline-mini", effort="high", output_schema=schema)
    async with tapped_codex() as (server, tap):
        thread = (await threads.start(server, cwd="/", settings=ThreadSettings())).id

        turn = await begin(server, thread, "hi", settings=settings)
        await until(happened(seen, "turn/completed", turn))

    asked = tap.requests()[-1]
    assert asked["model"] == "offline-mini"
    assert asked["reasoning"]["effort"] == "high"
    assert asked["text"]["format"]["schema"] == schema


async def test_a_permission_profile_is_taken_by_a_turn(tapped_codex, seen):
    settings = ThreadSettings(permissions=":read-only", approval_policy="never")
    async with tapped_codex() as (server, _):
        thread = (await threads.start(server, cwd="/", settings=settings)).id

        turn = await begin(server, thread, "hi", settings=settings)
        await until(happened(seen, "turn/completed", turn))

    ended = [p["turn"] for m, p in seen.notifications if m == "turn/completed"]
    assert [found["status"] for found in ended] == ["completed"]


async def test_context_is_a_message_of_the_user_in_the_next_request(tapped_codex, seen):
    async with tapped_codex() as (server, tap):
        thread = (await threads.start(server, cwd="/", settings=ThreadSettings())).id

        await turns.inject(server, thread, "know this")
        turn = await begin(server, thread, "hi")
        await until(happened(seen, "turn/completed", turn))

    said = [
        part["text"]
        for item in tap.requests()[-1]["input"]
        if item.get("role") == "user"
        for part in item["content"]
    ]
    assert said[-2:] == ["know this", "hi"] or said.index("know this") < said.index("hi")


async def test_a_turn_that_does_not_run_is_told_from_every_other_refusal(tapped_codex, seen):
    message = Message(text="x")
    async with tapped_codex() as (server, _):
        thread = (await threads.start(server, cwd="/", settings=ThreadSettings())).id

        with pytest.raises(calls.TurnGone):
            await turns.steer(server, thread, message, "m", turn_id="nope")
        turn = await begin(server, thread, 'offline:{"delay": 30}')
        await until(happened(seen, "turn/started", turn))
        with pytest.raises(calls.TurnGone):
            await turns.steer(server, thread, message, "m", turn_id="nope")
        await turns.interrupt(server, thread, "nope")
        assert not happened(seen, "turn/completed", turn)()
        await turns.interrupt(server, thread, turn)
        await until(happened(seen, "turn/completed", turn))
        with pytest.raises(calls.ThreadUnknown):
            await turns.inject(server, "01a2b3c4-0000-7000-8000-000000000000", "x")


async def test_commands_are_ended_except_those_to_keep(tapped_codex, seen):
    arguments = {"cmd": "sleep 306", "yield_time_ms": 250}
    call = {"name": "exec_command", "arguments": arguments}
    script = json.dumps({"steps": [{"call": [call, call]}, {"text": "they run"}]})
    async with tapped_codex() as (server, _):
        thread = (await threads.start(server, cwd="/", settings=ThreadSettings())).id
        turn = await begin(server, thread, f"offline:{script}")
        await until(happened(seen, "turn/completed", turn))
        first, second = await turns.running_commands(server, thread)

        spared = await turns.stop_commands(server, thread, keep={first.item_id})
        left = await turns.running_commands(server, thread)
        rest = await turns.stop_commands(server, thread, keep=set())
        none = await turns.stop_commands(server, thread, keep=set())

    assert first.item_id != second.item_id
    assert (spared, left, rest, none) == (1, [first], 1, 0)


async def test_a_method_that_codex_does_not_have_is_no_capability(tapped_codex):
    async with tapped_codex() as (server, _):
        with pytest.raises(CodexError) as caught:
            await server.request("thread/fromTheFuture", {})

    error = calls.typed(caught.value)
    assert isinstance(error, CapabilityUnavailable)
    assert "thread/fromTheFuture" in error.message


async def test_a_thread_that_another_codex_holds_has_an_active_writer(
    tapped_codex, codex_binary, short_tmp, seen
):
    env = {"PATH": os.defpath, "HOME": str(short_tmp), "CODEX_HOME": str(short_tmp / "home")}
    async with tapped_codex() as (server, _):
        thread = (await threads.start(server, cwd="/", settings=ThreadSettings())).id
        turn = await begin(server, thread, "hi")
        await until(happened(seen, "turn/completed", turn))

        async with connect(
            codex_binary,
            env=env,
            cwd=short_tmp,
            on_notification=lambda *_: None,
            on_request=None,
            version="1",
        ) as other:
            with pytest.raises(ActiveWriter) as caught:
                await threads.resume(other, thread)

    assert caught.value.details == {"thread": thread}


@pytest.mark.parametrize(
    ("prose", "kind"),
    [
        ("no active turn to steer", calls.TurnGone),
        ("expected active turn id `a` but found `b`", calls.TurnGone),
        ("cannot steer a compact turn", calls.NotSteerable),
        ("session x is archived. Run 'codex unarchive x'", calls.ThreadArchived),
        ("no rollout found for thread id x", calls.ThreadUnknown),
        ("thread/x requires experimentalApi capability", CapabilityUnavailable),
        ("something else", CodexError),
    ],
)
def test_the_prose_of_an_error_is_its_type_and_it_always_has_a_next_step(prose, kind):
    error = calls.typed(CodexError(f"Codex refused it: {prose}"))

    assert type(error) is kind
    assert error.hint


def test_a_misspelt_value_is_not_taken_for_a_missing_method():
    error = CodexError(
        "Codex refused turn/start: Invalid request: unknown variant `maybe`, expected one of ...",
        details={"method": "turn/start"},
    )

    assert type(calls.typed(error)) is CodexError
