"""What people read of ``send`` and ``stop``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import DeliveryState, View, printable
from dispatch_plugins.ops.shared.queues import ahead_words, short

if TYPE_CHECKING:
    from dispatch_plugins.ops.send.contract import Receipt, SendOutput, StopOutput

SAID = {
    "queued": "queued for",
    "sending": "is being sent to",
    "merged": "joined a running turn of",
    "steered": "said to the running turn of",
    "accepted": "accepted, to be read after the present step, by",
    "injected": "put into the context of",
}
# Which turn runs is known already; a new one has to be named.
WITHOUT_TURN = frozenset({"merged", "steered", "accepted"})


def render_send(output: SendOutput, view: View) -> str:
    """Say what has become of the message so far; that it was accepted is not that it is done."""
    thread, receipt = output.thread, output.receipt
    name = f"{view.paint(printable(thread.handle), 'bold')} ({thread.ref})"
    if receipt.duplicate:
        said = f"sent before to {name}: message {_short(receipt)} is {view.status(receipt.state)}"
    else:
        said = f"{SAID.get(receipt.state, 'accepted by')} {name}"
        if receipt.turn_id and receipt.state not in WITHOUT_TURN:
            said += f", turn {receipt.turn_id}"
    lines = [view.wrap(said, indent="  ")]
    if receipt.duplicate:
        lines.append("  nothing was sent: this key was used for it already")
    if receipt.state == "interjected":
        lines.append("  the turn that ran is interrupted")
    if (waiting := _waiting(receipt)) is not None:
        lines.append(view.wrap(f"  {waiting}", indent="  "))
    lines.append(f"  next: {_next(output)}")
    return "\n".join(lines)


def _waiting(receipt: Receipt) -> str | None:
    if receipt.state != DeliveryState.QUEUED:
        return None
    words = f"message {_short(receipt)}"
    if receipt.position is not None:
        words += f", {ahead_words(receipt.position)}"
    if receipt.expires_at is not None:
        words += f"; not sent after {receipt.expires_at.astimezone():%Y-%m-%d %H:%M:%S}"
    return words


def _next(output: SendOutput) -> str:
    ref, receipt = output.thread.ref, output.receipt
    if receipt.state == "injected":
        return f"dispatch send {ref} TEXT starts a turn that sees it"
    look = f"dispatch delivery get {_short(receipt)}"
    if receipt.state == DeliveryState.QUEUED:
        return f"{look}, or dispatch wait {ref}"
    if receipt.duplicate or receipt.state == DeliveryState.SENDING:
        return look
    return f"dispatch wait {ref}"


def _short(receipt: Receipt) -> str:
    return short(receipt.id or "")


def render_stop(output: StopOutput, view: View) -> str:
    """How the turn ended, and what was stopped with it."""
    state = output.turn.status.value if output.turn else "unknown"
    line = f"{view.status(state)}  {printable(output.thread.handle)} ({output.thread.ref})"
    if count := output.commands_stopped:
        line += f"\n  {count} running command{'' if count == 1 else 's'} stopped"
    return line
