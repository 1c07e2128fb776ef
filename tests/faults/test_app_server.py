"""The app-server ends, hangs, babbles, floods and refuses; the daemon notices, starts it again, and loses nobody else."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.streams.buffered
import pytest

from dispatch_core.appserver.client import connect
from dispatch_core.appserver.process import resident_bytes, spawn, start_time_of
from dispatch_core.appserver.rpc import RpcRefusal
from dispatch_core.daemon.heartbeat import HeartbeatPlan
from dispatch_core.daemon.restarts import Breaker, RestartPlan
from dispatch_core.daemon.supervisor import Patience
from dispatch_core.daemon.watch import WatchPlan
from dispatch_core.errors import (
    CodexError,
    CodexOverloaded,
    CodexTimeout,
    CodexUnavailable,
    OutcomeUnknown,
)
from dispatch_core.testing.daemon import temporary_home

from .schema_messages import fuzzed, schema
from .supervised import scripted_binary, supervised

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dispatch_core.appserver.client import AppServer

    from .conftest import Tier
    from .supervised import Kept

pytestmark = pytest.mark.anyio

MIB = 1 << 20
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what is measured here")
# As the published one, except that a long row of ends is not answered with longer and longer pauses.
PATIENT = RestartPlan(steady=0, exits=10**6)
QUICK_BEATS = WatchPlan(heartbeat=HeartbeatPlan(period=0.2))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def scripted(
    tmp_path: Path, *, on_notification: Callable[[str, dict[str, Any]], None], seconds: float = 60
) -> AsyncIterator[AppServer]:
    """Connect to the scripted app-server; its requests are unknown to us."""

    async def refuse(*_: object) -> dict[str, Any]:
        raise RpcRefusal

    with anyio.fail_after(seconds):
        async with connect(
            scripted_binary(tmp_path),
            env={"PATH": os.defpath},
            cwd=tmp_path,
            on_notification=on_notification,
            on_request=refuse,
            version="1",
        ) as server:
            yield server


def ignore(method: str, params: dict[str, Any]) -> None:
    """Take no notice."""


@pytest.mark.fault("A1")
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, "-9"), (signal.SIGABRT, "-6"), (signal.SIGTERM, "")],
    ids=["killed", "aborted", "asked to end"],
)
async def test_a_codex_that_ends_is_replaced(
    tier: Tier, figures: Any, number: int, status: str
) -> None:
    took: list[float] = []
    rounds = tier.rounds(1, 60)
    async with supervised(
        real=True, patience=Patience(restarts=PATIENT), seconds=60 + 10 * rounds
    ) as kept:
        await kept.supervisor.request("thread/list", {})
        for generation in range(1, rounds + 1):
            await anyio.sleep(tier.random.uniform(0, 0.05))

            began = anyio.current_time()
            os.kill(kept.pid, number)
            await kept.state(lambda data: f"status {status}" in (data["reason"] or ""))
            await kept.supervisor.request("thread/list", {})
            took.append(anyio.current_time() - began)

            assert kept.supervisor.reaped(generation)
            assert not kept.supervisor.reaped(generation + 1)

        assert kept.supervisor.generation == rounds + 1
        assert kept.calls == ["ready", "lost"] * rounds + ["ready"]
    figures(
        rounds=rounds,
        recovered=len(took),
        recovery_median=round(statistics.median(took), 3),
        recovery_p99=round(sorted(took)[int(len(took) * 0.99)], 3),
    )


@pytest.mark.fault("A1")
@pytest.mark.parametrize(
    ("end", "status"), [(["exit", 0], 0), (["exit", 1], 1), (["crash"], -signal.SIGSEGV)]
)
async def test_a_codex_that_exits_is_replaced(
    tier: Tier, figures: Any, end: list[Any], status: int
) -> None:
    rounds = tier.rounds(1, 60)
    async with supervised(real=False, patience=Patience(restarts=PATIENT), seconds=240) as kept:
        for _ in range(rounds):
            with pytest.raises(OutcomeUnknown):
                await kept.supervisor.request("any", {"do": [end]})

            assert await kept.supervisor.request("any", {"n": 1}) == {"n": 1}

        assert f"status {status}" in (kept.supervisor.health.last_exit or "")
        assert kept.calls == ["ready", "lost"] * rounds + ["ready"]
    figures(rounds=rounds, recovered=kept.supervisor.generation - 1)


@pytest.mark.fault("A1")
async def test_a_codex_that_exits_at_every_start_is_given_up_in_the_end(
    tmp_path: Path, figures: Any
) -> None:
    starts = tmp_path / "starts"
    plan = RestartPlan(first=0.01, longest=0.02, pause=0.2)
    async with supervised(
        real=False,
        patience=Patience(restarts=plan),
        SCRIPT_START="7",
        SCRIPT_STARTS=str(starts),
    ) as kept:
        paused = await kept.state(lambda data: "the next try is in" in (data["reason"] or ""))
        given_up = await kept.state(lambda data: "not started again" in (data["reason"] or ""))
        with pytest.raises(CodexError) as caught:
            await kept.supervisor.request("any", {})

    # Five that open the breaker, then one try for each time it is opened again.
    tries = len(starts.read_text())
    health = kept.supervisor.health
    assert tries == plan.exits + plan.openings - 1
    assert "status 7: Error: as it was told" in paused["reason"]
    assert health.codex()["breaker"]["state"] == Breaker.TRIPPED
    assert given_up["state"] == "degraded"
    assert "dispatch up" in (health.fix or "")
    assert caught.value.hint == health.fix
    figures(starts_before_it_is_given_up=tries)


@LINUX
@pytest.mark.fault("A2")
async def test_a_codex_that_pauses_for_less_than_three_heartbeats_is_left_alone(
    tier: Tier, figures: Any
) -> None:
    beats = HeartbeatPlan(period=1.0) if not tier.full else HeartbeatPlan()
    pause = beats.period * 1.5 if not tier.full else 5.0
    async with supervised(real=True, patience=Patience(watch=WatchPlan(heartbeat=beats))) as kept:
        await kept.supervisor.request("thread/list", {})
        pid = kept.pid

        os.kill(pid, signal.SIGSTOP)
        await anyio.sleep(pause)  # it is the pause itself that is tried
        os.kill(pid, signal.SIGCONT)
        await kept.supervisor.request("thread/list", {})

        assert kept.pid == pid
    figures(stopped=pause, period=beats.period, kills=kept.supervisor.generation - 1)


@LINUX
@pytest.mark.fault("A2")
@pytest.mark.parametrize("real", [True, False], ids=["stopped", "deaf"])
async def test_a_codex_that_hangs_is_killed_and_replaced(
    tier: Tier, figures: Any, real: bool
) -> None:
    watch = WatchPlan() if tier.full else QUICK_BEATS
    async with supervised(real=real, patience=Patience(watch=watch), seconds=120) as kept:
        await kept.supervisor.request("thread/list", {})
        pid, began = kept.pid, anyio.current_time()
        start_time = start_time_of(pid)

        if real:
            os.kill(pid, signal.SIGSTOP)
        else:
            await kept.supervisor.request("any", {"do": [["deaf"]]})
        lost = await kept.state(lambda data: "heartbeats" in (data["reason"] or ""))
        await kept.supervisor.request("thread/list", {})
        took = anyio.current_time() - began

        assert lost["state"] == "degraded"
        assert start_time_of(pid) != start_time
        assert "3 heartbeats" in (kept.supervisor.health.last_exit or "")
        assert kept.calls == ["ready", "lost", "ready"]
    figures(period=watch.heartbeat.period, recovered_after=round(took, 1))


@LINUX
@pytest.mark.fault("A2")
async def test_a_daemon_that_was_stopped_together_with_codex_kills_nothing(figures: Any) -> None:
    program = f"""
