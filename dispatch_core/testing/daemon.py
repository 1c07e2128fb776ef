"""The real ``dispatch`` command over a home of its own: real daemon, real Codex, no language model, no account."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CONDITION_DEADLINE = 20.0  # seconds for something to come true in another process
CONDITION_STEP = 0.02
COMMAND_DEADLINE = 90.0  # seconds for one command
KEPT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TERM",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "DISPATCH_CODEX_BIN",
    "SYSTEMROOT",
)
# What the homes of this process have made of the installed plugins, by the name of its file: it takes a second, and a file for
# anything else that is installed, or has changed since, has another name.
_manifests: dict[str, bytes] = {}


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Runs ``dispatch`` commands against one home. env: what is set besides DISPATCH_HOME and DISPATCH_OFFLINE."""

    home: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The whole environment of a command; nothing of the user's Codex or dispatch is in it."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        return {
            **kept,
            "HOME": str(self.home / "user"),
            "DISPATCH_HOME": str(self.home),
            "DISPATCH_OFFLINE": "1",
            "PYTHONWARNINGS": "error",
            **self.env,
        }

    @property
    def socket(self) -> str:
        """Path of the control socket."""
        return str(self.home / "dispatchd.sock")

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command and return its process. options: as for Popen."""
        return subprocess.Popen(
            self.argv(*words), env=self.environment, text=True, encoding="utf-8", **options
        )

    def argv(self, *words: str) -> list[str]:
        """Return the command line of a command, in this interpreter."""
        return [sys.executable, "-P", "-m", "dispatch_core.boot", *words]

    def run(
        self, *words: str, stdin: str | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit status."""
        return subprocess.run(
            self.argv(*words),
            env=self.environment,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=COMMAND_DEADLINE,
            cwd=cwd or self.home,
            check=False,
        )

    def json(self, *words: str, **options: Any) -> dict[str, Any]:
        """Run a command that must succeed and return what it printed."""
        done = self.run(*words, **options)
        if done.returncode != 0:
            raise AssertionError(
                f"dispatch {' '.join(words)}: exit {done.returncode}\n{done.stderr}"
            )
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def error(self, *words: str, **options: Any) -> dict[str, Any]:
        """Run a command that must fail and return its error object; its exit status is the one the error names."""
        done = self.run(*words, **options)
        if done.returncode == 0:
            raise AssertionError(f"dispatch {' '.join(words)} succeeded: {done.stdout}")
        error: dict[str, Any] = json.loads(done.stderr)["error"]
        if error["exit_code"] != done.returncode:
            raise AssertionError(f"exit {done.returncode}, but the error says {error['exit_code']}")
        return error

    def wait(self, thread: str, *, timeout: float = 60.0) -> dict[str, Any]:
        """Wait until no turn runs in one thread, and return its result: thread, outcome, turn and text."""
        [result] = self.json("wait", thread, "--timeout", f"{timeout:g}")["results"]
        return dict(result)

    def pid(self) -> int:
        """Return the process id of the running daemon."""
        return int(self.json("daemon", "status", "--no-start")["pid"])


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return once a condition holds that another process makes true, and cannot tell us when; what: for the failure."""
    deadline = time.monotonic() + CONDITION_DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {CONDITION_DEADLINE:g} s: {what}")
        time.sleep(CONDITION_STEP)


@contextmanager
def temporary_home(**env: str) -> Iterator[Dispatch]:
    """Make a home for one test, and stop its daemon and remove it afterwards.

    It is in a short path of its own, because a socket's path is limited to about a hundred bytes. The manifest of the installed
    plugins is in it already if another home of this process has had one made.
    """
    home = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    (home / "user").mkdir(mode=0o700)
    cache = home / "cache"
    cache.mkdir(mode=0o700)
    for name, content in _manifests.items():
        (cache / name).write_bytes(content)
    dispatch = Dispatch(home, env)
    try:
        yield dispatch
    finally:
        dispatch.run("down", "--grace", "0")
        if not (home / "config.toml").exists():
            _manifests.update((file.name, file.read_bytes()) for file in cache.glob("*.jsonl"))
        shutil.rmtree(home, ignore_errors=True)
