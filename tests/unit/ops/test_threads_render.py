"""What people see, at 80 and at 120 columns, word for word."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dispatch_core.contracts.history import SyncState
from dispatch_core.contracts.records import Source, ThreadStatus, TurnStatus
from dispatch_core.contracts.thread_view import ThreadView, TurnView
from dispatch_core.contracts.view import View, columns_of
from dispatch_plugins.ops.search.models import Hit, SearchOutput
from dispatch_plugins.ops.search.render import render_search
from dispatch_plugins.ops.shared.histories import sync_view
from dispatch_plugins.ops.threads.conversation import LINES, render_tail
from dispatch_plugins.ops.threads.listing import ListOutput, ThreadRow, UnmanagedView, render_list
from dispatch_plugins.ops.threads.show import GetOutput, InUseView, SettingsView, render_get
from dispatch_plugins.ops.threads.tail import TURN_FAILED, Item, TailOutput

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ID = "01a08340-5251-7d23-87b0-50f6e1911115"
OTHER = "01a08341-cd1f-7e73-8721-3fc0d0c1b4a8"


def view(width: int, *, color: bool = False) -> View:
    return View(width, color, NOW, home="/home/you")


def ago(**units: int) -> datetime:
    return NOW - timedelta(**units)


def thread(ref: str, handle: str, cwd: str, status: ThreadStatus = ThreadStatus.IDLE) -> ThreadView:
    return ThreadView(
        ref=ref,
        id=ID,
        handle=handle,
        title=None,
        key="k",
        source=Source.OWN,
        status=status,
        cwd=cwd,
    )


BUILDER = thread("0BGeK1", "@builder", "/home/you/src/dispatch")


def row(shown: ThreadView | UnmanagedView, changed: datetime, **more: str | None) -> ThreadRow:
    nothing = {"preview": None, "origin": None, "provider": None, "model": None}
    return ThreadRow(
        **{
            "thread": shown,
            "turn": None,
            "created_at": NOW,
            "updated_at": changed,
            **nothing,
            **more,
        }
    )


MANAGED = ListOutput(
    managed=True,
    threads=[
        row(BUILDER, ago(minutes=3), model="gpt-6.1-sol"),
        row(
            thread(
                "0ABFs1", "@漢字レビュー担当", "/srv/checkouts/of/the/project", ThreadStatus.BUSY
            ),
            ago(hours=5),
        ),
        row(
            thread(
                "0DzNr1", "@a name that is rather long", "/home/you", ThreadStatus.WAITING_APPROVAL
            ),
            ago(days=12),
            model="gpt-6.1-sol",
        ),
        row(
            thread(
                "0ACpq1", "@evil\x1b[2J\u202e\U0001f680", "/tmp/\u0645\u0631", ThreadStatus.ERROR
            ),
            NOW,
            model="m",
        ),
    ],
    next="WzEyM10",
)

UNMANAGED = ListOutput(
    managed=False,
    threads=[
        row(
            UnmanagedView(
                id=ID, title="Fix the build", status="not_loaded", cwd="/home/you/src/app/api"
            ),
            ago(hours=2),
            preview="the build is broken",
            origin="cli",
            provider="openai",
        ),
        row(
            UnmanagedView(id=OTHER, title=None, status="archived", cwd=None),
            ago(days=3),
            preview="please look at the tests that fail on main since yesterday",
            origin="exec",
            provider="openai",
        ),
    ],
    next=None,
)


def item(turn: str, kind: str, role: str, text: str, status: str = "completed") -> Item:
    return Item(
        turn_id=turn,
        item_id=text[:9],
        type=kind,
        role=role,
        text=text,
        at=ago(minutes=9),
        turn_status=status,
    )


ITEMS = [
    item(
        "t1",
        "userMessage",
        "user",
        "Make the build faster.\n\nStart with the slowest step, and tell me what you find before you change anything.",
    ),
    item("t1", "reasoning", "reasoning", "**Looking at the build**\n\nIt is slow."),
    item("t1", "commandExecution", "tool", "$ /bin/bash -lc 'make -j8\necho done'\nok"),
    item(
        "t1",
        "commandExecution",
        "tool",
        "$ /bin/bash -lc 'pytest -q'\nE   1 == 2\n1 failed\n[exit 1]",
    ),
    item("t1", "fileChange", "tool", "update /home/you/src/app/Makefile\nadd /home/you/cache.mk"),
    item("t1", "mcpToolCall", "tool", "github.create_issue\n[failed] no token"),
    item("t1", "contextCompaction", "other", "the conversation so far was summarised"),
    item(
        "t1",
        "agentMessage",
        "agent",
        "The slowest step is linking.\n\n- 40 s\n- 漢字も折り返す\x1b[2J",
    ),
    item("t2", "userMessage", "user", "Go on", "failed"),
]
FAILED = TurnView(
    id="t2",
    message_id=None,
    status=TurnStatus.FAILED,
    started_at=ago(minutes=1),
    completed_at=NOW,
    error="The model is overloaded.",
)


def told(**more: object) -> TailOutput:
    values: dict[str, object] = {
        "thread": BUILDER,
        "turn": FAILED,
        "items": ITEMS,
        "older": "h1",
        "cursor": "c",
        "continues": False,
        "gap": False,
        "full": False,
    }
    return TailOutput(**{**values, **more})


GOT = GetOutput(
    thread=BUILDER.model_copy(update={"status": ThreadStatus.ERROR, "title": "the builder"}),
    turn=FAILED,
    model="gpt-6.1-sol",
    sandbox="workspace-write",
    approval_policy="never",
    settings=SettingsView(
        **{
            **dict.fromkeys(SettingsView.model_fields),
            "sandbox": "workspace-write",
            "approval_policy": "never",
            "model": "gpt-6.1-sol",
            "developer_instructions": "be brief",
        }
    ),
    in_use=InUseView(provider="openai", model="gpt-6-luna", effort="high", service_tier=None),
    writable=True,
    locked_reason=None,
    ephemeral=False,
    materialized=True,
    path="/home/you/.codex/sessions/2026/05/04/rollout.jsonl",
    sync=sync_view(None).model_copy(
        update={"state": SyncState.PARTIAL, "synced_at": ago(minutes=30)}
    ),
    error="The model is overloaded.",
    next="dispatch tail 0BGeK1, then dispatch send 0BGeK1 TEXT to try again",
    items=[],
    created_at=ago(days=2),
    updated_at=NOW,
)


def hit(**more: object) -> Hit:
    values: dict[str, object] = {
        "id": ID,
        "managed": True,
        "archived": False,
        "updated_at": ago(hours=3),
        "found_in": ["index", "codex"],
    }
    return Hit(**{**values, **more})


FOUND = SearchOutput(
    query="needle",
    hits=[
        hit(
            ref="0BGeK1",
            handle="@builder",
            cwd="/home/you/src/dispatch",
            snippet="…we should look at the needle in the haystack before anything else is changed, "
            "because it is what makes the whole build so slow that nobody",
            matches=[(23, 29)],
        ),
        hit(
            managed=False,
            archived=True,
            name="Find the needle",
            cwd="/srv/x",
            found_in=["codex"],
            snippet="x" * 100 + " needle here and more text",
            matches=[(101, 107)],
        ),
        hit(
            ref="0BGeK1",
            handle="@builder",
            snippet="漢字 needle",
            matches=[(3, 9)],
            turn_id="t1",
            item_id="i",
            role="agent",
            at=ago(minutes=2),
        ),
    ],
    next="WzEyM10",
    complete=False,
    notes=["2 histories have text that is not indexed yet: dispatch sync reads it"],
)

CASES = {
    "list 80": lambda: render_list(MANAGED, view(80)),
    "list 120": lambda: render_list(MANAGED, view(120)),
    "list 80 in colour": lambda: render_list(MANAGED, view(80, color=True)),
    "unmanaged 80": lambda: render_list(UNMANAGED, view(80)),
    "unmanaged 120": lambda: render_list(UNMANAGED, view(120)),
    "get 80": lambda: render_get(GOT, view(80)),
    "get 120": lambda: render_get(GOT.model_copy(update={"items": ITEMS[-2:]}), view(120)),
    "tail 80": lambda: render_tail(told(), view(80)),
    "tail 120": lambda: render_tail(told(), view(120)),
    "tail 80 in full": lambda: render_tail(told(full=True, older=None), view(80)),
    "tail 80 in colour": lambda: render_tail(told(items=ITEMS[3:4]), view(80, color=True)),
    "search 80": lambda: render_search(FOUND, view(80)),
    "search 120": lambda: render_search(FOUND, view(120)),
    "search 80 in colour": lambda: render_search(FOUND, view(80, color=True)),
}

EXPECTED = {
    "list 80": """\
