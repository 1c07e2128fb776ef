"""A power cut: the disk has what was synced, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from anyio import to_thread

from .checker import ENDED
from .disks import ANOTHER_BOOT, all_on, end, mount, new_image, start_after_reboot, unmount
from .driver import Messages
from .harness import PATIENCE as LONG
from .harness import until
from .registries import ACCEPT, CARELESS, PATIENCE, kept, mounted, opened, start, understood

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from .conftest import Tier
    from .harness import World

pytestmark = pytest.mark.anyio

SIZE = 64 << 20
ON_THEIR_WAY = {"sending", "submitted", "running"}
PROVEN = "SELECT id FROM deliveries WHERE evidence = 'history'"


@pytest.mark.fault("D4")
async def test_what_was_accepted_is_there_after_a_power_cut(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    cuts = tier.rounds(1, 40)
    accepted = lost = 0
    for _ in range(cuts):
        said, image = await to_thread.run_sync(
            cut_the_power, tmp_path, [ACCEPT, "{}", 1, 1], tier.random.randrange(50, 400)
        )
        with mounted("-o", "loop", str(image)) as folder:
            async with opened(folder) as storage:
                lost += len(set(said) - await kept(storage))
        accepted += len(said)
    assert lost == 0
    assert accepted > 0
    figures(cuts=cuts, accepted=accepted, lost=lost)


@pytest.mark.fault("D4")
async def test_the_same_cut_shows_what_is_lost_without_syncs(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    cuts = tier.rounds(1, 10)
    accepted = lost = 0
    for _ in range(cuts):
        said, image = await to_thread.run_sync(cut_the_power, tmp_path, [CARELESS, "{}"], 400)
        with mounted("-o", "loop", str(image)) as folder:
            lost += len(set(said) - survived(folder / "careless.db"))
        accepted += len(said)
    assert lost > 0
    figures(control_cuts=cuts, control_accepted=accepted, control_lost=lost)


@pytest.mark.fault("D4")
def test_after_a_power_cut_of_daemon_and_codex_nothing_is_lost_and_nothing_runs_twice(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    cuts = tier.rounds(1, 25)
    counted = Counter[str]()
    for _ in range(cuts):
        counted += cut_all(tier.random, tmp_path, lanes=tier.rounds(3, 6), each=tier.rounds(3, 6))
    figures(
        daemon_cuts=cuts,
        **{f"daemon_{name}": counted[name] for name in ("messages", "lost", "duplicated")},
        daemon_unknown=counted["unknown"],
    )
    assert counted["on_their_way"] > 0
    assert counted["lost"] == counted["duplicated"] == counted["sent_again"] == 0


def cut_all(random: Random, tmp_path: Path, *, lanes: int, each: int) -> Counter[str]:
    """Cut the power of a daemon and its Codex while messages are sent, start both anew, and count what became of it."""
    image, copy = new_image(tmp_path / "disk", 2 * SIZE), tmp_path / "disk-after"
    with all_on("-o", "loop", str(image)) as world:
        world.start()
        messages = Messages(world)
        refs = messages.lanes(lanes)
        messages.send_all([(ref, {}, messages.marker()) for ref in refs[1:]])  # one has no history
        messages.settle()
        plan = [
            [(ref, {"delay": random.uniform(0, 0.5)}, messages.marker()) for _ in range(each)]
            for ref in refs
        ]
        before = messages.begun()
        with ThreadPoolExecutor(lanes) as clients:
            sent = [clients.submit(messages.send_all, lane) for lane in plan]
            due = before + random.randrange(1, lanes * each // 2)
            until(lambda: messages.begun() >= due, f"{due} messages were sent")
            time.sleep(random.uniform(0, 0.06))  # the fault's own moment; nothing is awaited
            freeze(world)
            shutil.copyfile(image, copy)
            told = dict(messages.accepted)
            end(world)
            unmount(world.root)
            mount(world.root, "-o", "loop", str(copy))
            found = world.rows("SELECT id, state FROM deliveries")
            there = {row["id"] for row in found}
            flying = {row["id"] for row in found if row["state"] in ON_THEIR_WAY}
            start_after_reboot(world, tmp_path / "boot_id")
            for lane in sent:
                lane.result(LONG * 2)
        unknown = settle(messages)

        assert epoch(world).startswith(ANOTHER_BOOT)
        report = messages.report(damaged=True)
        assert report.broken == {}
        proven = {row["id"] for row in world.rows(PROVEN)}
        assert flying <= unknown | proven
        return Counter(
            messages=len(messages.accepted),
            lost=len(set(told.values()) - there),
            duplicated=len(report.duplicated),
            sent_again=len(report.requeued),
            unknown=len(unknown),
            on_their_way=len(flying),
        )


def freeze(world: World) -> None:
    """Stop daemon and app-server where they are, and return once neither does anything."""
    pids = [pid for pid in (world.daemon.pid if world.daemon else None, world.codex_pid()) if pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(stopped(pid) for pid in pids), "all are stopped")


def stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped."""
    states = [
        (task / "stat").read_text().rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) == {"T"}


def epoch(world: World) -> str:
    """Return under which name the running app-server is known."""
    world.codex_runs()
    client = world.client()
    until(lambda: client.call("daemon.status", {})["codex"]["epoch"], "it is known")
    found = client.call("daemon.status", {})["codex"]["epoch"]
    client.close()
    return str(found)


def settle(messages: Messages) -> set[str]:
    """Decide what is unknown, as a person would who knows what the model was asked, until all have ended; return what it was."""
    world = messages.world
    client = world.client()
    unknown: set[str] = set()

    def decided() -> bool:
        for row in world.rows("SELECT id, key FROM deliveries WHERE state = 'unknown'"):
            ran = row["key"] in world.witness.markers()
            verdict = "sent" if ran else "drop"
            client.call("delivery.resolve", {"delivery": row["id"], verdict: True})
            unknown.add(row["id"])
        return not set(messages.states()) - ENDED

    until(decided, "all have ended")
    client.close()
    return unknown


def cut_the_power(tmp_path: Path, script: Sequence[object], count: int) -> tuple[list[str], Path]:
    """Let a script write to a disk of its own; return what it has accepted, and the disk as it is at that moment."""
    image, copy = tmp_path / "disk", tmp_path / "disk-after"
    image.unlink(missing_ok=True)  # a used one has blocks of the one before
    with image.open("wb") as file:
        file.truncate(SIZE)
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    with mounted("-o", "loop", str(image)) as folder:
        process = start(str(script[0]), *(str(word).format(folder) for word in script[1:]))
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(count)]
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            shutil.copyfile(image, copy)
        finally:
            process.kill()
            lines += process.communicate(timeout=PATIENCE)[0].splitlines(keepends=True)
    return understood(lines).accepted, copy


def survived(path: Path) -> set[str]:
    try:
        with closing(sqlite3.connect(path)) as connection:
            return {row[0] for row in connection.execute("SELECT id FROM accepted")}
    except sqlite3.Error:
        return set()
