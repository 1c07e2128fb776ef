"""What Codex writes about a thread: rollout files, a JSON object a line, in both history modes.

A line is ``{"timestamp", "ordinal", "type", "payload"}``. In the paginated mode ``item_completed`` events hold what was said and
done, once; the raw ``response_item`` lines repeat it for the model. In the legacy mode messages are events of their own, and tool
calls exist as ``response_item`` only. Nothing here raises for what a line holds.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from dispatch_core.appserver.rollout_text import event_text, item_text, response_text
from dispatch_core.contracts.history import Document, SourceFacts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE_LIMIT: Final = 16 * 1024 * 1024  # bytes; a longer line is counted, and never read as a whole
PREVIEW_LIMIT: Final = 200
LOOK_BACK: Final = (
    64 * 1024
)  # bytes before a legacy line in which the name of its turn is looked for

PAGINATED: Final = "paginated"
LEGACY: Final = "legacy"

# Most lines are of no interest, and their type can be seen without decoding them.
_HEAD = re.compile(
    rb'\{"timestamp":"([^"]{1,40})",(?:"ordinal":\d+,)?"type":"(\w+)","payload":\{(?:"type":"(\w+)")?'
)
_TURN_ID = re.compile(rb'"turn_id":"([^"]{1,100})"')


class Reader:
    """Reads the lines of a source in order, and gathers what they say about the thread.

    known: what was found out before. old: these lines lie before others that were read already.
    """

    def __init__(self, known: SourceFacts, *, old: bool = False) -> None:
        self._facts = known
        self._old = old
        self._timestamp: bytes | None = None
        # Of these only the last one counts, so only the last one is decoded.
        self._context: bytes | None = None
        self._ended: bytes | None = None
        self._turn_id: str | None = None
        self.lines = 0
        self.malformed = 0

    def read(self, line: bytes, offset: int) -> Document | None:
        """Take in a line, without its newline, and return the document in it, if there is one."""
        self.lines += 1
        head = _HEAD.match(line)
        if head is None or line[-1:] != b"}":
            return self._unusual(line, offset)
        self._timestamp = head[1]
        return self._typed(line, offset, head[2], head[3])

    def skip(self) -> None:
        """Count a line that is too long to be read."""
        self.lines += 1

    def facts(self) -> SourceFacts:
        """Return what is known now."""
        if not self._old:
            self._catch_up()
        self._context = self._ended = None
        return self._facts

    def _typed(
        self, line: bytes, offset: int, kind: bytes, payload_type: bytes | None
    ) -> Document | None:
        if kind == b"event_msg":
            return self._event(line, offset, payload_type)
        if kind == b"response_item":
            if self._facts.history_mode == PAGINATED:
                return None
            return self._decoded(line, offset)
        if kind == b"turn_context":
            self._context = line
        elif kind == b"session_meta":
            self._meta(line)
        return None

    def _event(self, line: bytes, offset: int, payload_type: bytes | None) -> Document | None:
        if payload_type in (
            b"item_completed",
            b"user_message",
            b"agent_message",
            b"agent_reasoning",
        ):
            return self._decoded(line, offset)
        if payload_type in (b"task_complete", b"turn_aborted"):
            self._ended = line
        elif payload_type in (b"task_started", b"turn_started"):
            found = _TURN_ID.search(line)
            self._turn_id = found[1].decode("utf-8", "replace") if found else None
        return None

    def _unusual(self, line: bytes, offset: int) -> Document | None:
        """Read a line that does not look as Codex writes them."""
        record = _decode(line)
        if record is None:
            self.malformed += 1
            return None
        timestamp, kind, payload = record.get("timestamp"), record.get("type"), record["payload"]
        if isinstance(timestamp, str):
            self._timestamp = timestamp.encode("utf-8", "replace")
        payload_type = payload.get("type")
        return self._typed(
            line,
            offset,
            kind.encode("utf-8", "replace") if isinstance(kind, str) else b"",
            payload_type.encode("utf-8", "replace") if isinstance(payload_type, str) else None,
        )

    def _decoded(self, line: bytes, offset: int) -> Document | None:
        record = _decode(line)
        if record is None:
            self.malformed += 1
            return None
        document = _document(record, offset, self._turn_id)
        if document is not None and document.role == "user" and self._facts.preview is None:
            preview = " ".join(document.text[: PREVIEW_LIMIT * 4].split())[:PREVIEW_LIMIT]
            self._facts = replace(self._facts, preview=preview)
        return document

    def _meta(self, line: bytes) -> None:
        """Take in the first line; a fork copies that of its parent as well, which says nothing about this thread."""
        record = _decode(line)
        if record is None:
            self.malformed += 1
            return
        if self._facts.history_mode is not None:
            return
        payload = record["payload"]
        self._facts = replace(
            self._facts,
            native_id=_text(payload.get("id")) or self._facts.native_id,
            cwd=_text(payload.get("cwd")),
            origin=_text(payload.get("thread_source")) or _origin(payload.get("source")),
            history_mode=PAGINATED if payload.get("history_mode") == PAGINATED else LEGACY,
            forked_from=_text(payload.get("forked_from_id")),
            model_provider=_text(payload.get("model_provider")),
            created_at=moment(payload.get("timestamp")) or moment(record.get("timestamp")),
            base=_base(payload.get("history_base")),
        )

    def _catch_up(self) -> None:
        changes: dict[str, Any] = {}
        context = _decode(self._context) if self._context else None
        if context is not None:
            payload = context["payload"]
            found = {name: _text(payload.get(name)) for name in ("cwd", "model", "effort")}
            changes = {name: value for name, value in found.items() if value is not None}
        ended = _decode(self._ended) if self._ended else None
        if ended is not None and (turn_id := _text(ended["payload"].get("turn_id"))):
            changes["latest_turn_id"] = turn_id
        if self._timestamp and (latest := moment(self._timestamp.decode("utf-8", "replace"))):
            changes["latest_event_at"] = latest
        if changes:
            self._facts = replace(self._facts, **changes)


def lines(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Iterate over the complete lines that begin in a range of bytes: where each begins, where the next one does, and its bytes.

    None stands for a line longer than LINE_LIMIT. A last line without a newline is left out: it is being written.
    """
    file.seek(start)
    offset = start
    while offset < end:
        line = file.readline(LINE_LIMIT)
        following = offset + len(line)
        whole = line[-1:] == b"\n"
        while line and line[-1:] != b"\n":
            if len(line) < LINE_LIMIT:
                return
            line = file.readline(LINE_LIMIT)
            following += len(line)
        if not line:
            return
        yield offset, following, line[:-1] if whole else None
        offset = following


