"""A locked, full or failing disk, an endless reader, a second daemon, copies made meanwhile: nothing accepted is lost."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread

from dispatch_core.api import DiskFull, Message, StorageError
from dispatch_core.testing.storage import LATER, a_delivery, a_trigger
from dispatch_plugins.registry import schema

from .registries import (
    ACCEPT,
    PATIENCE,
    accept,
    holding,
    kept,
    maintenance_of,
    mounted,
    opened,
    ready,
    start,
    understood,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anyio.abc import TaskStatus

    from dispatch_plugins.registry.backend import PeeweeStorage

    from .conftest import Tier
    from .registries import Said

pytestmark = pytest.mark.anyio

MIB = 1 << 20


@pytest.mark.fault("S1")
async def test_a_writer_waits_for_a_lock_as_long_as_it_may_and_stops_nobody_else(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    patience = 5.0 if tier.full else 0.6
    times = (0.1, 1.0, 4.0, 7.0, 30.0) if tier.full else (0.1, 0.3, 1.0)
    outcomes: list[str] = []
    lags: list[float] = []

    async with ready(tmp_path, busy_timeout=patience) as storage:
        for number, seconds in enumerate(times):
            with holding(tmp_path / "registry.db", "BEGIN IMMEDIATE") as holder:
                async with anyio.create_task_group() as tasks:
                    await tasks.start(watch_the_loop, lags)
                    tasks.start_soon(try_to_accept, storage, number, outcomes)
                    await anyio.sleep(seconds)  # how long the fault lasts
                    assert len(await storage.threads.list()) == 1
                    holder.kill()
                    await until(partial(is_longer, outcomes, number))
                    tasks.cancel_scope.cancel()
            await accept(storage, 1000 + number)

        there = await kept(storage)
    assert {f"id-{1000 + number}" for number in range(len(times))} <= there
    assert {outcome for outcome in outcomes if outcome.startswith("id-")} <= there
    assert outcomes[-1] == "SQLITE_BUSY"
    assert outcomes[0] == "id-0000"
    lags.sort()
    figures(
        locks=len(times),
        waited=len(outcomes) - outcomes.count("SQLITE_BUSY"),
        gave_up=outcomes.count("SQLITE_BUSY"),
        loop_lag_p99_ms=round(lags[int(len(lags) * 0.99)] * 1000, 1),
    )


async def try_to_accept(storage: PeeweeStorage, number: int, outcomes: list[str]) -> None:
    try:
        outcomes.append(await accept(storage, number))
    except StorageError as error:
        outcomes.append(error.details["sqlite"])


async def watch_the_loop(
    lags: list[float], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Keep how much later than asked for this task is woken, in seconds."""
    task_status.started()
    while True:
        began = time.perf_counter()
        await anyio.sleep(0.005)
        lags.append(time.perf_counter() - began - 0.005)


@pytest.mark.fault("S2")
async def test_a_full_disk_keeps_what_was_accepted_and_recovers_by_itself(
    tier: Tier, figures: Callable[..., None]
) -> None:
    accepted = lost = changed = 0
    recovered: list[float] = []
    sizes = (8, 16, 32) if tier.full else (16,)
    for size in sizes:
        with mounted("-t", "tmpfs", "-o", f"size={size}m", "tmpfs") as folder:
            async with ready(folder) as storage:
                found = {await accept(storage, number) for number in range(20)}
                fill(folder / "somebody-elses")

                # Until the space in reserve has to be used, messages are accepted; it is there for what changes their state.
                number = 20
                while not storage.full:
                    found.add(await accept(storage, number))
                    number += 1
                for _ in range(20):
                    await storage.threads.update("key-0001", title="busy", updated_at=LATER)
                    changed += 1
                assert await kept(storage) == found
                with pytest.raises(DiskFull):
                    await accept_for_ever(storage, found, number)
                assert (await storage.threads.get("key-0001")) is not None

                (folder / "somebody-elses").unlink()
                began = time.perf_counter()
                await until(partial(has_room, storage))
                recovered.append(time.perf_counter() - began)
                found.add(await accept(storage, 100_000))
                assert (folder / "registry.db.ballast").stat().st_size > 0
            async with opened(folder) as storage:
                lost += len(found - await kept(storage))
            accepted += len(found)
    assert lost == 0
    figures(
        disks=len(sizes),
        accepted=accepted,
        lost=lost,
        changed_while_full=changed,
        recovered_s=round(max(recovered), 2),
    )