import anyio, json, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from dispatch_core.daemon.heartbeat import HeartbeatPlan
from dispatch_core.daemon.supervisor import Patience
from dispatch_core.daemon.watch import WatchPlan
from tests.faults.supervised import supervised

async def main():
    plan = HeartbeatPlan(period=0.3, late=0.2, gap=1.0)
    async with supervised(real=True, patience=Patience(watch=WatchPlan(heartbeat=plan))) as kept:
        while True:
            await kept.supervisor.request("thread/list", {{}})
            pulse = kept.supervisor.health.pulse
            print(json.dumps([kept.pid, kept.supervisor.generation, pulse.late]), flush=True)
            if not await anyio.to_thread.run_sync(sys.stdin.readline):
                return

anyio.run(main)
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with anyio.fail_after(40):
        async with spawn([sys.executable, "-c", program], env=env, cwd=Path("/")) as daemon:
            said = anyio.streams.buffered.BufferedByteReceiveStream(daemon.stdout)
            pid, _, _ = json.loads(await said.receive_until(b"\n", 1000))
            await anyio.sleep(0.5)

            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(daemon.pid, number)
                await anyio.sleep(0.3)  # the daemon is awake a little before Codex is
                os.kill(pid, number)
                await anyio.sleep(1.5)
            await daemon.stdin.send(b"\n")
            now, generation, late = json.loads(await said.receive_until(b"\n", 1000))

    assert (now, generation) == (pid, 1)
    assert late > 0
    figures(kills=generation - 1)


