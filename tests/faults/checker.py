"""The checker: the registry, Codex's own files and the witness, held against each other and against what clients were told.

Nothing of the product is asked. Each source can convict: see ``test_checker.py`` for the lies it finds.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .witness import MARKER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from .harness import World
    from .witness import Asked

RAN = {"done", "failed", "interrupted"}
NEVER_RAN = {"queued", "rejected", "dead", "cancelled", "expired"}
ENDED = RAN | NEVER_RAN - {"queued"}


@dataclass(frozen=True, slots=True)
class Row:
    """A delivery as the registry has it. marker: of its message."""

    id: str
    thread: str
    marker: str
    state: str
    position: int
    turn_id: str | None = None
    attempt: int = 1
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """A user's message in Codex's history. client_id: the delivery, None for one that is not ours."""

    client_id: str | None
    turn_id: str
    thread_id: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """All three sources. accepted: what clients were told, the delivery's id by marker. completed: turns that Codex completed."""

    accepted: Mapping[str, str]
    rows: Sequence[Row]
    said: Sequence[Said]
    completed: frozenset[str]
    asked: Sequence[Asked]


@dataclass(slots=True)
class Report:
    """What was found; each list names deliveries or markers. Only unknown, interrupted and requeued may be other than empty.

    lost: accepted, and not in the registry, not ended, or ended with a turn that Codex does not have. duplicated: in more than
    one turn, or asked of the model in more than one. merged: in a turn with another. strange: ran and was never accepted.
    denied: the registry says it never ran, and it did. mistaken: another turn or outcome than Codex has. out_of_order: ran
    before an earlier message of its thread.
    """

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    mistaken: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    requeued: list[str] = field(default_factory=list)
    accepted: int = 0
    done: int = 0

    @property
    def broken(self) -> dict[str, list[str]]:
        """The promises that do not hold, empty when all do."""
        names = ("lost", "duplicated", "merged", "strange", "denied", "mistaken", "out_of_order")
        return {name: found for name in names if (found := getattr(self, name))}

    def figures(self) -> dict[str, int]:
        """Return the counts, for the published table."""
        names = ("lost", "duplicated", "out_of_order", "unknown", "interrupted", "requeued")
        counts = {name: len(getattr(self, name)) for name in names}
        return {"messages": self.accepted, "done": self.done, **counts}


def gather(world: World, accepted: Mapping[str, str]) -> Evidence:
    """Read the three sources."""
    said, completed = read_history(world.codex_home)
    return Evidence(
        accepted=accepted,
        rows=read_registry(world.registry),
        said=said,
        completed=completed,
        asked=world.witness.asked(),
    )


def check(evidence: Evidence, *, damaged: bool = False) -> Report:
    """Hold the sources against each other. damaged: history was destroyed, so that what it lacks proves nothing."""
    report = Report(accepted=len(evidence.accepted))
    rows = {row.id: row for row in evidence.rows}
    turns: dict[str, list[str]] = defaultdict(list)
    for said in evidence.said:
        if said.client_id is not None and said.turn_id not in turns[said.client_id]:
            turns[said.client_id].append(said.turn_id)
    asked: dict[str, set[str]] = defaultdict(set)
    for request in evidence.asked:
        if request.marker is not None:
            asked[request.marker].add(request.turn_id)
    _accepted(report, evidence.accepted, rows)
    _strange(report, evidence, rows)
    for row in evidence.rows:
        _one(report, row, turns.get(row.id, []), asked.get(row.marker, set()))
        if not damaged:
            _outcome(report, row, turns.get(row.id, []), evidence.completed)
    report.merged += _merged(evidence.said)
    report.out_of_order += _out_of_order(evidence)
    return report


def _accepted(report: Report, accepted: Mapping[str, str], rows: Mapping[str, Row]) -> None:
    """Accepted is a subset of ended or unknown, and the receipt names the row of that message."""
    for marker, delivery in accepted.items():
        row = rows.get(delivery)
        if row is None or row.marker != marker or row.state not in ENDED | {"unknown"}:
            report.lost.append(f"{marker} {delivery} {row.state if row else 'no row'}")


