"""What can be asked for, and what is found."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import Literal

from pydantic import Field

from dispatch_core.api import OpInput, OpOutput, cli_field, thread_field

QUERY_LIMIT = 1000  # characters; search_terms refuses more
FoundIn = Literal["index", "codex"]


class SearchInput(OpInput):
    """What to look for, and where."""

    query: str = cli_field(
        description='Words that must all occur; "words in quotes" stand together, and word* may go on.',
        argument=True,
        min_length=1,
        max_length=QUERY_LIMIT,
    )
    thread: str | None = thread_field(
        None,
        description="Only in this thread, every item that matches: a ref, id, name, or part of one.",
        argument=False,
    )
    managed: bool = cli_field(False, description="Only managed threads.")
    unmanaged: bool = cli_field(False, description="Only threads that are not managed.")
    repo: str | None = cli_field(
        None, description="Only threads in the Git repository that this directory is in.", path=True
    )
    directory: str | None = cli_field(
        None, description="Only threads in this directory or below.", path=True, aliases=("dir",)
    )
    since: str | None = cli_field(
        None, description="Not before this day (2026-05-04, today), moment, or age (7d, 12h)."
    )
    until: str | None = cli_field(
        None, description="Not after this day, moment or age. Of a day all of it counts."
    )
    date_field: Literal["updated_at", "created_at"] = cli_field(
        "updated_at", description="Which date of a thread since and until are about."
    )
    sort: Literal["updated_at", "created_at", "relevance"] = cli_field(
        "updated_at",
        description="What comes first: the newest, or what fits best, which only the index can tell.",
    )
    ascending: bool = cli_field(False, description="The oldest first.")
    archived: bool = cli_field(False, description="Search archived threads as well.")
    limit: int = cli_field(20, description="At most this many.", ge=1, le=200)
    after: str | None = cli_field(
        None,
        description="Continue after this cursor: next of the page before.",
        aliases=("cursor",),
    )


class Hit(OpOutput):
    """A thread in which the query was found, or with thread an item of it."""

    ref: str | None = Field(
        default=None, description="The thread's ref; null for an unmanaged one."
    )
    id: str = Field(description="Codex's id of the thread.")
    handle: str | None = Field(
        default=None, description="The thread's handle; null for an unmanaged one."
    )
    managed: bool = Field(description="Whether the thread is in the registry.")
    name: str | None = Field(default=None, description="The thread's name in Codex.")
    preview: str | None = Field(default=None, description="How the thread's first message begins.")
    cwd: str | None = Field(default=None, description="The thread's working directory.")
    archived: bool = Field(description="Whether the thread is archived.")
    created_at: datetime | None = Field(default=None, description="When the thread was made.")
    updated_at: datetime | None = Field(default=None, description="When the thread last changed.")
    found_in: list[FoundIn] = Field(
        description="index: in the local index. codex: by Codex's own search, or in the history it keeps."
    )
    snippet: str = Field(description="The text around the match, on one line.")
    matches: list[tuple[int, int]] = Field(
        description="Where the words are in the snippet: [start, end) in characters."
    )
    role: str | None = Field(
        default=None, description="user, agent, reasoning, tool or other, if known."
    )
    turn_id: str | None = Field(default=None, description="The turn of the match, if known.")
    item_id: str | None = Field(default=None, description="The item of the match, if known.")
    at: datetime | None = Field(
        default=None, description="When the matching item was written, if known."
    )
    path: str | None = Field(default=None, description="The file with the history, if known.")
    offset: int | None = Field(
        default=None, description="Where in the file the match is, in bytes, if known."
    )


class SearchOutput(OpOutput):
    """What was found."""

    query: str = Field(description="What was looked for.")
    hits: list[Hit] = Field(description="What was found on this page.")
    next: str | None = Field(description="Cursor of the next page; null on the last.")
    complete: bool = Field(
        description="Whether everything was searched that could be; false: see notes."
    )
    notes: list[str] = Field(description="What was not searched, why, and what helps.")
