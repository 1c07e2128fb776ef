"""``get``: everything that is known about one thread."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dispatch_core.api import (
    AuthorityDenied,
    CodexError,
    NotFound,
    OpInput,
    OpOutput,
    OutcomeUnknown,
    Source,
    ThreadStatus,
    ThreadView,
    TurnStatus,
    TurnView,
    View,
    cli_field,
    printable,
    thread_field,
    thread_view,
    turn_view,
)
from dispatch_plugins.ops.shared.histories import SyncView, sync_view
from dispatch_plugins.ops.shared.queues import queued_words, short, standing
from dispatch_plugins.ops.shared.stored import stored_thread
from dispatch_plugins.ops.threads.conversation import conversation
from dispatch_plugins.ops.threads.tail import Item, item_view

if TYPE_CHECKING:
    from dispatch_core.api import OpContext, ThreadRecord, TurnRecord


class GetInput(OpInput):
    """Which thread to look at."""

    thread: str = thread_field(aliases=("lane",))
    items: int = cli_field(
        0, description="Show this many of the last items of its history as well.", ge=0, le=500
    )


class SettingsView(OpOutput):
    """What a thread was made with; null stands for Codex's own choice."""

    sandbox: str | None = Field(description="What commands may do.")
    approval_policy: str | None = Field(description="When a person is asked.")
    approvals_reviewer: str | None = Field(description="Who reviews approvals.")
    permissions: str | None = Field(description="Permission profile.")
    model: str | None = Field(description="Model.")
    model_provider: str | None = Field(description="Model provider.")
    effort: str | None = Field(description="Reasoning effort.")
    summary: str | None = Field(description="Reasoning summary.")
    personality: str | None = Field(description="Personality.")
    service_tier: str | None = Field(description="Service tier.")
    output_schema: dict[str, Any] | None = Field(description="JSON schema of final answers.")
    base_instructions: str | None = Field(description="Instructions in place of Codex's own.")
    developer_instructions: str | None = Field(description="Instructions besides Codex's own.")


class InUseView(OpOutput):
    """What Codex said it uses; null where it did not say."""

    provider: str | None = Field(description="Model provider.")
    model: str | None = Field(description="Model.")
    effort: str | None = Field(description="Reasoning effort.")
    service_tier: str | None = Field(description="Service tier.")


class GetOutput(OpOutput):
    """Everything that is known of a thread."""

    thread: ThreadView = Field(description="The thread.")
    turn: TurnView | None = Field(description="The latest turn; null before the first.")
    model: str | None = Field(description="Model setting; null for Codex's own choice.")
    sandbox: str | None = Field(description="Sandbox setting; null for Codex's own.")
    approval_policy: str | None = Field(description="Approval setting; null for Codex's own.")
    settings: SettingsView = Field(description="All settings it was made with.")
    in_use: InUseView | None = Field(
        description="The model as Codex last told it; null when it never did."
    )
    queued: int = Field(default=0, description="How many messages wait for it.")
    in_doubt: str | None = Field(
        default=None,
        description="The message that holds it because it is unknown whether it ran; null for none.",
    )
    writable: bool = Field(description="Whether messages can be sent to it.")
    locked_reason: str | None = Field(description="Why not; null when they can.")
    ephemeral: bool = Field(description="Whether Codex never writes it to disk.")
    materialized: bool = Field(description="Whether Codex has written a turn of it to disk.")
    path: str | None = Field(description="The file of Codex that holds its history, if known.")
    sync: SyncView = Field(description="How much of its history is in the search index.")
    error: str | None = Field(description="Why the latest turn failed, or what is in its way.")
    next: str | None = Field(description="The command that gets on from here; null for none.")
    items: list[Item] = Field(description="The last items of its history, if asked for.")
    created_at: datetime = Field(description="When it was registered.")
    updated_at: datetime = Field(description="When something last changed.")


async def get(context: OpContext, request: GetInput) -> GetOutput:
    """Return what is known of a thread: from the registry, the index and, for the last items and the path, Codex."""
    thread = await context.lanes.locate(request.thread, fuzzy=True)
    if isinstance(thread, str):
        raise NotFound(
            f"thread {thread} is not managed",
            hint=f"dispatch attach {thread} registers it, if Codex has it",
            details={"selector": thread},
        )
    settings, turn, used = thread.settings, thread.turn, thread.in_use
    locked = await _locked_reason(context, thread)
    source = context.history.sources([thread.native_id]).get(thread.native_id)
    page = await context.lanes.history(thread, request.items) if request.items else None
    before = await standing(context, thread)
    return GetOutput(
        thread=thread_view(thread),
        turn=turn_view(turn),
        model=settings.model,
        sandbox=settings.sandbox,
        approval_policy=settings.approval_policy,
        settings=SettingsView.model_validate(settings, from_attributes=True),
        in_use=InUseView.model_validate(used, from_attributes=True) if used else None,
        queued=before.queued,
        in_doubt=before.in_doubt,
        writable=locked is None,
        locked_reason=locked,
        ephemeral=thread.ephemeral,
        materialized=thread.materialized,
        path=source.checkpoint.path if source else await _path(context, thread),
        sync=sync_view(source),
        error=turn.error if turn else None,
        next=_next(thread, before.in_doubt, writable=locked is None),
        items=[item_view(item) for item in page.items] if page else [],
        created_at=thread.created_at,
        updated_at=thread.updated_at,
    )