@pytest.mark.fault("A3")
async def test_lines_that_are_no_messages_cost_no_request(
    tier: Tier, figures: Any, tmp_path: Path
) -> None:
    rounds, each = tier.rounds(2, 200), 90
    lost = skipped = 0
    heard: list[str] = []
    for _ in range(rounds):
        async with scripted(tmp_path, on_notification=lambda m, _: heard.append(m)) as server:
            bad = [broken_line(tier) for _ in range(each)]
            good = '{"method":"thread/started","params":{}}\n'
            cut = tier.random.randrange(1, len(good))
            script = [["raw", line + good] for line in bad]
            script += [["raw", good[:cut]], ["raw", good[cut:] + good[:cut]], ["raw", good[cut:]]]
            async with anyio.create_task_group() as tasks:
                for number in range(8):
                    tasks.start_soon(server.request, "any", {"n": number})
                result = await server.request("any", {"do": [*script, ["answer", {"ok": 1}]]})
            lost += result != {"ok": 1}
            skipped += server.stats.invalid_lines
    assert (lost, skipped) == (0, rounds * each)
    assert heard == ["thread/started"] * rounds * (each + 2)
    figures(lines=skipped, requests_lost=lost)


def broken_line(tier: Tier) -> str:
    """Return a line that is no message."""
    rng = tier.random
    message = json.dumps({"method": "m", "params": {"text": "y" * rng.randrange(400)}})
    return rng.choice(
        [
            message[: rng.randrange(1, len(message))] + "\n",
            "".join(chr(rng.choice((1, 34, 91, 123, 255))) for _ in range(rng.randrange(60)))
            + "~\n",
            json.dumps([message]) + "\n",
            message[:-1] + message + "\n",
            message[:-1] + ',"id":1.5}\n',
            '{"method": ' + "[" * rng.randrange(1, 50_000) + "\n",
            "\n",
        ]
    )


@LINUX
@pytest.mark.fault("A3")
async def test_a_line_of_70_mb_is_skipped_in_bounded_memory(figures: Any, tmp_path: Path) -> None:
    async with scripted(tmp_path, on_notification=ignore) as server, growth() as grown:
        result = await server.request("any", {"do": [["endless", 70], ["answer", {"ok": 1}]]})

        assert result == {"ok": 1}
        assert server.stats.oversized_lines == 1
    assert grown.mib < 200
    figures(megabytes=70, requests_lost=0 if result == {"ok": 1} else 1, growth_mib=grown.mib)


