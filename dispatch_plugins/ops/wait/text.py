"""How the end of a wait reads for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import View, printable
from dispatch_plugins.ops.shared.queues import short

if TYPE_CHECKING:
    from dispatch_plugins.ops.wait.contract import WaitOutput, WaitResult


def render_wait(output: WaitOutput, view: View) -> str:
    """The outcome of each thread, then its answer; several are kept apart."""
    shown = [_rendered(result, view) for result in output.results]
    return ("\n\n" if any("\n" in text for text in shown) else "\n").join(shown)


def _rendered(result: WaitResult, view: View) -> str:
    thread, turn = result.thread, result.turn
    name = f"{printable(thread.handle)} ({thread.ref})"
    head = view.wrap(f"{view.status(result.outcome)}  {name}", indent="  ")
    if result.outcome == "needs_attention":
        if result.asks is None:
            return f"{head}\n  next: dispatch request list --thread {thread.ref}"
        said = f"Codex asks: {printable(result.asks.summary)}"
        step = f"  next: dispatch request show {short(result.asks.id)}"
        return "\n".join([head, *view.block(said), step])
    if result.outcome == "running":
        return head
    if result.outcome == "nothing":
        return f"{head}\n  next: dispatch send {thread.ref} TEXT"
    if (delivery := result.delivery) is not None:
        said = f"message {short(delivery.id)} is {delivery.state.value}"
        said += f": {printable(delivery.reason)}" if delivery.reason else ""
        step = f"  next: dispatch delivery get {short(delivery.id)}"
        return "\n".join([head, *view.block(said), step])
    body = result.text or (turn.error if turn else None)
    return "\n".join([head, *view.block(body)]) if body else head
