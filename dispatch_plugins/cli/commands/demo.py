"""``dispatch demo``: the main job, shown with the commands a user would type, in a home that is thrown away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import click

from dispatch_core.errors import DispatchError
from dispatch_plugins.cli.invocation import is_terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_plugins.cli.app import App

HELP = """Show what dispatch does: two threads, real Codex, no account.

Runs the real Codex in a temporary home; a stand-in on this machine answers in place of the language model. Takes a few seconds
and removes everything afterwards.
"""

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Start the daemon. It owns one Codex app-server.", ("up", "--offline")),
    (
        "Create two threads and give each its first message.",
        ("new", "builder", "Write a function that parses dates"),
    ),
    ("", ("new", "reviewer", "List what makes a date parser fail")),
    (
        "Accepted is not done: wait until each turn has ended.",
        ("wait", "@builder", "--timeout", "60"),
    ),
    ("", ("wait", "@reviewer", "--timeout", "60")),
    (
        "Send more work to a thread and read its history.",
        ("send", "@reviewer", "Review the builder's work"),
    ),
    ("", ("wait", "@reviewer", "--timeout", "60")),
    ("", ("tail", "@reviewer")),
    ("Everything at a glance.", ("list",)),
    ("Stop the daemon. Codex ends with it.", ("down",)),
)


class DemoFailed(DispatchError):
    """A step of the demonstration failed."""


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("demo", help=HELP)
    @click.pass_context
    def demo(context: click.Context) -> int:
        app.settle(context)
        home = tempfile.mkdtemp(prefix="dispatch-demo-")
        env = {
            **app.invocation.env,
            "DISPATCH_HOME": home,
            "DISPATCH_OFFLINE": "1",
            "DISPATCH_OUTPUT": "human",
        }
        env.pop("DISPATCH_SOCKET", None)
        os.mkdir(f"{home}/work")
        try:
            for title, words in STEPS:
                _show(title, words, env)
        finally:
            _dispatch(("down", "--grace", "0"), env, quiet=True)
            shutil.rmtree(home, ignore_errors=True)
        _say(
            "\nThat was the real Codex with a stand-in for the language model. With your own account:"
        )
        _say('  codex login\n  dispatch new builder "Your first task"')
        return 0

    return demo


def _show(title: str, words: tuple[str, ...], env: Mapping[str, str]) -> None:
    if title:
        _say(f"\n# {title}")
    shown = " ".join(f'"{word}"' if " " in word else word for word in words)
    line = f"$ dispatch {shown}"
    _say(f"\x1b[1m{line}\x1b[0m" if is_terminal(sys.stdout) and "NO_COLOR" not in env else line)
    status = _dispatch(words, env)
    if status != 0:
        raise DemoFailed(
            f"dispatch {shown} ended with status {status}",
            hint="dispatch daemon status, in your own home, says whether Codex can be used",
        )


def _dispatch(words: tuple[str, ...], env: Mapping[str, str], *, quiet: bool = False) -> int:
    command = [sys.executable, "-P", "-m", "dispatch_core.boot", *words]
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(
        command,
        env=dict(env),
        cwd=f"{env['DISPATCH_HOME']}/work",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        check=False,
    ).returncode


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
