"""The options of ``dispatch mcp``. Standard library only: the bridge starts once per agent."""

from __future__ import annotations

from dataclasses import dataclass

from dispatch_core.errors import ValidationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT, READONLY, FLAT, WORKER = PROFILES = ("default", "readonly", "flat", "worker")
NAME = "mcp"
OUTPUT_OPTIONS = ("--color", "--debug", "--json")
HINT = "dispatch mcp --help shows the options"
USAGE = """\
Usage: dispatch mcp [--profile PROFILE] [--no-start]

Serve every op as MCP tools on stdin and stdout, to one client.

  --profile PROFILE  default    tools grouped by what they act on, and by read, write and destroy
                     readonly   the reading tools only
                     flat       one tool for each op, with output schemas
                     worker     only ops on the thread that this runs in (CODEX_THREAD_ID)
  --no-start         fail when the daemon does not run, instead of starting it
  --help             show this text
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for on the command line."""

    profile: str = DEFAULT
    start: bool = True
    help: bool = False


def parse(argv: Sequence[str]) -> Options:
    """Return the options in argv, with or without the surface's name. Raises ValidationFailed.

    The options that every command takes are accepted; those about output mean nothing here.
    """
    profile, start, named = DEFAULT, True, False
    words = iter(argv)
    for word in words:
        option, equals, value = word.partition("=")
        if option in ("--profile", "--color"):
            value = value if equals else next(words, "")
        if word in ("--help", "-h"):
            return Options(help=True)
        if word == "--no-start":
            start = False
        elif option == "--profile":
            check_profile(value)
            profile = value
        elif word == NAME and not named:
            named = True
        elif option not in OUTPUT_OPTIONS and (named or word != "--safe"):
            raise ValidationFailed(f"dispatch mcp does not know {word!r}", hint=HINT)
    return Options(profile=profile, start=start)


def check_profile(profile: str) -> None:
    """Raise ValidationFailed unless the profile exists."""
    if profile not in PROFILES:
        raise ValidationFailed(
            f"there is no MCP profile {profile!r}", hint=f"use one of {', '.join(PROFILES)}"
        )
