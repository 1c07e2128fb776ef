"""What can happen to a file that Codex wrote: each damage takes the trace of the last turn, or the proof."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Damage = Callable[[Path, str], None]


def rollout_of(codex_home: Path, thread_id: str) -> Path:
    """Return the one rollout of a thread."""
    [path] = codex_home.rglob(f"rollout-*{thread_id}.jsonl")
    return path


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def _of_message(lines: list[bytes], client_id: str) -> int:
    """Return where the message of a delivery is."""
    return next(n for n, line in enumerate(lines) if client_id.encode() in line)


def _deleted(path: Path, _: str) -> None:
    path.unlink()


def _emptied(path: Path, _: str) -> None:
    path.write_bytes(b"")


def _zeroed(path: Path, _: str) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _replaced_by_a_directory(path: Path, _: str) -> None:
    path.unlink()
    path.mkdir()


def _replaced_by_a_broken_link(path: Path, _: str) -> None:
    path.unlink()
    path.symlink_to(path.with_suffix(".gone"))


def _cut_in_the_message(path: Path, client_id: str) -> None:
    lines = _lines(path)
    at = _of_message(lines, client_id)
    path.write_bytes(b"".join(lines[:at]) + lines[at][: len(lines[at]) // 3])


def _message_dropped(path: Path, client_id: str) -> None:
    lines = _lines(path)
    at = _of_message(lines, client_id)
    # With the one before it: a file of which exactly the last line is missing is one in which that line was never written.
    del lines[at], lines[at - 2]
    path.write_bytes(b"".join(lines))


def _message_garbled(path: Path, client_id: str) -> None:
    lines = _lines(path)
    at = _of_message(lines, client_id)
    lines[at] = b"\xff\xfe" * (len(lines[at]) // 2) + b"\n"
    path.write_bytes(b"".join(lines))


def _head_garbled(path: Path, _: str) -> None:
    lines = _lines(path)
    lines[0] = lines[0].replace(b'"session_meta"', b'"session_mess"')
    path.write_bytes(b"".join(lines))


def _tail_zeroed(path: Path, client_id: str) -> None:
    lines = _lines(path)
    at = _of_message(lines, client_id)
    path.write_bytes(b"".join(lines[:at]) + bytes(sum(map(len, lines[at:]))))


def _of_another_thread(path: Path, _: str) -> None:
    other = max(p for p in path.parent.glob("rollout-*.jsonl") if p != path)
    path.write_bytes(other.read_bytes())


def _message_twice(path: Path, client_id: str) -> None:
    """The same message in a second turn, as no Codex writes it."""
    lines = _lines(path)
    record: dict[str, Any] = json.loads(lines[_of_message(lines, client_id)])
    turn = record["payload"]["turn_id"]
    other = turn[:-4] + ("0000" if turn[-4:] != "0000" else "1111")
    begun = next(line for line in lines if b'"task_started"' in line and turn.encode() in line)
    copies = [begun, lines[_of_message(lines, client_id)]]
    path.write_bytes(b"".join(lines) + b"".join(copies).replace(turn.encode(), other.encode()))


DAMAGES: dict[str, Damage] = {
    "deleted": _deleted,
    "emptied": _emptied,
    "zeroed": _zeroed,
    "replaced by a directory": _replaced_by_a_directory,
    "replaced by a broken link": _replaced_by_a_broken_link,
    "cut in the message": _cut_in_the_message,
    "message dropped": _message_dropped,
    "message garbled": _message_garbled,
    "head garbled": _head_garbled,
    "tail zeroed": _tail_zeroed,
    "of another thread": _of_another_thread,
    "message in two turns": _message_twice,
}
