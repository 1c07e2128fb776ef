"""Search over the index and Codex at once, and in one thread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.history import SearchHit, SearchPage, SourceFacts
from dispatch_core.errors import (
    CapabilityUnavailable,
    CodexError,
    CodexUnavailable,
    NotFound,
    ThreadNotFound,
    ValidationFailed,
)
from dispatch_plugins.ops.search import search
from dispatch_plugins.ops.search.dates import moment
from dispatch_plugins.ops.search.matching import Matcher
from dispatch_plugins.ops.search.models import SearchInput

pytestmark = pytest.mark.anyio

BASE = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ID = "01a08340-5251-7d23-87b0-50f6e191{:04d}".format


class Index:
    """An index that finds what it is told to, in pages by number; filters as the real one has them."""

    def __init__(self):
        self.hits, self.asked, self.behind, self.error = [], [], 0, None

    def add(self, number, *, hours, archived=False, cwd="/srv/app", created=None):
        at = BASE - timedelta(hours=hours)
        facts = SourceFacts(
            native_id=ID(number),
            cwd=cwd,
            title=f"name {number}",
            created_at=created or at,
            latest_event_at=at,
            archived=archived,
        )
        text = f"the \x02needle\x03 of {number}"
        self.hits.append(SearchHit(facts=facts, path="/r", offset=number, snippet=text))

    async def search(self, query):
        self.asked.append(query)
        if self.error:
            raise self.error
        found = [
            hit
            for hit in self.hits
            if (query.native_ids is None or hit.facts.native_id in query.native_ids)
            and (query.archived is None or query.archived is hit.facts.archived)
        ]
        if query.sort != "relevance":
            found.sort(key=lambda hit: hit.facts.latest_event_at, reverse=not query.ascending)
        start = int(query.cursor or 0)
        end = start + query.limit
        page = tuple(found[start:end])
        return SearchPage(
            hits=page, next=str(end) if end < len(found) else None, behind=self.behind
        )

    def sources(self, native_ids):
        return {}


class CodexSearch:
    """Codex's ``thread/search``: newest first, a cursor that is a time."""

    def __init__(self, world):
        self.found, self.asked, self.error = [], [], None
        world.codex.on["thread/search"] = self

    def add(self, number, *, hours, archived=False, cwd="/srv/app"):
        at = (BASE - timedelta(hours=hours)).timestamp()
        thread = {
            "id": ID(number),
            "name": f"name {number}",
            "cwd": cwd,
            "status": {"type": "notLoaded"},
        }
        thread |= {"createdAt": at, "updatedAt": at}
        self.found.append((archived, {"thread": thread, "snippet": f"a Needle\nof {number}"}))

    async def __call__(self, params):
        self.asked.append(dict(params))
        if self.error:
            raise self.error
        ascending = params["sortDirection"] == "asc"
        rows = [row for archived, row in self.found if archived is params["archived"]]
        rows.sort(key=lambda row: row["thread"]["updatedAt"], reverse=not ascending)
        if params["cursor"] is not None:
            rows = [r for r in rows if r["thread"]["updatedAt"] < float(params["cursor"])]
        page = rows[:2]
        more = len(rows) > len(page)
        return {
            "data": page,
            "nextCursor": str(page[-1]["thread"]["updatedAt"]) if more else None,
        }


@pytest.fixture
def index():
    return Index()


@pytest.fixture
def codex(world):
    return CodexSearch(world)


@pytest.fixture
def context(world, index):
    return OpContext(
        caller=HUMAN,
        deliveries=None,
        requests=None,
        lanes=world.lanes,
        codex=world.codex,
        store=world.storage,
        events=world.events,
        clock=SimpleNamespace(now=lambda: BASE),
        triggers=None,
        daemon=None,
        ops=None,
        history=index,
    )


def numbers(hits):
    return [int(hit.id[-4:]) for hit in hits]


async def ask(context, query="needle", **options):
    return await search(context, SearchInput(query=query, **options))


async def every_page(context, **options):
    hits, after = [], None
    while True:
        page = await ask(context, after=after, **options)
        hits += page.hits
        assert len(page.hits) <= options["limit"]
        after = page.next
        if after is None:
            return hits


@pytest.mark.parametrize("limit", [1, 2, 3, 20])
async def test_what_both_find_is_one_list_in_one_order_without_doubles(
    context, index, codex, limit
):
    for number in (0, 3, 4, 7):
        index.add(number, hours=number)
    for number in (0, 1, 2, 4, 5, 6):
        codex.add(number, hours=number)

    hits = await every_page(context, limit=limit)

    assert numbers(hits) == list(range(8))
    by_number = {int(hit.id[-4:]): hit.found_in for hit in hits}
    assert by_number[1] == ["codex"]
    assert by_number[3] == ["index"]
    assert by_number[0] == ["index", "codex"]


