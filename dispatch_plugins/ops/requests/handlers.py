"""Listing, showing, answering and deferring what Codex asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.api import RequestFilter, RequestState, ValidationFailed, thread_view
from dispatch_plugins.ops.requests.contract import (
    ChoiceView,
    DeferOutput,
    ListedRequest,
    ListOutput,
    RequestView,
    RespondOutput,
    ShowOutput,
)

if TYPE_CHECKING:
    from dispatch_core.api import OpContext, RequestRecord, ThreadView
    from dispatch_plugins.ops.requests.contract import (
        DeferInput,
        ListInput,
        RespondInput,
        ShowInput,
    )


async def list_requests(context: OpContext, request: ListInput) -> ListOutput:
    """Return a page of requests."""
    if request.all and request.state:
        raise ValidationFailed(
            "--all shows every state, and goes without --state",
            hint="leave one of them out; dispatch request list --help explains them",
        )
    thread = None
    if request.thread is not None:
        thread = (await context.lanes.resolve(request.thread, fuzzy=True)).key
    states = frozenset() if request.all else frozenset(request.state or [RequestState.OPEN])
    wanted = RequestFilter(thread=thread, states=states)
    found = await context.requests.list(
        context.caller, wanted, request.limit + 1, after=request.after
    )
    page = found[: request.limit]
    return ListOutput(
        requests=[
            ListedRequest(**_fields(one), thread=await _thread(context, one)) for one in page
        ],
        next=page[-1].id if len(found) > len(page) else None,
    )


async def show(context: OpContext, request: ShowInput) -> ShowOutput:
    """Return one request with all that is asked, and how it can be answered."""
    found = await context.requests.get(request.request, context.caller)
    return ShowOutput(
        thread=await _thread(context, found),
        request=_view(found),
        method=found.method,
        digest=found.digest,
        body=None if found.body is None else dict(found.body),
        cut=found.cut,
        choices=[
            ChoiceView(
                command=f"dispatch request respond {found.id} {choice.options}",
                meaning=choice.meaning,
            )
            for choice in context.requests.choices(found)
        ],
    )


async def respond(context: OpContext, request: RespondInput) -> RespondOutput:
    """Answer a request; with dry_run only say what Codex would be told."""
    decision, answers = _decision(request), _answers(request.answer)
    found = await context.requests.get(request.request, context.caller)
    answer = context.requests.answer(
        found, decision, answers=answers, content=request.content, unseen=request.unseen
    )
    if not request.dry_run:
        found = await context.requests.respond(
            found,
            context.caller,
            decision,
            answers=answers,
            content=request.content,
            unseen=request.unseen,
        )
    return RespondOutput(
        thread=await _thread(context, found),
        request=_view(found),
        answer=answer,
        dry_run=request.dry_run,
    )


async def defer(context: OpContext, request: DeferInput) -> DeferOutput:
    """Move the deadline of a request."""
    found = await context.requests.get(request.request, context.caller)
    moved = await context.requests.defer(found, context.caller, request.seconds)
    return DeferOutput(thread=await _thread(context, moved), request=_view(moved))


def _decision(request: RespondInput) -> str:
    """Return the one decision that was given."""
    given = {
        "accept": request.accept,
        "decline": request.decline,
        "cancel": request.cancel,
        "answer": bool(request.answer) or request.content is not None,
    }
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) != 1:
        what = f"{' and '.join(chosen)} exclude each other" if chosen else "no answer was given"
        raise ValidationFailed(
            f"request respond: {what}",
            hint=f"dispatch request show {request.request} shows what can be answered",
        )
    return chosen[0]


def _answers(given: list[str]) -> dict[str, list[str]] | None:
    """Return the values by question, None when there are none."""
    answers: dict[str, list[str]] = {}
    for text in given:
        question, equals, value = text.partition("=")
        if not equals or not question:
            raise ValidationFailed(
                f"answer: {text!r} is not of the form QUESTION=VALUE",
                hint="dispatch request show ID names the questions",
            )
        answers.setdefault(question, []).append(value)
    return answers or None


async def _thread(context: OpContext, request: RequestRecord) -> ThreadView | None:
    thread = await context.store.threads.get(request.thread)
    return None if thread is None else thread_view(thread)


def _view(request: RequestRecord) -> RequestView:
    return RequestView(**_fields(request))


def _fields(request: RequestRecord) -> dict[str, Any]:
    return {name: getattr(request, name) for name in RequestView.model_fields}
