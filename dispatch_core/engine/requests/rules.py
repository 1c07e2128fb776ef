"""The user's standing answers: which command may run without asking. When in doubt, a person is asked.

Codex sends a command as a shell runs it: ``/bin/bash -lc 'git status'``. A rule is compared with the words of that one command if
there is nothing in it that a shell would do more with than split it: no operator, expansion, redirection or assignment.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.contracts.records import Source
from dispatch_core.contracts.requests import RequestKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from dispatch_core.appserver.requests import Asked
    from dispatch_core.contracts.records import ThreadRecord
    from dispatch_core.settings import AllowRule, PolicySection

SHELLS = frozenset(
    f"{directory}/{name}"
    for directory in ("/bin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin")
    for name in ("bash", "dash", "sh", "zsh")
)
RUN = frozenset({"-c", "-lc"})
COMMAND = "item/commandExecution/requestApproval"
NO_SANDBOX = "danger-full-access"
LOCAL = frozenset({None, "local"})

# Words that every shell takes for what they are: bare, or quoted with nothing inside that is expanded. zsh looks a word up that
# begins with "=".
_PART = r"""(?:[A-Za-z0-9_@+:,./=-]|'[^'\x00-\x1f\x7f]*'|"[^"$`\\!\x00-\x1f\x7f]*")"""
_SCRIPT = re.compile(rf" *(?!=){_PART}+(?: +(?!=){_PART}+)* *")


def denies(policy: PolicySection, thread: ThreadRecord) -> bool:
    """Return whether what Codex asks in a thread is declined without asking a person."""
    own = thread.source is Source.OWN
    return (policy.requests if own else policy.attached_requests) == "deny"


def allowing(
    policy: PolicySection, asked: Asked, thread: ThreadRecord, now: datetime
) -> int | None:
    """Return the number, from 1, of the first rule that lets a command run, or None.

    Nothing but a plain command is ever let through. Codex lets what was accepted leave its sandbox, and does not say beforehand
    whether it is going to: so a rule counts only in a thread that has no sandbox to leave.
    """
    if asked.kind is not RequestKind.COMMAND or asked.method != COMMAND:
        return None
    if thread.settings.sandbox != NO_SANDBOX:
        return None
    body = asked.body
    more = (body["additional_permissions"], body["network"], body["to_terminal"])
    if any(more) or body["environment"] not in LOCAL or len(body["actions"]) > 1:
        return None
    argv, cwd = simple_command(body["command"]), body["cwd"]
    if argv is None or not isinstance(cwd, str):
        return None
    for number, rule in enumerate(policy.allow, 1):
        if _matches(rule, argv, cwd, thread, now):
            return number
    return None


def simple_command(command: object) -> list[str] | None:
    """Return the words of a command if it is one simple command, and None when that is not certain."""
    if not isinstance(command, str):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    if len(words) == len(["shell", "-c", "script"]) and words[0] in SHELLS and words[1] in RUN:
        return _words(words[2])
    # Not through a shell: the words are what is run, whatever is in them.
    return None if not words or words[0] in SHELLS or shlex.join(words) != command else words


def _words(script: str) -> list[str] | None:
    """Return the words of a script, each of them plain; None for anything that a shell might do more with."""
    if not script.isprintable() or not _SCRIPT.fullmatch(script):
        return None
    words = shlex.split(script)
    # An assignment would change how the command runs.
    return None if "=" in words[0] else words


def _matches(
    rule: AllowRule, argv: Sequence[str], cwd: str, thread: ThreadRecord, now: datetime
) -> bool:
    if now >= rule.expires or list(argv[: len(rule.argv)]) != list(rule.argv):
        return False
    if rule.thread is not None and rule.thread not in (thread.ref, thread.native_id):
        return False
    # Links are followed: what is inside by name alone is not inside.
    place, root = (Path(os.path.realpath(path)) for path in (cwd, Path(rule.cwd).expanduser()))
    return Path(cwd).is_absolute() and place.is_relative_to(root)


def describe(rule: AllowRule, number: int) -> str:
    """Return which rule it was, for the record."""
    return f"rule {number} of [[policy.allow]]: {shlex.join(rule.argv)}"
