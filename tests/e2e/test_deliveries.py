"""Deliveries on the real binary: queued, changed while they wait, and decided about when nobody can tell whether they ran."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dispatch_core.testing.daemon import Dispatch, eventually

pytestmark = pytest.mark.e2e

LONG = 'Look around offline:{"delay": 3600}'


@pytest.fixture
def busy(dispatch: Dispatch) -> Dispatch:
    """A home with @a, where a turn runs that does not end."""
    dispatch.json("new", "a", LONG, "--cwd", "/")
    return dispatch


def queue(dispatch: Dispatch, text: str, *more: str) -> dict[str, Any]:
    return dict(dispatch.json("send", "@a", text, "--queue", *more)["receipt"])


def get(dispatch: Dispatch, delivery: str) -> dict[str, Any]:
    return dict(dispatch.json("delivery", "get", delivery)["delivery"])


def waiting(dispatch: Dispatch) -> list[str]:
    """The first lines of what waits, in the order in which it will be sent."""
    found = dispatch.json("delivery", "list", "--state", "queued")["deliveries"]
    return [one["preview"] for one in sorted(found, key=lambda one: one["position"])]


def clock(dispatch: Dispatch) -> str:
    """The daemon's time, as it writes it: that of a message which is withdrawn again."""
    probe = queue(dispatch, "What time is it?")["id"]
    return str(dispatch.json("delivery", "cancel", probe)["deliveries"][0]["created_at"])


def said(dispatch: Dispatch) -> list[str]:
    return [item["text"] for item in dispatch.json("tail", "@a", "--role", "user")["items"]]


def test_queued_messages_are_sent_in_order_each_in_a_turn_of_its_own(busy: Dispatch) -> None:
    receipts = [queue(busy, f"{n} offline:{{}}") for n in range(3)]

    busy.json("stop", "@a")
    busy.wait("@a")

    assert [(r["state"], r["position"]) for r in receipts] == [
        ("queued", 0),
        ("queued", 1),
        ("queued", 2),
    ]
    assert said(busy) == [LONG, "0 offline:{}", "1 offline:{}", "2 offline:{}"]
    ended = [get(busy, r["id"]) for r in receipts]
    assert [one["state"] for one in ended] == ["done"] * 3
    assert len({one["turn_id"] for one in ended}) == 3


def test_wait_waits_for_what_is_queued(dispatch: Dispatch) -> None:
    dispatch.json("new", "a", 'One offline:{"delay": 0.5}', "--cwd", "/")
    queue(dispatch, "Two offline:{}")

    result = dispatch.wait("@a")

    assert (result["outcome"], result["text"]) == ("done", "Offline reply: Two")


def test_what_waits_can_be_changed_reordered_and_withdrawn(busy: Dispatch) -> None:
    one, two, three = (queue(busy, text)["id"] for text in ("One", "Two", "Three"))

    order = busy.json("delivery", "reorder", three, "--before", one)["deliveries"]
    busy.json("delivery", "edit", two, "Two and a half")
    cancelled = busy.json("delivery", "cancel", one)["deliveries"]

    assert [entry["id"] for entry in order] == [three, one, two]
    assert [entry["state"] for entry in cancelled] == ["cancelled"]
    assert waiting(busy) == ["Three", "Two and a half"]


def test_first_and_last_are_places_in_the_queue(busy: Dispatch) -> None:
    one, _, three = (queue(busy, text)["id"] for text in ("One", "Two", "Three"))

    busy.json("delivery", "reorder", three, "--first")
    busy.json("delivery", "reorder", three, "--first")
    busy.json("delivery", "reorder", one, "--last")

    assert waiting(busy) == ["Three", "Two", "One"]


def test_what_was_withdrawn_can_be_queued_again_as_a_new_message(busy: Dispatch) -> None:
    first = queue(busy, "One")["id"]
    busy.json("delivery", "cancel", first)

    again = busy.json("delivery", "requeue", first)["delivery"]

    assert (again["state"], again["preview"]) == ("queued", "One")
    assert again["id"] != first
    assert busy.json("delivery", "get", again["id"])["retry_of"] == first


def test_several_are_withdrawn_and_what_cannot_be_is_named(busy: Dispatch) -> None:
    one = queue(busy, "One")["id"]

    error = busy.error("delivery", "cancel", one, "nobody")

    assert (error["code"], error["exit_code"]) == ("partial", 12)
    assert [done["id"] for done in error["details"]["deliveries"]] == [one]
    assert [failed["delivery"] for failed in error["details"]["failed"]] == ["nobody"]


def test_a_message_repeated_with_its_key_is_not_sent_again(dispatch: Dispatch) -> None:
    dispatch.json("new", "a", "--cwd", "/")
    words = ("send", "@a", "Hello offline:{}", "--idempotency-key", "hello")
    first = dispatch.json(*words)["receipt"]
    dispatch.wait("@a")

    again = dispatch.json(*words)["receipt"]
    other = dispatch.error("send", "@a", "Goodbye", "--idempotency-key", "hello")

    assert (first["state"], first["duplicate"]) == ("submitted", False)
    assert (again["state"], again["duplicate"], again["id"]) == ("done", True, first["id"])
    assert (other["code"], other["exit_code"]) == ("delivery_conflict", 5)
    assert said(dispatch) == ["Hello offline:{}"]