def is_longer(outcomes: list[str], than: int) -> bool:
    return len(outcomes) > than


def has_room(storage: PeeweeStorage) -> bool:
    return not storage.full


def has_written(written: list[int], more_than: int) -> bool:
    return written[0] > more_than


def fill(path: Path) -> None:
    """Leave no space on the disk of path."""
    with path.open("wb", buffering=0) as file:
        for size in (MIB, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


async def accept_for_ever(storage: PeeweeStorage, found: set[str], number: int) -> None:
    while True:
        number += 1
        big = a_delivery(number, message=Message(text="x" * 20_000))
        found.add((await storage.deliveries.add(big)).id)


@pytest.mark.fault("S2")
async def test_a_full_disk_does_not_keep_a_registry_from_being_opened(
    figures: Callable[..., None],
) -> None:
    with mounted("-t", "tmpfs", "-o", "size=16m", "tmpfs") as folder:
        async with ready(folder) as storage:
            await accept(storage, 1)
        fill(folder / "somebody-elses")

        async with opened(folder) as storage:
            assert storage.full
            await storage.threads.update("key-0001", title="there", updated_at=LATER)
            found = await kept(storage)

    assert found == {"id-0001"}
    figures(kept_on_a_full_disk=len(found))


@pytest.mark.fault("S3")
@pytest.mark.parametrize(
    ("call", "between"), [("fdatasync,fsync", (60, 200)), ("pwrite64", (1000, 2000))]
)
async def test_after_a_failed_write_or_sync_nothing_is_acknowledged(
    tier: Tier,
    figures: Callable[..., None],
    tmp_path: Path,
    call: str,
    between: tuple[int, int],
) -> None:
    require_strace()
    rounds = tier.rounds(1, 20)
    accepted = afterwards = 0
    for round_ in range(rounds):
        folder, trace = tmp_path / str(round_), tmp_path / f"{round_}.trace"
        folder.mkdir()
        when = tier.random.randrange(*between)
        strace = ["strace", "-f", "-y", "-qq", "-o", str(trace), "-e", f"trace={call},write"]
        strace += ["-e", f"inject={call}:error=EIO:when={when}+"]

        done = await to_thread.run_sync(partial(finished, folder, strace))

        lines = trace.read_text(errors="replace").splitlines()
        # The log is what makes a message durable; a log that cannot be folded into the registry has it all the same.
        failed = next(n for n, line in enumerate(lines) if "INJECTED" in line and "-wal>" in line)
        acknowledged = [n for n, line in enumerate(lines) if '>, "accepted' in line]
        assert len(acknowledged) == len(done.accepted)
        afterwards += sum(number > failed for number in acknowledged)
        assert done.refused[0].startswith("storage SQLITE_IOERR")
        assert len(set(done.refused)) == 1
        assert done.readable
        async with opened(folder) as storage:
            there = await kept(storage)
        assert set(done.accepted) <= there
        accepted += len(done.accepted)
    assert afterwards == 0
    assert accepted > 0
    figures(rounds=rounds, accepted=accepted, acknowledged_after_the_error=afterwards)


def require_strace() -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    if subprocess.run([strace, "-qq", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace may not trace a process here")


def finished(folder: Path, under: list[str]) -> Said:
    """Return what a process has said that accepts until it was refused five times."""
    process = start(ACCEPT, folder, 1, 5, under=under)
    return understood(process.communicate(timeout=PATIENCE)[0].splitlines(keepends=True))


@pytest.mark.fault("S7")
async def test_a_reader_that_never_ends_cannot_make_the_log_grow_for_ever(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "registry.db"
    log = tmp_path / "registry.db-wal"
    largest = 0
    async with ready(tmp_path) as storage:
        with holding(path, "BEGIN"):
            number = 0
            while log.stat().st_size <= schema.LOG_LIMIT:
                number += 1
                message = Message(text=tier.random.randbytes(MIB // 2).hex())
                await storage.deliveries.add(a_delivery(number, message=message))
            largest = log.stat().st_size
            assert len(await kept(storage)) == number

        await accept(storage, number + 1)
        folded = log.stat().st_size

        # Nobody of ours reads on: another process can empty the log at once.
        await kept(storage)
        with closing(sqlite3.connect(path, timeout=0)) as other:
            ((busy, _, _),) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        assert busy == 0
    assert folded < largest
    figures(largest_log_mib=round(largest / MIB), log_afterwards_kib=round(folded / 1024))


@pytest.mark.fault("S8")
async def test_of_two_daemons_on_one_registry_only_the_one_that_opened_it_last_writes(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    rounds = tier.rounds(3, 100)
    claims = twice = refused = 0
    for round_ in range(rounds):
        folder = tmp_path / str(round_)
        folder.mkdir()
        won: list[str] = []
        async with opened(folder) as first:
            await first.triggers.add(a_trigger())
            before = tier.random.randrange(1, 20)
            for number in range(before):
                won += await claimed(first, number)
            async with opened(folder) as second, anyio.create_task_group() as tasks:
                tasks.start_soon(claim_all, second, won)
                for number in range(before, 50):
                    with pytest.raises(StorageError, match="taken over"):
                        won += await claimed(first, number)
                    refused += 1
            assert len(await first.triggers.list()) == 1
        claims += len(won)
        twice += len(won) - len(set(won))
    assert twice == 0
    assert claims == 50 * rounds
    figures(rounds=rounds, claims=claims, claimed_twice=twice, refused=refused)


async def claimed(storage: PeeweeStorage, number: int) -> list[str]:
    key = f"key-{number}"
    return [key] if await storage.firings.claim("trigger-1", key, LATER) else []


async def claim_all(storage: PeeweeStorage, won: list[str]) -> None:
    for number in range(50):
        won += await claimed(storage, number)


@pytest.mark.fault("S9")
async def test_a_copy_made_while_messages_are_accepted_is_whole_when_restored(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    copies = tier.rounds(3, 40)
    torn = 0
    home, restored = tmp_path / "home", tmp_path / "restored"
    home.mkdir()
    async with ready(home) as storage, anyio.create_task_group() as tasks:
        began = time.perf_counter()
        written = [0]
        tasks.start_soon(write_pairs, storage, written)
        for number in range(copies):
            await until(partial(has_written, written, written[0]))
            assert storage.maintenance is not None
            acknowledged = written[0]
            copy = await to_thread.run_sync(storage.maintenance.backup, tmp_path / f"{number}.db")

            rows, problems = await to_thread.run_sync(partial(restore, restored, copy))
            torn += bool(rows % 2 or rows < 2 * acknowledged or problems)
        rate = written[0] / (time.perf_counter() - began)
        tasks.cancel_scope.cancel()
    assert torn == 0
    figures(copies=copies, torn=torn, writes_per_s=round(rate))


async def write_pairs(storage: PeeweeStorage, written: list[int]) -> None:
    """Write two rows in each transaction, for ever."""
    row = "INSERT INTO actions (at, op, principal, outcome) VALUES ('1', 'o', 'p', 'ok')"
    while True:
        await storage.connection.write(lambda write: (write.run(row), write.run(row)))
        written[0] += 1


def restore(folder: Path, copy: Path) -> tuple[int, tuple[str, ...]]:
    """Restore a copy in a folder and return its actions and what a check finds wrong."""
    folder.mkdir(exist_ok=True)
    maintenance = maintenance_of(folder)
    maintenance.restore(maintenance.plan_restore(copy))
    report = maintenance.check()
    return report.counts["actions"], report.problems
