"""Triggers on the real Codex: what finishes in one thread starts work in another, once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e


def trigger(dispatch: Dispatch, name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = dispatch.json("trigger", "list")["triggers"]
    return next(t for t in found if t["name"] == name)


def said_to(dispatch: Dispatch, thread: str) -> list[str]:
    items = dispatch.json("tail", thread)["items"]
    return [item["text"] for item in items if item["type"] == "userMessage"]


def test_a_completed_turn_messages_another_thread_once(dispatch: Dispatch) -> None:
    dispatch.json("new", "author", "--no-send")
    dispatch.json("new", "critic", "--no-send")
    words = (
        "--when",
        "turn_completed",
        "--on",
        "@author",
        "--thread",
        "@critic",
        "--text",
        "Review it",
    )
    dispatch.json("trigger", "add", "handover", *words)

    dispatch.json("send", "@author", "Write it")
    dispatch.json("wait", "@author", "--timeout", "60")
    eventually(
        lambda: (trigger(dispatch, "handover")["last_firing"] or {}).get("status") == "done",
        "it fired",
    )
    dispatch.json("wait", "@critic", "--timeout", "60")

    assert said_to(dispatch, "@critic") == ["Review it"]
    assert said_to(dispatch, "@author") == ["Write it"]
    assert dispatch.json("daemon", "log")["actions"][0]["principal"].startswith("trigger:")


def test_a_trigger_survives_the_daemon_and_does_not_repeat_what_it_did(dispatch: Dispatch) -> None:
    dispatch.json("new", "author", "--no-send")
    dispatch.json("new", "critic", "--no-send")
    words = (
        "--when",
        "turn_completed",
        "--on",
        "@author",
        "--thread",
        "@critic",
        "--text",
        "Review it",
    )
    dispatch.json("trigger", "add", "handover", *words)
    dispatch.json("send", "@author", "one")
    eventually(
        lambda: (trigger(dispatch, "handover")["last_firing"] or {}).get("status") == "done",
        "it fired",
    )
    dispatch.json("wait", "@critic", "--timeout", "60")

    os.kill(dispatch.pid(), signal.SIGKILL)
    dispatch.json("up")
    first = trigger(dispatch, "handover")["last_firing"]["key"]
    dispatch.json("send", "@author", "two")

    def fired_again() -> bool:
        firing = trigger(dispatch, "handover")["last_firing"]
        return bool(firing["key"] != first and firing["status"] == "done")

    eventually(fired_again, "it fired again")
    dispatch.json("wait", "@critic", "--timeout", "60")

    assert said_to(dispatch, "@critic") == ["Review it", "Review it"]


def test_an_interval_fires_and_can_be_paused(dispatch: Dispatch) -> None:
    dispatch.json("new", "ticker", "--no-send")
    words = ("--when", "interval", "--seconds", "1", "--thread", "@ticker", "--text", "tick")
    added = dispatch.json("trigger", "add", "clock", *words)

    eventually(lambda: "tick" in said_to(dispatch, "@ticker"), "it ticks")
    paused = dispatch.json("trigger", "pause", "clock")

    assert added["enabled"] is True
    assert paused["enabled"] is False
    assert paused["next_at"] is None


def test_a_thread_that_triggers_itself_is_refused(dispatch: Dispatch) -> None:
    dispatch.json("new", "narcissus", "--no-send")
    words = (
        "--when",
        "turn_completed",
        "--on",
        "@narcissus",
        "--thread",
        "@narcissus",
        "--text",
        "again",
    )

    error = dispatch.error("trigger", "add", "loop", *words)

    assert error["code"] == "validation"
    assert "allow" in f"{error['message']} {error['hint']}"
