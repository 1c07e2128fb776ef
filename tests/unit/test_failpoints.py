"""Failpoints are off unless a test switched them on, act when they are told to, and none is misspelt."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from dispatch_core import failpoints
from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
DIE = """
import anyio, os, subprocess, sys
from dispatch_core import failpoints
failpoints.arm(os.environ)
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
failpoints.codex_pid = child.pid
async def main():
    for n in range(3):
        await failpoints.reach("claim.after_commit")
        print("passed", n, child.poll() is None or child.returncode, flush=True)
        if n == 1:
            child.wait(20) if "codex" in os.environ["DISPATCH_FAILPOINTS"] else None
anyio.run(main)
child.kill()
child.wait()
"""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


def armed(points: str, **env: str) -> dict[str, str]:
    return {"DISPATCH_TEST": "1", "DISPATCH_FAILPOINTS": points, **env}


def run(points: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DIE],
        env={**os.environ, **armed(points)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "env", [{}, {"DISPATCH_FAILPOINTS": "claim.after_commit:error"}, {"DISPATCH_TEST": "1"}]
)
async def test_nothing_happens_unless_both_variables_are_set(env: dict[str, str]) -> None:
    failpoints.arm(env)

    await failpoints.reach("claim.after_commit")
    failpoints.reach_sync("claim.after_commit")


@pytest.mark.parametrize(
    "points",
    [
        "claim.after_comit:kill",
        "claim.after_commit",
        "claim.after_commit:explode",
        "claim.after_commit:kill@0",
        "claim.after_commit:pause",
        "claim.after_commit:kill kill",
    ],
)
def test_what_is_misspelt_is_an_error(points: str) -> None:
    with pytest.raises(ValidationFailed, match="DISPATCH_FAILPOINTS"):
        failpoints.arm(armed(points))


async def test_a_point_acts_at_the_times_it_is_told_to() -> None:
    failpoints.arm(armed("claim.after_commit:error@2-3"))
    outcomes = []

    for _ in range(4):
        try:
            await failpoints.reach("claim.after_commit")
            outcomes.append("passed")
        except failpoints.FailpointError:
            outcomes.append("failed")

    assert outcomes == ["passed", "failed", "failed", "passed"]


async def test_two_points_are_independent_and_each_is_written_down(tmp_path: Path) -> None:
    log = tmp_path / "log"
    points = "send.before_write:error, send.after_write:pause=0"
    failpoints.arm(armed(points, DISPATCH_FAILPOINTS_LOG=str(log)))

    with anyio.fail_after(5):
        await failpoints.reach("send.after_write")
        await failpoints.reach("send.after_answer")
    with pytest.raises(failpoints.FailpointError, match=r"send\.before_write"):
        failpoints.reach_sync("send.before_write")

    assert log.read_text() == "send.after_write:pause\nsend.before_write:error\n"


def test_kill_ends_the_process_at_once() -> None:
    done = run("claim.after_commit:kill@2")

    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "passed 0 True\n"


def test_kill_codex_ends_the_app_server_alone() -> None:
    done = run("claim.after_commit:kill-codex@2")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"passed 2 {-signal.SIGKILL}"


def test_the_product_names_no_other_point() -> None:
    named = {
        node.args[0].value
        for file in (ROOT / "dispatch_core").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("failpoints.reach", "failpoints.reach_sync")
        and isinstance(node.args[0], ast.Constant)
    }

    assert named
    assert named <= set(failpoints.NAMES)
