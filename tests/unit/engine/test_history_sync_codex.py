"""Passes over what the real Codex writes: turns with tools, renaming, forking, reverting, archiving."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from dispatch_core.contracts.history import SearchQuery, SyncState
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.history.histories import Histories
from dispatch_core.testing.daemon import Dispatch, temporary_home
from dispatch_plugins.registry.index.store import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

TOOLS = {
    "steps": [
        {
            "reasoning": "pondering zebras",
            "text": "Looking.",
            "call": {"name": "exec_command", "arguments": {"cmd": "echo quagga"}},
        },
        {"text": "Done, giraffe."},
    ]
}


@pytest.fixture(scope="module")
def dispatch() -> Iterator[Dispatch]:
    with temporary_home() as dispatch:
        dispatch.json("up")
        yield dispatch


@asynccontextmanager
async def histories_of(dispatch: Dispatch) -> AsyncIterator[Histories]:
    """Yield the histories of the daemon's Codex over an index of their own, brought up to date."""
    with opened(str(dispatch.home / "test-index.db"), "/nowhere") as index, anyio.fail_after(60):
        histories = Histories(index, dispatch.home / "offline" / "codex", SystemClock())
        report = await histories.sync()
        assert report.problems == ()
        yield histories


def say(dispatch: Dispatch, thread: str, text: str) -> str:
    """Have a turn and return its id."""
    receipt = dispatch.json("send", thread, text)["receipt"]
    dispatch.json("wait", thread, "--timeout", "60")
    turn_id: str = receipt["turn_id"]
    return turn_id


async def test_everything_of_a_turn_is_found_in_its_place(dispatch: Dispatch) -> None:
    dispatch.json("new", "tools", "--no-send")
    turn_id = say(dispatch, "@tools", f"Please look at okapis offline:{json.dumps(TOOLS)}")

    async with histories_of(dispatch) as histories:
        found = {}
        for word in ("okapis", "pondering", "echo", "giraffe"):
            (hit,) = (await histories.search(SearchQuery(text=word))).hits
            found[word] = (hit.role, hit.turn_id)

    assert found == {
        "okapis": ("user", turn_id),
        "pondering": ("reasoning", turn_id),
        "echo": ("tool", turn_id),
        "giraffe": ("agent", turn_id),
    }


async def test_the_facts_are_those_of_the_thread(dispatch: Dispatch) -> None:
    dispatch.json("new", "facts", "--no-send")
    turn_id = say(dispatch, "@facts", "Remember the capybara")

    async with histories_of(dispatch) as histories:
        (hit,) = (await histories.search(SearchQuery(text="capybara"))).hits
        source = histories.sources([hit.facts.native_id])[hit.facts.native_id]

    assert source.state is SyncState.COMPLETE
    assert source.facts.malformed == 0
    assert source.facts.preview == "Remember the capybara"
    assert source.facts.latest_turn_id == turn_id
    assert source.facts.history_mode == "paginated"
    assert source.facts.model == "offline-model"
    assert source.facts.created_at is not None
    assert source.facts.latest_event_at is not None
    assert source.facts.created_at <= source.facts.latest_event_at


async def test_reverted_turns_are_not_found_and_a_fork_is_a_thread_of_its_own(
    dispatch: Dispatch,
) -> None:
    dispatch.json("new", "walk", "--no-send")
    say(dispatch, "@walk", "keep the narwhal")
    reverted = say(dispatch, "@walk", "forget the axolotl")
    dispatch.json("fork", "@walk", "branch")
    say(dispatch, "@branch", "the fork has a tapir")
    dispatch.json("revert", "@walk", "--before-turn", reverted, "--yes")
    say(dispatch, "@walk", "afterwards a pangolin")

    async with histories_of(dispatch) as histories:
        found = {
            word: [
                hit.facts.forked_from is not None
                for hit in (await histories.search(SearchQuery(text=word))).hits
            ]
            for word in ("narwhal", "axolotl", "pangolin", "tapir")
        }

    assert found == {"narwhal": [False], "axolotl": [], "pangolin": [False], "tapir": [True]}


async def test_an_archived_thread_is_found_in_the_archive_only(dispatch: Dispatch) -> None:
    dispatch.json("new", "old", "--no-send")
    say(dispatch, "@old", "the dodo")
    async with histories_of(dispatch) as histories:
        before = await histories.search(SearchQuery(text="dodo"))

    dispatch.json("archive", "@old", "--yes")

    async with histories_of(dispatch) as histories:
        active = await histories.search(SearchQuery(text="dodo"))
        archived = await histories.search(SearchQuery(text="dodo", archived=True))
    assert (len(before.hits), len(active.hits), len(archived.hits)) == (1, 0, 1)
    assert archived.hits[0].snippet == "Offline reply: the \x02dodo\x03"
