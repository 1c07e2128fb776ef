"""The index: what is found, in which order, page by page, and what becomes of a file that is not ours."""

from __future__ import annotations

import json
import sqlite3
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import fail_after
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.api import (
    Checkpoint,
    Document,
    HistorySource,
    SearchQuery,
    SourceChange,
    SourceFacts,
    StorageError,
    SyncState,
    ValidationFailed,
    search_terms,
)
from dispatch_core.testing.storage import a_thread
from dispatch_plugins.registry.index.searching import match_expression
from dispatch_plugins.registry.index.store import SqliteIndex, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

START = datetime(2026, 4, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def index_path(data_dir: Path) -> Path:
    return data_dir / "index.db"


@pytest.fixture
async def index(data_dir: Path, index_path: Path) -> AsyncIterator[SqliteIndex]:
    async with AsyncExitStack() as stack:
        index = SqliteIndex(index_path, data_dir / "registry.db")
        await index.open(stack)
        with fail_after(20):
            yield index


def source(number: int = 1, **facts: Any) -> HistorySource:
    """Return a source that was read to its end; thread and age follow from the number."""
    moment = START + timedelta(hours=number)
    known = SourceFacts(
        native_id=f"thread-{number}",
        segment=f"thread-{number}",
        cwd="/srv/project",
        created_at=moment,
        latest_event_at=moment,
    )
    checkpoint = Checkpoint(
        path=f"/codex/sessions/{number:03}.jsonl",
        device=1,
        inode=1000 + number,
        size=500,
        mtime_ns=7,
        offset=500,
        lines=4,
    )
    return HistorySource(
        checkpoint=checkpoint,
        facts=replace(known, **facts),
        state=SyncState.COMPLETE,
        synced_at=moment,
    )


def change(
    number: int, *texts: str, offset: int = 0, fresh: bool = True, **facts: Any
) -> SourceChange:
    """Return a change that adds texts, ten bytes apart."""
    documents = [
        Document(offset=offset + 10 * n, at=None, turn_id=None, role="user", text=text)
        for n, text in enumerate(texts)
    ]
    return SourceChange(source=source(number, **facts), documents=documents, replace=fresh)


async def found(index: SqliteIndex, text: str, **options: Any) -> list[str]:
    """Return the numbers of the threads that a search finds, in its order."""
    page = await index.search(SearchQuery(text=text, **options))
    return [hit.facts.native_id.removeprefix("thread-") for hit in page.hits]


# What matches.


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Fix the parser, please", "parser"),
        ("Fix the parser, please", "PARSER"),
        ("Fix the parser, please", "please fix"),
        ("Fix the parser, please", '"the parser"'),
        ("Fix the parser, please", "pars*"),
        ("see src/main_loop.py:12", "src/main_loop.py"),
        ("see src/main_loop.py:12", "main_loop"),
        ("it's naïve", "NAIVE"),
        ("it's naïve", "it's"),
        ("Das Übliche", "ubliche"),
        ("你好世界", "世界"),
        ("你好世界 hello", "好世 hello"),
        ("こんにちは", "にち"),
        ("서버에서 온 응답", "서버"),
        ("near or not and", "not OR near AND and"),
        ("C++ and C#", "c++"),
        ("a \x00 zero", "zero"),
        ("lone \ud800 half", "half"),
    ],
)
async def test_a_text_is_found_by_its_words(index: SqliteIndex, text: str, query: str) -> None:
    index.apply([change(1, text)])

    assert await found(index, query) == ["1"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Fix the parser, please", "parse"),
        ("Fix the parser, please", "parser lexer"),
        ("Fix the parser, please", '"parser the"'),
        ("世界", "界世"),
        ("near or not", "NEAR/2"),
    ],
)
async def test_a_text_is_not_found_by_words_that_are_not_in_it(
    index: SqliteIndex, text: str, query: str
) -> None:
    index.apply([change(1, text)])

    assert await found(index, query) == []


@given(st.text(st.sampled_from("abO*\"'()^:+-{}NEAR AND\x00é世\ud800 ") | st.characters()))
def test_no_text_is_a_syntax_error(text: str) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        try:
            terms = search_terms(text)
        except ValidationFailed:
            return

        rows = db.execute("SELECT * FROM words WHERE words MATCH ?", (match_expression(terms),))

        assert rows.fetchall() == []


