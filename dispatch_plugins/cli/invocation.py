"""How this run of the command line is to behave: what the options and the environment say, and what the terminal is."""

from __future__ import annotations

import os
import sys

from dispatch_core.switches import safe_mode

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TextIO

FLAGS = {"--json": "json", "--no-start": "no_start", "--safe": "safe", "--debug": "debug"}
BEFORE_ONLY = "--safe"  # it decides which commands there are
COLORS = ("auto", "always", "never")
OUTPUTS = ("json", "human")
WIDTH, NARROWEST, WIDEST = 80, 20, 1000


class Invocation:
    """The global options of one command, with the environment behind them.

    env: the environment. manifest: what is installed. options: global options by name; the ones left out are off.
    """

    __slots__ = ("env", "manifest", "options")

    def __init__(self, manifest: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self.manifest = manifest
        self.env = env
        self.options: dict[str, Any] = {}

    @property
    def json(self) -> bool:
        """Whether output is one JSON document: asked for, or nobody is reading on a terminal."""
        if self.options.get("json"):
            return True
        output = self.env.get("DISPATCH_OUTPUT")
        if output in OUTPUTS:
            return output == "json"
        return not is_terminal(sys.stdout)

    @property
    def no_start(self) -> bool:
        return bool(self.options.get("no_start"))

    @property
    def debug(self) -> bool:
        return bool(self.options.get("debug"))

    @property
    def safe(self) -> bool:
        return bool(self.options.get("safe")) or safe_mode(self.env)

    def color(self, stream: TextIO) -> bool:
        """Return whether colours may be written to a stream: --color, then NO_COLOR, FORCE_COLOR, and what the stream is."""
        asked = self.options.get("color") or "auto"
        if asked != "auto":
            return bool(asked == "always")
        if self.env.get("NO_COLOR"):
            return False
        if self.env.get("FORCE_COLOR", "") not in ("", "0"):
            return True
        return is_terminal(stream) and self.env.get("TERM") != "dumb"

    def width(self) -> int:
        """Return the columns of the terminal, within what the daemon lays out for, or 80."""
        columns = self.env.get("COLUMNS", "")
        if columns.isdecimal() and int(columns) > 0:
            width = int(columns)
        else:
            try:
                width = os.get_terminal_size(sys.stdout.fileno()).columns or WIDTH
            except (OSError, ValueError):
                width = WIDTH
        return max(NARROWEST, min(width, WIDEST))

    def guess(self, argv: list[str]) -> None:
        """Take the global options from an unparsed command line, to report what is wrong with it in the right form."""
        for index, word in enumerate(argv):
            if word == "--":
                break
            if word in FLAGS:
                self.options[FLAGS[word]] = True
            elif word.startswith("--color"):
                value = word.partition("=")[2] or "".join(argv[index + 1 : index + 2])
                self.options["color"] = value if value in COLORS else None


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a person is at the other end."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
