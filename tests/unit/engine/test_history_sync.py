"""Passes over rollout files on disk: what is read, what is left alone, and what becomes of files that change, move or go."""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from dispatch_core.contracts.history import SearchQuery, SyncState
from dispatch_core.engine.clock import SystemClock
from dispatch_core.engine.history import sync_process
from dispatch_core.engine.history.histories import Histories
from dispatch_core.engine.history.sync_pass import Wish
from dispatch_core.engine.history.sync_source import WINDOW
from dispatch_core.errors import CapabilityUnavailable, ValidationFailed
from dispatch_plugins.registry.index.store import SqliteIndex

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

START = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)
FILLER = "lorem ipsum dolor sit amet "


def thread_id(number: int) -> str:
    return f"01a202e0-0000-7000-8000-{number:012x}"


def record(kind: str, payload: dict[str, Any], second: int = 0) -> bytes:
    at = (START + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    line = {"timestamp": at, "ordinal": second, "type": kind, "payload": payload}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def message(text: str, second: int = 1) -> bytes:
    item = {"type": "AgentMessage", "content": [{"type": "Text", "text": text}]}
    return record("event_msg", {"type": "item_completed", "turn_id": "t", "item": item}, second)


@dataclass
class Codex:
    """A Codex home with rollouts in it."""

    home: Path
    paths: dict[int, Path] = field(default_factory=dict)

    def thread(self, number: int, *lines: bytes, **meta: Any) -> Path:
        """Write the rollout of a thread."""
        began = START + timedelta(minutes=number)
        folder = self.home / "sessions" / f"{began:%Y/%m/%d}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rollout-{began:%Y-%m-%dT%H-%M-%S}-{thread_id(number)}.jsonl"
        head = {"id": thread_id(number), "cwd": "/srv/a", "history_mode": "paginated", **meta}
        path.write_bytes(record("session_meta", head) + b"".join(lines))
        self.paths[number] = path
        return path

    def append(self, number: int, data: bytes) -> None:
        """Go on with a rollout."""
        with self.paths[number].open("ab") as file:
            file.write(data)

    def archive(self, number: int) -> Path:
        """Move a rollout as Codex does."""
        target = self.home / "archived_sessions" / self.paths[number].name
        target.parent.mkdir(exist_ok=True)
        self.paths[number] = self.paths[number].rename(target)
        return target


@pytest.fixture
def codex(tmp_path: Path) -> Codex:
    return Codex(tmp_path / "codex")


@pytest.fixture
async def histories(codex: Codex, tmp_path: Path) -> AsyncIterator[Histories]:
    async with AsyncExitStack() as stack:
        index = SqliteIndex(tmp_path / "index.db", tmp_path / "registry.db")
        await index.open(stack)
        with anyio.fail_after(60):
            yield Histories(index, codex.home, SystemClock())


async def found(histories: Histories, text: str, **options: Any) -> list[int]:
    """Return the numbers of the threads that a search finds, whatever is archived, after a look for news."""
    histories._looked_at = None
    page = await histories.search(SearchQuery(text=text, archived=None, **options))
    return [int(hit.facts.native_id[-12:], 16) for hit in page.hits]


async def test_new_text_is_found_without_a_command(codex: Codex, histories: Histories) -> None:
    codex.thread(1, message("the first okapi"))

    page = await histories.search(SearchQuery(text="okapi"))

    (hit,) = page.hits
    assert hit.snippet == "the first \x02okapi\x03"
    assert (hit.role, hit.turn_id) == ("agent", "t")
    assert hit.at == START + timedelta(seconds=1)
    assert hit.path == str(codex.paths[1])
    assert page.behind == 0


async def test_a_search_just_after_another_does_not_look_again(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, message("okapi"))
    await histories.search(SearchQuery(text="okapi"))
    codex.thread(2, message("okapi"))

    page = await histories.search(SearchQuery(text="okapi"))

    assert len(page.hits) == 1


async def test_a_pass_without_news_reads_nothing(codex: Codex, histories: Histories) -> None:
    codex.thread(1, message("okapi"))
    first = await histories.sync()

    again = await histories.sync()

    assert (first.sources, first.new, first.documents) == (1, 1, 1)
    assert first.bytes_read == codex.paths[1].stat().st_size
    assert (again.sources, again.new, again.changed, again.bytes_read) == (1, 0, 0, 0)


async def test_only_what_was_appended_is_read(codex: Codex, histories: Histories) -> None:
    codex.thread(1, message("okapi"))
    await histories.sync()
    codex.append(1, message("giraffe", 2))

    report = await histories.sync()

    assert (report.changed, report.documents) == (1, 1)
    assert report.bytes_read == len(message("giraffe", 2))
    assert await found(histories, "okapi") == await found(histories, "giraffe") == [1]
    source = histories.sources([thread_id(1)])[thread_id(1)]
    assert source.facts.latest_event_at == START + timedelta(seconds=2)
    assert (source.facts.lines, source.facts.malformed) == (3, 0)


async def test_a_torn_last_line_is_left_for_the_next_time(
    codex: Codex, histories: Histories
) -> None:
    whole = message("giraffe", 2)
    codex.thread(1, message("okapi"), whole[:20])
    first = await histories.sync()

    codex.append(1, whole[20:])
    second = await histories.sync()

    assert (first.documents, second.documents) == (1, 1)
    assert await found(histories, "giraffe") == [1]
    facts = histories.sources([thread_id(1)])[thread_id(1)].facts
    assert (facts.lines, facts.malformed) == (3, 0)


async def test_malformed_lines_are_counted_and_passed_over(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, b"{broken\n", b"\n", b"\xff\xfe\n", message("okapi"))

    report = await histories.sync()

    facts = histories.sources([thread_id(1)])[thread_id(1)].facts
    assert (facts.lines, facts.malformed) == (5, 3)
    assert report.problems == ()
    assert await found(histories, "okapi") == [1]


async def test_a_long_source_is_read_at_both_ends_first(codex: Codex, histories: Histories) -> None:
    filler = [message(FILLER * 20, n) for n in range(1200)]
    codex.thread(
        1, message("headword"), *filler, message("middleword"), *filler, message("tailword", 9999)
    )

    await histories.sync()

    source = histories.sources([thread_id(1)])[thread_id(1)]
    assert source.state is SyncState.PARTIAL
    assert source.facts.lines is None
    assert source.checkpoint.gap is not None
    assert source.facts.latest_event_at == START + timedelta(seconds=9999)
    assert await found(histories, "headword") == await found(histories, "tailword") == [1]
    assert await found(histories, "middleword") == []


async def test_a_full_pass_reads_what_was_left_out_and_no_more(
    codex: Codex, histories: Histories
) -> None:
    filler = [message(FILLER * 20, n) for n in range(1200)]
    path = codex.thread(1, *filler, message("middleword"), *filler, message("tailword", 9999))
    quick = await histories.sync()

    full = await histories.sync(full=True)

    source = histories.sources([thread_id(1)])[thread_id(1)]
    assert quick.bytes_read + full.bytes_read == path.stat().st_size
    assert quick.documents + full.documents == 2402
    assert source.state is SyncState.COMPLETE
    assert (source.facts.lines, source.facts.malformed) == (2403, 0)
    assert source.facts.latest_event_at == START + timedelta(seconds=9999)
    assert await found(histories, "middleword") == [1]
    assert (await histories.sync(full=True)).bytes_read == 0


async def test_a_partly_read_source_goes_on_from_its_end(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, *[message(FILLER * 20, n) for n in range(2400)])
    await histories.sync()
    codex.append(1, message("giraffe", 9999))

    report = await histories.sync()

    assert report.documents == 1
    assert histories.sources([thread_id(1)])[thread_id(1)].state is SyncState.PARTIAL
    assert await found(histories, "giraffe") == [1]


async def test_a_line_longer_than_what_is_read_of_an_end_is_no_obstacle(
    codex: Codex, histories: Histories
) -> None:
    long = message("longword " + "x" * (3 * WINDOW))
    codex.thread(1, long, message("between"), long, message("tailword", 9))

    await histories.sync()

    assert await found(histories, "tailword") == await found(histories, "longword") == [1]


async def test_a_first_line_longer_than_what_is_read_of_an_end_is_read(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, *[message(FILLER, n) for n in range(4000)], base_instructions="x" * WINDOW * 2)

    await histories.sync()

    assert histories.sources([thread_id(1)])[thread_id(1)].facts.cwd == "/srv/a"


async def test_a_file_that_was_written_anew_is_read_anew(
    codex: Codex, histories: Histories
) -> None:
    path = codex.thread(1, message("okapi"))
    await histories.sync()
    path.unlink()
    codex.thread(1, message("giraffe"), message("zebra"))

    report = await histories.sync()

    assert report.changed == 1
    assert await found(histories, "okapi") == []
    assert await found(histories, "giraffe") == [1]


@pytest.mark.parametrize("text", ["short", "a text that is a good deal longer than before" * 3])
async def test_a_file_that_was_written_anew_in_its_place_is_read_anew(
    codex: Codex, histories: Histories, text: str
) -> None:
    path = codex.thread(1, message("okapi and some more words"))
    await histories.sync()
    head = path.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(head + message(text))

    await histories.sync()

    assert await found(histories, "okapi") == []
    assert await found(histories, text.split(maxsplit=1)[0]) == [1]


async def test_an_archived_source_keeps_its_documents(codex: Codex, histories: Histories) -> None:
    codex.thread(1, message("okapi"))
    await histories.sync()
    target = codex.archive(1)

    report = await histories.sync()

    assert (report.moved, report.new, report.gone, report.bytes_read) == (1, 0, 0, 0)
    page = await histories.search(SearchQuery(text="okapi", archived=True))
    assert [hit.path for hit in page.hits] == [str(target)]
    assert page.hits[0].facts.archived
    assert page.hits[0].snippet == "\x02okapi\x03"


async def test_a_source_that_grew_and_moved_is_read_from_where_it_ended(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, message("okapi"))
    await histories.sync()
    codex.append(1, message("giraffe", 2))
    codex.archive(1)

    report = await histories.sync()

    assert (report.moved, report.changed, report.documents) == (1, 1, 1)
    assert await found(histories, "okapi") == await found(histories, "giraffe") == [1]


async def test_a_deleted_source_is_forgotten(codex: Codex, histories: Histories) -> None:
    codex.thread(1, message("okapi"))
    codex.thread(2, message("okapi"))
    await histories.sync()
    codex.paths[1].unlink()

    report = await histories.sync()

    assert report.gone == 1
    assert await found(histories, "okapi") == [2]


async def test_what_cannot_be_seen_is_not_taken_for_deleted(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, message("okapi"))
    await histories.sync()
    sessions = codex.home / "sessions"
    aside = sessions.rename(codex.home / "aside")

    missing = await histories.sync()
    sessions.mkdir()
    empty = await histories.sync()
    sessions.rmdir()
    aside.rename(sessions)
    back = await histories.sync()

    for report in (missing, empty):
        assert report.gone == 0
        assert len(report.problems) == 1
        assert str(sessions) in report.problems[0]
    assert back.bytes_read == 0
    assert back.problems == ()
    assert await found(histories, "okapi") == [1]


async def test_a_home_without_sessions_is_no_problem(histories: Histories) -> None:
    report = await histories.sync()

    assert (report.sources, report.problems) == (0, ())


async def test_a_source_that_cannot_be_read_is_reported_and_tried_again(
    codex: Codex, histories: Histories
) -> None:
    path = codex.thread(1, message("okapi"))
    path.unlink()
    path.mkdir()
    codex.thread(2, message("okapi"))

    report = await histories.sync()
    source = histories.sources([thread_id(1)])[thread_id(1)]
    path.rmdir()
    codex.thread(1, message("okapi"))
    again = await histories.sync()

    assert len(report.problems) == 1
    assert str(path) in report.problems[0]
    assert source.state is SyncState.ERROR
    assert source.error
    assert again.problems == ()
    assert await found(histories, "okapi") == [2, 1]


async def test_compressed_sources_are_reported_and_known_ones_kept(
    codex: Codex, histories: Histories
) -> None:
    path = codex.thread(1, message("okapi"))
    await histories.sync()
    path.rename(path.with_name(path.name + ".zst"))
    other = codex.thread(2, message("okapi"))
    other.rename(other.with_name(other.name + ".zst"))

    report = await histories.sync()

    assert report.gone == 0
    assert report.problems == ("1 rollouts are compressed, which cannot be read here",)
    page = await histories.search(SearchQuery(text="okapi"))
    assert [hit.snippet for hit in page.hits] == [""]


async def test_files_that_are_no_rollouts_are_left_alone(
    codex: Codex, histories: Histories
) -> None:
    folder = codex.thread(1, message("okapi")).parent
    (folder / "notes.jsonl").write_bytes(message("okapi"))
    (folder / "rollout-2026.jsonl").write_bytes(message("okapi"))

    report = await histories.sync()

    assert (report.sources, report.new) == (1, 1)


async def test_a_hit_whose_source_has_changed_meanwhile_is_shown_without_its_text(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, message("okapi"))
    await histories.sync()
    codex.thread(1, message("something else entirely, and longer"), cwd="/another/place")

    page = await histories.search(SearchQuery(text="okapi"))

    assert [hit.snippet for hit in page.hits] == [""]


async def test_titles_are_those_that_were_given_last(codex: Codex, histories: Histories) -> None:
    codex.thread(1, message("okapi"))
    titles = codex.home / "session_index.jsonl"
    named = [{"id": thread_id(1), "thread_name": name} for name in ("First", "Second")]
    titles.write_text(json.dumps(named[0]) + "\nbroken\n" + json.dumps(named[1]) + "\n")
    await histories.sync()
    before = histories.sources([thread_id(1)])[thread_id(1)].facts.title

    titles.write_text(json.dumps({**named[0], "thread_name": "Third"}) + "\n")
    await histories.sync()

    assert before == "Second"
    assert histories.sources([thread_id(1)])[thread_id(1)].facts.title == "Third"


async def test_a_pass_over_named_threads_leaves_the_others_alone(
    codex: Codex, histories: Histories
) -> None:
    for number in (1, 2, 3):
        codex.thread(number, message("okapi"))

    report = await histories.sync(native_ids=[thread_id(2)])

    assert (report.new, report.sources) == (1, 1)
    assert list(histories.sources([thread_id(n) for n in (1, 2, 3)])) == [thread_id(2)]


async def test_a_named_thread_that_was_archived_or_deleted_is_noticed(
    codex: Codex, histories: Histories
) -> None:
    for number in (1, 2):
        codex.thread(number, message("okapi"))
    await histories.sync()
    codex.archive(1)
    codex.paths[2].unlink()

    archived = await histories.sync(native_ids=[thread_id(1)])
    deleted = await histories.sync(native_ids=[thread_id(2)])

    assert (archived.moved, archived.gone) == (1, 0)
    assert (deleted.moved, deleted.gone) == (0, 1)


async def test_a_long_pass_runs_in_a_process_of_its_own(codex: Codex, tmp_path: Path) -> None:
    for number in range(5):
        codex.thread(number, message("okapi"))
    codex.thread(9, message("giraffe")).chmod(0o600)
    seen: list[tuple[int, int]] = []

    async with AsyncExitStack() as stack:
        index = SqliteIndex(tmp_path / "index.db", tmp_path / "registry.db")
        await index.open(stack)
        histories = Histories(index, codex.home, SystemClock(), here=0)
        with anyio.fail_after(60):
            report = await histories.sync(progress=lambda done, total: seen.append((done, total)))
            found_there = await found(histories, "okapi")

    assert (report.new, report.documents) == (6, 6)
    assert seen[-1] == (6, 6)
    assert found_there == [4, 3, 2, 1, 0]


async def test_progress_is_told_from_a_pass_in_this_process_as_well(
    codex: Codex, histories: Histories
) -> None:
    for number in range(3):
        codex.thread(number, message("okapi"))
    seen: list[tuple[int, int]] = []

    await histories.sync(progress=lambda done, total: seen.append((done, total)))

    assert seen == [(1, 3), (2, 3), (3, 3)]


async def test_a_pass_that_is_cancelled_keeps_what_it_has_read(
    codex: Codex, histories: Histories
) -> None:
    for number in range(10):
        codex.thread(number, message("okapi"))

    with anyio.CancelScope() as scope:

        def progress(done: int, total: int) -> None:
            if done == 4:
                scope.cancel()

        await histories.sync(progress=progress)

    known = histories.sources([thread_id(n) for n in range(10)])
    assert scope.cancelled_caught
    assert 4 <= len(known) < 10
    assert (await histories.sync()).new == 10 - len(known)


async def test_a_process_whose_pass_is_cancelled_ends_and_keeps_what_it_has_read(
    codex: Codex, histories: Histories
) -> None:
    lines = [message(FILLER * 30, n) for n in range(2000)]
    for number in range(12):
        codex.thread(number, *lines)

    with anyio.CancelScope() as scope:

        def progress(done: int, total: int) -> None:
            del total
            if done >= 1:
                scope.cancel()

        await histories.sync(full=True, progress=progress)

    known = histories.sources([thread_id(n) for n in range(12)])
    assert scope.cancelled_caught
    assert len(known) >= 1
    report = await histories.sync(full=True)
    assert report.problems == ()
    states = {s.state for s in histories.sources([thread_id(n) for n in range(12)]).values()}
    assert states == {SyncState.COMPLETE}
    assert len(await found(histories, "lorem", limit=50)) == 12


async def test_a_process_whose_caller_is_gone_ends_in_good_order(
    codex: Codex, tmp_path: Path
) -> None:
    for number in range(3):
        codex.thread(number, message("okapi"))
    index = SqliteIndex(tmp_path / "index.db", tmp_path / "registry.db")
    command = [sys.executable, "-P", "-m", "dispatch_core.engine.history.sync_process"]
    complaints = tmp_path / "stderr"

    with anyio.fail_after(60), complaints.open("wb") as stderr:
        async with await anyio.open_process(command, stderr=stderr) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.send(sync_process.order(index.address(), codex.home, Wish()))
            await process.stdin.aclose()
            await process.stdout.aclose()
            status = await process.wait()

    assert (status, complaints.read_text()) == (0, "")


async def test_one_pass_runs_at_a_time(codex: Codex, histories: Histories) -> None:
    for number in range(5):
        codex.thread(number, message("okapi"))
    reports = []

    async def sync() -> None:
        reports.append(await histories.sync())

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(sync)

    assert sorted(report.new for report in reports) == [0, 0, 0, 5]


async def test_without_an_index_there_is_nothing_to_sync_or_search(codex: Codex) -> None:
    histories = Histories(None, codex.home, SystemClock())

    with pytest.raises(CapabilityUnavailable):
        await histories.sync()
    with pytest.raises(CapabilityUnavailable):
        await histories.search(SearchQuery(text="okapi"))
    assert histories.sources(["x"]) == {}


async def test_a_query_that_makes_no_sense_is_refused_before_anything_is_read(
    codex: Codex, histories: Histories
) -> None:
    codex.thread(1, message("okapi"))

    with pytest.raises(ValidationFailed):
        await histories.search(SearchQuery(text="?!"))

    assert histories.sources([thread_id(1)]) == {}


async def test_a_source_of_many_long_lines_is_read_in_portions(
    codex: Codex, histories: Histories
) -> None:
    text = FILLER * 4000
    path = codex.thread(1, *[message(f"{text} w{n}", n) for n in range(60)])

    report = await histories.sync(full=True)

    facts = histories.sources([thread_id(1)])[thread_id(1)].facts
    assert report.documents == 60
    assert facts.lines == 61
    assert report.bytes_read == path.stat().st_size


async def test_a_link_that_leads_nowhere_does_not_hide_the_others(
    codex: Codex, histories: Histories
) -> None:
    path = codex.thread(1, message("okapi"))
    loop = path.with_name(path.name.replace(thread_id(1), thread_id(3)))
    loop.symlink_to(loop)
    dangling = path.with_name(path.name.replace(thread_id(1), thread_id(4)))
    dangling.symlink_to("/nowhere")

    report = await histories.sync()

    assert (report.sources, report.new) == (1, 1)
    assert len(report.problems) == 1
    assert str(loop) in report.problems[0]