def test_a_message_that_expired_is_not_sent(busy: Dispatch) -> None:
    expired = queue(busy, "Too late", "--expires", "1s")
    queue(busy, "In time offline:{}", "--expires", "1h")
    eventually(lambda: clock(busy) > expired["expires_at"], "its time is over")

    busy.json("stop", "@a")
    busy.wait("@a")

    assert get(busy, expired["id"])["state"] == "expired"
    assert said(busy) == [LONG, "In time offline:{}"]


def test_a_delivery_is_found_by_either_end_of_its_id_and_by_its_key(busy: Dispatch) -> None:
    one = queue(busy, "One", "--idempotency-key", "the-one")["id"]
    queue(busy, "Two")

    names = (one, one.upper(), one[-8:], one[-6:], one[:-4], "the-one")
    found = {name: get(busy, name)["id"] for name in names}
    errors = {name: busy.error("delivery", "get", name)["code"] for name in (one[-5:], one[:6])}

    assert set(found.values()) == {one}
    assert errors == {one[-5:]: "not_found", one[:6]: "validation"}


def test_pages_of_a_list_have_every_delivery_once(busy: Dispatch) -> None:
    sent = [queue(busy, str(n))["id"] for n in range(5)]

    found: list[str] = []
    after: list[str] = []
    while True:
        page = busy.json("delivery", "list", "--state", "queued", "--limit", "2", *after)
        found += [one["id"] for one in page["deliveries"]]
        if page["next"] is None:
            break
        after = ["--after", page["next"]]

    assert found == sent[::-1]


def test_a_thread_says_how_many_messages_wait(busy: Dispatch) -> None:
    queue(busy, "One")
    queue(busy, "Two")

    [row] = busy.json("list")["threads"]

    assert row["queued"] == 2
    assert busy.json("get", "@a")["queued"] == 2
    assert busy.json("tail", "@a")["queued"] == 2


def test_what_becomes_of_a_message_is_seen_live(dispatch: Dispatch) -> None:
    dispatch.json("new", "a", "--cwd", "/")
    receipt = queue(dispatch, "Hello offline:{}")
    dispatch.wait("@a")

    words = ("--kind", "delivery.changed", "--after", "earlier:0", "--timeout", "0")
    events = dispatch.json("watch", *words)["events"]

    states = [e["data"]["state"] for e in events if e["data"]["id"] == receipt["id"]]
    assert states[0] == "queued"
    assert states[-1] == "done"


@pytest.fixture
def doubt(dispatch: Dispatch) -> tuple[Dispatch, str, Path, Path]:
    """A home where nobody can tell whether a message ran: its history went away while the daemon was dead.

    Returns the home, the id of the message, where its history belongs and where it is.
    """
    dispatch.json("new", "a", "Hello offline:{}", "--cwd", "/")
    dispatch.wait("@a")
    one = queue(dispatch, LONG)["id"]
    queue(dispatch, "And then offline:{}")
    eventually(lambda: get(dispatch, one)["state"] == "running", "it runs")
    history = Path(dispatch.json("get", "@a")["path"])
    os.kill(dispatch.pid(), signal.SIGKILL)
    kept = history.rename(dispatch.home / "history.jsonl")
    eventually(lambda: get(dispatch, one)["state"] == "unknown", "it is in doubt")
    return dispatch, one, history, kept


def test_a_message_in_doubt_holds_its_thread_and_says_so(
    doubt: tuple[Dispatch, str, Path, Path],
) -> None:
    dispatch, one, _, _ = doubt

    waited = dispatch.error("wait", "@a", "--timeout", "30")
    refused = dispatch.error("send", "@a", "Now")

    assert (waited["code"], waited["exit_code"]) == ("unknown_outcome", 10)
    assert waited["details"]["delivery"] == one
    [result] = waited["details"]["results"]
    assert (result["outcome"], result["delivery"]["id"]) == ("unknown", one)
    assert one[-8:] in waited["hint"]
    assert (refused["code"], refused["exit_code"]) == ("lane_busy", 5)
    assert dispatch.json("get", "@a")["in_doubt"] == one
    assert waiting(dispatch) == ["And then offline:{}"]


@pytest.mark.parametrize(
    ("verdict", "state", "runs"), [("--sent", "done", 1), ("--drop", "cancelled", 1)]
)
def test_a_person_decides_and_the_thread_goes_on(
    doubt: tuple[Dispatch, str, Path, Path], verdict: str, state: str, runs: int
) -> None:
    dispatch, one, history, kept = doubt
    kept.rename(history)

    decided = dispatch.json("delivery", "resolve", one, verdict, "--yes")["delivery"]
    dispatch.wait("@a")

    assert decided["state"] == state
    assert said(dispatch).count(LONG) == runs
    assert said(dispatch)[-1] == "And then offline:{}"


def test_a_message_that_is_sent_again_runs_again(doubt: tuple[Dispatch, str, Path, Path]) -> None:
    dispatch, one, history, kept = doubt
    kept.rename(history)

    dispatch.json("delivery", "resolve", one, "--resend", "--yes")
    eventually(lambda: said(dispatch).count(LONG) == 2, "it runs again")

    assert waiting(dispatch) == ["And then offline:{}"]


def test_an_agent_may_not_decide(doubt: tuple[Dispatch, str, Path, Path]) -> None:
    dispatch, one, _, _ = doubt
    thread_id = dispatch.json("get", "@a")["thread"]["id"]
    inside = Dispatch(dispatch.home, {"CODEX_THREAD_ID": thread_id})

    error = inside.error("delivery", "resolve", one, "--drop", "--yes")

    assert (error["code"], error["exit_code"]) == ("authority", 7)
    assert get(dispatch, one)["state"] == "unknown"
