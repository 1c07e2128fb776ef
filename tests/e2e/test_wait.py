"""Waiting for one thread and for several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dispatch_core.testing.daemon import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from dispatch_core.testing.daemon import Dispatch

pytestmark = pytest.mark.e2e


def test_several_threads_are_waited_for_each_with_its_result(shared: Dispatch) -> None:
    shared.json("new", "one", "hello")
    shared.json("new", "two", 'offline:{"failed": {"code": "invalid_prompt", "message": "no"}}')
    shared.json("new", "three")

    done = shared.json("wait", "@two", "@one", "@three", "@one", "--timeout", "60")

    results = {result["thread"]["handle"]: result for result in done["results"]}
    assert list(results) == ["@two", "@one", "@three"]
    assert [result["outcome"] for result in results.values()] == ["failed", "done", "nothing"]
    assert results["@one"]["text"] == "Offline reply: hello"
    assert results["@two"]["turn"]["error"]


def test_the_first_of_several_ends_the_wait(shared: Dispatch) -> None:
    shared.json("new", "quick", "hello")
    shared.json("new", "endless", 'offline:{"delay": 60}')

    done = shared.json("wait", "@endless", "@quick", "--first", "--timeout", "60")

    assert [result["outcome"] for result in done["results"]] == ["running", "done"]
    shared.json("stop", "@endless")


def test_the_error_of_a_short_wait_holds_what_is_known(shared: Dispatch) -> None:
    shared.json("new", "ready", "hello")
    shared.wait("@ready")
    shared.json("new", "late", 'offline:{"delay": 60}')

    error = shared.error("wait", "@ready", "@late", "--timeout", "0.3")

    assert error["exit_code"] == 11
    assert "1 of 2 threads still run" in error["message"]
    outcomes = [(r["outcome"], r["text"]) for r in error["details"]["results"]]
    assert outcomes == [("done", "Offline reply: hello"), ("running", None)]
    shared.json("stop", "@late")


def test_an_unknown_thread_among_several_is_refused_at_once(shared: Dispatch) -> None:
    shared.json("new", "known", 'offline:{"delay": 60}')

    error = shared.error("wait", "@known", "@nobody")

    assert error["code"] == "not_found"
    shared.json("stop", "@known")


def test_a_wait_for_a_message_that_cannot_be_sent_says_so(shared: Dispatch, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    shared.json("new", "moved", 'offline:{"delay": 60}', "--cwd", str(place))
    receipt = shared.json("send", "@moved", "Go on offline:{}", "--queue")["receipt"]
    place.rmdir()
    shared.json("stop", "@moved")

    def held() -> bool:
        found = shared.json("delivery", "get", receipt["id"])["delivery"]
        return "is not a directory" in (found["reason"] or "")

    eventually(held, "the message is held")
    alone = shared.error("wait", "@moved", "--timeout", "0.3")
    shared.json("new", "beside", "hello")
    among = shared.error("wait", "@moved", "@beside", "--timeout", "0.3")

    assert f"message {receipt['id']} still waits to be sent" in alone["message"]
    assert "is not a directory" in alone["message"]
    assert "delivery get" in alone["hint"]
    assert "1 of 2 threads still run" in among["message"]
    assert receipt["id"] in among["message"]
    place.mkdir()
    shared.wait("@moved")
