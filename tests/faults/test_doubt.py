"""Codex does not answer, or the registry takes no more: what became of a message is found out, and it is not repeated."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.deliveries import DeliveryState, When
from dispatch_core.contracts.records import Message
from dispatch_core.errors import CodexTimeout

from ..unit.engine.conftest import EXAMPLES, World  # noqa: TID252 -- the scripted Codex is there
from .driver import Messages
from .harness import until, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .conftest import Tier

ALWAYS = "error@1-1000000"
WRITES = ("submitted", "started", "ended")
QUICK = {"delay": 0.02}


class Silent:
    """A Codex that takes the first message and gives no answer. ran: the turns that it began, by message."""

    def __init__(self, world: Any, thread: Any) -> None:
        self.world, self.thread = world, thread
        self.ran: Counter[str] = Counter()
        world.codex.on["turn/start"] = self._take

    async def _take(self, params: Mapping[str, Any]) -> dict[str, Any]:
        if not self.ran and self.world.codex.methods().count("turn/start") == 1:
            raise CodexTimeout("Codex did not answer turn/start within 30 s")
        self.ran[params["clientUserMessageId"]] += 1
        return dict(self.world.codex._turn_start(params))

    def run(self, delivery: str, status: str) -> None:
        """Do what the message says, and write it down."""
        self.ran[delivery] += 1
        self.world.codex.store(self.thread.native_id, "late", status, delivery)

    def tell(self, delivery: str) -> None:
        """Say so as well, long after."""
        self.run(delivery, "completed")
        self.world.started(self.thread, "late")
        self.world.user_message(self.thread, "late", delivery)
        self.world.completed(self.thread, "late")


async def answers_late(codex: Silent, delivery: str) -> DeliveryState:
    codex.tell(delivery)
    return DeliveryState.DONE


async def says_nothing_of_it(codex: Silent, delivery: str) -> DeliveryState:
    codex.run(delivery, "completed")
    await codex.world.lanes._recovery.look_again()
    return DeliveryState.DONE


async def dies_in_the_turn(codex: Silent, delivery: str) -> DeliveryState:
    codex.run(delivery, "interrupted")
    codex.world.crash()
    await codex.world.restart()
    return DeliveryState.INTERRUPTED


async def dies_before_it(codex: Silent, delivery: str) -> DeliveryState:
    codex.world.crash()
    await codex.world.restart()
    lane = codex.world.lanes._lanes[codex.thread.key]
    while lane.active is None or lane.submitting:
        await lane.change()
    codex.world.completed(codex.thread, lane.active)
    return DeliveryState.DONE


async def never_does_anything(codex: Silent, delivery: str) -> DeliveryState:
    await codex.world.lanes._recovery.look_again()
    codex.world.clock.advance(minutes=5)
    await codex.world.lanes._recovery.look_again()
    return DeliveryState.UNKNOWN


FATES = (
    answers_late,
    says_nothing_of_it,
    dies_in_the_turn,
    dies_before_it,
    never_does_anything,
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.fault("A6")
async def test_a_message_that_codex_does_not_answer_is_found_out_about_and_not_repeated(
    tier: Tier, figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES / "dispatch-memory-storage"))
    from dispatch_memory_storage import MemoryStorage

    ends: Counter[str] = Counter()
    twice = 0
    rounds = tier.rounds(10, 200)
    order = [FATES[n % len(FATES)] for n in range(rounds)]
    tier.random.shuffle(order)

    for fate in order:
        made = World(MemoryStorage())
        async with made.running():
            thread = await made.thread()
            codex = Silent(made, thread)
            sent = await made.lanes.deliveries.send(
                thread, Message(text="doubtful"), HUMAN, when=When.IDLE
            )
            lane = made.lanes._lanes[thread.key]
            while not lane.in_doubt or lane.sending:
                await lane.change()

            expected = await fate(codex, sent.id)
            await anyio.wait_all_tasks_blocked()
            state = (await made.delivery(sent.id)).state

        assert state is expected, fate.__name__
        ends[state.value] += 1
        twice += codex.ran[sent.id] > 1

    figures(rounds=rounds, duplicates=twice, **ends)
    assert twice == 0


@pytest.fixture
def messages() -> Iterator[Messages]:
    with world() as made:
        yield Messages(made)


def reached(messages: Messages, point: str) -> bool:
    log = messages.world.failpoints_log
    return log.exists() and f"{point}:" in log.read_text(encoding="utf-8")


@pytest.mark.fault("S2")
def test_what_could_not_be_written_after_a_message_was_sent_is_found_by_the_next_daemon(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(1, 30)
    for n in range(rounds):
        broken = WRITES[n % len(WRITES) :]
        messages.world.start(",".join(f"{step}.before_commit:{ALWAYS}" for step in broken))
        [lane] = messages.lanes(1, name=messages.marker())
        marker = messages.send(lane, QUICK)
        until(lambda: reached(messages, "ended.before_commit"), "the turn has ended")
        early = messages.state(marker)

        messages.world.kill_daemon()
        messages.world.failpoints_log.unlink()
        messages.world.start()
        messages.settle()

        assert early in {"sending", "submitted", "running"}
        assert messages.state(marker) == "done"
        messages.world.kill_daemon()

    report = messages.report()
    figures(rounds=rounds, **report.figures())
    assert report.broken == {}
    assert report.unknown == []


@pytest.mark.fault("S2")
def test_what_could_not_be_written_is_written_as_soon_as_it_can_be(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(1, 10)
    for _ in range(rounds):
        messages.world.start("ended.before_commit:error@1")
        [lane] = messages.lanes(1, name=messages.marker())

        sent = [messages.send(lane, QUICK), messages.send(lane, QUICK)]
        messages.settle()

        assert reached(messages, "ended.before_commit")
        assert [messages.state(marker) for marker in sent] == ["done", "done"]
        messages.world.failpoints_log.unlink()
        messages.world.kill_daemon()

    report = messages.report()
    figures(rounds=rounds, **report.figures())
    assert report.broken == {}
