"""The checker is only worth what it finds: every kind of broken promise, from each of its three sources."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from .checker import Evidence, Row, Said, check
from .witness import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [
    Row("d1", "lane", "m-000001", "done", 1, "t1"),
    Row("d2", "lane", "m-000002", "interrupted", 2, "t2", attempt=2),
    Row("d3", "lane", "m-000003", "unknown", 3),
    Row("d4", "lane", "m-000004", "cancelled", 4),
    Row("d5", "other", "m-000005", "done", 1, "t5"),
]
TRUTH = Evidence(
    accepted={row.marker: row.id for row in ROWS},
    rows=ROWS,
    said=[Said("d1", "t1", "c1"), Said("d2", "t2", "c1"), Said("d5", "t5", "c2")],
    completed=frozenset({"t1", "t5"}),
    asked=[Asked("m-000001", "c1", "t1"), Asked("m-000001", "c1", "t1"), Asked(None, "c1", "t1")],
)

LIES: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "accepted, and not in the registry": (
        "lost",
        lambda e: replace(e, accepted={**e.accepted, "m-000009": "d9"}),
    ),
    "accepted under the id of another message": (
        "lost",
        lambda e: replace(e, accepted={**e.accepted, "m-000001": "d4"}),
    ),
    "left in the queue": ("lost", lambda e: changed(e, "d4", state="queued")),
    "left on its way": ("lost", lambda e: changed(e, "d1", state="submitted")),
    "done, and Codex has no turn": (
        "lost",
        lambda e: replace(e, said=[said for said in e.said if said.client_id != "d1"]),
    ),
    "two turns in history": (
        "duplicated",
        lambda e: replace(e, said=[*e.said, Said("d1", "t9", "c1")]),
    ),
    "two turns at the model": (
        "duplicated",
        lambda e: replace(e, asked=[*e.asked, Asked("m-000001", "c1", "t9")]),
    ),
    "one turn in history and another at the model": (
        "duplicated",
        lambda e: replace(e, asked=[*e.asked, Asked("m-000002", "c1", "t9")]),
    ),
    "two rows for one message": (
        "duplicated",
        lambda e: replace(e, rows=[*e.rows, replace(e.rows[3], id="d9", position=9)]),
    ),
    "two messages in one turn": (
        "merged",
        lambda e: replace(e, said=[*e.said, Said("d3", "t1", "c1")]),
    ),
    "a turn of a message that nobody has": (
        "strange",
        lambda e: replace(e, said=[*e.said, Said("d9", "t9", "c1")]),
    ),
    "the model asked what nobody has": (
        "strange",
        lambda e: replace(e, asked=[*e.asked, Asked("m-000009", "c1", "t9")]),
    ),
    "a row that no client was told of": (
        "strange",
        lambda e: replace(e, rows=[*e.rows, Row("d9", "lane", "m-000009", "cancelled", 9)]),
    ),
    "cancelled, and in history": (
        "denied",
        lambda e: replace(e, said=[*e.said, Said("d4", "t4", "c1")]),
    ),
    "cancelled, and asked": (
        "denied",
        lambda e: replace(e, asked=[*e.asked, Asked("m-000004", "c1", "t4")]),
    ),
    "the turn of another": ("mistaken", lambda e: changed(e, "d1", turn_id="t5")),
    "done, and never completed": ("mistaken", lambda e: replace(e, completed=frozenset({"t5"}))),
    "interrupted, and completed": (
        "mistaken",
        lambda e: replace(e, completed=e.completed | {"t2"}),
    ),
    "a later message first": ("out_of_order", lambda e: replace(e, said=e.said[::-1])),
}


def changed(evidence: Evidence, delivery: str, **fields: object) -> Evidence:
    rows = [
        replace(row, **fields)  # type: ignore[arg-type]
        if row.id == delivery
        else row
        for row in evidence.rows
    ]
    return replace(evidence, rows=rows)


def test_the_truth_passes_and_is_counted() -> None:
    report = check(TRUTH)

    assert report.broken == {}
    assert report.figures() == {
        "messages": 5,
        "done": 2,
        "lost": 0,
        "duplicated": 0,
        "out_of_order": 0,
        "unknown": 1,
        "interrupted": 1,
        "requeued": 1,
    }


@pytest.mark.parametrize("lie", LIES)
def test_every_lie_is_found(lie: str) -> None:
    kind, tell = LIES[lie]

    report = check(tell(TRUTH))

    assert kind in report.broken
