"""Rollout files as Codex writes them, with made-up conversations: every message twice, and the usual noise between."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEEDLE = "xylophonequartz"
COMMON = "parser"
START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
WORDS = 30_000
SENTENCES = 20_000
BASE_INSTRUCTIONS = 20_000  # characters
ROLES = ("user", "agent", "reasoning", "command", "agent")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rollouts below ``home/sessions``. documents: how many texts are in them."""

    home: Path
    files: tuple[Path, ...]
    bytes: int
    documents: int


def write(home: Path, *, files: int, size: int, seed: int = 7) -> Corpus:
    """Write so many rollouts of about so many bytes each; one word is in one of them only, and one is in most texts."""
    source = _Text(random.Random(seed))
    paths, documents = [], 0
    for number in range(files):
        began = START + timedelta(hours=number)
        path = rollout_path(home, number, began)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            documents += _write(file, source, number, began, size, needle=number == files // 3)
        paths.append(path)
    return Corpus(home, tuple(paths), sum(path.stat().st_size for path in paths), documents)


def rollout_path(home: Path, number: int, began: datetime) -> Path:
    """Return where the rollout of a thread is."""
    name = f"rollout-{began:%Y-%m-%dT%H-%M-%S}-{native_id(number)}.jsonl"
    return home / "sessions" / f"{began:%Y}" / f"{began:%m}" / f"{began:%d}" / name


def native_id(number: int) -> str:
    """Return the id of a thread."""
    milliseconds = int((START + timedelta(hours=number)).timestamp() * 1000)
    text = f"{milliseconds:012x}7{number:03x}8000{number:012x}"[:32]
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def one_more_turn(path: Path, text: str) -> None:
    """Append a message."""
    with path.open("ab") as file:
        at = datetime.now(UTC)
        for line in _item(text, "agent", "0" * 36, "t", at, 10_000):
            file.write(line)


def _write(
    file: Any, source: _Text, number: int, began: datetime, size: int, *, needle: bool
) -> int:
    thread = native_id(number)
    file.write(_meta(thread, began, source))
    documents = 0
    written = 0
    ordinals = itertools.count(1)
    hidden = needle
    while written < size:
        turn = f"{thread[:24]}{documents:012x}"
        for role in ROLES:
            at = began + timedelta(seconds=documents)
            text = source.text(40 if role == "command" else 12)
            if hidden and written > size // 2:
                text, hidden = f"{text} {NEEDLE}", False
            for line in _item(text, role, thread, turn, at, next(ordinals)):
                file.write(line)
                written += len(line)
            documents += 1
    return documents


def _meta(thread: str, began: datetime, source: _Text) -> bytes:
    payload = {
        "id": thread,
        "session_id": thread,
        "timestamp": _stamp(began),
        "cwd": f"/srv/project-{int(thread[-4:], 16) % 40}",
        "originator": "bench",
        "source": "vscode",
        "model_provider": "offline",
        "base_instructions": {"text": source.text(400)[:BASE_INSTRUCTIONS]},
        "history_mode": "paginated",
    }
    return _line(began, 0, "session_meta", payload)


def _item(
    text: str, role: str, thread: str, turn: str, at: datetime, ordinal: int
) -> Iterator[bytes]:
    """Iterate over the lines of one item: the raw response, the item, and sometimes how many tokens it took."""
    item: dict[str, Any]
    raw: dict[str, Any]
    if role == "command":
        command, _, output = text.partition(" ")
        item = {
            "type": "CommandExecution",
            "command": ["/bin/bash", "-lc", command],
            "aggregated_output": output,
            "exit_code": 0,
        }
        raw = {"type": "function_call_output", "call_id": "call", "output": output}
    elif role == "reasoning":
        item = {"type": "Reasoning", "summary_text": [text], "raw_content": []}
        summary = [{"type": "summary_text", "text": text}]
        raw = {"type": "reasoning", "summary": summary, "encrypted_content": "gAAAA" * 300}
    else:
        kind = "UserMessage" if role == "user" else "AgentMessage"
        item = {"type": kind, "content": [{"type": "text", "text": text}]}
        raw = {"type": "message", "role": role, "content": [{"type": "output_text", "text": text}]}
    event = {"type": "item_completed", "thread_id": thread, "turn_id": turn, "item": item}
    yield _line(at, ordinal, "event_msg", event)
    yield _line(at, ordinal, "response_item", raw)
    usage = {"total_token_usage": {"input_tokens": ordinal, "output_tokens": 9}, "window": 258400}
    yield _line(at, ordinal, "event_msg", {"type": "token_count", "info": usage})


def _line(at: datetime, ordinal: int, kind: str, payload: dict[str, Any]) -> bytes:
    record = {"timestamp": _stamp(at), "ordinal": ordinal, "type": kind, "payload": payload}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000Z")


class _Text:
    """Sentences of made-up words, few of them often and most of them seldom, as in every language."""

    def __init__(self, source: random.Random) -> None:
        self._random = source
        letters = "aeioubcdfglmnprst"
        words = ["".join(source.choices(letters, k=source.randint(3, 9))) for _ in range(WORDS)]
        words[3] = COMMON
        weights = [1 / (rank + 3) for rank in range(WORDS)]
        lengths = [source.randint(5, 14) for _ in range(SENTENCES)]
        drawn = iter(source.choices(words, weights, k=sum(lengths)))
        self._sentences = [" ".join(itertools.islice(drawn, n)) for n in lengths]

    def text(self, sentences: int) -> str:
        """Return about so many sentences, with some words in them that are nowhere else."""
        count = self._random.randint(1, sentences * 2)
        unique = f" src/m{self._random.getrandbits(20):05x}.py {self._random.getrandbits(40):x} "
        return ". ".join(self._random.choices(self._sentences, k=count)) + unique
