"""Which messages Codex takes as they are."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from dispatch_core.contracts.records import Image, Message

TEXT_LIMIT = 1_048_576  # characters Codex takes in one message
IMAGE_LIMIT = 20 * 1024 * 1024  # bytes of one picture
IMAGE_DETAILS = ("auto", "high", "original")  # with "low" Codex leaves the picture out
HEAD = 12  # bytes by which a picture is told from anything else


def check_text(text: str) -> None:
    """Raise ValidationFailed for text that Codex would refuse, drop or misread."""
    if not text.strip():
        raise ValidationFailed(
            "the message is empty", hint="give some text, or - to read it from stdin"
        )
    if len(text) > TEXT_LIMIT:
        raise ValidationFailed(
            f"the message has {len(text):,} characters; Codex takes {TEXT_LIMIT:,}",
            hint="put the text in a file and name the file in the message",
        )
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValidationFailed(
            "the message contains a lone surrogate, which is not valid Unicode",
            hint="save the text as UTF-8",
        )
    if "\0" in text:
        raise ValidationFailed(
            "the message has a NUL character: it is a binary file, or UTF-16",
            hint="save the text as UTF-8, or name the file in the message",
        )
    if text.lstrip().startswith("/goal"):
        raise ValidationFailed(
            "a message that starts with /goal does not set a goal", hint="say it in other words"
        )


def check_message(message: Message) -> None:
    """Raise ValidationFailed for a message that Codex would refuse, drop or misread. Reads the head of each picture."""
    check_text(message.text)
    for image in message.images:
        check_image(image)


def check_image(image: Image) -> None:
    """Raise ValidationFailed unless the path names a picture that Codex can show to a model."""
    shown, details = ascii(image.path)[1:-1], {"path": image.path}
    if image.detail is not None and image.detail not in IMAGE_DETAILS:
        raise ValidationFailed(
            f"{image.detail!r} is no detail of a picture that Codex passes on",
            hint=f"use one of {', '.join(IMAGE_DETAILS)}, or leave it out",
            details={**details, "detail": image.detail},
        )
    if not Path(image.path).is_absolute():
        raise ValidationFailed(
            f"the path of the picture {shown} is not absolute",
            hint="give the whole path",
            details=details,
        )
    try:
        size, head = _head(image.path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValidationFailed(
            f"the picture {shown} cannot be read: {why}",
            hint="check the path; the daemon must be able to read the file",
            details=details,
        ) from error
    if size > IMAGE_LIMIT:
        raise ValidationFailed(
            f"the picture {shown} has {size:,} bytes; at most {IMAGE_LIMIT:,} are sent",
            hint="make it smaller",
            details=details,
        )
    if not _is_picture(head):
        raise ValidationFailed(
            f"{shown} is not a PNG, JPEG, GIF or WebP picture",
            hint="convert it to PNG, or name the file in the text of the message",
            details=details,
        )


def _is_picture(head: bytes) -> bool:
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return webp or head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"))


def _head(path: str) -> tuple[int, bytes]:
    """Return the size of a file and its first bytes. Raises OSError, also for what is not a plain file."""
    # Not blocking: to open a pipe would wait for somebody who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        return facts.st_size, os.read(descriptor, HEAD)
    finally:
        os.close(descriptor)
