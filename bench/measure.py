"""Interleaved rounds, medians and ratios; the cost of a process."""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TERMINATE = 15.0  # seconds until a process that was asked to end is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The most that is allowed. of: the ratio to the floor, the excess over the floor, or the figure itself."""

    of: Literal["ratio", "excess", "figure"]
    at_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the table: samples of the figure and of its floor, taken in turn, in the same unit."""

    name: str
    unit: str
    figure: Sequence[float]
    floor: Sequence[float]
    floor_name: str
    goal: Goal | None = None

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Each round's figure with its floor; a floor that was taken once goes with every round."""
        floors = list(self.floor) if len(self.floor) > 1 else list(self.floor) * len(self.figure)
        return list(zip(self.figure, floors, strict=True))

    @property
    def ratios(self) -> list[float]:
        """The figure of each round by its floor."""
        return [figure / floor for figure, floor in self.pairs]

    @property
    def judged(self) -> float:
        """What the goal is about."""
        if self.goal is not None and self.goal.of == "figure":
            return statistics.median(self.figure)
        if self.goal is not None and self.goal.of == "excess":
            return statistics.median(figure - floor for figure, floor in self.pairs)
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> str:
        """met or missed, or a dash without a goal."""
        if self.goal is None:
            return "-"
        return "met" if self.judged <= self.goal.at_most else "missed"


def interleave(
    rounds: int, *samplers: Callable[[], float], warmup: int = 1
) -> tuple[list[float], ...]:
    """Return one list of samples for each sampler, taken in turn, so that a noisy moment hits all of them.

    warmup: rounds that are not counted. Every other round runs backwards, so that none always follows the same one.
    """
    samples: tuple[list[float], ...] = tuple([] for _ in samplers)
    for number in range(-warmup, rounds):
        order = range(len(samplers)) if number % 2 else reversed(range(len(samplers)))
        for index in order:
            value = samplers[index]()
            if number >= 0:
                samples[index].append(value)
    return samples


def has_instructions() -> bool:
    """Say whether this machine counts instructions; many virtual ones do not."""
    if shutil.which("perf") is None:
        return False
    done = subprocess.run(
        ["perf", "stat", "-x,", "-e", "instructions:u", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and done.stderr.partition(",")[0].isdigit()


class ProcessCost:
    """What a process costs from its start to its end. unit: Minstr, or ms of user and system time."""

    def __init__(self) -> None:
        self._instructions = has_instructions()
        self.unit = "Minstr" if self._instructions else "ms CPU"

    def of(self, argv: Sequence[str], env: Mapping[str, str]) -> float:
        """Run a command to its end. Raises RuntimeError when it fails."""
        return self._counted(argv, env) if self._instructions else cpu_milliseconds(argv, env)

    def _counted(self, argv: Sequence[str], env: Mapping[str, str]) -> float:
        with tempfile.NamedTemporaryFile("r") as file:
            command = ["perf", "stat", "-x,", "-e", "instructions:u", "-o", file.name, *argv]
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
            counts = [line.partition(",")[0] for line in file.read().splitlines()]
        return sum(int(count) for count in counts if count.isdigit()) / 1e6


def cpu_milliseconds(argv: Sequence[str], env: Mapping[str, str]) -> float:
    """Return the user and system time of one run of a command. Raises RuntimeError when it fails."""
    null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawn(argv[0], list(argv), env, file_actions=null)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise RuntimeError(
            f"{' '.join(argv)} ended with status {os.waitstatus_to_exitcode(status)}"
        )
    return (usage.ru_utime + usage.ru_stime) * 1000


def until_line(
    argv: Sequence[str], env: Mapping[str, str], variable: str
) -> tuple[subprocess.Popen[bytes], float]:
    """Start a process that writes a line to the descriptor named by an environment variable once it is ready.

    Returns it with the milliseconds from the start to the line. Raises RuntimeError when it ends before.
    """
    receiver, sender = os.pipe()
    with os.fdopen(receiver, "rb") as ready:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv,
            env={**env, variable: str(sender)},
            pass_fds=(sender,),
            stdin=subprocess.DEVNULL,
            stderr=sys.stderr,
        )
        os.close(sender)
        line = ready.readline()
        elapsed = (time.perf_counter() - began) * 1000
    if not line:
        process.wait()
        raise RuntimeError(f"{' '.join(argv)} ended before it was ready")
    return process, elapsed


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end and wait until it is gone."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(TERMINATE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def resident_mib(pid: int) -> float:
    """Return the memory a process holds now."""
    done = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(done.stdout) / 1024


def short_directory() -> Path:
    """Return a new private directory whose path leaves room for a socket's name."""
    return Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
