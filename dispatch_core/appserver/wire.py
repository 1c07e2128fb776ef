"""What goes over the pipe: one line per message, the errors that answers mean, and the writer."""

from __future__ import annotations

import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core.errors import (
    CodexError,
    CodexOverloaded,
    CodexUnavailable,
    OutcomeUnknown,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import ByteSendStream

log = logging.getLogger(__name__)

OVERLOADED = -32001
SHOWN_REASON = 400


class Frame:
    """One line on its way out.

    begun: writing has started, so Codex may have read it. withdrawn: nobody wants it written any
    more. done is set when it is written or, with failed, when it never will be.
    """

    __slots__ = ("begun", "data", "done", "failed", "withdrawn")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.begun = False
        self.withdrawn = False
        self.failed = False
        self.done = anyio.Event()

    def finish(self, *, failed: bool = False) -> None:
        """Wake whoever waits for the frame."""
        self.failed = failed
        self.done.set()


class Outbox:
    """Writes frames one by one, in a task of its own.

    A frame that nobody waits for any more is whole on the pipe or not there at all. The outbox is
    bounded by the tasks that wait, each for one frame.
    """

    def __init__(self, sink: ByteSendStream) -> None:
        self._sink = sink
        self._frames: deque[Frame] = deque()
        self._wake = anyio.Event()

    def put(self, frame: Frame) -> None:
        """Append a frame; ``Frame.done`` says when it is written."""
        self._frames.append(frame)
        self._wake.set()

    async def run(self) -> None:
        """Write what is put, until the other side does not read any more."""
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if frame.withdrawn:
                    continue
                frame.begun = True
                try:
                    await self._sink.send(frame.data)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                    log.warning("cannot write to Codex: %s", type(error).__name__)
                    frame.finish(failed=True)
                    return
                frame.finish()
            self._wake = anyio.Event()
            await self._wake.wait()

    def abandon(self) -> None:
        """Fail everything that is not written."""
        while self._frames:
            self._frames.popleft().finish(failed=True)


def encode(message: Mapping[str, Any]) -> bytes:
    """Return one line. Raises ValidationFailed for what would end Codex or be swallowed by it."""
    try:
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return text.encode() + b"\n"
    except UnicodeEncodeError as error:
        half = f"U+{ord(error.object[error.start]):04X}"
        raise ValidationFailed(
            f"the text holds {half}, half of a character, which is not valid Unicode",
            hint="remove it and send again",
        ) from error
    except ValueError as error:
        raise ValidationFailed(f"this cannot be sent to Codex as JSON: {error}") from error


def refusal(method: str, error: Mapping[str, Any]) -> CodexError:
    """Return the error for an error answer."""
    code, message = error.get("code"), str(error.get("message", "no reason given"))
    details = {"code": code, "message": message, "method": method, "data": error.get("data")}
    if code == OVERLOADED:
        return CodexOverloaded(
            f"Codex is overloaded and did not do {method}", hint="try again later", details=details
        )
    shown = message if len(message) <= SHOWN_REASON else message[:SHOWN_REASON] + "…"
    return CodexError(f"Codex refused {method}: {shown}", details=details)


def unavailable(method: str) -> CodexUnavailable:
    """Return the error for a request that was never written."""
    return CodexUnavailable(
        f"Codex is not running; {method} was not sent",
        hint="dispatch daemon status shows why; dispatch up starts it again",
        details={"method": method},
    )


def lost(method: str) -> OutcomeUnknown:
    """Return the error for a request that was written to a Codex that went away."""
    return OutcomeUnknown(
        f"Codex went away before it answered {method}; it may have been done",
        hint="do not repeat it: look at the thread first",
        details={"method": method},
    )
