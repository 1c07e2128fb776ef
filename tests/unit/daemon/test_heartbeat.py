"""Silence is a hang only while we ourselves were awake and on time."""

from __future__ import annotations

import time

import anyio
import anyio.lowlevel
import pytest

from dispatch_core.daemon.heartbeat import Heartbeat, HeartbeatPlan, time_asleep
from dispatch_core.errors import CodexError, OutcomeUnknown

pytestmark = pytest.mark.anyio

GENEROUS = {"late": 60.0, "gap": 60.0}  # a busy machine is no part of these tests


class Codex:
    """Answers, or not."""

    def __init__(self):
        self.asked = 0
        self.answers = True
        self.error = None
        self.beats = []

    async def probe(self):
        self.asked += 1
        if self.error:
            raise self.error
        if not self.answers:
            await anyio.sleep_forever()
        return {"n": self.asked}

    async def beat(self, answer):
        self.beats.append(answer)

    def heartbeat(self, **plan):
        return Heartbeat(self.probe, self.beat, HeartbeatPlan(**{"period": 0.02, **plan}))


@pytest.fixture
def codex():
    return Codex()


async def test_three_beats_without_an_answer_are_a_hang(codex):
    codex.answers = False
    heartbeat = codex.heartbeat(**GENEROUS)

    with anyio.fail_after(10):
        await heartbeat.run()

    assert (heartbeat.pulse.missed, codex.asked) == (3, 3)
    assert codex.beats == []


async def test_one_that_answers_is_asked_again_and_again(codex):
    heartbeat = codex.heartbeat(**GENEROUS)

    with anyio.move_on_after(10) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heartbeat.run)
            while len(codex.beats) < 5:  # noqa: ASYNC110 -- counted by the beats
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    assert not scope.cancelled_caught
    assert heartbeat.pulse.missed == 0
    assert heartbeat.pulse.at
    assert heartbeat.pulse.latency < 10


async def test_an_answer_ends_the_count(codex):
    codex.answers = False
    heartbeat = codex.heartbeat(**GENEROUS, misses=5)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heartbeat.run)
            while heartbeat.pulse.missed < 2:  # noqa: ASYNC110 -- counted by the beats
                await anyio.sleep(0.005)
            codex.answers = True
            while not codex.beats:  # noqa: ASYNC110 -- counted by the beats
                await anyio.sleep(0.005)
            missed = heartbeat.pulse.missed
            tasks.cancel_scope.cancel()

    assert missed == 0


async def test_a_refusal_is_an_answer(codex):
    codex.error = CodexError("unknown variant")
    heartbeat = codex.heartbeat(**GENEROUS)

    with anyio.move_on_after(0.5):
        await heartbeat.run()

    assert codex.beats[:2] == [{}, {}]
    assert heartbeat.pulse.missed == 0


async def test_a_codex_that_is_gone_is_not_the_heartbeats_business(codex):
    codex.error = OutcomeUnknown("gone")
    heartbeat = codex.heartbeat(**GENEROUS)

    with anyio.move_on_after(0.1) as scope:
        await heartbeat.run()

    assert scope.cancelled_caught or heartbeat.pulse.missed == 3


async def test_while_our_own_loop_is_late_nothing_counts(codex):
    codex.answers = False
    heartbeat = codex.heartbeat(late=0.005, gap=60.0)

    async def hog():
        while True:
            time.sleep(0.03)  # noqa: ASYNC251 -- this is the fault
            await anyio.lowlevel.checkpoint()

    with anyio.move_on_after(1) as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hog)
            await heartbeat.run()

    assert scope.cancelled_caught
    assert heartbeat.pulse.missed == 0
    assert heartbeat.pulse.late > 3


@pytest.mark.parametrize("slept", [True, False], ids=["the machine slept", "we were stopped"])
async def test_after_a_sleep_the_count_starts_over_and_nothing_is_a_hang_for_a_while(codex, slept):
    asleep, before = 0.0, None

    def asked():
        """The pause begins after the first beat that was missed."""
        nonlocal asleep, before
        if before is None and heartbeat.pulse.missed:
            before = anyio.current_time()
            if slept:
                asleep = 8 * 3600.0
                return 0.0
            time.sleep(0.8)
        return asleep

    codex.answers = False
    heartbeat = codex.heartbeat(late=60.0, gap=0.5, calm=0.7, asleep=asked)

    with anyio.fail_after(20):
        await heartbeat.run()

    assert before is not None
    assert anyio.current_time() - before >= 0.7  # the calm; never sooner, however slow we are
    assert heartbeat.pulse.missed >= 3


def test_the_time_asleep_never_goes_back():
    before = time_asleep()

    assert time_asleep() - before > -0.01