def line_start(file: BinaryIO, position: int) -> int:
    """Return where the first line begins that does so at position or later; the end of the file when there is none."""
    if position == 0:
        return 0
    file.seek(position - 1)
    offset = position - 1
    while True:
        part = file.readline(LINE_LIMIT)
        offset += len(part)
        if not part or part[-1:] == b"\n":
            return offset


def read_document(path: Path | str, offset: int) -> Document | None:
    """Return the document of the line at offset; None when there is none any more. Raises OSError."""
    with open(path, "rb") as file:  # noqa: PTH123 -- it is called for every hit
        if offset:
            file.seek(offset - 1)
            if file.read(1) != b"\n":
                return None
        line = file.readline(LINE_LIMIT)
        record = _decode(line) if line[-1:] == b"\n" else None
        document = _document(record, offset, None) if record is not None else None
        if document is None or document.turn_id is not None:
            return document
        return replace(document, turn_id=_turn_before(file, offset))


def moment(text: object) -> datetime | None:
    """Return the instant that a timestamp of Codex names."""
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _turn_before(file: BinaryIO, offset: int) -> str | None:
    """Return the last turn that is named before a legacy line, which does not name its own."""
    start = max(0, offset - LOOK_BACK)
    file.seek(start)
    found = _TURN_ID.findall(file.read(offset - start))
    return found[-1].decode("utf-8", "replace") if found else None


def _document(record: dict[str, Any], offset: int, turn_id: str | None) -> Document | None:
    payload = record["payload"]
    if record.get("type") == "response_item":
        found = response_text(payload)
        own = payload.get("internal_chat_message_metadata_passthrough")
        named = own.get("turn_id") if isinstance(own, dict) else None
    elif payload.get("type") == "item_completed":
        item = payload.get("item")
        found = item_text(item) if isinstance(item, dict) else None
        named = payload.get("turn_id")
    else:
        found = event_text(payload)
        named = payload.get("turn_id")
    if found is None or not found[1]:
        return None
    return Document(
        offset=offset,
        at=moment(record.get("timestamp")),
        turn_id=_text(named) or turn_id,
        role=found[0],
        text=found[1],
    )


def _decode(line: bytes) -> dict[str, Any] | None:
    """Return a line whose payload is an object; None for anything else."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(record, dict) and isinstance(record.get("payload"), dict):
        return record
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _origin(value: object) -> str | None:
    """Return where a thread comes from: a word, or the name of the variant."""
    if isinstance(value, dict):
        return next((key for key in value if isinstance(key, str)), None)
    return _text(value)


def _base(value: object) -> tuple[str, int] | None:
    if not isinstance(value, dict):
        return None
    segment, end = value.get("thread_id"), value.get("end_byte_offset")
    return (segment, end) if isinstance(segment, str) and isinstance(end, int) else None