@pytest.mark.parametrize("limit", [2, 20])
async def test_the_oldest_come_first_if_asked(context, index, codex, limit):
    for number in (0, 2):
        index.add(number, hours=number)
    codex.add(1, hours=1)

    hits = await every_page(context, limit=limit, ascending=True)

    assert numbers(hits) == [2, 1, 0]


async def test_what_cannot_be_ranked_comes_behind_what_can(context, index, codex):
    for number in (5, 3):
        index.add(number, hours=number)
    codex.add(1, hours=1)

    page = await ask(context, sort="relevance")

    assert numbers(page.hits) == [5, 3, 1]


async def test_archived_threads_are_searched_only_if_asked(context, index, codex):
    index.add(1, hours=1, archived=True)
    codex.add(2, hours=2, archived=True)

    assert numbers((await ask(context)).hits) == []
    assert numbers((await ask(context, archived=True)).hits) == [1, 2]


async def test_filters_go_into_the_question_and_are_applied_to_what_codex_finds(
    world, context, index, codex, tmp_path
):
    codex.add(1, hours=1, cwd=str(tmp_path / "x" / "src"))
    codex.add(2, hours=2, cwd=f"{tmp_path}/xx")
    codex.add(3, hours=72, cwd=str(tmp_path / "x"))

    page = await ask(context, directory=str(tmp_path / "x"), since="1d", unmanaged=True)

    assert numbers(page.hits) == [1]
    query = index.asked[0]
    assert query.under == (str(tmp_path / "x"),)
    assert (query.managed, query.since) == (False, BASE - timedelta(days=1))


async def test_directories_that_exclude_each_other_leave_nothing(context, codex, tmp_path):
    (tmp_path / "a" / ".git").mkdir(parents=True)
    (tmp_path / "a" / ".git" / "HEAD").touch()
    codex.add(1, hours=1, cwd=str(tmp_path / "a"))

    page = await ask(context, repo=str(tmp_path / "a"), directory=str(tmp_path / "b"))

    assert (page.hits, page.next, page.complete) == ([], None, True)


async def test_a_managed_thread_is_found_under_its_names(world, context, index, codex):
    async with world.running():
        mine = await world.thread("mine")
        codex.add(1, hours=1)
        codex.found[0][1]["thread"]["id"] = mine.native_id

        managed = await ask(context, managed=True)
        unmanaged = await ask(context, unmanaged=True)

    assert [(hit.ref, hit.handle, hit.managed) for hit in managed.hits] == [
        (mine.ref, "@mine", True)
    ]
    assert unmanaged.hits == []


async def test_snippets_say_where_the_words_are(context, index, codex):
    index.add(1, hours=1)
    codex.add(2, hours=2)

    for hit in (await ask(context)).hits:
        [(start, end)] = hit.matches
        assert hit.snippet[start:end].lower() == "needle"
        assert "\x02" not in hit.snippet
        assert "\n" not in hit.snippet


async def test_without_codex_the_index_answers_and_says_so(context, index, codex):
    index.add(1, hours=1)
    codex.error = CodexUnavailable("Codex is not running")

    page = await ask(context)

    assert (numbers(page.hits), page.next, page.complete) == ([1], None, False)
    assert "Codex is not running" in page.notes[0]


async def test_without_an_index_codex_answers_and_it_is_said(context, index, codex):
    codex.add(1, hours=1)
    index.error = CapabilityUnavailable("no index")

    page = await ask(context)

    assert (numbers(page.hits), page.complete) == ([1], False)


async def test_without_both_it_is_an_error(context, index, codex):
    index.error = CapabilityUnavailable("no index")
    codex.error = CodexUnavailable("Codex is not running")

    with pytest.raises(CodexUnavailable):
        await ask(context)


async def test_no_page_is_complete_after_one_that_codex_could_not_be_asked_for(
    context, index, codex
):
    for number in (1, 2, 3):
        index.add(number, hours=number)
    codex.error = CodexUnavailable("Codex is not running")

    pages = [await ask(context, limit=1)]
    codex.error = None
    while pages[-1].next:
        pages.append(await ask(context, limit=1, after=pages[-1].next))

    assert [numbers(page.hits) for page in pages] == [[1], [2], [3]]
    assert [page.complete for page in pages] == [False] * 3
    assert "Codex could not be asked on a page before" in pages[-1].notes[0]


async def test_an_index_that_comes_back_between_two_pages_hides_nothing(context, index, codex):
    for number in (1, 2, 3):
        index.add(number, hours=number)
        codex.add(number, hours=number)
    index.error = CapabilityUnavailable("no index")

    pages = [await ask(context, limit=1)]
    index.error = None
    while pages[-1].next:
        pages.append(await ask(context, limit=1, after=pages[-1].next))

    assert [number for page in pages for number in numbers(page.hits)] == [1, 2, 3]
    assert not any(page.complete for page in pages)


async def test_text_that_is_not_indexed_yet_is_named(context, index, codex):
    index.behind = 2

    page = await ask(context)

    assert page.complete is False
    assert "dispatch sync" in page.notes[0]


