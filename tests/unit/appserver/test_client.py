from __future__ import annotations

import os
import signal

import anyio
import pytest

from dispatch_core.appserver.client import OPT_OUT, connect
from dispatch_core.errors import CodexError, CodexUnavailable, OutcomeUnknown

from .conftest import until

pytestmark = pytest.mark.anyio


async def start_thread(server, cwd) -> str:
    answer = await server.request("thread/start", {"cwd": str(cwd)})
    return answer["thread"]["id"]


async def test_the_real_codex_shakes_hands(connect_codex, short_tmp):
    async with connect_codex() as server:
        diagnostics = await server.request("server/diagnostics", {})

        assert server.user_agent.startswith("dispatch/")
        assert server.codex_home == short_tmp / "home"
        assert diagnostics["process"]["id"] == server.pid
        assert server.stats.invalid_lines == 0


async def test_a_turn_of_the_real_codex_runs_from_request_to_completion(
    connect_codex, seen, short_tmp
):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)
        text = {"type": "text", "text": "hello"}

        answer = await server.request("turn/start", {"threadId": thread_id, "input": [text]})
        await until(lambda: "turn/completed" in seen.methods())

    params = dict(seen.notifications)["turn/completed"]
    assert params["turn"]["id"] == answer["turn"]["id"]
    assert params["turn"]["status"] == "completed"
    assert {"turn/started", "item/started", "item/completed"} <= set(seen.methods())
    assert not set(OPT_OUT) & set(seen.methods())


async def test_every_notification_we_opt_out_of_exists(schema_dir):
    known = (schema_dir / "ServerNotification.json").read_text()

    unknown = [method for method in OPT_OUT if f'"{method}"' not in known]

    assert unknown == []


async def test_a_refusal_of_the_real_codex_is_an_error_with_its_words(connect_codex):
    async with connect_codex() as server:
        with pytest.raises(CodexError, match="invalid thread id") as caught:
            await server.request("thread/read", {"threadId": "x"})

    assert caught.value.details["code"] == -32600


async def test_leaving_the_context_ends_and_reaps_the_process(connect_codex):
    async with connect_codex() as server:
        os.kill(server.pid, 0)

    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


async def test_kill_9_of_the_real_codex_is_noticed(connect_codex, short_tmp):
    async with connect_codex() as server:
        thread_id = await start_thread(server, short_tmp)

        os.kill(server.pid, signal.SIGKILL)
        status, _ = await server.closed()

        assert status == -signal.SIGKILL
        with pytest.raises(CodexUnavailable):
            await server.request("thread/read", {"threadId": thread_id})


async def test_the_end_is_reported_with_status_and_stderr(connect_fake):
    async with connect_fake() as server:
        with pytest.raises(OutcomeUnknown):
            await server.request("any", {"do": [["stderr", 3], ["exit", 5]]})
        status, stderr = await server.closed()

    assert status == 5
    assert stderr.splitlines()[-1].startswith("noise 2")


async def test_a_child_that_holds_the_pipes_does_not_hide_the_end(connect_fake):
    async with connect_fake() as server:
        answer = await server.request("any", {"do": [["leave_child"]]})
        try:
            status, _ = await server.closed()
        finally:
            os.kill(answer["pid"], signal.SIGKILL)

    assert status == 7


async def test_a_process_that_closes_stdout_and_stays_is_ended(connect_fake):
    async with connect_fake() as server:
        with pytest.raises(OutcomeUnknown):
            await server.request("any", {"do": [["close_stdout"]]})
        status, _ = await server.closed()

    assert status == -signal.SIGTERM


async def test_one_that_never_answers_initialize_is_given_up(connect_fake):
    # The deadline of the handshake is long; the caller's own is what the test can wait for.
    with anyio.move_on_after(0.5) as scope:
        async with connect_fake(FAKE_CODEX="silent"):
            pytest.fail("it shook hands")

    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("exit", "status 1: Error: cannot read the stars"),
        ("exit-in-handshake", "status 1: Error: the licence has expired"),
        ("refuse", "clients named dispatch are not welcome"),
    ],
)
async def test_one_that_does_not_start_says_why(connect_fake, mode, reason):
    with pytest.raises(CodexUnavailable) as caught:
        async with connect_fake(FAKE_CODEX=mode):
            pytest.fail("it shook hands")

    assert reason in caught.value.message
    assert "app-server in a terminal" in caught.value.hint
    assert "stderr" in caught.value.details
    assert "permanent" not in caught.value.details


async def test_a_missing_codex_home_is_named_as_the_cause(codex_binary, short_tmp, seen):
    env = {"PATH": os.defpath, "HOME": str(short_tmp), "CODEX_HOME": str(short_tmp / "missing")}

    with pytest.raises(CodexUnavailable) as caught:
        async with connect(
            codex_binary,
            env=env,
            cwd=short_tmp,
            on_notification=seen.notified,
            on_request=None,
            version="1",
        ):
            pytest.fail("it shook hands")

    assert "does not exist" in caught.value.message
    assert "unset CODEX_HOME" in caught.value.hint
    assert caught.value.details["permanent"] is True


@pytest.mark.parametrize("missing", ["binary", "cwd"])
async def test_what_cannot_be_started_is_unavailable(fake_binary, short_tmp, seen, missing):
    binary = short_tmp / "nothing" if missing == "binary" else fake_binary
    cwd = short_tmp / "nothing" if missing == "cwd" else short_tmp

    with pytest.raises(CodexUnavailable, match="No such file") as caught:
        async with connect(
            binary,
            env={"PATH": os.defpath},
            cwd=cwd,
            on_notification=seen.notified,
            on_request=None,
            version="1",
        ):
            pytest.fail("it shook hands")

    assert caught.value.hint


async def test_an_error_of_the_body_leaves_as_itself(connect_fake):
    with pytest.raises(LookupError, match="mine"):
        async with connect_fake():
            raise LookupError("mine")
