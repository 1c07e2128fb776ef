"""How a history reads for people: who said what, what was done, and how each turn ended."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dispatch_core.api import ThreadStatus, View, glyph, printable
from dispatch_plugins.ops.shared.queues import queued_words, short
from dispatch_plugins.ops.threads.tail import TURN_FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatch_core.api import TurnView
    from dispatch_plugins.ops.threads.tail import Item, TailOutput

MORE, MOST = 40, 500  # items: what is suggested at least, and what tail gives at once
LINES = 40  # of one message that are shown unless all is asked for
YOU, CODEX = ("you", "cyan"), ("codex", "green")
COMPACTION = "contextCompaction"
MESSAGES = frozenset({"userMessage", "agentMessage"})
INDENT = "  "
ENDING = re.compile(r"\[(exit -?\d+|failed|declined)\]")
IN_SHELL = re.compile(  # a script in quotes may go over several lines; possessive, so that no text takes long
    r"(?:\S*/)?(?:ba|z|da|fi)?sh -l?c "
    r"(?:'(?P<single>(?:[^']++|'\\''|'\"'\"')*+)'|\"(?P<double>(?:[^\"\\]++|\\.)*+)\"|(?P<bare>\S+))(?:\n|\Z)",
    re.DOTALL,
)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
KINDS = {"add": "added", "delete": "deleted", "update": "edited", "move": "moved"}
TURN_STATUS = {"inProgress": "started"}


def render_tail(output: TailOutput, view: View) -> str:
    """The items as a conversation, under a line for each turn."""
    thread = output.thread
    name = f"{view.paint(printable(thread.handle), 'bold')} ({thread.ref})"
    following = output.continues or output.gap or output.previous is not None
    if not output.items and output.cursor is not None and output.turn is None:
        ahead = _ahead(output, view) or [f"  next: dispatch send {thread.ref} TEXT"]
        return "\n".join([f"{name} has no history yet", *ahead])
    lines: list[str] = []
    if output.gap:
        lines.append(view.paint("some history is gone; these are the last items", "yellow"))
    if output.older and not following:
        lines.append(view.paint(_older(output), "dim"))
    lines += conversation(
        output.items,
        view,
        full=output.full,
        ref=thread.ref,
        continues=output.continues,
        previous=output.previous,
    )
    if not any(item.type == TURN_FAILED for item in output.items):
        lines += _trouble(output.turn, output.items, view)
    return "\n".join([*lines, *_ahead(output, view)])


def _ahead(output: TailOutput, view: View) -> list[str]:
    """What comes next in the thread, or keeps it from going on."""
    ref, lines = output.thread.ref, []
    if output.in_doubt is not None:
        one = short(output.in_doubt)
        lines.append(f"message {one} may or may not have run: dispatch delivery get {one}")
    elif output.turn is not None and output.thread.status is ThreadStatus.WAITING_APPROVAL:
        lines.append(f"Codex asks something: dispatch request list --thread {ref}")
    if output.queued:
        lines.append(f"queued: {queued_words(output.queued, ref)}")
    return [view.paint(view.wrap(line, indent=INDENT), "yellow") for line in lines]


def _older(output: TailOutput) -> str:
    """How to see more; a number is easier to type than a cursor."""
    ref, more = output.thread.ref, max(MORE, 2 * len(output.items))
    if output.cursor is not None and more <= MOST:
        return f"older: dispatch tail {ref} --limit {more}"
    return f"older: dispatch tail {ref} --before {output.older}"


def conversation(
    items: Sequence[Item],
    view: View,
    *,
    full: bool,
    ref: str,
    continues: bool = False,
    previous: str | None = None,
) -> list[str]:
    """Return items as lines of a conversation.

    continues: the first item belongs to a turn that was begun above. previous: the role of the item above, if there is one.
    """
    lines: list[str] = []
    turn = items[0].turn_id if continues and items else None
    speaker: str | None = None
    if previous is not None:
        speaker = (YOU if previous == "user" else CODEX)[0]
    for item in items:
        if item.turn_id != turn:
            turn = item.turn_id
            lines += ([""] if lines or speaker else []) + [_turn_line(item, view)]
            speaker = None
        said_by, color = YOU if item.type == "userMessage" else CODEX
        if said_by != speaker:
            lines += ([""] if speaker else []) + [view.paint(said_by, color)]
            speaker = said_by
        if item.type in MESSAGES:
            lines += _shortened(item.text or "-", view, full=full, ref=ref)
        else:
            lines += _deed(item, view, full=full)
    return lines


def _turn_line(item: Item, view: View) -> str:
    status = TURN_STATUS.get(item.turn_status or "", item.turn_status)
    parts = [
        glyph(status) if status else None,
        f"{view.age(item.at)} ago" if item.at else None,
        f"turn {item.turn_id}",
    ]
    return view.rule(" · ".join(part for part in parts if part))


def _deed(item: Item, view: View, *, full: bool) -> list[str]:
    """What was done or thought, on one line unless all is asked for."""
    first, _, rest = (item.text or "").strip().partition("\n")
    if item.type == TURN_FAILED:
        reason = f"✗ {item.text or 'the turn failed'}"
        return [view.paint(line, "red") for line in view.block(reason, indent=INDENT)]
    if item.type == "commandExecution":
        return _command(item, view, full=full)
    if item.type == "fileChange":
        changes = (item.text or "").splitlines()
        return [view.paint(INDENT + _change(line, view), "dim") for line in changes]
    if item.role == "reasoning" or item.type == "reasoning":
        head = f"thought: {first.strip('* ')}"
    elif item.role == "tool":
        head = f"⚙ {first}{_ending_mark(item.text)}"
    elif item.type == COMPACTION:
        head = first or COMPACTION
    else:
        head = f"{item.type}: {first}" if first else item.type
    line = view.paint(view.fit(head, indent=INDENT), "dim")
    if full and rest:
        return [line, *view.block(rest.strip("\n"), indent=INDENT * 2)]
    return [line]


def _command(item: Item, view: View, *, full: bool) -> list[str]:
    text = (item.text or "").strip()
    body, ending = text, ""
    if found := ENDING.fullmatch(text.rpartition("\n")[2]):
        body, ending = text.rpartition("\n")[0], found.group(1)
    command, output = _split(body)
    mark = view.paint(f"✗ {ending}", "red") if ending else view.paint("✓", "green")
    room = f"✗ {ending}" if ending else "✓"
    line = view.fit(f"$ {command}", indent=INDENT, reserve=len(room) + 2)
    lines = [f"{view.paint(line, 'dim')}  {mark}"]
    if full and output:
        lines += view.block(output, indent=INDENT * 2)
    elif ending and output:
        # Of what went wrong the end is worth more than the rest.
        lines.append(
            view.paint(view.fit(output.rstrip().rpartition("\n")[2], indent=INDENT * 2), "dim")
        )
    return lines


def _split(text: str) -> tuple[str, str]:
    """Return the command without the shell around it, on one line, and its output."""
    text = text.removeprefix("$ ")
    if found := IN_SHELL.match(text):
        single, double, bare = found.group("single", "double", "bare")
        if single is not None:
            command = single.replace("'\\''", "'").replace("'\"'\"'", "'")
        else:
            command = bare or ESCAPED.sub(r"\1", double or "")
        output = text[found.end() :]
    else:
        command, _, output = text.partition("\n")
    return " ⏎ ".join(part.strip() for part in command.strip().splitlines()), output


def _change(line: str, view: View) -> str:
    word, _, path = line.partition(" ")
    return view.fit(f"{KINDS.get(word, word)} {view.directory(path)}" if path else line)


def _ending_mark(text: str | None) -> str:
    return "  ✗ failed" if "[failed]" in (text or "") else ""


def _shortened(text: str, view: View, *, full: bool, ref: str) -> list[str]:
    lines = view.block(text.strip(), indent=INDENT)
    if full or len(lines) <= LINES:
        return lines
    left = len(lines) - LINES
    note = f"{INDENT}… {left} more lines: dispatch tail {ref} --full"
    return [*lines[:LINES], view.paint(note, "dim")]


def _trouble(turn: TurnView | None, items: Sequence[Item], view: View) -> list[str]:
    """Why the latest turn failed, or what is in the way of it."""
    if turn is None or not turn.error or (items and items[-1].turn_id != turn.id):
        return []
    color = "red" if turn.status.finished else "yellow"
    return [view.paint(line, color) for line in view.block(f"✗ {turn.error}", indent=INDENT)]