REF     NAME              STATE               AGE  MODEL        DIRECTORY
0BGeK1  @builder          ○ idle              3m   gpt-6.1-sol  ~/src/dispatch
0ABFs1  @漢字レビュー担…  ● busy              5h   -            …/of/the/project
0DzNr1  @a name that is…  ? waiting_approval  12d  gpt-6.1-sol  ~
0ACpq1  @evil [2J 🚀      ✗ error             0s   m            /tmp/مر
more: add --after WzEyM10""",
    "list 120": """\
REF     NAME                         STATE               AGE  MODEL        DIRECTORY
0BGeK1  @builder                     ○ idle              3m   gpt-6.1-sol  ~/src/dispatch
0ABFs1  @漢字レビュー担当            ● busy              5h   -            /srv/checkouts/of/the/project
0DzNr1  @a name that is rather long  ? waiting_approval  12d  gpt-6.1-sol  ~
0ACpq1  @evil [2J 🚀                 ✗ error             0s   m            /tmp/مر
more: add --after WzEyM10""",
    "list 80 in colour": """\
\x1b[2mREF     NAME              STATE               AGE  MODEL        DIRECTORY\x1b[0m
0BGeK1  @builder          \x1b[32m○ idle            \x1b[0m  3m   gpt-6.1-sol  ~/src/dispatch
0ABFs1  @漢字レビュー担…  \x1b[36m● busy            \x1b[0m  5h   -            …/of/the/project
0DzNr1  @a name that is…  \x1b[33m? waiting_approval\x1b[0m  12d  gpt-6.1-sol  ~
0ACpq1  @evil [2J 🚀      \x1b[31m✗ error           \x1b[0m  0s   m            /tmp/مر
more: add --after WzEyM10""",
    "unmanaged 80": """\
ID                                    NAME                    AGE  DIRECTORY
01a08340-5251-7d23-87b0-50f6e1911115  Fix the build           2h   ~/src/app/api
01a08341-cd1f-7e73-8721-3fc0d0c1b4a8  please look at the te…  3d   -
  next: dispatch attach ID""",
    "unmanaged 120": """\
ID                                    NAME                                        AGE  STATE         FROM  DIRECTORY
01a08340-5251-7d23-87b0-50f6e1911115  Fix the build                               2h   · not_loaded  cli   ~/src/app/api
01a08341-cd1f-7e73-8721-3fc0d0c1b4a8  please look at the tests that fail on mai…  3d   ▫ archived    exec  -
  next: dispatch attach ID""",
    "get 80": """\
thread        @builder (0BGeK1)
state         ✗ error
error         The model is overloaded.
next          dispatch tail 0BGeK1, then dispatch send 0BGeK1 TEXT to try again
title         the builder
directory     ~/src/dispatch
source        made by dispatch
model         gpt-6-luna, openai, high (asked for: gpt-6.1-sol)
sandbox       workspace-write
approvals     never
instructions  8 characters
latest turn   ✗ failed 0s ago, t2
created       2d ago
changed       0s ago
index         partial, 30m ago
history       ~/.codex/sessions/2026/05/04/rollout.jsonl
codex id      01a08340-5251-7d23-87b0-50f6e1911115""",
    "get 120": """\
thread        @builder (0BGeK1)
state         ✗ error
error         The model is overloaded.
next          dispatch tail 0BGeK1, then dispatch send 0BGeK1 TEXT to try again
title         the builder
directory     ~/src/dispatch
source        made by dispatch
model         gpt-6-luna, openai, high (asked for: gpt-6.1-sol)
sandbox       workspace-write
approvals     never
instructions  8 characters
latest turn   ✗ failed 0s ago, t2
created       2d ago
changed       0s ago
index         partial, 30m ago
history       ~/.codex/sessions/2026/05/04/rollout.jsonl
codex id      01a08340-5251-7d23-87b0-50f6e1911115

── ✓ completed · 9m ago · turn t1 ──────────────────────────────────────────────────────────────────────────────────────
codex
  The slowest step is linking.

  - 40 s
  - 漢字も折り返す[2J

── ✗ failed · 9m ago · turn t2 ─────────────────────────────────────────────────────────────────────────────────────────
you
  Go on""",
    "tail 80": """\
older: dispatch tail 0BGeK1 --limit 40
── ✓ completed · 9m ago · turn t1 ──────────────────────────────────────────────
you
  Make the build faster.

  Start with the slowest step, and tell me what you find before you change
  anything.

codex
  thought: Looking at the build
  $ make -j8 ⏎ echo done  ✓
  $ pytest -q  ✗ exit 1
    1 failed
  edited ~/src/app/Makefile
  added ~/cache.mk
  ⚙ github.create_issue  ✗ failed
  the conversation so far was summarised
  The slowest step is linking.

  - 40 s
  - 漢字も折り返す[2J

── ✗ failed · 9m ago · turn t2 ─────────────────────────────────────────────────
you
  Go on
  ✗ The model is overloaded.""",
    "tail 120": """\
older: dispatch tail 0BGeK1 --limit 40
── ✓ completed · 9m ago · turn t1 ──────────────────────────────────────────────────────────────────────────────────────
you
  Make the build faster.

  Start with the slowest step, and tell me what you find before you change anything.

codex
  thought: Looking at the build
  $ make -j8 ⏎ echo done  ✓
  $ pytest -q  ✗ exit 1
    1 failed
  edited ~/src/app/Makefile
  added ~/cache.mk
  ⚙ github.create_issue  ✗ failed
  the conversation so far was summarised
  The slowest step is linking.

  - 40 s
  - 漢字も折り返す[2J

── ✗ failed · 9m ago · turn t2 ─────────────────────────────────────────────────────────────────────────────────────────
you
  Go on
  ✗ The model is overloaded.""",
    "tail 80 in full": """\
── ✓ completed · 9m ago · turn t1 ──────────────────────────────────────────────
you
  Make the build faster.

  Start with the slowest step, and tell me what you find before you change
  anything.

codex
  thought: Looking at the build
    It is slow.
  $ make -j8 ⏎ echo done  ✓
    ok
  $ pytest -q  ✗ exit 1
    E   1 == 2
    1 failed
  edited ~/src/app/Makefile
  added ~/cache.mk
  ⚙ github.create_issue  ✗ failed
    [failed] no token
  the conversation so far was summarised
  The slowest step is linking.

  - 40 s
  - 漢字も折り返す[2J

── ✗ failed · 9m ago · turn t2 ─────────────────────────────────────────────────
you
  Go on
  ✗ The model is overloaded.""",
    "tail 80 in colour": """\
\x1b[2molder: dispatch tail 0BGeK1 --limit 40\x1b[0m
\x1b[2m── ✓ completed · 9m ago · turn t1 ──────────────────────────────────────────────\x1b[0m
\x1b[32mcodex\x1b[0m
\x1b[2m  $ pytest -q\x1b[0m  \x1b[31m✗ exit 1\x1b[0m
\x1b[2m    1 failed\x1b[0m""",
    "search 80": """\
0BGeK1  @builder · 3h · ~/src/dispatch · index+codex
  …we should look at the needle in the haystack before anything else is changed…
01a08340-5251-7d23-87b0-50f6e1911115  Find the needle · 3h · /srv/x · archived …
  …xxxxxxxxxxxxxxxxxxxxxxxxx needle here and more text
0BGeK1  @builder · 2m · agent · turn t1
  漢字 needle
note: 2 histories have text that is not indexed yet: dispatch sync reads it
more: add --after WzEyM10""",
    "search 120": """\
0BGeK1  @builder · 3h · ~/src/dispatch · index+codex
  …we should look at the needle in the haystack before anything else is changed, because it is what makes the whole bui…
01a08340-5251-7d23-87b0-50f6e1911115  Find the needle · 3h · /srv/x · archived · codex
  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx needle here and …
0BGeK1  @builder · 2m · agent · turn t1
  漢字 needle
note: 2 histories have text that is not indexed yet: dispatch sync reads it
more: add --after WzEyM10""",
    "search 80 in colour": """\
0BGeK1  \x1b[1m@builder\x1b[0m \x1b[2m· 3h · ~/src/dispatch · index+codex\x1b[0m
  …we should look at the \x1b[1;33mneedle\x1b[0m in the haystack before anything else is changed…
01a08340-5251-7d23-87b0-50f6e1911115  \x1b[1mFind the needle\x1b[0m \x1b[2m· 3h · /srv/x · archived …\x1b[0m
  …xxxxxxxxxxxxxxxxxxxxxxxxx \x1b[1;33mneedle\x1b[0m here and more text
0BGeK1  \x1b[1m@builder\x1b[0m \x1b[2m· 2m · agent · turn t1\x1b[0m
  漢字 \x1b[1;33mneedle\x1b[0m
\x1b[33mnote: 2 histories have text that is not indexed yet: dispatch sync reads it\x1b[0m
more: add --after WzEyM10""",
}


@pytest.mark.parametrize("case", CASES)
def test_people_see_exactly_this(case: str) -> None:
    assert CASES[case]() == EXPECTED[case]


@pytest.mark.parametrize(
    "case", [c for c in CASES if "colour" not in c and not c.startswith("get")]
)
def test_no_line_is_wider_than_the_terminal(case: str) -> None:
    width = int(case.split()[1])

    assert all(columns_of(line) <= width for line in CASES[case]().split("\n"))


def test_a_long_message_is_shortened_and_says_how_to_see_all_of_it() -> None:
    long = item("t1", "agentMessage", "agent", "\n".join(map(str, range(LINES + 5))))

    short = render_tail(told(items=[long]), view(80))
    full = render_tail(told(items=[long], full=True), view(80))

    assert "5 more lines: dispatch tail 0BGeK1 --full" in short
    assert f"\n  {LINES + 4}" in full


def test_a_batch_of_a_stream_goes_on_where_the_last_one_ended() -> None:
    text = render_tail(told(items=ITEMS[7:8], older=None, continues=True, turn=None), view(80))

    assert text.startswith("codex\n  The slowest step")


@pytest.mark.parametrize(
    ("previous", "continues", "beginning"),
    [
        ("tool", True, "  The slowest step"),
        ("user", True, "\ncodex\n  The slowest step"),
        ("agent", False, "\n── ✓ completed"),
        (None, False, "── ✓ completed"),
    ],
)
def test_who_speaks_is_said_when_it_changes(
    previous: str | None, continues: bool, beginning: str
) -> None:
    batch = told(items=ITEMS[7:8], older=None, continues=continues, previous=previous, turn=None)

    assert render_tail(batch, view(80)).startswith(beginning)


def test_why_a_turn_failed_is_said_once() -> None:
    failure = item("t2", TURN_FAILED, "other", "The model is overloaded.", "failed")

    text = render_tail(told(items=[failure], older=None, continues=True), view(80))

    assert text == "codex\n  ✗ The model is overloaded."


def test_a_gap_is_said() -> None:
    assert render_tail(told(gap=True), view(80)).startswith("some history is gone")


def test_a_thread_without_history_says_how_to_begin() -> None:
    text = render_tail(told(items=[], turn=None, older=None), view(80))

    assert text == "@builder (0BGeK1) has no history yet\n  next: dispatch send 0BGeK1 TEXT"


@pytest.mark.parametrize(("managed", "hint"), [(True, "dispatch new"), (False, "no unmanaged")])
def test_an_empty_list_says_what_could_be_done(managed: bool, hint: str) -> None:
    assert hint in render_list(ListOutput(managed=managed, threads=[], next=None), view(80))


def test_nothing_found_says_what_could_be_done() -> None:
    nothing = SearchOutput(query="x\x1b", hits=[], next=None, complete=True, notes=[])

    assert render_search(nothing, view(80)).startswith(
        "nothing found for x \n  next: dispatch sync"
    )


def test_a_list_says_how_many_messages_wait_when_any_do() -> None:
    rows = [row(BUILDER, ago(minutes=3), queued=3), row(BUILDER, ago(hours=5))]

    shown = render_list(ListOutput(managed=True, threads=rows, next=None), view(80))

    assert [line.split() for line in shown.splitlines()] == [
        ["REF", "NAME", "STATE", "QUEUED", "AGE", "MODEL", "DIRECTORY"],
        ["0BGeK1", "@builder", "○", "idle", "+3", "3m", "-", "~/src/dispatch"],
        ["0BGeK1", "@builder", "○", "idle", "-", "5h", "-", "~/src/dispatch"],
    ]


def test_a_thread_says_what_waits_and_what_is_in_doubt() -> None:
    got = GOT.model_copy(update={"queued": 2, "in_doubt": ID})

    lines = render_get(got, view(120)).splitlines()

    assert [" ".join(line.split()) for line in lines[2:4]] == [
        "queued 2 messages: dispatch delivery list --thread 0BGeK1 --state queued",
        f"in doubt whether message {ID[-8:]} ran",
    ]


def test_a_history_ends_with_what_comes_next() -> None:
    waiting = BUILDER.model_copy(update={"status": ThreadStatus.WAITING_APPROVAL})

    ends = [
        render_tail(told(**more), view(120)).splitlines()[-2:]
        for more in ({"queued": 1, "in_doubt": ID}, {"queued": 1, "thread": waiting})
    ]

    queued = "queued: 1 message: dispatch delivery list --thread 0BGeK1 --state queued"
    one = ID[-8:]
    assert ends == [
        [f"message {one} may or may not have run: dispatch delivery get {one}", queued],
        ["Codex asks something: dispatch request list --thread 0BGeK1", queued],
    ]