async def _locked_reason(context: OpContext, thread: ThreadRecord) -> str | None:
    try:
        await context.lanes.writable(thread.ref)
    except AuthorityDenied as denied:
        return f"{denied.message}; {denied.hint}" if denied.hint else denied.message
    return None


async def _path(context: OpContext, thread: ThreadRecord) -> str | None:
    if not thread.materialized or thread.ephemeral:
        return None
    try:
        answer = await context.codex.request(
            "thread/read", {"threadId": thread.native_id, "includeTurns": False}
        )
    except (CodexError, OutcomeUnknown):
        return None  # Codex is down; all the rest is known without it
    raw = answer.get("thread")
    found = stored_thread(raw) if isinstance(raw, dict) else None
    return found.path if found else None


def _next(thread: ThreadRecord, doubt: str | None, *, writable: bool) -> str | None:
    if thread.status is ThreadStatus.ARCHIVED:
        return f"dispatch restore {thread.ref}"
    if doubt is not None:
        return f"dispatch delivery get {short(doubt)}"
    if thread.status is ThreadStatus.WAITING_APPROVAL:
        return f"dispatch request list --thread {thread.ref}"
    if not writable:
        return f"dispatch tail {thread.ref}, or dispatch fork {thread.ref} NAME to go on with it"
    return _after(thread.turn, thread.ref)


def _after(turn: TurnRecord | None, ref: str) -> str | None:
    """Return how to go on after a turn, None for as one likes."""
    if turn is None:
        return f"dispatch send {ref} TEXT"
    if not turn.status.finished:
        return f"dispatch wait {ref}"
    if turn.status is TurnStatus.FAILED:
        return f"dispatch tail {ref}, then dispatch send {ref} TEXT to try again"
    return None


def render_get(output: GetOutput, view: View) -> str:
    """Name and value lines, and the last items below them."""
    thread, turn = output.thread, output.turn
    head = view.fields(
        [
            ("thread", f"{view.paint(printable(thread.handle), 'bold')} ({thread.ref})"),
            ("state", view.status(thread.status.value)),
            ("queued", queued_words(output.queued, thread.ref) if output.queued else None),
            ("in doubt", _doubt(output)),
            ("error", _error(output, view)),
            ("next", printable(output.next) if output.next else None),
            ("title", _title(thread)),
            ("directory", view.directory(thread.cwd)),
            ("source", _source(output)),
            ("model", _model(output)),
            *_settings(output),
            ("latest turn", _turn(turn, thread, view)),
            ("created", f"{view.age(output.created_at)} ago"),
            ("changed", f"{view.age(output.updated_at)} ago"),
            ("index", _index(output.sync, view)),
            ("history", view.directory(output.path) if output.path else None),
            ("codex id", thread.id),
        ]
    )
    if not output.items:
        return head
    return "\n".join([head, "", *conversation(output.items, view, full=False, ref=thread.ref)])


def _doubt(output: GetOutput) -> str | None:
    if output.in_doubt is None:
        return None
    return f"whether message {short(output.in_doubt)} ran"


def _title(thread: ThreadView) -> str | None:
    if not thread.title or thread.title == thread.handle.removeprefix("@"):
        return None
    return printable(thread.title)


def _source(output: GetOutput) -> str:
    words = {"own": "made by dispatch", "attached": "attached: made by somebody else"}
    parts = [words[output.thread.source.value]]
    if output.ephemeral:
        parts.append("ephemeral")
    if not output.writable:
        parts.append("cannot be written")
    return ", ".join(parts)


def _model(output: GetOutput) -> str | None:
    used = output.in_use
    parts = [
        (used.model if used else None) or output.model,
        (used.provider if used else None) or output.settings.model_provider,
        (used.effort if used else None) or output.settings.effort,
        (used.service_tier if used else None) or output.settings.service_tier,
    ]
    text = ", ".join(printable(part) for part in parts if part)
    if used and output.model and used.model and used.model != output.model:
        text += f" (asked for: {printable(output.model)})"
    return text or None


def _settings(output: GetOutput) -> list[tuple[str, str | None]]:
    settings = output.settings
    texts = {
        "base instructions": settings.base_instructions,
        "instructions": settings.developer_instructions,
    }
    return [
        ("sandbox", settings.sandbox),
        ("approvals", settings.approval_policy),
        ("reviewer", settings.approvals_reviewer),
        ("permissions", printable(settings.permissions) if settings.permissions else None),
        ("summaries", settings.summary),
        ("personality", settings.personality),
        ("answers", "by a JSON schema" if settings.output_schema else None),
        *((name, f"{len(text)} characters" if text else None) for name, text in texts.items()),
    ]


def _turn(turn: TurnView | None, thread: ThreadView, view: View) -> str:
    if turn is None:
        return "none yet" if thread.source is Source.OWN else "none that dispatch saw"
    since = turn.completed_at or turn.started_at
    state = f"{view.status(turn.status.value)} {view.age(since)} ago"
    return f"{state}, {turn.id}" if turn.id else state


def _error(output: GetOutput, view: View) -> str | None:
    if not output.error:
        return None
    return view.paint(printable(output.error), "red")


def _index(sync: SyncView, view: View) -> str:
    if sync.synced_at is None:
        return "nothing yet"
    text = f"{sync.state.value}, {view.age(sync.synced_at)} ago"
    return f"{text}: {printable(sync.error)}" if sync.error else text