@pytest.mark.fault("A3")
async def test_more_than_a_hundred_bad_lines_a_minute_start_it_again(figures: Any) -> None:
    async with supervised(real=False) as kept:
        with pytest.raises(OutcomeUnknown):
            await kept.supervisor.request("any", {"do": [["raw", "no message\n" * 101]]})
        await kept.supervisor.request("any", {})

        assert "more than 100 lines a minute" in (kept.supervisor.health.last_exit or "")
        assert kept.supervisor.generation == 2
    figures(restarts=kept.supervisor.generation - 1)


@pytest.mark.fault("A4")
def test_messages_of_a_newer_codex_cost_nothing(tier: Tier, figures: Any, tmp_path: Path) -> None:
    wanted = tier.rounds(2_000, 100_000)
    says, tells = tmp_path / "says", tmp_path / "tells"
    messages = list(fuzzed(schema(tmp_path / "schema"), wanted, tier.random))
    says.write_bytes(b"".join(json.dumps(m).encode() + b"\n" for m in messages))
    env = {"DISPATCH_CODEX_BIN": str(scripted_binary(tmp_path))}
    with temporary_home(**env, SCRIPT_SAYS=str(says), SCRIPT_TELLS=str(tells)) as home:
        home.json("up")
        home.json("models", "--refresh")
        codex = home.json("daemon", "status")["codex"]
        home.json("down")

    strange = [m for m in messages if m["method"].startswith("strange/")]
    asked = {str(m["id"]) for m in strange if "id" in m}
    told = json.loads(tells.read_text())
    traffic = codex["traffic"]
    assert asked <= set(told["refused"])
    assert traffic["unknown_notifications"] == len(strange) - len(asked)
    assert (traffic["invalid_lines"], traffic["handler_errors"]) == (0, 0)
    assert (codex["generation"], codex["restarts"]) == (1, 0)
    figures(
        messages=wanted,
        unknown_requests=len(asked),
        refused_at_once=len(asked & set(told["refused"])),
        unknown_notifications=traffic["unknown_notifications"],
        errors=traffic["handler_errors"],
        restarts=codex["restarts"],
    )


@pytest.mark.fault("A5")
async def test_answers_in_any_order_reach_the_one_who_asked(
    tier: Tier, figures: Any, tmp_path: Path
) -> None:
    wanted, at_once = tier.rounds(2_000, 100_000), 25
    wrong = done = sent = 0

    async def ask(server: AppServer, tag: int) -> None:
        nonlocal wrong, done
        result = await server.request("any", {"do": [["hold", tag]]})
        wrong += result != {"tag": tag}
        done += 1

    async with scripted(tmp_path, on_notification=ignore, seconds=600) as server:
        while done < wanted:
            async with anyio.create_task_group() as tasks:
                for tag in range(done, done + at_once):
                    tasks.start_soon(ask, server, tag)
                muddle = {"do": [["muddle", tier.random.random(), at_once]]}
                sent += (await server.request("any", muddle))["sent"]
        await server.request("any", {})
        dropped = server.stats.unmatched_answers

    assert (wrong, dropped) == (0, sent - done)
    figures(requests=done, answers=sent, dropped=dropped, to_the_wrong_one=wrong)


@pytest.mark.fault("A5", "A6")
async def test_an_answer_after_the_deadline_reaches_nobody(
    tier: Tier, figures: Any, tmp_path: Path
) -> None:
    rounds = tier.rounds(20, 200)
    unanswered = wrong = 0
    async with scripted(tmp_path, on_notification=ignore) as server:
        while (tag := unanswered) < rounds:
            try:
                await server.request("turn/start", {"do": [["hold", tag]]}, timeout=0.01)
            except CodexTimeout:
                unanswered += 1
            except CodexUnavailable:
                continue  # it could not even be written in that time
            wrong += await server.request("any", {"n": tag}) != {"n": tag}
        sent = (await server.request("any", {"do": [["muddle", tier.random.random(), rounds]]}))[
            "sent"
        ]
        await server.request("any", {})

        assert server.stats.unmatched_answers == sent
        assert server.in_flight == 0
    assert (unanswered, wrong) == (rounds, 0)
    figures(requests=rounds, timeouts=unanswered, late_answers=sent, to_the_wrong_one=wrong)