@pytest.mark.parametrize("query", ["", "   ", "!?", '""', "*", "\ud800"])
async def test_a_query_without_a_word_is_refused(index: SqliteIndex, query: str) -> None:
    with pytest.raises(ValidationFailed, match="no word"):
        await index.search(SearchQuery(text=query))


@pytest.mark.parametrize("query", ["x" * 1001, "a " * 33])
async def test_a_query_that_is_too_long_is_refused(index: SqliteIndex, query: str) -> None:
    with pytest.raises(ValidationFailed):
        await index.search(SearchQuery(text=query))


async def test_a_thread_is_one_hit_with_its_newest_match(index: SqliteIndex) -> None:
    index.apply([change(1, "alpha one", "beta", "alpha two"), change(2, "alpha")])

    page = await index.search(SearchQuery(text="alpha"))

    assert [(hit.facts.native_id, hit.offset) for hit in page.hits] == [
        ("thread-2", 0),
        ("thread-1", 20),
    ]


async def test_a_hit_is_completed_by_whoever_can_read_its_source(index: SqliteIndex) -> None:
    index.apply([change(1, "alpha")])

    page = await index.search(
        SearchQuery(text="alpha"), lambda hit: replace(hit, snippet=f"{hit.path}@{hit.offset}")
    )

    assert [hit.snippet for hit in page.hits] == ["/codex/sessions/001.jsonl@0"]


# Filters.


async def test_directories_contain_themselves_and_what_is_below(index: SqliteIndex) -> None:
    directories = ["/a", "/a/", "/a/b", "/ab", "/a.b", "/a0", "/", None]
    index.apply([change(n, "word", cwd=cwd) for n, cwd in enumerate(directories, 1)])

    assert await found(index, "word", under=["/a"], ascending=True) == ["1", "2", "3"]
    assert await found(index, "word", under=["/a/"], ascending=True) == ["1", "2", "3"]
    assert await found(index, "word", under=["/ab", "/a/b"], ascending=True) == ["3", "4"]
    assert len(await found(index, "word", under=["/"])) == 7


async def test_bounds_are_inclusive_and_leave_out_what_has_no_date(index: SqliteIndex) -> None:
    index.apply([change(n, "word") for n in (1, 2, 3)])
    index.apply([change(4, "word", latest_event_at=None, created_at=None)])
    at = [START + timedelta(hours=n) for n in range(5)]

    assert await found(index, "word", since=at[2]) == ["3", "2"]
    assert await found(index, "word", until=at[2]) == ["2", "1"]
    assert await found(index, "word", since=at[2], until=at[2]) == ["2"]
    assert await found(index, "word") == ["3", "2", "1", "4"]


async def test_a_bound_is_on_the_date_that_was_asked_for(index: SqliteIndex) -> None:
    index.apply([change(1, "word", latest_event_at=START + timedelta(days=9)), change(2, "word")])
    since = START + timedelta(days=1)

    assert await found(index, "word", since=since) == ["1"]
    assert await found(index, "word", since=since, date_field="created_at") == []
    assert await found(index, "word", sort="created_at") == ["2", "1"]
    assert await found(index, "word", sort="updated_at") == ["1", "2"]


async def test_archived_threads_are_left_out_unless_asked_for(index: SqliteIndex) -> None:
    index.apply([change(1, "word"), change(2, "word", archived=True)])

    assert await found(index, "word") == ["1"]
    assert await found(index, "word", archived=True) == ["2"]
    assert await found(index, "word", archived=None) == ["2", "1"]


async def test_only_the_threads_that_were_named(index: SqliteIndex) -> None:
    index.apply([change(n, "word") for n in (1, 2, 3)])

    for sort in ("updated_at", "relevance"):
        assert await found(index, "word", native_ids=["thread-2"], sort=sort) == ["2"]
        assert await found(index, "word", native_ids=[], sort=sort) == []


async def test_managed_threads_are_those_in_the_registry(
    data_dir: Path, open_registry: Any
) -> None:
    async with open_registry() as registry:
        await registry.threads.add(a_thread(1, native_id="thread-2"), ["0AAAA1"])
        registry.index.apply([change(n, "word") for n in (1, 2, 3)])

        assert await found(registry.index, "word", managed=True) == ["2"]
        assert await found(registry.index, "word", managed=False) == ["3", "1"]

        await registry.threads.add(a_thread(2, native_id="thread-3"), ["0AAAA2"])

        assert await found(registry.index, "word", managed=True) == ["3", "2"]


