"""Races between callers, Codex and its end, on the real binary; the stand-in model is the witness of what ran."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e

ROUNDS = 8
DEATHS = 4
SEED = 20260504


def codex_pid(dispatch: Dispatch, *, other_than: int | None = None) -> int:
    """Return the process of Codex once it is ready and another than the one that was killed."""
    deadline = time.monotonic() + 30
    while True:
        codex = dispatch.json("daemon", "status")["codex"]
        if codex["state"] == "ready" and codex["pid"] not in (None, other_than):
            return int(codex["pid"])
        if time.monotonic() > deadline:
            raise AssertionError(f"Codex is not ready: {codex}")
        time.sleep(0.05)


def asked(dispatch: Dispatch) -> str:
    """Return everything the model was asked, as it wrote it down."""
    path = dispatch.home / "offline" / "model.jsonl"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def messages(dispatch: Dispatch, thread: str) -> list[str]:
    """Return the user messages in Codex's own history."""
    items = dispatch.json("tail", thread, "--limit", "500")["items"]
    return [item["text"] for item in items if item["type"] == "userMessage"]


def parsed(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=60)
    found: dict[str, Any] = json.loads(output or errors)
    return found


def test_send_and_stop_at_once_leave_a_thread_that_works(shared: Dispatch) -> None:
    shared.json("new", "torn", "--no-send")
    seen = set()

    for number in range(ROUNDS):
        words = ("send", "@torn", 'offline:{"delay": 30}')
        sender = shared.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        stopper = shared.start("stop", "@torn", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        sent, stopped = parsed(sender), parsed(stopper)
        if "error" in stopped:
            assert stopped["error"]["code"] == "no_active_turn", stopped
            stopped = shared.json("stop", "@torn")
        assert sent["receipt"]["state"] == "submitted", (number, sent)
        assert stopped["turn"]["id"] == sent["receipt"]["turn_id"]
        seen.add(stopped["turn"]["status"])

    shared.json("send", "@torn", 'offline:{"text": "whole"}')
    assert seen == {"interrupted"}
    assert shared.wait("@torn")["text"] == "whole"


def test_senders_at_once_are_served_one_at_a_time_and_nothing_is_merged(shared: Dispatch) -> None:
    shared.json("new", "crowd", "--no-send")

    accepted = []
    for burst in range(4):
        senders = [
            shared.start(
                "send",
                "@crowd",
                f"burst {burst} message {number}",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for number in range(4)
        ]
        answers = [parsed(sender) for sender in senders]
        assert {a["error"]["code"] for a in answers if "error" in a} <= {"lane_busy"}
        assert any("receipt" in a for a in answers)
        accepted += [a["receipt"] for a in answers if "receipt" in a]
        shared.wait("@crowd")

    assert len({receipt["turn_id"] for receipt in accepted}) == len(accepted)
    assert len(messages(shared, "@crowd")) == len(accepted)


def test_a_codex_killed_right_after_a_send_loses_and_repeats_nothing(dispatch: Dispatch) -> None:
    chance = random.Random(SEED)
    outcomes = []
    for number in range(ROUNDS):
        # A thread for every few rounds, so that new and stored ones are hit; a daemon as well, for one lets Codex die only
        # so often a minute.
        thread = f"@victim-{number // DEATHS}"
        if number % DEATHS == 0:
            dispatch.json("down")
            dispatch.json("new", thread, "--no-send")
        text = f'offline:{{"delay": 0.05, "text": "done {number:02}."}} unique-{number:02}.'
        pid = codex_pid(dispatch)
        sender = dispatch.start(
            "send", thread, text, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(0.06 + chance.random() * 0.08)  # the moment of death, which is what is varied
        os.kill(pid, signal.SIGKILL)
        sent = parsed(sender)
        codex_pid(dispatch, other_than=pid)

        done = dispatch.wait(thread)
        # Codex may be dead before the message arrives: then nothing was sent, and the latest turn is another message's.
        receipt = sent.get("receipt", {}).get("id") or sent["error"]["details"].get("message_id")
        ours = receipt is not None and receipt == (done["turn"] or {}).get("message_id")
        outcome = done["outcome"] if ours else "nothing"
        stored = sum(f"unique-{number:02}." in m for m in messages(dispatch, thread))
        outcomes.append((outcome, sent.get("error", {}).get("code", "accepted"), stored))
        assert ours or sent.get("error", {}).get("code") == "codex_unavailable", outcomes
        if outcome in ("done", "interrupted"):
            assert stored == 1, outcomes
        else:
            assert stored == 0, outcomes
            assert f"unique-{number:02}." not in asked(dispatch), outcomes
            assert outcome == "nothing" or "not" in (done["turn"]["error"] or "").split(), done

        dispatch.json("send", thread, f'offline:{{"text": "after {number:02}."}}')
        again = dispatch.wait(thread)
        assert again["text"] == f"after {number:02}.", outcomes
        assert f"after {number:02}." in asked(dispatch)

    assert {code for _, code, _ in outcomes} <= {
        "accepted",
        "unknown_outcome",
        "codex_unavailable",
    }, outcomes
