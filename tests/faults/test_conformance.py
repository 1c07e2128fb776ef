"""The installed Codex stores a message before it asks the model; where that is not known, nothing is sent again by itself."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import codex_cli_bin
import pytest

from dispatch_core.appserver.binary import codex_version

from .driver import Messages
from .harness import until, world

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatch_core.testing.daemon import Dispatch

    from .conftest import Tier

QUICK = {"delay": 0.02}
DEADLINE = 1800.0  # seconds for all rounds


def installed() -> str:
    """Return the version of the Codex that is tried."""
    return str(anyio.run(codex_version, codex_cli_bin.bundled_codex_path()))


@pytest.mark.fault("A10")
def test_the_installed_codex_has_stored_every_message_that_the_model_was_asked_for(
    home: Dispatch, tier: Tier, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(10, 150)

    words = ["conformance", "codex", "--rounds", f"{rounds}", "--seed", f"{tier.seed}"]
    command = home.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said, complaint = command.communicate(timeout=DEADLINE)
    assert command.returncode == 0, complaint
    found = json.loads(said)

    figures(**{name: found[name] for name in ("version", "rounds", "asked", "stored", "absent")})
    kept = home.home / "conformance.json"
    assert (found["passed"], found["rounds"], found["kept"]) == (True, rounds, tier.full)
    assert found["asked"] == found["stored"] >= rounds // 2
    assert kept.exists() is tier.full


@pytest.mark.fault("A10")
@pytest.mark.parametrize(
    ("proven", "becomes"), [(False, "unknown"), (True, "done")], ids=["unproven", "proven"]
)
def test_a_message_that_is_not_in_the_history_is_sent_again_only_by_a_proven_version(
    tier: Tier, figures: Callable[..., None], *, proven: bool, becomes: str
) -> None:
    rounds = tier.rounds(1, 20)
    ends: Counter[str | None] = Counter()
    with world() as made, ThreadPoolExecutor(1) as client:
        facts = {installed(): {"passed": proven}}
        (made.home / "conformance.json").write_text(json.dumps(facts), encoding="utf-8")
        messages = Messages(made)
        made.start()
        lanes = messages.lanes(rounds)
        for lane in lanes:
            made.kill_daemon()
            made.start("claim.after_commit:both")
            sending = client.submit(messages.send, lane, QUICK)
            until(lambda: not made.alive(), "daemon and app-server are killed")
            made.start()
            marker = sending.result()
            messages.settle()
            ends[messages.state(marker)] += 1
        asked = len(made.witness.markers())

        report = messages.report()
    figures(rounds=rounds, asked=asked, **report.figures())
    assert ends == {becomes: rounds}
    assert asked == (rounds if proven else 0)
    assert report.broken == {}