# Order and pages.


async def read_pages(index: SqliteIndex, **options: Any) -> list[str]:
    names: list[str] = []
    query = SearchQuery(text="word", limit=2, **options)
    while True:
        page = await index.search(query)
        names += [hit.facts.native_id.removeprefix("thread-") for hit in page.hits]
        if page.next is None:
            return names
        query = replace(query, cursor=page.next)


@pytest.mark.parametrize("sort", ["updated_at", "created_at", "relevance"])
@pytest.mark.parametrize("ascending", [False, True])
async def test_pages_together_are_the_whole(
    index: SqliteIndex, sort: Any, *, ascending: bool
) -> None:
    index.apply([change(n, "word " * n + "filler " * (9 - n)) for n in range(1, 8)])

    paged = await read_pages(index, sort=sort, ascending=ascending)

    assert paged == await found(index, "word", sort=sort, ascending=ascending)
    assert sorted(paged) == [str(n) for n in range(1, 8)]


async def test_threads_of_the_same_moment_are_on_one_page_each(index: SqliteIndex) -> None:
    index.apply([change(n, "word", latest_event_at=START) for n in range(1, 8)])

    assert sorted(await read_pages(index)) == [str(n) for n in range(1, 8)]


@pytest.mark.parametrize("sort", ["updated_at", "relevance"])
async def test_what_arrives_between_two_pages_repeats_nothing(
    index: SqliteIndex, sort: Any
) -> None:
    index.apply([change(n, "word " * n + "filler " * (9 - n)) for n in range(1, 7)])
    first = await index.search(SearchQuery(text="word", limit=3, sort=sort))

    index.apply([change(n, "word word word") for n in range(10, 16)])
    second = await index.search(SearchQuery(text="word", limit=9, sort=sort, cursor=first.next))

    before = {hit.facts.native_id for hit in first.hits}
    after = {hit.facts.native_id for hit in second.hits}
    assert not before & after
    assert {f"thread-{n}" for n in range(1, 7)} <= before | after


def forged(cursor: str, number: float) -> str:
    """Return a cursor with another number in the last place."""
    digest, first, _ = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    return urlsafe_b64encode(json.dumps([digest, first, number]).encode()).decode()


async def test_a_cursor_is_good_for_its_own_query_only(index: SqliteIndex) -> None:
    index.apply([change(n, "word other") for n in (1, 2, 3)])
    page = await index.search(SearchQuery(text="word", limit=1))

    for query in (
        SearchQuery(text="other", limit=1, cursor=page.next),
        SearchQuery(text="word", limit=1, cursor=page.next, ascending=True),
        SearchQuery(text="word", limit=1, cursor="nonsense"),
        SearchQuery(text="word", limit=1, cursor="W10"),
        SearchQuery(text="word", limit=1, cursor=forged(page.next, 1 << 63)),
        SearchQuery(text="word", limit=1, cursor=forged(page.next, float("nan"))),
    ):
        with pytest.raises(ValidationFailed, match="cursor"):
            await index.search(query)
    assert len((await index.search(SearchQuery(text="word", limit=2, cursor=page.next))).hits) == 2


async def test_the_most_relevant_comes_first(index: SqliteIndex) -> None:
    index.apply([change(1, "word word word"), change(2, "word " + "filler " * 200)])

    assert await found(index, "word", sort="relevance") == ["1", "2"]
    assert await found(index, "word", sort="relevance", ascending=True) == ["2", "1"]


async def test_a_common_word_is_found_as_a_rare_one_is(index: SqliteIndex) -> None:
    index.apply([change(n, *["word"] * 600) for n in range(1, 11)])
    index.apply([change(11, "rare"), change(12, "word", archived=True)])

    everything = [str(n) for n in range(10, 0, -1)]
    assert await found(index, "word") == everything
    assert await read_pages(index) == everything
    assert await found(index, "word", native_ids=["thread-3", "thread-11"]) == ["3"]
    page = await index.search(SearchQuery(text="word", limit=1))
    assert page.hits[0].offset == 5990


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_limit_that_makes_no_sense_is_refused(index: SqliteIndex, limit: int) -> None:
    with pytest.raises(ValidationFailed, match="limit"):
        await index.search(SearchQuery(text="word", limit=limit))


