"""Group commit: what many callers want written at once becomes one transaction, and one sync.

One thread writes. Whatever waits when it is free is its next batch; nobody waits for company: a caller alone is a batch of one.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio import CancelScope, Event, RunFinishedError, from_thread, get_cancelled_exc_class
from anyio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_token,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
W = TypeVar("W")


class Entry(Generic[W]):
    """One piece of work and what became of it. error: what it raised, or why nothing was changed."""

    __slots__ = ("error", "result", "taken", "work")

    def __init__(self, work: Callable[[W], Any]) -> None:
        self.work = work
        self.result: Any = None
        self.error: BaseException | None = None
        # Whoever acquires it decides: the thread that the work is done, a cancelled caller that it never is.
        self.taken = threading.Lock()


class Gathering(Generic[W]):
    """What was asked for in the same moment. done: that of whoever asked first, and of all others, who wait in order already."""

    __slots__ = ("done", "entries")

    def __init__(self) -> None:
        self.entries: list[Entry[W]] = []
        self.done = (Event(), Event())


class GroupCommit(Generic[W]):
    """Runs work in batches, in the order in which it was asked for, one batch at a time. To be made on the event loop.

    commit: called in the thread with a batch; leaves a result or an error in each entry.
    """

    def __init__(self, commit: Callable[[Sequence[Entry[W]]], None]) -> None:
        self._commit = commit
        self._gathering: Gathering[W] = Gathering()
        self._asked: SimpleQueue[Gathering[W] | None] = SimpleQueue()
        self._token = current_token()
        # A thread of its own: every durable write crosses over and back, and to_thread.run_sync, which may have to start a
        # thread and carries a context along, takes twice as long for that.
        self._thread = threading.Thread(target=self._serve, name="registry", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[W], T]) -> T:
        """Return what the work returned once its batch is committed, or raise what it raised.

        A caller cancelled before its work has begun has changed nothing; once begun, it runs to its end, and the cancellation
        is delivered afterwards. Not to be called after ``close``.
        """
        await checkpoint_if_cancelled()
        entry, gathering = Entry(work), self._gathering
        gathering.entries.append(entry)
        done = gathering.done[len(gathering.entries) > 1]
        if done is gathering.done[0]:
            try:
                # Whoever asks in the same moment is in the same commit.
                await cancel_shielded_checkpoint()
            finally:
                self._gathering = Gathering()
                self._asked.put(gathering)
        try:
            await done.wait()
        except get_cancelled_exc_class():
            if entry.taken.acquire(blocking=False):
                raise
            # Too late: it is being written. What a cancelled scope of AnyIO raises it raises again at the caller's next
            # checkpoint, as after a thread that was waited for.
            with CancelScope(shield=True):
                await done.wait()
        if entry.error is not None:
            raise entry.error
        result: T = entry.result
        return result

    def close(self) -> None:
        """End the thread once all that was asked for is done; blocks until then, so not to be called on the event loop."""
        self._asked.put(None)
        self._thread.join()

    def _serve(self) -> None:
        last = False
        while not last:
            asked = [self._asked.get()]
            with suppress(Empty):
                while asked[-1] is not None:
                    asked.append(self._asked.get_nowait())
            last = asked[-1] is None
            self._run_batch([gathering for gathering in asked if gathering is not None])

    def _run_batch(self, asked: Sequence[Gathering[W]]) -> None:
        """Commit what nobody has taken back, and wake who waits for it."""
        entries = (entry for gathering in asked for entry in gathering.entries)
        batch = [entry for entry in entries if entry.taken.acquire(blocking=False)]
        if not batch:
            return
        try:
            self._commit(batch)
        except BaseException as error:  # noqa: BLE001 -- each caller raises it: nobody waits for this thread
            for entry in batch:
                entry.error = error
        with suppress(RunFinishedError):  # then nobody is left to be told
            from_thread.run_sync(_wake, asked, token=self._token)


def _wake(asked: Sequence[Gathering[W]]) -> None:
    for gathering in asked:
        for done in gathering.done:
            done.set()
