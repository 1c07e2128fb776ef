"""A message as a request gives it: its text, from wherever it comes, its pictures, and who sent it."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread

from dispatch_core.api import Image, Message, OpContext, ValidationFailed, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

FILE_LIMIT = 4 * 1_048_576  # bytes that the longest message can have in UTF-8
FOOTER = "----- dispatch: who sent this -----"
FOOTER_END = "----- end of message -----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a request gives for a message: a text or a file with it, pictures, and whether it names its sender."""

    text: str | None
    input_file: str | None
    images: Sequence[Image] = ()
    intro: bool = False


async def message_of(context: OpContext, draft: Draft) -> Message:
    """Return the message that a draft stands for, checked. Raises ValidationFailed."""
    text = await _text(draft)
    forged = [line for line in text.splitlines() if _like_footer(line)]
    if forged:
        raise ValidationFailed(
            "the message has a line that looks like the one under which dispatch names the sender",
            hint='begin that line with "> " to quote it; --intro names the sender',
        )
    if draft.intro:
        context.lanes.check_text(text)
        text = f"{text.rstrip()}\n\n{await _footer(context)}"
    message = Message(text=text, images=tuple(draft.images))
    context.lanes.check_message(message)
    return message


async def _text(draft: Draft) -> str:
    if (draft.text is None) == (draft.input_file is None):
        raise ValidationFailed(
            "there is no message" if draft.text is None else "there are two messages",
            hint="give either TEXT (- reads it from stdin) or --input-file PATH",
            details={"fields": ["text", "input_file"]},
        )
    if draft.text is not None:
        return draft.text
    return await to_thread.run_sync(_read, str(draft.input_file))


def _read(path: str) -> str:
    """Return the text of a file. Raises ValidationFailed unless it is a plain file of UTF-8 text that fits a message."""
    shown, details = ascii(path)[1:-1], {"field": "input_file", "path": path}
    try:
        data = _bytes(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValidationFailed(
            f"{shown} cannot be read: {why}", hint="check the path", details=details
        ) from error
    if len(data) > FILE_LIMIT:
        raise ValidationFailed(
            f"{shown} is longer than the {FILE_LIMIT // 4:,} characters that Codex takes",
            hint="name the file in the message instead",
            details=details,
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValidationFailed(
            f"{shown} is not UTF-8 text: byte {error.start} is 0x{data[error.start]:02x}",
            hint=f"convert it first: iconv -t UTF-8 {shown}",
            details=details,
        ) from error
    if "\0" in text:
        raise ValidationFailed(
            f"{shown} is a binary file, not text",
            hint="name the file in the message, or send a picture with --image",
            details=details,
        )
    return text


def _bytes(path: str) -> bytes:
    # Not blocking: to open a pipe would wait for somebody who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        return file.read(FILE_LIMIT + 1)


async def _footer(context: OpContext) -> str:
    """Return the lines that name the sender. Raises ValidationFailed unless a managed thread is calling."""
    thread_id = context.caller.thread_id
    if thread_id is None:
        raise ValidationFailed(
            "--intro names the thread that sends, and this call comes from none",
            hint="leave --intro out; CODEX_THREAD_ID is set inside a thread of Codex",
            details={"fields": ["intro"]},
        )
    found = await context.store.threads.find("native_id", thread_id)
    if not found:
        raise ValidationFailed(
            f"--intro names the thread that sends, and {printable(thread_id)} is not managed",
            hint=f"dispatch attach {printable(thread_id)}, or leave --intro out",
            details={"fields": ["intro"], "thread_id": thread_id},
        )
    sender = found[0]
    return "\n".join(
        (
            FOOTER,
            f"from: {printable(sender.handle)} ({sender.ref})",
            f"answer: dispatch send {sender.ref} TEXT",
            FOOTER_END,
        )
    )


def _like_footer(line: str) -> bool:
    """Whether a reader could take a line for the first of the footer."""
    words = "".join(char if char.isalnum() else " " for char in printable(line)).casefold().split()
    return words == ["dispatch", "who", "sent", "this"] and not line.lstrip().startswith(">")
