"""Which processes of a home run, told from /proc and not by the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DAEMON = "dispatch_core.daemon.main run"


@dataclass(frozen=True, slots=True)
class Process:
    """One that runs. command: its words, with spaces between them."""

    pid: int
    parent: int
    command: str


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return _stat(Path(f"/proc/{pid}"))[0] != "Z"
    except OSError:
        return False


def processes(home: Path) -> list[Process]:
    """Return every process whose dispatch home this is, and the app-servers that they started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes()
            state, parent = _stat(entry)[:2]
        except OSError:
            continue
        if f"DISPATCH_HOME={home}\0".encode() in environment and state != "Z":
            found.append(Process(int(entry.name), int(parent), command))
    return found


def daemons(home: Path) -> list[int]:
    """Return the pids of the daemons of a home; a child of one that is about to become another program is none."""
    found = [process for process in processes(home) if DAEMON in process.command]
    pids = {process.pid for process in found}
    return [process.pid for process in found if process.parent not in pids]


def _stat(entry: Path) -> list[str]:
    """Return the fields behind the name of the program: state, parent, …"""
    return (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