@pytest.mark.fault("A7")
async def test_every_request_of_a_burst_is_answered(tier: Tier, figures: Any) -> None:
    wanted = tier.rounds(600, 3_000)
    answered = 0

    async def ask(kept: Kept) -> None:
        nonlocal answered
        result = await kept.supervisor.request("thread/list", {})
        answered += "data" in result

    async with supervised(real=True, seconds=120) as kept:
        await kept.supervisor.request("thread/list", {})
        async with anyio.create_task_group() as burst:
            for _ in range(wanted):
                burst.start_soon(ask, kept)
        traffic = kept.supervisor.health.codex()["traffic"]

    assert answered == wanted
    figures(requests=wanted, answered=answered, overloads=traffic["overloads"])


@pytest.mark.fault("A7")
async def test_every_request_of_a_storm_of_refusals_is_answered_in_the_end(
    tier: Tier, figures: Any, tmp_path: Path
) -> None:
    wanted = tier.rounds(40, 3_000)
    results: list[int | None] = []

    async def ask(server: AppServer, tag: int) -> None:
        # Eight tries fail for one in 256; who gave up may ask again, for nothing was done.
        while True:
            try:
                result = await server.request("any", {"do": [["storm", tag]]}, timeout=60)
            except CodexOverloaded:
                continue
            results.append(tag if result == {"tag": tag} else None)
            return

    async with scripted(tmp_path, on_notification=ignore, seconds=600) as server:
        async with anyio.create_task_group() as tasks:
            for tag in range(wanted):
                tasks.start_soon(ask, server, tag)
        overloads = server.stats.overloads

    assert set(results) == set(range(wanted))
    assert len(results) == wanted
    assert overloads > 0
    figures(requests=wanted, answered=len(results), overloads=overloads)


@LINUX
@pytest.mark.fault("A11")
@pytest.mark.parametrize("kind", ["flood", "endless", "stderr"])
async def test_a_flood_is_read_in_bounded_memory(
    tier: Tier, figures: Any, tmp_path: Path, kind: str
) -> None:
    megabytes = tier.rounds(64 if kind == "flood" else 150, 1024)
    heard = 0

    def count(method: str, _: dict[str, Any]) -> None:
        nonlocal heard
        heard += method == "item/started"

    async with scripted(tmp_path, on_notification=count, seconds=300) as server, growth() as grown:
        script = [[kind, megabytes], ["answer", {"ok": 1}]]
        began = anyio.current_time()
        assert await server.request("any", {"do": script}, timeout=300) == {"ok": 1}
        took = anyio.current_time() - began

        assert server.stats.invalid_lines == 0
    assert grown.mib < 200
    figures(
        kind=kind,
        megabytes=megabytes,
        messages=heard,
        growth_mib=grown.mib,
        megabytes_per_second=round(megabytes / took),
    )


class Growth:
    """How much this process grew at most, in MiB."""

    def __init__(self) -> None:
        self.before = resident_bytes(os.getpid()) or 0
        self.most = self.before

    @property
    def mib(self) -> int:
        return (self.most - self.before) // MIB

    async def measure(self) -> None:
        while True:
            self.most = max(self.most, resident_bytes(os.getpid()) or 0)
            await anyio.sleep(0.01)


@asynccontextmanager
async def growth() -> AsyncIterator[Growth]:
    """Measure while the context lasts."""
    grown = Growth()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(grown.measure)
        yield grown
        tasks.cancel_scope.cancel()
