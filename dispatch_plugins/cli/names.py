"""What things are called on the command line."""

from __future__ import annotations

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PROGRAM = "dispatch"
SURFACE = "cli"
FIRST_PARTY = "codex-dispatch"

# Commands that are not ops, for they must work without a daemon: name → (module with ``command(app)``, summary, section).
NATIVE = {
    "up": ("dispatch_plugins.cli.commands.up", "Start the daemon", "Daemon"),
    "down": (
        "dispatch_plugins.cli.commands.down",
        "Stop the daemon once its turns are done",
        "Daemon",
    ),
    "upgrade": (
        "dispatch_plugins.cli.commands.upgrade",
        "Let the installed build take over from the daemon",
        "Daemon",
    ),
    "demo": (
        "dispatch_plugins.cli.commands.demo",
        "Show what dispatch does, offline, in a few seconds",
        "Daemon",
    ),
    "doctor": (
        "dispatch_plugins.cli.commands.doctor",
        "Check that everything works, and say what to do",
        "Daemon",
    ),
    "conformance": (
        "dispatch_plugins.cli.commands.conformance",
        "Find out what the installed Codex may be trusted with",
        "Daemon",
    ),
    "registry": (
        "dispatch_plugins.cli.commands.registry",
        "Check, copy or migrate the stored data",
        "Daemon",
    ),
    "config": (
        "dispatch_plugins.cli.commands.config",
        "Show the configuration, and trust a project's",
        "Daemon",
    ),
    "schema": (
        "dispatch_plugins.cli.commands.schema",
        "Print the JSON schemas of a command",
        "Daemon",
    ),
    "completion": (
        "dispatch_plugins.cli.commands.completion",
        "Print a completion script for a shell",
        "Daemon",
    ),
    "help": (
        "dispatch_plugins.cli.commands.help",
        "Explain a command, or the exit codes",
        "Daemon",
    ),
    "plugins": (
        "dispatch_plugins.cli.commands.plugins",
        "Show what is plugged in, and what failed",
        "Plugins",
    ),
}


def words_of(name: str) -> tuple[str, ...]:
    """Return the words that call an op: "trigger.dry_run" is called as trigger dry-run."""
    return tuple(name.replace("_", "-").split("."))


def command_of(name: str) -> str:
    """Return the command line that calls an op, without arguments."""
    return " ".join((PROGRAM, *words_of(name)))


def hidden(op: Mapping[str, Any]) -> bool:
    """Return whether an op is kept from the command line."""
    return SURFACE in op.get("hidden_from", ())


def is_taken(word: str, manifest: Mapping[str, Any]) -> bool:
    """Return whether a first word names a native command or another surface, which come before ops."""
    return word in NATIVE or any(
        surface["name"] == word and surface["process"] for surface in manifest["surfaces"]
    )
