"""Results on stdout, everything else on stderr."""

from __future__ import annotations

import sys

from dispatch_core import lean_json
from dispatch_plugins.cli.invocation import is_terminal

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TextIO

    from dispatch_core.errors import DispatchError
    from dispatch_plugins.cli.invocation import Invocation

RED, DIM, RESET = "\x1b[31m", "\x1b[2m", "\x1b[0m"
UNSAFE = "do not simply repeat it: it may have happened"


def result(invocation: Invocation, value: Mapping[str, Any], text: str | None = None) -> None:
    """Print a result: its text for people when there is one and a person reads, else one JSON document."""
    if text is None or invocation.json:
        # A lone surrogate from a file name has no UTF-8; escaped it stays valid JSON.
        document = lean_json.pretty(value)
        _write(sys.stdout, document, "utf-8", "backslashreplace")
    elif text:
        _write(sys.stdout, text, sys.stdout.encoding, "replace")


def lines(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as JSON lines, at once."""
    if rows:
        text = "\n".join(lean_json.dumps(row) for row in rows)
        _write(sys.stdout, text, "utf-8", "backslashreplace")


def note(text: str) -> None:
    """Print a remark that is not the result."""
    _write(sys.stderr, f"dispatch: {printable(text)}", sys.stderr.encoding, "replace")


def failure(invocation: Invocation, error: DispatchError) -> int:
    """Print an error in the form that the output has, and return the exit status."""
    shown = error.to_dict()
    if shown["code"] == "unknown_outcome" and not shown["hint"]:
        shown["hint"] = UNSAFE
    if invocation.json:
        document = lean_json.pretty({"error": shown})
        _write(sys.stderr, document, "utf-8", "backslashreplace")
    else:
        red, dim, reset = (RED, DIM, RESET) if invocation.color(sys.stderr) else ("", "", "")
        width = invocation.width()
        lines = [f"{red}{_wrapped('dispatch: ' + str(shown['message']), width)}{reset}"]
        if shown["hint"]:
            lines.append(f"{dim}{_wrapped('hint: ' + str(shown['hint']), width)}{reset}")
        _write(sys.stderr, "\n".join(lines), sys.stderr.encoding, "replace")
    return int(shown["exit_code"])


def printable(text: str) -> str:
    """Return text without control characters, so that no name or message can move the cursor."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def _wrapped(text: str, width: int) -> str:
    """Return text without control characters, broken between words if a person reads it on a terminal."""
    text = printable(text)
    if not is_terminal(sys.stderr):
        return text
    from dispatch_core.contracts.view import broken  # only what fails needs it

    return "\n".join(broken(line, width) for line in text.split("\n"))


def _write(stream: TextIO, text: str, encoding: str, errors: str) -> None:
    data = text.encode(encoding, errors)
    stream.flush()
    stream.buffer.write(data if data.endswith(b"\n") else data + b"\n")
    stream.flush()
