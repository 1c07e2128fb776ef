"""Requests of Codex: what it asks while a turn runs, from the question to the one answer that it gets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from dispatch_core.errors import DispatchError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from dispatch_core.contracts.caller import Caller


class RequestKind(StrEnum):
    """What Codex wants.

    COMMAND: to run a command. FILE_CHANGE: to change files. PERMISSIONS: to be allowed more for a while. USER_INPUT: answers to
    questions. TOOL_CALL: the result of a tool that its client offers. MCP_TOOL: to call a tool of an MCP server. ELICITATION:
    what an MCP server asks for. UNKNOWN: something that no build so far can name; it takes no answer.
    """

    COMMAND = "command"
    FILE_CHANGE = "file_change"
    PERMISSIONS = "permissions"
    USER_INPUT = "user_input"
    TOOL_CALL = "tool_call"
    MCP_TOOL = "mcp_tool"
    ELICITATION = "elicitation"
    UNKNOWN = "unknown"


class RequestState(StrEnum):
    """Where a request stands.

    OPEN: nobody has answered. ANSWERING: the answer is decided and on its way to Codex. ANSWERED: Codex has it. DECLINED: Codex
    has it, and it is a no. EXPIRED: nobody answered before the deadline, so it was a no. ORPHANED: the Codex that asked is gone.
    CANCELLED: the question went away: its turn ended, or somebody else answered.
    """

    OPEN = "open"
    ANSWERING = "answering"
    ANSWERED = "answered"
    DECLINED = "declined"
    EXPIRED = "expired"
    ORPHANED = "orphaned"
    CANCELLED = "cancelled"

    @property
    def closed(self) -> bool:
        """Whether nothing more happens to it."""
        return self not in (RequestState.OPEN, RequestState.ANSWERING)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request of Codex for a managed thread.

    id: our uuid7. thread: key of the thread. rpc_id: Codex's own id of the request as JSON text, a number or a string. epoch: the
    Codex process that asked; (epoch, rpc_id) is unique. summary: one line. digest: SHA-256 of all that was asked. body: what is
    asked, in the words of its kind; None once it is closed. cut: the body is not all of it, because that was too long.
    answered_by: "human", "policy" or "deadline". decision: "accept", "decline", "cancel" or "answer". detail: why it ended so.
    """

    id: str
    thread: str
    turn_id: str | None
    item_id: str | None
    method: str
    kind: RequestKind
    rpc_id: str
    epoch: str
    summary: str
    digest: str
    body: Mapping[str, Any] | None
    cut: bool = False
    state: RequestState = RequestState.OPEN
    asked_at: datetime
    deadline: datetime
    answered_by: str | None = None
    decision: str | None = None
    answered_at: datetime | None = None
    closed_at: datetime | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Which requests to list. thread: key of a thread. states: any when empty."""

    thread: str | None = None
    states: frozenset[RequestState] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestChoice:
    """One way to answer a request. options: of ``dispatch request respond ID``. meaning: what follows from it."""

    options: str
    meaning: str


class RequestNotFound(NotFound):
    def __init__(self, selector: str) -> None:
        super().__init__(
            f"there is no request {selector!r}",
            hint="dispatch request list --all shows what Codex asks and has asked",
            details={"request": selector},
        )


class RequestClosed(DispatchError):
    """A request takes no answer any more; details says who answered what."""

    code = "request_closed"

    def __init__(self, request: RequestRecord) -> None:
        said = f"{request.answered_by} said {request.decision}" if request.answered_by else None
        why = "; ".join(part for part in (said, request.detail) if part)
        super().__init__(
            f"request {request.id} is {request.state.value} already{f': {why}' if why else ''}; nothing was done",
            hint=f"dispatch request show {request.id}",
            details={
                "request": request.id,
                "state": request.state.value,
                "answered_by": request.answered_by,
                "decision": request.decision,
                "detail": request.detail,
            },
        )


class RequestStore(Protocol):
    """Requests of Codex, and what became of them."""

    async def add(self, request: RequestRecord) -> RequestRecord:
        """Store a new request and return it; if its (epoch, rpc_id) is there already, return that one unchanged.

        Raises TypeError or ValueError unless the body is JSON.
        """
        ...

    async def get(self, request_id: str) -> RequestRecord | None:
        """Return the request, or None."""
        ...

    async def find(self, part: str, limit: int) -> tuple[RequestRecord, ...]:
        """Return the requests whose id begins or ends with part, oldest first, at most limit."""
        ...

    async def list(
        self, wanted: RequestFilter, limit: int, *, after: RequestRecord | None = None
    ) -> tuple[RequestRecord, ...]:
        """Return requests, the latest deadline first and then the greatest id, at most limit, behind ``after``."""
        ...

    async def claim(
        self, request_id: str, *, by: str, decision: str, at: datetime
    ) -> RequestRecord | None:
        """Turn an OPEN request into an ANSWERING one and return it; None, and nothing is changed, unless it is OPEN.

        Of any number of callers at once exactly one gets the request.
        """
        ...

    async def defer(self, request_id: str, deadline: datetime) -> RequestRecord | None:
        """Give an OPEN request another deadline and return it; None, and nothing is changed, unless it is OPEN."""
        ...

    async def close(
        self,
        request_id: str,
        state: RequestState,
        *,
        at: datetime,
        by: str | None = None,
        decision: str | None = None,
        detail: str | None = None,
    ) -> RequestRecord | None:
        """End a request that is OPEN or ANSWERING, forget its body and return it; None when it had ended already.

        by and decision: None leaves what ``claim`` recorded.
        """
        ...

    async def orphan(
        self, *, epoch: str | None, at: datetime, detail: str
    ) -> tuple[RequestRecord, ...]:
        """End every request that is OPEN or ANSWERING, except those of an epoch, as ORPHANED, and return them, oldest first."""
        ...

    async def forget(self, before: datetime) -> int:
        """Remove the requests that were closed before a moment; how many there were."""
        ...


class Requests(Protocol):
    """The inbox: what Codex asks, and the one answer to each."""

    async def get(self, selector: str, caller: Caller) -> RequestRecord:
        """Return the request with this id, or with a unique beginning or end of it of at least 4 characters.

        Raises RequestNotFound, ValidationFailed, and AuthorityDenied for an agent that asks for a request of another thread.
        """
        ...

    async def list(
        self, caller: Caller, wanted: RequestFilter, limit: int, *, after: str | None = None
    ) -> tuple[RequestRecord, ...]:
        """Return requests, the latest deadline first; an agent gets those of its own thread.

        after: the id of the last one of the page before. Raises ValidationFailed when there is none with that id, and
        AuthorityDenied for an agent that asks for another thread.
        """
        ...

    def choices(self, request: RequestRecord) -> tuple[RequestChoice, ...]:
        """Return the ways in which a request can be answered; none once it is not OPEN any more."""
        ...

    def answer(
        self,
        request: RequestRecord,
        decision: str,
        *,
        answers: Mapping[str, Sequence[str]] | None = None,
        content: Any = None,
        unseen: bool = False,
    ) -> dict[str, Any]:
        """Return what would be sent to Codex. Raises ValidationFailed for an answer that a request of this kind does not take.

        decision: "accept", "decline", "cancel" or "answer", which goes with answers (question id → values) or content. unseen:
        accept although not all of what is asked could be kept and shown. Raises RequestClosed when it is not OPEN.
        """
        ...

    async def respond(
        self,
        request: RequestRecord,
        caller: Caller,
        decision: str,
        *,
        answers: Mapping[str, Sequence[str]] | None = None,
        content: Any = None,
        unseen: bool = False,
    ) -> RequestRecord:
        """Answer a request and return it: ANSWERED or DECLINED, or ANSWERING when Codex has not said that it has the answer.

        Raises as ``answer``, AuthorityDenied for everybody but a person, and RequestClosed when another answer was first.
        """
        ...

    async def defer(self, request: RequestRecord, caller: Caller, seconds: float) -> RequestRecord:
        """Let a request wait for so many seconds from now. Raises AuthorityDenied, RequestClosed, ValidationFailed."""
        ...
