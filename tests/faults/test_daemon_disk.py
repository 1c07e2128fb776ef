"""A whole daemon on a disk that is full, that fails, or that another daemon writes to: it says so, and loses nothing."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.errors import PROJECTIONS, RemoteError

from .disks import end, home_on, mount, new_image, unmount
from .driver import Messages
from .harness import until
from .test_storage import fill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from .checker import Report
    from .conftest import Tier
    from .harness import World

SMALL = ("-t", "tmpfs", "-o", "size=24m", "tmpfs")
MIB = 1 << 20
OFTEN = 5000
STORAGE = {"storage", "disk_full"}


@pytest.mark.fault("S2")
def test_on_a_full_disk_messages_are_refused_and_what_was_accepted_goes_on(
    tier: Tier, figures: Callable[..., None]
) -> None:
    disks = tier.rounds(1, 5)
    counted = Counter[str]()
    recovered = [fill_and_free(tier.random, counted) for _ in range(disks)]
    figures(daemon_disks=disks, **counted, daemon_recovered_s=round(max(recovered), 2))
    assert counted["daemon_lost"] == counted["daemon_duplicated"] == 0


def fill_and_free(random: Random, counted: Counter[str]) -> float:
    """Fill the disk of a daemon that works, first up to its reserve, and free it; return in how many seconds it recovered."""
    with home_on(*SMALL) as world:
        (world.home / "config.toml").write_text("[daemon]\nlog_bytes = 10000\n")
        world.start(DISPATCH_LOG_LEVEL="DEBUG")  # so that the log is rotated all the time
        messages = Messages(world)
        busy, full, ends = messages.lanes(3)
        for delay in (1.0, *(random.uniform(0, 0.2) for _ in range(3))):
            messages.send(busy, {"delay": delay})
        runs, withdrawn = messages.send(full, {"delay": 3600}), messages.send(full, {})
        until(lambda: runs in world.witness.markers(), "a turn runs")
        fill(world.home / "somebody-elses")

        error = refused_at_last(messages, full)
        client = world.client()
        client.once("daemon.status", {})
        client.once("delivery.list", {})
        client.once("delivery.cancel", {"delivery": [messages.accepted[withdrawn]]})
        assert world.cli.wait(busy)["outcome"] == "done"
        assert messages.state(withdrawn) == "cancelled"

        fill(world.home / "the-rest")  # now there is no room for what changes, either
        second = refused_at_last(messages, ends)
        world.kill_codex()
        client.once("daemon.status", {})
        client.once("delivery.list", {})
        client.close()
        assert world.alive()

        (world.home / "somebody-elses").unlink()
        (world.home / "the-rest").unlink()
        began, last = time.monotonic(), messages.marker()
        until(lambda: taken(messages, ends, last), "messages are accepted again")
        recovered = time.monotonic() - began
        messages.settle()

        report = messages.report()
        assert (error["code"], second["code"]) == ("disk_full", "disk_full")
        assert error["exit_code"] == PROJECTIONS["disk_full"].exit_code
        assert messages.state(last) == "done"
        assert report.broken == {}
        assert report.unknown == []
        counted.update(of_daemon(report))
        return recovered


def of_daemon(report: Report) -> dict[str, int]:
    """Return what is counted of a whole daemon."""
    found = report.figures()
    return {f"daemon_{name}": found[name] for name in ("messages", "lost", "duplicated")}


def refused_at_last(messages: Messages, lane: str) -> dict[str, Any]:
    """Send until there is no room, and return the error."""
    client = messages.world.client()
    for _ in range(OFTEN):
        marker = messages.marker()
        params = messages.params(lane, {}, marker)
        try:
            answer = client.once("send", {**params, "text": params["text"] + " x" * 10_000})
        except RemoteError as error:
            client.close()
            return error.to_dict()
        messages.accepted[marker] = answer["receipt"]["id"]
    raise AssertionError("the disk did not fill")


def taken(messages: Messages, lane: str, marker: str) -> bool:
    """Try to send a message, and return whether it was accepted."""
    client = messages.world.client()
    try:
        answer = client.once("send", messages.params(lane, {}, marker))
    except RemoteError as error:
        if error.code not in STORAGE:
            raise
        return False
    finally:
        client.close()
    messages.accepted[marker] = answer["receipt"]["id"]
    return True


@pytest.mark.fault("S2")
def test_a_daemon_that_finds_no_room_at_its_start_says_so_and_starts_once_there_is(
    figures: Callable[..., None],
) -> None:
    with home_on(*SMALL) as world:
        fill(world.home / "somebody-elses")

        error = world.cli.error("up")
        (world.home / "somebody-elses").unlink()
        world.start()

        messages = Messages(world)
        [lane] = messages.lanes(1)
        messages.send(lane, {})
        messages.settle()
        done = messages.report().done
        figures(daemon_refused_starts=int(error["code"] in STORAGE), daemon_done_once_mended=done)
        assert error["code"] in STORAGE
        assert error["hint"]
        assert done == 1


@pytest.mark.fault("S3")
def test_a_disk_that_turns_read_only_refuses_every_change_and_loses_no_result(
    tier: Tier, figures: Callable[..., None], tmp_path: Path
) -> None:
    disks = tier.rounds(1, 10)
    counted = Counter[str]()
    for _ in range(disks):
        fail_and_mend(tmp_path, counted)
    figures(failed_disks=disks, **counted)
    assert counted["daemon_lost"] == counted["daemon_duplicated"] == 0


def fail_and_mend(tmp_path: Path, counted: Counter[str]) -> None:
    """Let the disk of a daemon fail while turns run, and start another one when it is mended."""
    with failing_home(new_image(tmp_path / "disk", 64 * MIB)) as (world, fail, mend):
        world.start()
        messages = Messages(world)
        running, queued, other = messages.lanes(3)
        ends = messages.send(running, {"delay": 2})
        ahead, waits = messages.send(queued, {"delay": 3600}), messages.send(queued, {})
        until(lambda: {ends, ahead} <= world.witness.markers(), "their turns run")
        fail()

        errors = [
            refusal(world, "send", messages.params(other, {}, messages.marker())),
            refusal(world, "delivery.cancel", {"delivery": [messages.accepted[waits]]}),
            refusal(world, "send", messages.params(other, {}, messages.marker())),
        ]
        world.cli.json("list")
        world.cli.json("delivery", "get", messages.accepted[ends])
        assert world.cli.wait(running)["outcome"] == "done"
        assert {error["code"] for error in errors} == {"storage"}
        assert len({error["message"] for error in errors}) == 1
        assert all(error["hint"] for error in errors)

        end(world)
        mend()
        world.start()
        messages.settle()

        report = messages.report()
        assert report.broken == {}
        assert report.unknown == []
        assert messages.state(ends) == messages.state(waits) == "done"
        assert messages.state(ahead) == "interrupted"
        counted.update(of_daemon(report))
        counted["refused"] += len(errors)


def refusal(world: World, op: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask for a change that is refused, and return the error."""
    client = world.client()
    with pytest.raises(RemoteError) as refused:
        client.once(op, params)
    client.close()
    return refused.value.to_dict()


