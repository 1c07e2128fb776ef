"""The how-to pages and the tutorial, followed command by command on a terminal: what they show is what comes."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest

from dispatch_core.contracts.view import PAINT
from dispatch_core.testing.daemon import temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "docs/tutorial/first-thread.md",
    "docs/how-to/answer-codex.md",
    "docs/how-to/create-and-steer.md",
    "docs/how-to/find-an-old-thread.md",
    "docs/how-to/presets.md",
    "docs/how-to/queue-messages.md",
    "docs/how-to/recover-from-trouble.md",
    "docs/how-to/scripts-and-jq.md",
    "docs/how-to/when-a-delivery-is-unknown.md",
)
OTHERS = {
    "upgrade.md",  # needs two builds; test_upgrade.py makes them and follows it
    "write-a-plugin.md",  # installs a package; the example that it makes has tests of its own
}
LINES, COLUMNS = 24, 80
DEADLINE = 60.0  # seconds for a command
END = "\x1f"
ENDED = re.compile(f"{END}(\\d+){END}")
BLOCK = re.compile(r"^```(console|toml file=(\S+))\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The trigger fires when it does; a reader is told to repeat the command.
FIRST = {
    "dispatch wait @reviewer": "until dispatch trigger list --json | grep -q '\"last_firing\": {'; do :; done"
}
ID, REF = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", r"\b0[1-9A-HJ-NP-Za-km-z]{5}\b"
NAME = re.compile(f"{ID}|{REF}")
CHANGING = (
    (re.compile(rf"{ID}(:\d+)?"), "ID"),
    (re.compile(REF), "REF"),
    (re.compile(r"\b[0-9a-f]{8,64}\b"), "DIGEST"),
    (re.compile(r"\bWz[\w-]{6,}"), "CURSOR"),
    (re.compile(r"(?<![\w~])…?(/[\w.@+-]+){2,}"), "PATH"),
    (re.compile(r"\d\d\d\d-\d\d-\d\d\S*"), "DATE"),
    (re.compile(r"\b\d+[smhd]\b"), "AGE"),
    (re.compile(r"\d+([.,:]\d+)*"), "N"),
    (re.compile(r"─+"), "─"),
    (re.compile(r"\s+"), " "),
)


class Step(NamedTuple):
    """A command of a page, or a file that it says to write, and what the page shows of the answer."""

    command: str
    answer: list[str]


def steps(page: str) -> Iterator[Step]:
    """Yield what a page has its reader do, in order."""
    for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        kind, path, body = found.groups()
        if path is not None:
            # The shell does the expansion that the reader's editor would.
            yield Step(f"mkdir -p $(dirname {path}); cat > {path} <<'EOF'\n{body}EOF", [])
            continue
        command: list[str] = []
        answer: list[str] = []
        for line in body.splitlines():
            if line.startswith("$ "):
                if command:
                    yield Step("\n".join(command), answer)
                command, answer = [line[2:]], []
            elif line.startswith("> ") and not answer:
                command.append(line[2:])
            else:
                answer.append(line)
        assert command, f"{kind} block without a command in {page}"
        yield Step("\n".join(command), answer)


def shape(line: str) -> str:
    """Return a line without what differs from one run to the next."""
    for pattern, name in CHANGING:
        line = pattern.sub(name, line)
    return line.strip()


def agrees(shown: list[str], came: list[str]) -> bool:
    """Return whether a page's answer is what came. A line of three dots stands for any lines, dots in a line for any text."""
    if not shown:
        return True
    parts = [".*" if line.strip() in ("…", "...") else _line(line) for line in shown]
    text = "\n".join(shape(line) for line in came)
    return re.fullmatch("\n".join(parts).replace("\n.*", "(\n.*)?"), text, re.DOTALL) is not None


def _line(line: str) -> str:
    return "[^\n]*".join(re.escape(part) for part in shape(line).split("…"))