# What is known of sources.


async def test_a_source_comes_back_as_it_was_stored(index: SqliteIndex) -> None:
    stored = source(
        1,
        preview="Say hello",
        model="m",
        effort="high",
        history_mode="paginated",
        forked_from="thread-0",
        base=("thread-0", 99),
        lines=4,
        malformed=0,
    )
    partly = replace(stored.checkpoint, gap=(10, 300), malformed=2)
    stored = replace(stored, checkpoint=partly, state=SyncState.PARTIAL, error=None)

    index.apply([SourceChange(source=stored, documents=(), replace=True)])

    assert index.source(stored.checkpoint.path) == stored
    assert index.sources(["thread-1", "thread-9"]) == {"thread-1": stored}
    assert index.checkpoints() == {stored.checkpoint.path: partly}


async def test_what_is_added_is_found_with_what_was_there(index: SqliteIndex) -> None:
    index.apply([change(1, "first")])

    index.apply([change(1, "second", offset=100, fresh=False)])

    assert await found(index, "first") == await found(index, "second") == ["1"]


async def test_what_is_replaced_is_not_found_any_more(index: SqliteIndex) -> None:
    index.apply([change(1, "first")])

    index.apply([change(1, "second")])

    assert await found(index, "first") == []
    assert await found(index, "second") == ["1"]


async def test_what_is_read_later_between_head_and_tail_is_in_the_order_of_the_file(
    index: SqliteIndex,
) -> None:
    head = change(1, "word", offset=0)
    gapped = replace(head.source.checkpoint, gap=(100, 400))
    tail = change(1, "word", offset=400, fresh=False)
    middle = change(1, "word", "middle", offset=100, fresh=False)

    index.apply([head])
    index.apply([replace(tail, source=replace(tail.source, checkpoint=gapped))])
    index.apply([middle])

    page = await index.search(SearchQuery(text="word"))
    assert page.hits[0].offset == 400
    assert await found(index, "middle") == ["1"]


async def test_a_source_that_is_gone_is_not_found_any_more(index: SqliteIndex) -> None:
    index.apply([change(1, "word"), change(2, "word")])

    index.forget([source(1).checkpoint.path])

    assert await found(index, "word") == ["2"]
    assert index.sources(["thread-1"]) == {}
    assert list(index.checkpoints()) == [source(2).checkpoint.path]


async def test_a_source_that_moved_keeps_its_documents(index: SqliteIndex) -> None:
    index.apply([change(1, "word")])

    index.moved(source(1).checkpoint.path, "/codex/archived_sessions/001.jsonl", archived=True)

    page = await index.search(SearchQuery(text="word", archived=True))
    assert [hit.path for hit in page.hits] == ["/codex/archived_sessions/001.jsonl"]
    assert list(index.checkpoints()) == ["/codex/archived_sessions/001.jsonl"]


async def test_reverted_turns_are_not_found(index: SqliteIndex) -> None:
    index.apply([change(1, "kept", "reverted", segment="a")])

    again = source(2, native_id="thread-1", segment="b", base=("a", 10))
    document = Document(offset=0, at=None, turn_id=None, role="user", text="afterwards")
    index.apply([SourceChange(source=again, documents=[document], replace=True)])

    assert await found(index, "kept") == ["1"]
    assert await found(index, "afterwards") == ["1"]
    assert await found(index, "reverted") == []
    assert await found(index, "reverted", sort="relevance") == []


async def test_a_second_revert_to_before_the_first_hides_what_lay_between(
    index: SqliteIndex,
) -> None:
    index.apply([change(1, "kept", "reverted", segment="a")])
    for number, segment, base, text in (
        (2, "b", ("a", 10), "between"),
        (3, "c", ("a", 5), "afterwards"),
    ):
        again = source(number, native_id="thread-1", segment=segment, base=base)
        document = Document(offset=0, at=None, turn_id=None, role="user", text=text)
        index.apply([SourceChange(source=again, documents=[document], replace=True)])

    assert await found(index, "between") == []
    assert await found(index, "kept") == await found(index, "afterwards") == ["1"]
    assert index.sources(["thread-1"])["thread-1"].checkpoint.path.endswith("003.jsonl")


