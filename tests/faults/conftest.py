"""Faults, on real processes. Each test names the rows of the fault table it proves, and the figures it measured.

``scripts/test`` runs the quick tier, ``scripts/faults --tier full`` the published figures. A test asks
``tier.rounds(QUICK, FULL)`` how often to try, takes its randomness from ``tier.random`` and hands what it counted to ``figures``.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import Dispatch, temporary_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIER = "DISPATCH_FAULTS_TIER"
SEED = "DISPATCH_FAULTS_SEED"
REPORT = "DISPATCH_FAULTS_REPORT"


@dataclass(frozen=True, slots=True)
class Tier:
    """How much is tried. full: for the published figures. seed: of everything that is random in a test."""

    full: bool
    seed: int
    random: random.Random

    def rounds(self, quick: int, full: int) -> int:
        """Return how often to try."""
        return full if self.full else quick


@pytest.fixture
def tier(request: pytest.FixtureRequest) -> Tier:
    seed = int(os.environ.get(SEED, "1"))
    return Tier(
        full=os.environ.get(TIER) == "full",
        seed=seed,
        random=random.Random(f"{seed}:{request.node.nodeid}"),
    )


@pytest.fixture
def figures(
    request: pytest.FixtureRequest, tier: Tier, record_property: Callable[[str, object], None]
) -> Callable[..., None]:
    """Return a function that keeps what was counted: ``figures(rounds=500, lost=0)``, also in the file DISPATCH_FAULTS_REPORT."""
    rows = [row for mark in request.node.iter_markers("fault") for row in mark.args]

    def keep(**counted: Any) -> None:
        for name, value in counted.items():
            record_property(name, value)
        if path := os.environ.get(REPORT):
            line = {
                "rows": rows,
                "test": request.node.nodeid,
                "tier": "full" if tier.full else "quick",
                "seed": tier.seed,
                "figures": counted,
            }
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    return keep


@pytest.fixture
def home() -> Iterator[Dispatch]:
    """A home of its own for one test, and its daemon ended afterwards."""
    with temporary_home() as dispatch:
        yield dispatch