def follow(page: str, dispatch: Dispatch) -> list[tuple[Step, int, list[str]]]:
    """Do what a page says in one shell on a terminal; return for each step its exit status and its lines.

    The refs and ids that a page shows are not those that come; in later commands the ones that came stand in their place.
    """
    program = dispatch.home / "bin" / "dispatch"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m dispatch_core.boot "$@"\n')
    program.chmod(0o700)
    done = []
    names: dict[str, str] = {}
    with Terminal(dispatch) as terminal:
        for step in steps(page):
            command = step.command
            for shown, came in names.items():
                command = command.replace(shown, came)
            if step.command in FIRST:
                terminal.run(FIRST[step.command])
            code, lines = terminal.run(command)
            done.append((step, code, lines))
            for shown_line, came_line in zip(step.answer, lines, strict=False):
                names |= zip(NAME.findall(shown_line), NAME.findall(came_line), strict=False)
    return done


class Terminal:
    """A shell on a terminal of its own, in a home where nothing is set that a reader has not set."""

    def __init__(self, dispatch: Dispatch) -> None:
        ours_alone = ("DISPATCH_HOME", "DISPATCH_OFFLINE")
        kept = {n: v for n, v in dispatch.environment.items() if n not in ours_alone}
        path = f"{dispatch.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        env = {**kept, "PATH": path, "TERM": "xterm", "NO_COLOR": "1", "LANG": "C.UTF-8"}
        self._screen, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        script, self._script = os.pipe()
        self._shell = subprocess.Popen(
            ["bash", f"/dev/fd/{script}"], env=env, cwd=dispatch.home / "user",
            stdin=theirs, stdout=theirs, stderr=theirs, pass_fds=[script],
        )  # fmt: skip
        os.close(theirs)
        os.close(script)

        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._script)
        self._shell.kill()
        self._shell.wait()
        os.close(self._screen)

    def run(self, command: str) -> tuple[int, list[str]]:
        """Run a command and return its exit status and the lines it wrote."""
        # What comes between two commands is not to be seen in $?, which a page may show.
        words = f"(exit ${{status:-0}})\n{command}\nstatus=$?; printf '{END}%s{END}' $status\n"
        os.write(self._script, words.encode())
        text = ""
        deadline = time.monotonic() + DEADLINE
        while not (found := ENDED.search(text)):
            ready, _, _ = select.select([self._screen], [], [], deadline - time.monotonic())
            if not ready:
                raise AssertionError(f"{command}: not done within {DEADLINE:g} s: {text}")
            text += self._decoder.decode(os.read(self._screen, 65536))
        shown = PAINT.sub("", text[: found.start()])
        return int(found.group(1)), shown.replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize(
    ("shown", "came", "same"),
    [
        (["✓ done  @a (07GXN1)"], ["✓ done  @a (02njB1)"], True),
        (["✓ done  @a (07GXN1)"], ["✗ failed  @a (02njB1)"], False),
        (["age 3s, pid 12"], ["age 5m, pid 99999"], True),
        (["one", "two"], ["one"], False),
        (["one"], ["one", "two"], False),
        (["one", "…", "two"], ["one", "two"], True),
        (["one", "…", "two"], ["one", "a", "b", "two"], True),
        (["…", "two", "…"], ["one", "three"], False),
        (["codex  …"], ["codex  0.163.0 (from wheel)"], True),
        (["codex  …"], ["codex  0.163.0", "another line"], False),
    ],
)
def test_a_page_that_shows_something_else_is_noticed(
    shown: list[str], came: list[str], same: bool
) -> None:
    assert agrees(shown, came) is same


def test_every_page_is_followed() -> None:
    pages = {path.name for path in (ROOT / "docs" / "how-to").glob("*.md")}

    assert pages == {Path(page).name for page in PAGES if "how-to" in page} | OTHERS


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_comes(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    if "jq" in text and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    with temporary_home(HISTFILE="/dev/null") as dispatch:
        try:
            followed = follow(page, dispatch)
        finally:
            # The homes that a page made.
            for home in (dispatch.home / "user").glob("*dispatch*"):
                env = {**dispatch.environment, "DISPATCH_HOME": str(home)}
                subprocess.run(dispatch.argv("down", "--grace", "0"), env=env, check=False)

    wrong = [
        f"$ {step.command}\n{_side_by_side(step.answer, came)}"
        for step, code, came in followed
        if not agrees(step.answer, came) or (code != 0 and not step.answer)
    ]
    assert wrong == [], "\n\n".join(wrong)


def _side_by_side(shown: list[str], came: list[str]) -> str:
    rows = zip_longest(map(shape, shown), map(shape, came), fillvalue="")
    return "\n".join(f"{'  ' if a == b else '≠ '}{a:60} | {b}" for a, b in rows)
