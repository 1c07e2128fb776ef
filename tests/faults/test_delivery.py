"""What was accepted runs once, in order, or is known to be unknown: whatever dies, and whenever."""

from __future__ import annotations

import json
import os
import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from dispatch_core import failpoints
from dispatch_core.appserver.binary import find_codex
from dispatch_core.errors import RemoteError

from .checker import read_history
from .damage import DAMAGES, rollout_of
from .driver import Killer, Messages, storm
from .harness import PATIENCE, another_codex, until, world
from .naive import forget_what_was_sent, pretend_reboot
from .poison import hesitant, poisoned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Tier

FOREVER = {"delay": 3600}
TURN = {"delay": 0.03}
ACTIONS = {"daemon": "kill", "codex": "kill-codex", "both": "both"}


@pytest.fixture
def messages() -> Iterator[Messages]:
    with world() as made:
        yield Messages(made)


@pytest.mark.fault("D1")
def test_kills_at_random_moments_lose_and_repeat_nothing(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    messages.world.start()

    killer = storm(
        messages,
        tier.random,
        lanes=tier.rounds(4, 16),
        count=tier.rounds(60, 10_000),
        kills=tier.rounds(8, 200),
    )

    report = messages.report()
    figures(kills=killer.kills.total(), **report.figures())
    assert report.broken == {}
    assert report.unknown == []


def reached(messages: Messages) -> int:
    """How many failpoints have acted so far."""
    log = messages.world.failpoints_log
    return len(log.read_text().splitlines()) if log.exists() else 0


def settle_all(messages: Messages) -> None:
    """Return once everything has ended; the daemon may still be dying of the last failpoint."""

    def settled() -> bool:
        if not messages.world.alive():
            messages.world.start()
        return messages.settled()

    until(settled, "everything has ended")


def pass_by(messages: Messages, lane: str, point: str) -> None:
    """Make a delivery of a lane pass by a failpoint; somebody else starts the daemon again that dies of it."""
    world = messages.world
    match point.partition(".")[0]:
        case "cancel":
            messages.send(lane, {"delay": 1})
            waits = messages.send(lane, TURN)
            client = world.client()
            with suppress(RemoteError):  # withdrawn already, by the call whose reply was lost
                client.call("delivery.cancel", {"delivery": [messages.accepted[waits]]})
            client.close()
        case "lost" | "reconcile":
            marker = messages.send(lane, FOREVER)
            until(lambda: marker in world.witness.markers(), f"{marker} at the model")
            world.kill_codex()
        case "drain":
            marker = messages.send(lane, FOREVER)
            until(lambda: marker in world.witness.markers(), f"{marker} at the model")
            world.cli.run("down", "--grace", "0")
        case _:
            messages.send(lane, TURN)


@pytest.mark.fault("D2")
@pytest.mark.parametrize("target", ACTIONS)
def test_a_kill_at_every_point_of_a_delivery_loses_and_repeats_nothing(
    messages: Messages, tier: Tier, figures: Callable[..., None], target: str
) -> None:
    world = messages.world
    world.start()
    lanes = messages.lanes(2)
    few = tier.random.sample(failpoints.NAMES, 2 * len(ACTIONS))
    names = failpoints.NAMES if tier.full else few[list(ACTIONS).index(target) :: len(ACTIONS)]
    plan = [point for point in names for _ in range(tier.rounds(1, 20))]

    real = find_codex(None, os.environ).path
    # What is submitted is written down only when the turn does not start at once.
    slow = hesitant(world.root / "codex-that-hesitates", real, 1.0)

    with ThreadPoolExecutor(1) as client:
        for n, point in enumerate(plan):
            if point.startswith("load"):
                # Else the thread is loaded for what is in doubt, and not again for a message.
                settle_all(messages)
            before, deadline = reached(messages), time.monotonic() + PATIENCE
            world.kill_daemon()
            world.use_codex(slow if point.startswith("submitted") else real)
            world.start(f"{point}:{ACTIONS[target]}")
            # What is left of the last round may reach the point before there is a Codex.
            until(lambda: world.codex_pid() is not None or not world.alive(), "an app-server runs")
            passing = client.submit(pass_by, messages, lanes[n % 2], point)
            while reached(messages) == before or not passing.done():
                if not world.alive():
                    world.start("" if reached(messages) > before else f"{point}:{ACTIONS[target]}")
                if passing.done() and messages.settled() and reached(messages) == before:
                    passing.result()  # what should have waited had gone already: once more
                    passing = client.submit(pass_by, messages, lanes[n % 2], point)
                assert time.monotonic() < deadline, f"{point}:{target} {messages.states()}"
                time.sleep(0.005)
            passing.result()
            assert messages.doubts() == [], f"{n}: {point}:{target}\n{world.said()}"
    settle_all(messages)

    report = messages.report()
    figures(kills=reached(messages), points=len(names), **report.figures())
    assert reached(messages) == len(plan)
    assert report.broken == {}
    assert report.unknown == []


@pytest.mark.fault("D3")
def test_a_turn_whose_codex_died_when_it_asked_the_model_is_found_and_not_repeated(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    [lane] = messages.lanes(1)
    killer = Killer(world, tier.random)
    rounds = tier.rounds(4, 500)

    for n in range(rounds):
        marker = messages.send(lane, FOREVER)
        until(lambda marker=marker: marker in world.witness.markers(), f"{marker} at the model")
        killer.kill("codex" if n % 3 else "both")
        until(messages.settled, f"{marker} is settled")

    report = messages.report()
    figures(kills=rounds, present=len(report.interrupted), **report.figures())
    assert report.broken == {}
    assert len(report.interrupted) == rounds
    assert len(world.witness.markers()) == rounds


@pytest.mark.fault("D5")
def test_the_checker_convicts_a_daemon_that_sends_again_what_was_on_its_way(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    rounds = tier.rounds(1, 40)

    for lane in messages.lanes(rounds):
        marker = messages.send(lane, FOREVER)
        until(lambda marker=marker: times(messages, marker) == 1, f"{marker} at the model")
        world.kill_daemon()
        forgotten = forget_what_was_sent(world.registry)
        world.start()
        until(lambda marker=marker: times(messages, marker) == 2, f"{marker} again")
        world.kill_codex()
        messages.settle()

    report = messages.report()
    figures(**report.figures())
    assert forgotten == 1
    assert len(report.duplicated) == rounds


def times(messages: Messages, marker: str) -> int:
    """In how many turns the model was asked about a message."""
    return len({a.turn_id for a in messages.world.witness.asked() if a.marker == marker})


@pytest.mark.fault("D6")
def test_a_key_of_many_clients_is_one_delivery_though_the_daemon_dies(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    lanes = messages.lanes(2)
    keys, clients = tier.rounds(3, 1000), tier.rounds(20, 50)
    receipts: dict[str, set[str]] = {}
    start = threading.Barrier(clients + 1)

    def one(marker: str, lane: str) -> str:
        client = world.client()
        start.wait(PATIENCE)
        answer = client.call("send", messages.params(lane, TURN, marker))
        client.close()
        return str(answer["receipt"]["id"])

    with ThreadPoolExecutor(clients) as pool:
        for n in range(keys):
            marker = messages.marker()
            waiting = [pool.submit(one, marker, lanes[n % 2]) for _ in range(clients)]
            start.wait(PATIENCE)
            time.sleep(tier.random.uniform(0, 0.03))  # the fault's own moment
            world.kill_daemon()
            world.start()
            receipts[marker] = {client.result(PATIENCE) for client in waiting}
            messages.accepted[marker] = min(receipts[marker])
    messages.settle()

    report = messages.report()
    figures(keys=keys, clients=clients, turns=len(report_turns(messages)), **report.figures())
    assert {marker: len(ids) for marker, ids in receipts.items()} == dict.fromkeys(receipts, 1)
    assert report.broken == {}


def report_turns(messages: Messages) -> set[str]:
    """The turns that Codex has in its files."""
    said, _ = read_history(messages.world.codex_home)
    return {message.turn_id for message in said}


@pytest.mark.fault("D7")
def test_a_message_that_codex_dies_of_is_given_up_and_the_next_one_is_sent(
    tier: Tier, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(1, 20)
    deaths = 0
    for _ in range(rounds):
        with world() as made:
            real = find_codex(None, os.environ).path
            made.use_codex(poisoned(made.root / "codex-that-dies", real, "m-000001"))
            messages = Messages(made)
            made.start()
            [lane] = messages.lanes(1)

            poison = messages.send(lane, TURN)
            after = messages.send(lane, TURN)
            messages.settle()

            [row] = made.rows("SELECT * FROM deliveries WHERE key = ?", poison)
            deaths += row["attempt"]
            report = messages.report()
            assert (row["state"], messages.state(after)) == ("dead", "done")
            assert report.broken == {}
    figures(rounds=rounds, codex_deaths=deaths, dead=rounds)
    assert deaths == 3 * rounds


@pytest.mark.fault("D8")
def test_messages_for_a_thread_that_works_or_waits_get_a_turn_each(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    busy, asking = messages.lanes(2, approval_policy="untrusted")
    count = tier.rounds(10, 1000) // 2

    first = messages.send(busy, {"delay": 1})
    needs = {"steps": [{"call": {"name": "exec_command", "arguments": {"cmd": "mkdir x"}}}, {}]}
    waits = messages.send(asking, needs)
    until(lambda: {first, waits} <= world.witness.markers(), "both at the model")
    for _ in range(count):
        messages.send(busy, {})
        messages.send(asking, {})
    allow(messages)
    messages.settle()

    report = messages.report()
    figures(merged=len(report.merged), **report.figures())
    assert report.broken == {}
    assert report.done == report.accepted == 2 * count + 2


def allow(messages: Messages) -> None:
    """Answer what Codex asks, as a person would."""
    client = messages.world.client()
    until(lambda: bool(client.call("request.list", {})["requests"]), "an approval is asked for")
    [request] = client.call("request.list", {})["requests"]
    client.call("request.respond", {"request": request["id"], "accept": True})
    client.close()


@pytest.mark.fault("D10")
def test_a_message_whose_history_is_damaged_is_not_sent_again_and_other_threads_go_on(
    tier: Tier, figures: Callable[..., None]
) -> None:
    outcomes = []
    for without_index in (True, False)[: tier.rounds(1, 2)]:
        with world() as made:
            outcomes += damaged(Messages(made), without_index=without_index)

    again = [name for name, _, turns in outcomes if turns != 1]
    states = [state for _, state, _ in outcomes]
    figures(
        damages=len(outcomes),
        unknown=states.count("unknown"),
        found=states.count("interrupted"),
        sent_again=len(again),
    )
    assert again == []
    assert set(states) <= {"unknown", "interrupted"}


def damaged(messages: Messages, *, without_index: bool) -> list[tuple[str, str | None, int]]:
    """Damage a history in every way while a message is on its way; return the damage, the state, the turns it was asked in.

    without_index: Codex has lost as well what it knows of its files, and makes it anew from them.
    """
    made = messages.world
    made.start()
    lanes = messages.lanes(len(DAMAGES))
    [spared] = messages.lanes(1, name="spared")
    for lane in (*lanes, spared):
        messages.send(lane, {})
    messages.settle()
    hit = [messages.send(lane, FOREVER) for lane in (*lanes, spared)]
    until(lambda: set(hit) <= made.witness.markers(), "all at the model")

    made.kill_daemon()
    until(lambda: made.codex_pid() is None, "the app-server is gone as well")
    for damage, lane, marker in zip(DAMAGES.values(), lanes, hit, strict=False):
        [thread] = made.rows("SELECT native_id FROM threads WHERE ref = ?", lane)
        damage(rollout_of(made.codex_home, thread["native_id"]), messages.accepted[marker])
    if without_index:
        for path in made.codex_home.glob("thread_history*"):
            path.unlink()
    made.start()
    after = messages.send(spared, {})
    until(lambda: messages.state(after) == "done", "the thread that was spared goes on")
    on_its_way = {"sending", "submitted"}
    until(lambda: not set(map(messages.state, hit)) & on_its_way, "all are found out")

    assert messages.state(hit[-1]) == "interrupted"
    return [
        (name, messages.state(marker), times(messages, marker))
        for name, marker in zip(DAMAGES, hit, strict=False)
    ]


@pytest.mark.fault("D11")
def test_what_was_on_its_way_when_the_machine_restarted_is_unknown(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    count = tier.rounds(3, 100)
    lanes = messages.lanes(count)
    world.kill_daemon()
    world.start(f"claim.after_commit:pause=3600@1-{count}")
    for lane in lanes:
        messages.send(lane, TURN)
    until(lambda: messages.states()["sending"] == count, "every message is claimed")

    world.kill_daemon()
    rewritten = pretend_reboot(world.registry)
    world.start()
    messages.settle()

    report = messages.report()
    figures(reboots=rewritten, parked=len(report.unknown), sent_again=len(world.witness.markers()))
    assert rewritten == count
    assert report.broken == {}
    assert len(report.unknown) == count
    assert world.witness.markers() == set()


@pytest.mark.fault("D12")
def test_a_backlog_costs_neither_memory_nor_time(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    lanes = messages.lanes(tier.rounds(8, 1000))
    count = tier.rounds(200, 100_000)
    world.stop()
    world.use_codex(world.root / "no-codex")
    world.start()
    share = count // len(lanes)
    clients = 4

    def fill(mine: list[str]) -> None:
        messages.send_all([(lane, {}, messages.marker()) for _ in range(share) for lane in mine])

    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(fill, lanes[n::clients]) for n in range(clients)]:
            done.result()
    peak = world.memory("VmHWM")
    world.kill_daemon()
    world.start()
    client = world.client()
    client.call("delivery.list", {"limit": 10})
    restarted = world.memory("VmHWM")
    client.close()

    figures(
        queued=messages.states()["queued"], lanes=len(lanes), peak_mib=peak, restarted_mib=restarted
    )
    assert messages.states() == {"queued": share * len(lanes)}
    assert len(messages.accepted) == share * len(lanes)
    assert max(peak, restarted) < 150


@pytest.mark.fault("A9")
def test_a_thread_that_another_process_holds_waits_and_loses_nothing(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    [lane] = messages.lanes(1)
    messages.send(lane, {})
    messages.settle()
    [thread] = world.rows("SELECT native_id FROM threads WHERE ref = ?", lane)
    rounds = tier.rounds(1, 100)

    for _ in range(rounds):
        world.kill_daemon()
        until(lambda: world.codex_pid() is None, "the app-server is gone as well")
        with another_codex(world, thread["native_id"]):
            world.start()
            marker = messages.send(lane, {})
            until(lambda: "delivery" in world.said(), "the daemon tried")
            assert messages.state(marker) in ("queued", "sending")
            assert marker not in world.witness.markers()
        messages.settle()

    report = messages.report()
    figures(rounds=rounds, **report.figures())
    assert report.broken == {}
    assert report.done == rounds + 1


@pytest.mark.fault("A12")
def test_sandbox_and_approvals_are_the_same_after_every_restart(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    world = messages.world
    world.start()
    [strict] = messages.lanes(1, sandbox="read-only", approval_policy="untrusted")
    [plain] = messages.lanes(1, name="plain")
    killer = Killer(world, tier.random)
    rounds = tier.rounds(2, 200)

    for lane in (strict, plain):
        messages.send(lane, {})
    for _ in range(rounds):
        messages.settle()
        killer.kill()
        for lane in (strict, plain):
            messages.send(lane, {})
    messages.settle()

    report = messages.report()
    settings = {lane: turn_settings(messages, lane) for lane in (strict, plain)}
    figures(
        restarts=rounds,
        turns=sum(map(len, settings.values())),
        drifted=sum(each != found[0] for found in settings.values() for each in found),
        lost=len(report.lost),
    )
    assert report.broken == {}
    assert [len(found) for found in settings.values()] == [rounds + 1, rounds + 1]
    assert all(each == found[0] for found in settings.values() for each in found)
    assert settings[strict][0] == ("untrusted", "read-only")
    assert settings[strict][0] != settings[plain][0]


@pytest.mark.fault("A12")
@pytest.mark.parametrize(
    ("setting", "other"), [("sandbox", "danger-full-access"), ("cwd", "/")], ids=["sandbox", "cwd"]
)
def test_nothing_runs_in_a_thread_that_somebody_has_set_otherwise(
    messages: Messages, figures: Callable[..., None], setting: str, other: str
) -> None:
    world = messages.world
    world.start()
    [lane] = messages.lanes(1, sandbox="read-only")
    messages.send(lane, {})
    messages.settle()
    [thread] = world.rows("SELECT native_id, cwd FROM threads WHERE ref = ?", lane)
    made = {"sandbox": "read-only", "cwd": thread["cwd"]}[setting]

    def work_elsewhere(**choices: str) -> None:
        """Run a turn as somebody who opens the thread without the daemon does."""
        asked = len(world.witness.asked())
        with another_codex(world, thread["native_id"], **choices) as ask:
            said = [{"type": "text", "text": "offline:{}"}]
            ask("turn/start", {"threadId": thread["native_id"], "input": said})
            until(lambda: len(world.witness.asked()) > asked, "the other turn ran")

    world.stop()
    work_elsewhere(**{setting: other})
    world.start()
    refused = world.cli.error("send", lane, "Go on")
    marker = messages.send(lane, {})
    client = world.client()

    def reason() -> str:
        return str(
            client.call("delivery.get", {"delivery": messages.accepted[marker]})["delivery"][
                "reason"
            ]
        )

    until(lambda: "nothing was sent" in reason(), "the message waits for that")
    client.close()

    assert f"{other}, and it was made with {made}; nothing was sent" in refused["message"]
    way_out = refused["hint"].partition(" goes on")[0].replace("NAME", "as-made")
    world.cli.json(*shlex.split(way_out)[1:])
    fork = messages.send("@as-made", {})
    until(lambda: messages.state(fork) == "done", "the fork is as the thread was made")
    assert marker not in world.witness.markers()

    world.stop()
    work_elsewhere(**{setting: made})
    world.start()
    messages.settle()

    report = messages.report()
    figures(**report.figures())
    assert report.broken == {}
    assert report.done == 3


def turn_settings(messages: Messages, lane: str) -> list[tuple[str, str]]:
    """Approval policy and sandbox of every turn of a thread, as Codex wrote them down."""
    [thread] = messages.world.rows("SELECT native_id FROM threads WHERE ref = ?", lane)
    path = rollout_of(messages.world.codex_home, thread["native_id"])
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    contexts = {
        record["payload"]["turn_id"]: record["payload"]
        for record in records
        if record["type"] == "turn_context"
    }
    return [
        (found["approval_policy"], found["sandbox_policy"]["type"]) for found in contexts.values()
    ]
