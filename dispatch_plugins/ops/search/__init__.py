"""Finding threads by what was said in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpContext,
    PluginSettings,
    ValidationFailed,
    hookimpl,
)
from dispatch_plugins.ops.search.dates import moment
from dispatch_plugins.ops.search.items import search_items
from dispatch_plugins.ops.search.matching import Matcher
from dispatch_plugins.ops.search.models import SearchInput, SearchOutput
from dispatch_plugins.ops.search.render import render_search
from dispatch_plugins.ops.search.threads import Terms, search_threads
from dispatch_plugins.ops.shared.paging import fingerprint
from dispatch_plugins.ops.shared.places import under

if TYPE_CHECKING:
    from collections.abc import Iterable


async def search(context: OpContext, request: SearchInput) -> SearchOutput:
    """Return one page of what was found: threads, or with ``thread`` the items of it."""
    if request.managed and request.unmanaged:
        raise ValidationFailed(
            "search: managed and unmanaged exclude each other",
            hint="leave out both to search all threads",
        )
    now = context.clock.now()
    terms = Terms(
        request=request,
        matcher=Matcher(request.query),
        managed=True if request.managed else False if request.unmanaged else None,
        places=await under(repo=request.repo, directory=request.directory),
        since=moment(request.since, "since", now=now),
        until=moment(request.until, "until", now=now, end=True),
    )
    if terms.since and terms.until and terms.since > terms.until:
        raise ValidationFailed(
            "search: since is after until", hint="no moment is in between; exchange the two"
        )
    question = fingerprint(request.model_dump(exclude={"after", "limit"}))
    if request.thread is not None:
        return await search_items(context, terms, question)
    return await search_threads(context, terms, question)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the op."""
    return (
        Op(
            name="search",
            summary="Find threads by what was said in them",
            noun="thread",
            input=SearchInput,
            output=SearchOutput,
            handler=search,
            intent=Intent.READ,
            idempotent=True,
            timeout=60.0,
            examples=(
                Example(
                    title="a thread by its words",
                    input={"query": '"say hello"', "managed": True},
                    output={"hits": [{"handle": "@builder", "managed": True}], "next": None},
                ),
                Example(
                    title="every item of one thread, newest first",
                    input={"query": "hello", "thread": "@builder"},
                    output={"hits": [{"role": "agent"}, {"role": "user"}], "next": None},
                ),
                Example(
                    title="only what is not managed",
                    input={"query": "hello", "unmanaged": True},
                    output={"hits": []},
                ),
                Example(
                    title="a date that is none",
                    input={"query": "hello", "since": "soon"},
                    error="validation",
                ),
                Example(
                    title="filters that exclude each other",
                    input={"query": "hello", "managed": True, "unmanaged": True},
                    error="validation",
                ),
            ),
            render=render_search,
        ),
    )
