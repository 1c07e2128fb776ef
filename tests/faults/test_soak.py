"""A daemon under load for a while: what it holds does not grow, and a starved machine is not taken for a hanging Codex."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .driver import Killer, Messages
from .harness import world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from .conftest import Tier
    from .harness import World

EVERY = 0.5  # seconds between two samples
MIB = 1 << 20
MORE_DESCRIPTORS = 10
WORKERS = 48  # threads that blocking calls may have at once, and some that are always there
MORE_MEMORY = 32.0  # MiB
LARGEST_LOG = 128.0  # MiB


@dataclass(frozen=True, slots=True)
class Sample:
    """What the daemon holds at one moment. at: seconds; memory and log (of SQLite): MiB."""

    at: float
    memory: float
    descriptors: int
    threads: int
    log: float


@pytest.fixture
def messages() -> Iterator[Messages]:
    with world() as made:
        yield Messages(made)


def test_a_daemon_under_load_whose_codex_dies_again_and_again_does_not_grow(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    made = messages.world
    made.start()
    lanes = messages.lanes(tier.rounds(6, 20))
    messages.send_all([(lane, {}, messages.marker()) for lane in lanes])
    messages.settle()  # everything that is loaded once is loaded
    made.kill_codex()
    made.codex_runs()
    first = sample(made)

    taken, kills = under_load(messages, lanes, tier.random, tier.rounds(4, 1200))
    messages.settle()
    made.codex_runs()
    last = sample(made)

    report = messages.report()
    figures(
        seconds=round(last.at - first.at),
        codex_kills=kills,
        **(slopes([first, *taken, last]) if tier.full else {}),  # of seconds they say nothing
        **{f"{name}_at_the_end": value for name, value in asdict(last).items() if name != "at"},
        **report.figures(),
    )
    assert report.broken == {}
    assert report.unknown == []
    assert last.descriptors <= first.descriptors + MORE_DESCRIPTORS
    assert max(each.threads for each in taken) <= WORKERS
    assert last.memory <= first.memory + MORE_MEMORY
    assert max(each.log for each in taken) < LARGEST_LOG


def under_load(
    messages: Messages, lanes: Sequence[str], random: Random, seconds: float
) -> tuple[list[Sample], int]:
    """Send to all lanes for a while and kill Codex now and then; return what the daemon held meanwhile, and how many kills."""
    made, taken = messages.world, list[Sample]()
    killer = Killer(made, random)
    over = threading.Event()

    def send(share: Sequence[str]) -> None:
        while not over.is_set():
            messages.send_all([(lane, {"delay": 0.05}, messages.marker()) for lane in share])
            over.wait(0.5)

    until_ = time.monotonic() + seconds
    with ThreadPoolExecutor(2) as clients:
        sending = [clients.submit(send, lanes[n::2]) for n in range(2)]
        try:
            due = time.monotonic() + random.uniform(1, 2)
            while time.monotonic() < until_:
                time.sleep(EVERY)  # the distance of the samples
                taken.append(sample(made))
                if time.monotonic() >= due and made.kill_codex():
                    killer.kills["codex"] += 1
                    due = time.monotonic() + random.uniform(15, 25)
        finally:
            over.set()
        for each in sending:
            each.result()
    return taken, killer.kills.total()


def sample(made: World) -> Sample:
    """Return what the daemon holds now."""
    assert made.daemon is not None
    process = Path(f"/proc/{made.daemon.pid}")
    log = made.registry.with_name("registry.db-wal")
    return Sample(
        at=time.monotonic(),
        memory=made.memory("VmRSS"),
        descriptors=len(list((process / "fd").iterdir())),
        threads=len(list((process / "task").iterdir())),
        log=round(log.stat().st_size / MIB, 1),
    )


def slopes(taken: Sequence[Sample]) -> dict[str, float]:
    """Return by how much each of them grows in an hour, by the line that fits the samples best."""
    at = [each.at for each in taken]
    middle = sum(at) / len(at)
    spread = sum((each - middle) ** 2 for each in at)
    found = {}
    for name in ("memory", "descriptors", "threads", "log"):
        values = [getattr(each, name) for each in taken]
        mean = sum(values) / len(values)
        slope = sum((x - middle) * (y - mean) for x, y in zip(at, values, strict=True)) / spread
        found[f"{name}_per_hour"] = round(slope * 3600, 1)
    return found


def test_a_starved_machine_is_not_taken_for_a_codex_that_hangs(
    messages: Messages, tier: Tier, figures: Callable[..., None]
) -> None:
    if not tier.full:
        pytest.skip("it takes the machine from everybody else; only in the full tier")
    made = messages.world
    made.start()
    made.codex_runs()
    lanes = messages.lanes(4)
    before, seconds = made.codex_pid(), 60.0  # three heartbeats without an answer would be a hang
    restarts = made.cli.json("daemon", "status")["codex"]["restarts"]
    assert made.daemon is not None
    assert before is not None
    for pid in (made.daemon.pid, before):
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(task.name), 19)
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        over = time.monotonic() + seconds
        while time.monotonic() < over:
            messages.send_all([(lane, {}, messages.marker()) for lane in lanes])
            time.sleep(1)  # the fault lasts; nothing is awaited
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    messages.settle()

    report = messages.report()
    codex = made.cli.json("daemon", "status")["codex"]
    figures(
        starved_s=seconds,
        hang_kills=codex["restarts"] - restarts,
        late=codex["heartbeat"]["late"],
        **report.figures(),
    )
    assert made.codex_pid() == before
    assert codex["restarts"] == restarts
    assert report.broken == {}