@pytest.mark.fault("S3")
def test_a_daemon_whose_registry_has_failed_says_so_and_what_does_not_write_works(
    figures: Callable[..., None], tmp_path: Path
) -> None:
    with failing_home(new_image(tmp_path / "disk", 64 * MIB)) as (world, fail, _):
        world.start()
        [lane] = Messages(world).lanes(1)
        client = world.client()
        fail()

        with pytest.raises(RemoteError) as refused:
            client.once("send", Messages.params(lane, {}, "m-000001"))
        status = client.once("daemon.status", {})
        shown = client.once("get", {"thread": lane})
        client.close()
        down = world.cli.run("down", "--grace", "0")

        figures(shown=int(status["state"] == "degraded"), ended=int(down.returncode == 0))
        assert status["state"] == "degraded"
        assert (status["reason"], status["fix"]) == (refused.value.message, refused.value.hint)
        assert shown["thread"]["ref"] == lane
        assert down.returncode == 0, down.stderr


@contextmanager
def failing_home(image: Path) -> Iterator[tuple[World, Callable[[], None], Callable[[], None]]]:
    """Make a world whose home can fail, so that the system makes it read-only, and be mended while no daemon runs."""
    with home_on("-o", "loop,errors=remount-ro", str(image)) as world:
        found = subprocess.run(
            ["findmnt", "--noheadings", "--output", "SOURCE", str(world.home)],
            capture_output=True,
            text=True,
            check=False,
        )
        trigger = Path(f"/sys/fs/ext4/{Path(found.stdout.strip()).name}/trigger_fs_error")
        if not found.stdout.strip() or not os.access(trigger, os.W_OK):
            pytest.skip("this system does not let a file system fail")

        def fail() -> None:
            trigger.write_text("a test", encoding="ascii")

        def mend() -> None:
            unmount(world.home)
            # As long as anybody has a file of it open, the system would mount the same failed one again.
            until(lambda: not attached(image), "the disk is not used any more")
            subprocess.run(["fsck.ext4", "-fy", str(image)], capture_output=True, check=False)
            mount(world.home, "-o", "loop", str(image))

        yield world, fail, mend


def attached(image: Path) -> bool:
    """Whether the system still uses an image as a disk."""
    done = subprocess.run(
        ["losetup", "--associated", str(image)], capture_output=True, text=True, check=True
    )
    return bool(done.stdout.strip())


@pytest.mark.fault("S8")
def test_of_two_daemons_in_one_home_the_older_one_writes_nothing_more_and_says_why(
    tier: Tier, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(1, 20)
    counted = Counter[str]()
    for _ in range(rounds):
        start_a_second(tier.random, counted)
    figures(daemon_pairs=rounds, **counted)
    assert counted["daemon_lost"] == counted["daemon_duplicated"] == 0


def start_a_second(random: Random, counted: Counter[str]) -> None:
    """Start a daemon beside one that works, after what keeps it away was deleted; end the older one later."""
    with home_on(*SMALL) as world:
        world.start()
        messages = Messages(world)
        lanes = messages.lanes(3)
        for lane in lanes:
            messages.send(lane, {"delay": 0.3})
            messages.send(lane, {"delay": random.uniform(0, 0.1)})
        older, client = world.daemon, world.client()
        client.call("daemon.status", {})
        assert older is not None

        for name in ("dispatchd.lock", "dispatchd.sock", "codex.pid"):
            (world.home / name).unlink(missing_ok=True)
        world.daemon = None  # the older one is ended below
        try:
            world.start()
            with pytest.raises(RemoteError, match="taken over"):
                client.once("send", messages.params(lanes[0], {}, "m-999999"))
        finally:
            client.close()
            older.kill()
            older.wait()
        for lane in lanes:
            messages.send(lane, {})
        messages.settle()

        report = messages.report()
        assert report.broken == {}
        counted.update(of_daemon(report))
        counted["refused"] += 1
