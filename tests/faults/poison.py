"""The real Codex behind pipes, made to do what it does rarely: die of one message, hesitate once a turn is to start."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PROGRAM = """\
#!{python}
import ctypes, os, signal, subprocess, sys, threading, time
real, poison, pause = {real!r}, {poison!r}.encode(), {pause!r}
if "app-server" not in sys.argv:
    os.execv(real, [real, *sys.argv[1:]])
die_with_parent = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
child = subprocess.Popen([real, *sys.argv[1:]], **pipes)
def answers():
    for line in child.stdout:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        if pause and b'"result":{{"turn":' in line:
            time.sleep(pause)
    sys.stdout.buffer.flush()
reader = threading.Thread(target=answers)
reader.start()
for line in sys.stdin.buffer:
    if poison and b'"turn/start"' in line and poison in line:
        child.kill()
        child.wait()
        os.kill(os.getpid(), signal.SIGKILL)
    child.stdin.write(line)
    child.stdin.flush()
child.stdin.close()
reader.join()
sys.exit(child.wait())
"""


def poisoned(path: Path, real: Path, poison: str) -> Path:
    """Write a program that is the real Codex until it is to start a turn with the poison, and return its path."""
    return _written(path, real, poison=poison, pause=0.0)


def hesitant(path: Path, real: Path, pause: float) -> Path:
    """Write a program that is the real Codex, but silent for pause seconds after it has answered that a turn starts."""
    return _written(path, real, poison="", pause=pause)


def _written(path: Path, real: Path, *, poison: str, pause: float) -> Path:
    text = _PROGRAM.format(python=sys.executable, real=str(real), poison=poison, pause=pause)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o700)
    return path
