"""What the control socket needs of the daemon, and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from anyio.abc import ByteStream

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.surface import OpReply
    from dispatch_core.control.subscriptions import EventSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one server, and one connection of it, takes at a time.

    connections: at most; fewer where the process may not open so many files. hello: seconds until the greeting must be
    complete. linger: seconds for which input is thrown away after a fatal error, so that a client that is still writing can
    read the reason. read_ahead: bytes of requests that may wait for one of the in_flight slots before reading pauses.
    """

    connections: int = 1280
    in_flight: int = 32
    subscriptions: int = 16
    malformed: int = 100
    read_ahead: int = 256 * 1024
    hello: float = 10.0
    linger: float = 5.0


class Host(Protocol):
    """The daemon, as the control socket sees it."""

    @property
    def instance(self) -> str:
        """The id of this run of the daemon: printable, without a colon; the first part of every cursor."""
        ...

    @property
    def events(self) -> EventSource:
        """The stream of runtime events."""
        ...

    def hello(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a valid greeting. A DispatchError refuses the client and ends its connection."""
        ...

    def cancellable(self, name: str) -> bool:
        """Say whether a running op may be cancelled without leaving anything half done; False for one that does not exist."""
        ...

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        schema: str | None,
        view: Mapping[str, Any] | None,
    ) -> OpReply:
        """Run an op. Raises DispatchError and nothing else."""
        ...

    def shutdown(self, grace: float | None) -> None:
        """Begin to shut down and return at once; grace: seconds for running turns, None for the configured time."""
        ...

    async def open_session(
        self,
        surface: str,
        stream: ByteStream,
        caller: Caller,
        options: Mapping[str, Any],
        started: Callable[[], Awaitable[None]],
    ) -> None:
        """Serve one session of a surface on a byte stream and return when it is over.

        Await ``started()`` exactly once, when the session is certain to begin and before the stream is touched: it tells the
        client, and from then on the stream carries the session's bytes alone. A DispatchError before it becomes the error reply,
        NotFound for a surface without sessions, and the connection goes on as it was.
        """
        ...