async def test_what_fits_rarely_is_given_up_for_now_and_goes_on(context, index, codex):
    for number in range(50):
        codex.add(number, hours=number, cwd="/srv/app" if number == 49 else "/elsewhere")

    first = await ask(context, directory="/srv")
    hits = await every_page(context, directory="/srv", limit=5)

    assert (first.hits, first.complete) == ([], False)
    assert first.next is not None
    assert numbers(hits) == [49]


@pytest.mark.parametrize(
    "options",
    [
        {"query": "…"},
        {"since": "soon"},
        {"since": "2026-02-30"},
        {"until": "999999w"},
        {"since": "1d", "until": "2d"},
        {"managed": True, "unmanaged": True},
        {"repo": "/"},
        {"after": "x"},
        {"thread": "@x", "ascending": True},
        {"thread": "@x", "sort": "relevance"},
    ],
)
async def test_a_question_without_sense_is_refused(context, codex, options):
    with pytest.raises(ValidationFailed) as caught:
        await ask(context, **{"query": "needle", **options})

    assert caught.value.hint


async def test_a_thread_that_is_not_there_is_not_searched(world, context, codex):
    async def unknown(params):
        raise CodexError("thread not loaded: " + params["threadId"])

    world.codex.on["thread/read"] = unknown

    with pytest.raises(ThreadNotFound):
        await ask(context, thread="@nobody")
    with pytest.raises(NotFound, match="Codex has no thread"):
        await ask(context, thread=ID(1))


async def test_every_item_of_an_unmanaged_thread_is_found_newest_first(world, context, codex):
    def turn(number):
        items = [
            {
                "type": "userMessage",
                "id": f"u{number}",
                "content": [{"text": f"find Needle {number}"}],
            },
            {
                "type": "commandExecution",
                "id": f"c{number}",
                "command": "ls",
                "aggregatedOutput": "",
            },
            {"type": "agentMessage", "id": f"a{number}", "text": f"the needle, {number}"},
        ]
        return {"id": f"t{number}", "items": items, "startedAt": BASE.timestamp() - number}

    async def read(params):
        return {"thread": {"id": params["threadId"], "name": "n", "cwd": "/srv"}}

    async def turns(params):
        number = int(params["cursor"] or 0)
        return {"data": [turn(number)], "nextCursor": str(number + 1) if number < 2 else None}

    world.codex.on |= {"thread/read": read, "thread/turns/list": turns}

    hits = await every_page(context, thread=ID(1), limit=2)

    assert [(hit.turn_id, hit.item_id) for hit in hits] == [
        (f"t{n}", f"{kind}{n}") for n in range(3) for kind in "au"
    ]
    assert hits[0].snippet == "the needle, 0"
    assert (await ask(context, thread=ID(1), managed=True)).hits == []


@pytest.mark.parametrize(
    ("text", "end", "expected"),
    [
        ("2026-05-04T09:30Z", False, datetime(2026, 5, 4, 9, 30, tzinfo=UTC)),
        ("2026-05-04T09:30:00+02:00", True, datetime(2026, 5, 4, 7, 30, tzinfo=UTC)),
        ("90m", False, BASE - timedelta(minutes=90)),
        ("2w", True, BASE - timedelta(weeks=2)),
    ],
)
async def test_a_moment_is_the_same_everywhere(text, end, expected):
    assert moment(text, "since", now=BASE, end=end) == expected


@pytest.mark.parametrize("text", ["2026-05-04", "today", "yesterday", "20260504"])
async def test_a_day_is_all_of_the_local_day(text):
    start, end = (moment(text, "since", now=BASE, end=end).astimezone() for end in (False, True))

    assert (start.hour, start.minute, end.hour, end.minute) == (0, 0, 23, 59)
    assert start.date() == end.date()


@pytest.mark.parametrize(
    ("query", "text", "spans"),
    [
        ("needle", "A Needle, needles", [(2, 8)]),
        ("needle*", "needles", [(0, 7)]),
        ('"a needle"', "needle a; a needle", [(10, 18)]),
        ('"foo bar"', "foobar", []),
        ("foo", "漢foo字", [(1, 4)]),
        ("b a", "a b", [(0, 1), (2, 3)]),
        ("a c", "a b", []),
        ("cafe", "CAFÉ", [(0, 4)]),
        ("漢字", "この漢字は", [(2, 4)]),
        ("don't", "don't", [(0, 5)]),
    ],
)
async def test_words_are_found_as_the_index_finds_them(query, text, spans):
    matcher = Matcher(query)

    assert matcher.fits(text) is bool(spans)
    assert not spans or matcher.around(text) == (text, spans)


async def test_the_text_around_a_match_is_one_line_with_the_match_in_it():
    snippet, [(start, end)] = Matcher("needle").around("x " * 100 + "needle\n" + "y " * 200)

    assert snippet[start:end] == "needle"
    assert snippet.startswith("…")
    assert snippet.endswith("…")
    assert len(snippet) < 210