def _strange(report: Report, evidence: Evidence, rows: Mapping[str, Row]) -> None:
    """Nothing ran that was never accepted. A row without a receipt is a client that never heard, which is none."""
    markers = {row.marker for row in evidence.rows}
    report.strange += [s.turn_id for s in evidence.said if s.client_id and s.client_id not in rows]
    report.strange += [a.marker for a in evidence.asked if a.marker and a.marker not in markers]
    told = set(evidence.accepted.values())
    report.strange += [row.id for row in evidence.rows if row.id not in told]
    counts = Counter(row.marker for row in evidence.rows)
    report.duplicated += [marker for marker, count in counts.items() if count > 1]


def _one(report: Report, row: Row, turns: list[str], asked: set[str]) -> None:
    """At most one turn, in history and at the witness; and none for what is said never to have run."""
    if len({*turns, *asked}) > 1:
        report.duplicated.append(f"{row.marker} {row.id} turns {turns} asked {sorted(asked)}")
    if row.state in NEVER_RAN and (turns or asked):
        report.denied.append(
            f"{row.marker} {row.id} {row.state} turns {turns} asked {sorted(asked)}"
        )
    if row.state == "unknown":
        report.unknown.append(f"{row.marker} {row.reason}")
    if row.state == "interrupted":
        report.interrupted.append(row.marker)
    if row.state == "done":
        report.done += 1
    if row.attempt > 1:
        report.requeued.append(row.marker)


def _outcome(report: Report, row: Row, turns: list[str], completed: frozenset[str]) -> None:
    """What ended with a turn has that turn, and ended as that did."""
    if row.state not in RAN:
        return
    if not turns:
        report.lost.append(f"{row.marker} {row.id} is {row.state}, and Codex has no turn of it")
    elif row.turn_id not in turns:
        report.mistaken.append(f"{row.marker} {row.id} turn {row.turn_id}, Codex has {turns}")
    elif row.state == "done" and row.turn_id not in completed:
        report.mistaken.append(f"{row.marker} {row.id} is done, and Codex did not complete it")
    elif row.state == "interrupted" and row.turn_id in completed:
        report.mistaken.append(f"{row.marker} {row.id} is interrupted, and Codex completed it")


def _merged(said: Iterable[Said]) -> list[str]:
    together: dict[str, set[str]] = defaultdict(set)
    for message in said:
        if message.client_id is not None:
            together[message.turn_id].add(message.client_id)
    return [f"{turn} {sorted(ids)}" for turn, ids in together.items() if len(ids) > 1]


def _out_of_order(evidence: Evidence) -> list[str]:
    """Return what ran, by first appearance in history, although a later message of its thread had run before it."""
    rows = {row.id: row for row in evidence.rows}
    reached: dict[str, int] = {}
    seen: set[str] = set()
    late = []
    for said in evidence.said:
        row = rows.get(said.client_id or "")
        if row is None or row.id in seen:
            continue
        seen.add(row.id)
        if row.position < reached.get(row.thread, row.position):
            late.append(f"{row.marker} in {row.thread}")
        reached[row.thread] = max(row.position, reached.get(row.thread, row.position))
    return late


def read_registry(path: Path) -> list[Row]:
    """Return every delivery of a registry, in order of acceptance."""
    columns = "id, thread_id, text, state, position, turn_id, attempt, reason"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)
    try:
        stored = connection.execute(f"SELECT {columns} FROM deliveries ORDER BY id").fetchall()
    finally:
        connection.close()
    return [
        Row(delivery, thread, found[0] if (found := MARKER.search(text or "")) else "", *rest)
        for delivery, thread, text, *rest in stored
    ]


def read_history(codex_home: Path) -> tuple[list[Said], frozenset[str]]:
    """Return the user's messages of all rollouts, oldest rollout first, and the turns that were completed."""
    said: list[Said] = []
    completed: set[str] = set()
    for path in sorted(codex_home.rglob("rollout-*.jsonl"), key=lambda path: path.name):
        for line in path.read_bytes().splitlines():
            payload = _event(line)
            item = payload.get("item")
            if payload.get("type") == "item_completed" and isinstance(item, dict):
                if item.get("type") == "UserMessage":
                    said.append(
                        Said(item.get("client_id"), payload["turn_id"], payload["thread_id"])
                    )
            elif payload.get("type") == "task_complete":
                completed.add(payload["turn_id"])
    return said, frozenset(completed)


def _event(line: bytes) -> dict[str, Any]:
    """Return the payload of an event, empty for any other line, and for one that was cut."""
    if b'"item_completed"' not in line and b'"task_complete"' not in line:
        return {}
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    payload = record.get("payload") if record.get("type") == "event_msg" else None
    return payload if isinstance(payload, dict) else {}