async def test_a_title_is_shown_with_a_hit_and_survives_a_new_reading(index: SqliteIndex) -> None:
    index.apply([change(1, "word")])

    index.name({"thread-1": "My name", "thread-9": "nobody"})
    index.apply([change(1, "word again")])

    page = await index.search(SearchQuery(text="word"))
    assert [hit.facts.title for hit in page.hits] == ["My name"]
    assert index.sources(["thread-1"])["thread-1"].facts.title == "My name"


async def test_expected_sources_are_unknown_until_they_are_read(index: SqliteIndex) -> None:
    paths = [source(n).checkpoint.path for n in (1, 2)]

    index.expect(paths)

    assert index.checkpoints() == {}
    assert index.source(paths[0]) is None


async def test_the_most_relevant_of_many_are_looked_for_among_the_newest(
    index: SqliteIndex,
) -> None:
    paths = [source(n).checkpoint.path for n in (1, 2)]
    index.expect(paths)

    index.apply([change(2, *["word"] * 2500)])
    index.apply([change(1, "word")])

    assert await found(index, "word", sort="relevance") == ["2"]


async def test_a_change_that_fails_leaves_what_was_committed(index: SqliteIndex) -> None:
    def changes() -> Any:
        yield change(1, "word")
        raise RuntimeError("the reader broke")

    with pytest.raises(RuntimeError):
        index.apply(changes())

    assert index.checkpoints() == {}
    assert index.apply([change(1, "word")]) == 1
    assert await found(index, "word") == ["1"]


async def test_another_process_may_write_the_same_index(
    index: SqliteIndex, index_path: Path
) -> None:
    index.apply([change(1, "word")])
    assert list(index.checkpoints()) == [source(1).checkpoint.path]

    address = index.address()
    with opened(*address.arguments) as other:
        other.apply([change(2, "word")])

    assert address.arguments[0] == str(index_path)
    assert len(index.checkpoints()) == 2
    assert await found(index, "word") == ["2", "1"]


# The file.


async def test_the_index_survives_a_restart_and_is_private(data_dir: Path) -> None:
    path = data_dir / "index.db"
    with opened(str(path), "/nowhere") as index:
        index.apply([change(1, "word")])

    with opened(str(path), "/nowhere") as again:
        assert list(again.checkpoints()) == [source(1).checkpoint.path]

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(b"not a database" * 100), id="not a database"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:5000]), id="cut"),
        pytest.param(lambda path: run(path, "PRAGMA user_version = 99"), id="newer"),
        pytest.param(lambda path: run(path, "PRAGMA application_id = 1"), id="foreign"),
        pytest.param(lambda path: run(path, "DROP TABLE docs"), id="a table is missing"),
        pytest.param(lambda path: run(path, "DROP TABLE sources"), id="sources are missing"),
    ],
)
async def test_a_file_that_is_of_no_use_is_built_anew(
    data_dir: Path, spoil: Callable[[Path], Any]
) -> None:
    path = data_dir / "index.db"
    with opened(str(path), "/nowhere") as index:
        index.apply([change(1, "word")])
    spoil(path)

    with opened(str(path), "/nowhere") as again:
        assert again.checkpoints() == {}
        assert again.apply([change(1, "word")]) == 1
        assert await found(again, "word") == ["1"]


async def test_damage_that_is_found_by_a_search_is_repaired_by_the_next_pass(
    data_dir: Path,
) -> None:
    path = data_dir / "index.db"
    with opened(str(path), "/nowhere") as index:
        index.apply([change(1, "word")])
    run(path, "UPDATE words_data SET block = x'ffff' WHERE id > 10")

    with opened(str(path), "/nowhere") as again:
        with pytest.raises(StorageError, match="index"):
            await again.search(SearchQuery(text="word"))
        assert again.checkpoints() == {}
        again.apply([change(1, "word")])

        assert await found(again, "word") == ["1"]


async def test_a_file_that_is_deleted_while_it_is_in_use_is_built_anew(
    index: SqliteIndex, index_path: Path
) -> None:
    index.apply([change(1, "word")])
    assert await found(index, "word") == ["1"]
    await anyio.Path(index_path).unlink()

    known = index.checkpoints()
    index.apply([change(2, "word")])

    assert known == {}
    assert await found(index, "word") == ["2"]


async def test_an_index_that_is_closed_says_so(data_dir: Path) -> None:
    index = SqliteIndex(data_dir / "index.db", data_dir / "registry.db")

    with pytest.raises(StorageError, match="not open"):
        index.checkpoints()


def run(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()
